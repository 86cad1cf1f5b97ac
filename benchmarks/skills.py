"""Are heads that weigh two texts word by word found without a hand, in another teacher than the packaged?

Run it with `python -m benchmarks.skills`. A small BERT with random weights learns from pairs of short texts
which words of each are in the other one. Then its heads' attention to the same word in the other text is
measured as for any teacher, and how often it is right about other pairs is read with heads left out: those
that the rule names, and all the others.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from benchmarks.small_teachers import learn, new_bert
from kdnas_core.architecture import Architecture
from kdnas_core.data.tokens import NOT_HIDDEN
from kdnas_core.files import cache_folder
from kdnas_core.models.importance import SAME_WORD_SHARE, importance_of
from kdnas_core.models.teacher import Teacher, fingerprint, load_teacher

SHAPE = Architecture(2, 64, 256, 4)
VOCABULARY = 100  # words of one token each
WORDS = 6  # of each text
BATCH = 32
RATE = 2e-3
LOUDER = 3.0  # times BERT's spread of word vectors to begin with: else nothing is learnt for long
TEST = 64  # batches

Batch = tuple[dict[str, torch.Tensor], torch.Tensor]


def main() -> None:
    """Prints each head's attention to the same word, and what the model is worth without some of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    tokenizer = load_teacher("packaged").tokenizer
    words = _words(tokenizer, given.seed)
    began = time.perf_counter()
    teacher, head = _trained(tokenizer, words, given.steps, given.seed)
    seconds = time.perf_counter() - began
    rng = random.Random(1)
    texts = [" ".join(tokenizer.convert_ids_to_tokens(rng.choices(words, k=WORDS))) for _ in range(512)]
    importance = importance_of(teacher, texts, "mean", cache_folder())
    print("attention to the same word in the other text, by layer and head:")
    for layer, values in enumerate(importance.same_word.tolist(), 1):
        print(f"  layer {layer}: " + "  ".join(f"{value:.2f}" for value in values))
    heads = [(layer, h) for layer in range(SHAPE.layers) for h in range(SHAPE.attention_heads)]
    found = [(layer, h) for layer, h in heads if importance.same_word[layer, h] >= SAME_WORD_SHARE]
    test = [_batch(tokenizer, words, rng) for _ in range(TEST)]
    others = [each for each in heads if each not in found]
    whole, without, with_them = (_right(teacher, head, test, some) for some in ((), found, others))
    print(f"right about a word: whole {whole:.3f}, without the {len(found)} heads found {without:.3f},")
    print(f"  without all the {len(others)} others {with_them:.3f}")
    summary = {
        "steps": given.steps,
        "seed": given.seed,
        "seconds": round(seconds),
        "same_word": importance.same_word.tolist(),
        "found": [(layer + 1, h + 1) for layer, h in found],
        "whole": whole,
        "without_found": without,
        "without_others": with_them,
    }
    print(json.dumps(summary))


def _words(tokenizer: PreTrainedTokenizerBase, seed: int) -> list[int]:
    """Ids of words of letters that are one token each."""
    known = sorted((token, index) for token, index in tokenizer.get_vocab().items() if token.isalpha())
    return [index for _, index in random.Random(seed).sample(known, VOCABULARY)]


def _batch(tokenizer: PreTrainedTokenizerBase, words: Sequence[int], rng: random.Random) -> Batch:
    """Pairs that share about half of their words, and for each token whether the other text has its word."""
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    ids, labels = [], []
    for _ in range(BATCH):
        one, share = rng.choices(words, k=WORDS), rng.random()
        other = [word if rng.random() < share else rng.choice(words) for word in one]
        rng.shuffle(other)
        ids.append([first, *one, last, *other, last])
        told = [[int(word in text) for word in some] for some, text in ((one, other), (other, one))]
        labels.append([NOT_HIDDEN, *told[0], NOT_HIDDEN, *told[1], NOT_HIDDEN])
    types = torch.tensor([[0] * (WORDS + 2) + [1] * (WORDS + 1)] * BATCH)
    return {"input_ids": torch.tensor(ids), "token_type_ids": types}, torch.tensor(labels)


def _trained(
    tokenizer: PreTrainedTokenizerBase, words: Sequence[int], steps: int, seed: int
) -> tuple[Teacher, nn.Linear]:
    torch.manual_seed(seed)
    model, head = new_bert(SHAPE, len(tokenizer)), nn.Linear(SHAPE.hidden_size, 2)
    with torch.no_grad():
        model.get_submodule("embeddings.word_embeddings").weight.mul_(LOUDER)  # type: ignore[operator]
    rng = random.Random(seed)

    def loss() -> torch.Tensor:
        inputs, labels = _batch(tokenizer, words, rng)
        logits = head(model(**inputs).last_hidden_state)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=NOT_HIDDEN)

    learn([model, head], loss, steps, RATE)
    model.eval().requires_grad_(False)
    return Teacher("benchmark", model, tokenizer, SHAPE, fingerprint(model)), head


@contextmanager
def _left_out(teacher: Teacher, heads: Sequence[tuple[int, int]]) -> Iterator[None]:
    """The teacher without what these heads write."""
    width = SHAPE.hidden_size // SHAPE.attention_heads

    def hook_of(layer: int) -> Any:
        kept = torch.ones(SHAPE.hidden_size)
        for at, head in heads:
            if at == layer:
                kept[head * width : (head + 1) * width] = 0
        return lambda module, arguments: (arguments[0] * kept,)

    with ExitStack() as hooks:
        for layer in range(SHAPE.layers):
            module = teacher.model.get_submodule(f"encoder.layer.{layer}.attention.output.dense")
            hooks.enter_context(module.register_forward_pre_hook(hook_of(layer)))
        yield


@torch.no_grad()
def _right(
    teacher: Teacher, head: nn.Linear, test: Sequence[Batch], heads: Sequence[tuple[int, int]]
) -> float:
    """The share of words about which the model is right without these heads."""
    with _left_out(teacher, heads):
        found = [
            (head(teacher.model(**inputs).last_hidden_state).argmax(-1) == labels)[labels != NOT_HIDDEN]
            for inputs, labels in test
        ]
    return round(float(torch.cat(found).float().mean()), 4)


if __name__ == "__main__":
    main()
