"""How many students must a controller have judged to know the best ones? Searches replayed on a table.

Run it with `python -m benchmarks.search --seeds 100`. The table (`python -m benchmarks.table` makes one) has
all students of a grid, each really distilled; a search runs through the product's own loop, with the table in
the place of the trainer, and reads each loss with the noise of a repeated training. There are five budgets at
once: a half, a third, a fifth, a seventh and a tenth of the teacher's latency. The value of a search is the
hypervolume over them: the mean of one minus the true loss of the best student within. Printed are by how much
it falls short of the best of the table, in per cent, after so many judged students, and how many were needed
to come within one per cent, in how many searches that was so at the end, and to how many whole trainings the
steps taken amount. With `--drawn-budgets` each seed has five budgets of its own: a path through so small a
table is partly luck, and the seed alone changes little but the noise.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import Any

from benchmarks.table.__main__ import OUT as TABLE
from benchmarks.table.replay import Replay, Table, read_table
from kdnas_core.runs.picks import TWO_SIDED
from kdnas_core.search.controllers.lstm import LstmController
from kdnas_core.search.controllers.optuna import SAMPLERS, OptunaController
from kdnas_core.search.controllers.random import RandomController
from kdnas_core.search.controllers.surrogate import Setting, SurrogateController
from kdnas_core.search.loop import Controller, Outcome, search
from kdnas_core.search.stopping import Outlook
from kdnas_core.spec import SearchSpec

PAIRED_ERROR = 0.0066  # of a difference of two losses on the same texts, median of `benchmarks.ties`
SHOWN = (5, 10, 15, 20, 30, 45, 60)
DRAWN = (2.0, 14.0)  # times as fast as the teacher: between them budgets are drawn
NEAR = 0.01  # of the best


Make = Callable[[Table, int], Controller]


def _optuna(sampler: str) -> Make:
    return lambda table, seed: OptunaController(table.space, sampler, max(table.budgets), seed)


CONTROLLERS: dict[str, Make] = {
    "surrogate": lambda table, seed: SurrogateController(
        table.space, Setting(table.budgets, table.teacher, table.teacher_ms), seed
    ),
    "random": lambda table, seed: RandomController(table.space, seed),
    "lstm": lambda table, seed: LstmController(
        table.space, SearchSpec(episodes=12, candidates=5, epsilon_decay=0.08), seed
    ),
    **{sampler: _optuna(sampler) for sampler in SAMPLERS},
}


def main() -> None:
    """Prints a row for each controller, and JSON last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, nargs="?", default=TABLE)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--evaluations", type=int, default=60)
    parser.add_argument("--batch", type=int, default=5)
    parser.add_argument("--noise", type=float, default=0.003, help="standard deviation of a repeated loss")
    parser.add_argument("--prune", action="store_true", help="stop students at rungs")
    parser.add_argument(
        "--until-no-gain", action="store_true", help="end a surrogate's search as its outlook says"
    )
    parser.add_argument("--drawn-budgets", action="store_true", help="other budgets for each seed")
    parser.add_argument("--only", nargs="+", choices=list(CONTROLLERS), default=list(CONTROLLERS))
    given = parser.parse_args()
    if not given.table.is_file():
        raise SystemExit(
            f"There is no {given.table}; `python -m benchmarks.table` makes it, or name another."
        )
    table = read_table(given.table)
    trained = sum(bool(row.losses) for row in table.rows.values())
    print(f"{len(table.rows)} students, {trained} within the largest budget; in per cent short of the best,")
    print(f"median of {given.seeds} seeds (and 90th percentile), after so many judged students")
    head = "".join(f"{count:>14}" for count in SHOWN)
    print(f"{'controller':<14}{head}{'within 1 %':>12}{'at the end':>12}{'trainings':>11}{'s':>6}")
    summary = {}
    for name in given.only:
        began = time.perf_counter()
        replays = [_replayed(table, CONTROLLERS[name], seed, given) for seed in range(given.seeds)]
        row = _summary(replays, given.evaluations)
        seconds = (time.perf_counter() - began) / given.seeds
        cells = "".join(
            f"{f'{100 * row[at][0]:.2f} ({100 * row[at][1]:.2f})':>14}" for at in map(str, SHOWN) if at in row
        )
        needed = "more" if row["needed"] is None else f"{row['needed']:.0f}"
        near, trainings = row["near_at_the_end"], row["trainings"]
        print(f"{name:<14}{cells}{needed:>12}{near:>12.0%}{trainings:>11.1f}{seconds:>6.1f}", flush=True)
        summary[name] = row
    print(json.dumps({"seeds": given.seeds, "students": len(table.rows), "controllers": summary}))


