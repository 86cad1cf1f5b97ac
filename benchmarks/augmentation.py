"""What augmentation's candidates cost: many masked sentences at once, against one call a word.

Run it with `python -m benchmarks.augmentation`. The packaged teacher has no masked-LM head, so it gets one
that scores a state by its likeness to each word; it costs what another would. One call a word is measured as
TinyBERT's code has it (the masked sentence, then the original; all logits, sorted), and with the masked
sentence alone, which is the product's rule. In turns on the same sentences, so that all meet the same noise.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from kdnas_core.data.corpus import read_corpus
from kdnas_core.distillation.augmentation.candidates import augmenter_for
from kdnas_core.distillation.augmentation.prediction import predict, predictor_of
from kdnas_core.distillation.augmentation.words import Candidates, Occurrence, replacements, whole_words
from kdnas_core.files import cache_folder
from kdnas_core.hardware import exclusive
from kdnas_core.models.mlm_head import MlmHead, TeacherHead
from kdnas_core.models.teacher import Teacher, load_teacher

SENTENCES, PLAIN_WORDS, ROUNDS = 200, 40, 5
K = 15
CHARACTERS = range(40, 200)


def main() -> None:
    """Prints the median words a second of each way, how alike their candidates are, and the ratios."""
    torch.set_num_threads(1)
    teacher = load_teacher("packaged")
    head = _head(teacher)
    asked = _places(teacher, head)
    some = asked[:: len(asked) // PLAIN_WORDS]
    words = whole_words(teacher.tokenizer, len(head.table))
    ways: dict[str, tuple[Sequence[Occurrence], Callable[[Sequence[Occurrence]], Candidates]]] = {
        "plain_pair": (some, partial(_plain, teacher, head, words, True)),
        "plain": (some, partial(_plain, teacher, head, words, False)),
        "float32": (asked, partial(predict, predictor_of(teacher, head, None), count=K)),
        "bfloat16": (asked, partial(predict, predictor_of(teacher, head, torch.bfloat16), count=K)),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Candidates] = {}
    with exclusive():
        for _ in range(ROUNDS):
            for name, (places, way) in ways.items():
                began = time.perf_counter()
                found[name] = way(places)
                rates[name].append(len(places) / (time.perf_counter() - began))
    _report(rates, found, len(asked))


def _report(rates: dict[str, list[float]], found: dict[str, Candidates], words: int) -> None:
    medians = {name: statistics.median(of) for name, of in rates.items()}
    alike = {name: _alike(found["plain"], of) for name, of in found.items()}
    for name, rate in medians.items():
        print(f"{name:<12}{rate:8.1f} words a second, {alike[name]:6.1%} of the candidates as with `plain`")
    ratios = {
        f"{fast}_over_{slow}": medians[fast] / medians[slow]
        for fast in ("float32", "bfloat16")
        for slow in ("plain_pair", "plain")
    }
    print(json.dumps({"words": words, "words_a_second": medians, "shared_candidates": alike, **ratios}))


def _head(teacher: Teacher) -> TeacherHead:
    table = teacher.model.get_input_embeddings().weight
    assert isinstance(table, torch.Tensor)
    head = MlmHead(table.shape[1], table.shape[1], len(table), "gelu", eps=1e-12)
    return TeacherHead(head.eval().requires_grad_(False), table.detach())


def _places(teacher: Teacher, head: TeacherHead) -> list[Occurrence]:
    """Words of one piece in sentences of the packaged corpus."""
    texts = read_corpus("packaged", cache_folder(), seed=0, limit=2 * SENTENCES)
    sentences = [part for text in texts for part in text.split(". ") if len(part) in CHARACTERS]
    words, _ = augmenter_for(teacher, head)
    readings = words.read(list(dict.fromkeys(sentences))[:SENTENCES])
    return [(reading, place) for reading in readings for place in reading.places if place.token is not None]


@torch.inference_mode()
def _plain(
    teacher: Teacher, head: TeacherHead, words: dict[int, str], pair: bool, asked: Sequence[Occurrence]
) -> Candidates:
    """One call a word, as TinyBERT's code does: tokenised anew, logits of all tokens, all of them sorted."""
    tokenizer = teacher.tokenizer
    found: Candidates = {}
    for reading, place in asked:
        masked = reading.text[: place.start] + str(tokenizer.mask_token) + reading.text[place.end :]
        second = [reading.text] if pair else []
        inputs = tokenizer(masked, *second, return_tensors="pt", truncation=True, max_length=256)
        logits = head.logits(teacher.model(**inputs).last_hidden_state[0])
        at = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
        best = logits[at].argsort(descending=True)[: 4 * K].tolist()
        likely = [words[token] for token in best if token in words]
        found[reading.text, place] = replacements(likely, reading.word(place), K)
    return found


def _alike(one: Candidates, other: Candidates) -> float:
    """The share of the candidates of one that the other has as well, at the places of both."""
    both = one.keys() & other.keys()
    return statistics.mean(len({*one[key]} & {*other[key]}) / len(one[key]) for key in both)


if __name__ == "__main__":
    main()
