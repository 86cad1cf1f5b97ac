"""What a step of mini-KD costs with a vocabulary of 250,002 words, against one of 30,522.

Run it with `python -m benchmarks.vocabulary`. The same student and the same text, in turns, so that all meet
the same noise: with the rows that the proxy set uses, as the product trains, and with all rows.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
from transformers import BertConfig, BertModel

from kdnas_core.architecture import Architecture
from kdnas_core.data.tokens import NOT_HIDDEN
from kdnas_core.distillation.objective import make_objective
from kdnas_core.distillation.plan import TeacherProfile, plan
from kdnas_core.distillation.precision import autocast_dtype
from kdnas_core.distillation.trainer import ProxySet, Watcher, distil
from kdnas_core.hardware import exclusive
from kdnas_core.models.targets import Targets
from kdnas_core.models.vocabulary import Vocabulary
from kdnas_core.spec import ObjectiveSpec, ProxySpec

VOCABULARIES = (30_522, 250_002)
TEACHER, STUDENT = Architecture(6, 384, 1536, 12), Architecture(3, 192, 768, 12)
PROXY = ProxySpec(steps=12, batch_size=32)
TEXTS, LENGTH, WORDS = 400, 40, 8_000
ROUNDS = 5


def main() -> None:
    """Prints the median step of each, and the ratios."""
    targets = _made_up_targets()
    times: dict[tuple[int, bool], list[float]] = {
        (size, used): [] for size in VOCABULARIES for used in (True, False)
    }
    autocast_dtype()  # measured now, under the same lock, unless it is remembered
    with exclusive():
        for _ in range(ROUNDS):
            for size, used in times:
                times[size, used] += _steps(targets, size, used)
    medians = {key: statistics.median(seconds) * 1000 for key, seconds in times.items()}
    for (size, used), milliseconds in medians.items():
        print(f"{size:>8,} words, {'rows in use' if used else 'all rows':<12}{milliseconds:8.1f} ms a step")
    small, large = VOCABULARIES
    ratios = {
        "large_over_small_rows_in_use": medians[large, True] / medians[small, True],
        "large_over_small_all_rows": medians[large, False] / medians[small, False],
        "all_rows_over_rows_in_use_large": medians[large, False] / medians[large, True],
    }
    print(json.dumps({"steps": ROUNDS * (PROXY.steps - 1), "words_in_use": WORDS, **ratios}))


def _made_up_targets() -> Targets:
    """Texts of random words, a quarter of the small vocabulary, with random outputs of a teacher."""
    rng = np.random.default_rng(0)
    tokens = TEXTS * LENGTH
    layers = range(TEACHER.layers + 1)
    return Targets(
        ids=rng.integers(0, WORDS, tokens),
        labels=np.full(tokens, NOT_HIDDEN),
        offsets=np.arange(0, tokens + 1, LENGTH),
        outputs={
            ("hidden", layer): rng.normal(size=(tokens, TEACHER.hidden_size)).astype(np.float16)
            for layer in layers
        },
        variance=np.ones(len(layers)),
    )


def _steps(targets: Targets, size: int, used: bool) -> list[float]:
    """Seconds of each step but the first, which also sets up."""
    config = BertConfig(
        vocab_size=size,
        hidden_size=STUDENT.hidden_size,
        num_hidden_layers=STUDENT.layers,
        num_attention_heads=STUDENT.attention_heads,
        intermediate_size=STUDENT.intermediate_size,
    )
    # the words in use lie all over the vocabulary, as they do in a real one
    spread = np.sort(np.random.default_rng(1).permutation(size)[:WORDS])
    targets = replace(targets, ids=spread[targets.ids])
    whole = Vocabulary(np.arange(size), np.arange(size))
    vocabulary = Vocabulary.used([targets], size, pad=0) if used else whole
    renumbered = vocabulary.renumbered(targets)
    spec = ObjectiveSpec()
    planned = plan(spec, STUDENT, TeacherProfile(TEACHER, predicts_words=False, hides_words=False))
    objective = make_objective(planned, spec, STUDENT, TEACHER, None, (1, 1), seed=0)
    began = [time.perf_counter()]
    looking: list[float] = []  # moments at which an evaluation ended: those are no part of a step
    watcher = Watcher(
        step=lambda step: began.append(time.perf_counter()),
        held_out=lambda result: looking.append(time.perf_counter()),
    )
    held_out = replace(renumbered, offsets=renumbered.offsets[:17])
    distil(
        BertModel(config),
        objective,
        ProxySet(renumbered, held_out, vocabulary),
        PROXY,
        0,
        autocast_dtype(),
        watcher,
    )
    return _between(began[1:], looking)


def _between(steps: list[float], looking: list[float]) -> list[float]:
    """Differences of successive steps that have no evaluation between them."""
    pairs = pairwise(steps)
    return [
        after - before for before, after in pairs if not any(before < moment < after for moment in looking)
    ]


if __name__ == "__main__":
    main()
