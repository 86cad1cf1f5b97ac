"""Is a tie told where a repeat of the training turns the order of two students round?

Run it with `python -m benchmarks.ties`. It distils students of the table's search, of up to three layers,
from two seeds on the same texts. All pairs of students are compared: how many change their order, how many of
these the first seed's losses call tied (a difference within 1.96 standard errors), and how many of all pairs.
The standard error is that of the difference on the same held-out texts, by which a pick is made, and beside
it that of losses read on texts of their own. The last figure is the root mean square of the change of a
difference from one seed to the other, in standard errors.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean, median

import torch

from benchmarks.table.__main__ import OUT as TABLE
from benchmarks.table.longer import SPEC, distilled
from benchmarks.table.replay import read_table
from kdnas_core.architecture import Architecture
from kdnas_core.distillation.trainer import HeldOut
from kdnas_core.resampling import packed, standard_error_of_difference
from kdnas_core.runs.picks import TWO_SIDED
from kdnas_core.search.prepare import make_judge, prepare
from kdnas_core.spec import parse_spec_json

DEPTHS = 3
STUDENTS = 18


@dataclass(frozen=True)
class Told:
    """What one kind of standard error says of all pairs."""

    turned: int
    told_as_ties: int
    called_ties: int
    pairs: int
    standard_error: float
    change: float


def main() -> None:
    """Prints a row for each student and each kind of standard error, and JSON last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--students", type=int, default=STUDENTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    shapes = _chosen(given.students)
    first, again = (_losses(shapes, seed) for seed in (0, 1))
    for shape, one, other in zip(shapes, first, again, strict=True):
        print(f"{shape.key:<24}{one.loss:>8.4f}{other.loss:>8.4f}")
    summary = {
        kind: asdict(_told(first, again, kind == "same texts")) for kind in ("same texts", "own texts")
    }
    for kind, row in summary.items():
        print(kind, row)
    print(json.dumps(summary))


def _chosen(count: int) -> list[Architecture]:
    rows = read_table(Path(TABLE)).rows.items()
    shapes = [shape for shape, row in rows if row.losses and shape.layers <= DEPTHS]
    return random.Random(5).sample(shapes, count)


def _losses(shapes: Sequence[Architecture], seed: int) -> list[HeldOut]:
    spec = parse_spec_json(SPEC.read_text()).model_copy(update={"seed": seed})
    judge = make_judge(prepare(spec, lambda said: None), lambda said: None)
    return [distilled(shape, seed, judge)[1] for shape in shapes]


def _told(first: list[HeldOut], again: list[HeldOut], is_paired: bool) -> Told:
    turned, told, called, errors, changes = 0, 0, 0, list[float](), list[float]()
    for one, other in combinations(range(len(first)), 2):
        a, b = first[one], first[other]
        error = standard_error_of_difference(packed(a.resampled), packed(b.resampled))
        if not is_paired:
            error = math.hypot(a.standard_error or 0, b.standard_error or 0)
        assert error is not None
        before, after = b.loss - a.loss, again[other].loss - again[one].loss
        is_tied, is_turned = abs(before) <= TWO_SIDED * error, before * after < 0
        turned, told, called = turned + is_turned, told + (is_turned and is_tied), called + is_tied
        errors.append(error)
        changes.append((after - before) / error)
    rms = math.sqrt(fmean(change**2 for change in changes))
    return Told(turned, told, called, len(errors), median(errors), rms)


if __name__ == "__main__":
    main()