def _replayed(table: Table, make: Make, seed: int, given: argparse.Namespace) -> Replay:
    if given.drawn_budgets:
        rng, logs = random.Random(seed), [math.log(speedup) for speedup in DRAWN]
        drawn = sorted(math.exp(rng.uniform(*logs)) for _ in table.speedups)
        table = dataclasses.replace(table, speedups=tuple(drawn))
    controller, replay = make(table, seed), Replay(table, seed, given.noise, given.prune)
    outlooks: list[Outlook] = []

    def is_over(episode: int, outcomes: Sequence[Outcome]) -> bool:
        if not given.until_no_gain or not isinstance(controller, SurrogateController):
            return False
        outlooks.append(controller.outlook(episode, given.batch).after(outlooks[-1] if outlooks else None))
        return outlooks[-1].no_gain

    search(controller, replay, given.evaluations // given.batch, given.batch, is_over=is_over)
    return replay


def _summary(replays: Sequence[Replay], evaluations: int) -> dict[str, Any]:
    """Over seeds: shortfalls, students needed, the steps taken, and what the picks are worth."""
    curves = [replay.shortfalls(evaluations) for replay in replays]
    needed = [
        next((count for count, short in enumerate(curve, 1) if short <= NEAR), math.inf) for curve in curves
    ]
    middle = median(needed)
    return {
        **{
            str(count): [
                median(curve[count - 1] for curve in curves),
                quantiles([curve[count - 1] for curve in curves], n=10)[-1],
            ]
            for count in SHOWN
            if count <= evaluations
        },
        "needed": None if math.isinf(middle) else middle,
        "never": sum(map(math.isinf, needed)),
        "trainings": fmean(replay.steps for replay in replays) / replays[0].table.steps,
        "near_at_the_end": fmean(curve[-1] <= NEAR for curve in curves),
        **_picks(replays),
    }


def _picks(replays: Sequence[Replay]) -> dict[str, float]:
    """By how much the picks' true losses exceed the best of the table, and whether ties are told.

    The pick is the fastest of those tied with the best: worse by at most 1.96 standard errors. A tie is told
    rightly if a repeat of both measurements turns the two best round, and they were called tied.
    """
    excess, faster, turned, told, called = list[float](), list[float](), 0, 0, 0
    for replay in replays:
        table = replay.table
        judged = [shape for _, shape in replay.whole]
        for budget in table.budgets:
            within = sorted((shape for shape in judged if table.rows[shape].ms <= budget), key=replay.loss_of)
            best = min(row.loss for row in table.rows.values() if row.ms <= budget)
            if not within:
                continue
            most = replay.loss_of(within[0]) + TWO_SIDED * PAIRED_ERROR
            tied = [shape for shape in within if replay.loss_of(shape) <= most]
            pick = min(tied, key=lambda shape: table.rows[shape].ms)
            excess.append(table.rows[pick].loss / best - 1)
            faster.append(table.rows[pick].ms / table.rows[within[0]].ms)
            if len(within) < 2:
                continue
            is_tied = len(tied) > 1
            called += is_tied
            first, other = within[:2]
            if replay.loss_of(other, repeat=1) < replay.loss_of(first, repeat=1):
                turned, told = turned + 1, told + is_tied
    return {
        "pick_excess": median(excess) if excess else math.nan,
        "pick_latency": fmean(faster) if faster else math.nan,  # over that of the best
        "turned_round": turned,
        "told_as_ties": told,
        "called_ties": called / max(1, len(excess)),
    }


if __name__ == "__main__":
    main()
