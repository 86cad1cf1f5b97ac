"""A small multilingual teacher, trained in seconds and saved as a stock XLM-R.

It has a plain training loop, since the product's loop only distils.
"""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Iterable, Mapping
from itertools import chain, product
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerBase,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
    XLMRobertaTokenizer,
)

SHARED = Path(__file__).parents[2] / "shared" / "data" / "corpora" / "multilingual"
LANGUAGES = ("ar", "en", "fr", "hi", "ru", "sw", "zh")  # of those: five scripts, one without spaces
MOST_TEXTS, MOST_CHARACTERS = 400, 300  # of a language; of a text

VOCABULARY = 3_500
LONGEST = 128  # tokens

# subjects, verbs and places in each language, to be combined
_WORDS = {
    "el": (
        "Ο δάσκαλος|Η αδελφή μου|Ένας γέρος αγρότης|Ο νέος γιατρός|Ο γείτονάς μας|Η φοιτήτρια|Ο φίλος του",
        "διαβάζει ένα γράμμα|αγοράζει φρέσκο ψωμί|ψάχνει το κλειδί|γράφει μια ιστορία|πίνει ζεστό τσάι",
        "στον κήπο|στον σταθμό|κοντά στο ποτάμι|πάνω στον λόφο|πίσω από το σχολείο|στην αγορά",
    ),
    "en": (
        "The teacher|My sister|An old farmer|The young doctor|Our neighbour|The student|His friend",
        "reads a letter|buys fresh bread|looks for the key|writes a story|drinks warm tea",
        "in the garden|at the station|near the river|on the hill|behind the school|at the market",
    ),
    "fr": (
        "Le professeur|Ma sœur|Un vieux fermier|Le jeune médecin|Notre voisin|L'étudiante|Son ami",
        "lit une lettre|achète du pain frais|cherche la clé|écrit une histoire|boit du thé chaud",
        "dans le jardin|à la gare|près de la rivière|sur la colline|derrière l'école|au marché",
    ),
    "ru": (
        "Учитель|Моя сестра|Старый фермер|Молодой врач|Наш сосед|Студентка|Его друг",
        "читает письмо|покупает свежий хлеб|ищет ключ|пишет рассказ|пьёт тёплый чай",
        "в саду|на вокзале|у реки|на холме|за школой|на рынке",
    ),
    "sw": (
        "Mwalimu|Dada yangu|Mkulima mzee|Daktari kijana|Jirani yetu|Mwanafunzi|Rafiki yake",
        "anasoma barua|ananunua mkate mpya|anatafuta ufunguo|anaandika hadithi|anakunywa chai ya moto",
        "katika bustani|kituoni|karibu na mto|juu ya kilima|nyuma ya shule|sokoni",
    ),
    "zh": (
        "老师|我姐姐|一位老农民|年轻的医生|我们的邻居|那个学生|他的朋友",
        "在读一封信|在买新鲜的面包|在找钥匙|在写一个故事|在喝热茶",
        "在花园里|在车站|在河边|在山上|在学校后面|在市场",
    ),
}


def multilingual_texts() -> dict[str, list[str]]:
    """Returns up to 400 different short texts in each language: real ones if there are any, else made up."""
    if not SHARED.is_dir():
        return made_up_texts()
    return {
        language: _different((SHARED / f"{language}.txt").read_text("utf-8-sig").split("\n"))
        for language in LANGUAGES
    }


def made_up_texts() -> dict[str, list[str]]:
    """Returns 210 different sentences in each of six languages, combined from a few words."""
    return {language: _combined(language) for language in _WORDS}


def write_corpora(folder: Path, texts: Mapping[str, Iterable[str]]) -> Path:
    """Writes one file for each language, as `en.txt`, to a folder, which is then a corpus."""
    folder.mkdir(parents=True, exist_ok=True)
    for language, of_language in texts.items():
        (folder / f"{language}.txt").write_text("\n".join(of_language) + "\n", encoding="utf-8")
    return folder


def tiny_xlmr(folder: Path, texts: dict[str, list[str]], steps: int) -> Path:
    """Writes an XLM-R of 4 layers and width 64, with its own tokenizer, pre-trained for some steps."""
    tokenizer = _tokenizer(list(chain.from_iterable(texts.values())))
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=4,
        hidden_size=64,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=LONGEST + 2,  # positions are counted from the padding token's id on
        type_vocab_size=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = XLMRobertaForMaskedLM(config)
        _pretrain(model, tokenizer, list(chain.from_iterable(texts.values())), steps)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def masked_batch(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], length: int = 48
) -> dict[str, torch.Tensor]:
    """Returns texts as a padded batch, with 15% of the tokens masked as in BERT; other labels are -100."""
    encoded = tokenizer(texts, truncation=True, max_length=length)["input_ids"]
    batch: dict[str, torch.Tensor] = DataCollatorForLanguageModeling(tokenizer)([*map(_as_row, encoded)])
    return batch


def _as_row(ids: list[int]) -> dict[str, list[int]]:
    return {"input_ids": ids, "attention_mask": [1] * len(ids)}


def _pretrain(
    model: XLMRobertaForMaskedLM, tokenizer: PreTrainedTokenizerBase, texts: list[str], steps: int
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    chosen = random.Random(0)
    model.train()
    for _ in range(steps):
        loss = model(**masked_batch(tokenizer, chosen.choices(texts, k=32))).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


def _tokenizer(texts: list[str]) -> XLMRobertaTokenizer:
    """Trains a Unigram model with XLM-R's special tokens at XLM-R's positions.

    It has no normaliser: `XLMRobertaTokenizer` only loads SentencePiece's compiled form of one, so that any
    other would be lost when saved. Instead, the texts are normalised (NFKC) before.
    """
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY - 1, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    trained.train_from_iterator(texts, trainer)
    pieces = [tuple(piece) for piece in json.loads(trained.to_str())["model"]["vocab"]]
    return XLMRobertaTokenizer(vocab=[*pieces, ("<mask>", 0.0)], model_max_length=LONGEST)


def _different(lines: Iterable[str]) -> list[str]:
    stripped = (unicodedata.normalize("NFKC", line).strip() for line in lines)
    return list(dict.fromkeys(line for line in stripped if 0 < len(line) <= MOST_CHARACTERS))[:MOST_TEXTS]


def _combined(language: str) -> list[str]:
    joint, stop = ("", "。") if language == "zh" else (" ", ".")
    parts = (words.split("|") for words in _WORDS[language])
    return [joint.join(sentence) + stop for sentence in product(*parts)]
