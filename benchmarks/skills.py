"""Are heads that weigh two texts word by word found without a hand, in another teacher than the packaged?

Run it with `python -m benchmarks.skills`. A small BERT with random weights learns from pairs of texts how
many words they share. Then its heads' attention to the same word in the other text is measured as for any
teacher, and its score on other pairs is read with heads left out: those that the rule names, and as many
others, drawn at random.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import fmean
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import nn
from transformers import AutoModel, BertConfig

from kdnas_core.architecture import Architecture
from kdnas_core.distillation.corpus import read_corpus
from kdnas_core.distillation.importance import SKILLED, importance_of
from kdnas_core.distillation.teacher import Teacher, load_teacher
from kdnas_core.measure.memory import cache_folder

SHAPE = Architecture(4, 128, 512, 4)
WORDS = 16  # of each text of a pair
BATCH = 32
TEST = 512
DRAWS = 8

Pair = tuple[tuple[str, str], float]


def main() -> None:
    """Prints each head's attention to the same word, and what the model is worth without some of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    texts = read_corpus("packaged", cache_folder(), 0, 6_000)
    began = time.perf_counter()
    teacher, head = _trained(texts[1_000:], given.steps, given.seed)
    seconds = time.perf_counter() - began
    importance = importance_of(teacher, texts[:1_000], "mean", cache_folder())
    print("attention to the same word in the other text, by layer and head:")
    for layer, values in enumerate(importance.same_word.tolist(), 1):
        print(f"  layer {layer}: " + "  ".join(f"{value:.2f}" for value in values))
    found = [(layer, h) for layer, h in _heads() if importance.same_word[layer, h] >= SKILLED]
    test = list(_pairs(texts[:1_000], TEST, random.Random(1)))
    whole = _score(teacher, head, test, ())
    without = _score(teacher, head, test, found)
    rest, rng = [each for each in _heads() if each not in found], random.Random(2)
    others = [_score(teacher, head, test, rng.sample(rest, len(found))) for _ in range(DRAWS)]
    print(f"Spearman on other pairs: whole {whole:.3f}, without the {len(found)} found {without:.3f},")
    print(f"  without as many others {fmean(others):.3f} (worst of {DRAWS} draws {min(others):.3f})")
    summary = {
        "steps": given.steps,
        "seed": given.seed,
        "seconds": round(seconds),
        "same_word": importance.same_word.tolist(),
        "found": [(layer + 1, h + 1) for layer, h in found],
        "source_layers_of_2": importance.source_layers(2),
        "source_layers_of_3": importance.source_layers(3),
        "whole": whole,
        "without_found": without,
        "without_others": others,
    }
    print(json.dumps(summary))


def _heads() -> list[tuple[int, int]]:
    return [(layer, head) for layer in range(SHAPE.layers) for head in range(SHAPE.attention_heads)]


def _pairs(texts: Sequence[str], count: int, rng: random.Random) -> Iterator[Pair]:
    """Two texts of as many words, and the share of the first's that the second has too, in another order."""
    words = [text.split() for text in texts if len(text.split()) >= WORDS]
    pool = [word for some in words for word in some]
    for _ in range(count):
        first = rng.choice(words)[:WORDS]
        share = rng.random()
        second = [word if rng.random() < share else rng.choice(pool) for word in first]
        rng.shuffle(second)
        yield (" ".join(first), " ".join(second)), len(set(first) & set(second)) / len(set(first))


def _trained(texts: Sequence[str], steps: int, seed: int) -> tuple[Teacher, nn.Linear]:
    torch.manual_seed(seed)
    packaged = load_teacher("packaged")
    config = BertConfig(
        vocab_size=len(packaged.tokenizer),
        hidden_size=SHAPE.hidden_size,
        num_hidden_layers=SHAPE.layers,
        num_attention_heads=SHAPE.attention_heads,
        intermediate_size=SHAPE.intermediate_size,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=packaged.tokenizer.pad_token_id,
    )
    model = AutoModel.from_config(config)
    head = nn.Linear(SHAPE.hidden_size, 1)
    teacher = Teacher("benchmark", model, packaged.tokenizer, SHAPE, f"skills-{seed}-{steps}")
    optimiser = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=steps, pct_start=0.1)
    pairs = _pairs(texts, steps * BATCH, random.Random(seed))
    for step in range(1, steps + 1):
        batch = [next(pairs) for _ in range(BATCH)]
        loss = (
            (_predicted(teacher, head, batch) - torch.tensor([share for _, share in batch])).square().mean()
        )
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step}: squared error {loss.item():.4f}", flush=True)
    model.eval().requires_grad_(False)
    return teacher, head


def _predicted(teacher: Teacher, head: nn.Linear, batch: Sequence[Pair]) -> torch.Tensor:
    inputs = teacher.tokenizer(
        [pair for pair, _ in batch], truncation=True, max_length=96, padding=True, return_tensors="pt"
    )
    states = teacher.model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None].float()
    return head((states * mask).sum(1) / mask.sum(1))[:, 0]


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
def _score(
    teacher: Teacher, head: nn.Linear, test: Sequence[Pair], heads: Sequence[tuple[int, int]]
) -> float:
    with _left_out(teacher, heads):
        parts = [
            _predicted(teacher, head, test[start : start + BATCH]) for start in range(0, len(test), BATCH)
        ]
    return round(float(spearmanr(torch.cat(parts).numpy(), [share for _, share in test])[0]), 4)


if __name__ == "__main__":
    main()
