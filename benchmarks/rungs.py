"""What stopping candidates at rungs saves, and whether it changes what is picked.

Run it with `python -m benchmarks.rungs STORE [RUN ...]`, runs whose candidates were all trained to the end
(`--set search.prune=false`). It replays each run in random orders by the product's rule: which candidates
would have been stopped, the steps saved, and in how many replays the best candidate stays the same under
five budgets. It also prints how well each rung ranks the final losses.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy.stats import spearmanr

from kdnas_core.runs.losses import losses_by_step
from kdnas_core.runs.store import Store, opened
from kdnas_core.search.candidate import cost_of
from kdnas_core.search.rungs import Cost, Peer, beaten

REPLAYS = 100
BUDGETS = (0.1, 0.3, 0.5, 0.7, 0.95)  # quantiles of the candidates' latencies
LIKE_FLOPS = 1.15  # the most by which the FLOPs of a pair differ


@dataclass(frozen=True)
class Trained:
    """A candidate that was trained to the end: its latency, FLOPs, and losses by steps."""

    cost: Cost
    flops: int
    losses: dict[int, float]

    @property
    def final(self) -> float:
        """The loss after all steps."""
        return self.losses[max(self.losses)]


def main() -> None:
    """Prints a table for each run, and JSON last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("runs", type=int, nargs="*")
    parser.add_argument("--episode", type=int, default=16, help="candidates of an episode")
    given = parser.parse_args()
    results = {}
    with opened(given.store, read_only=True) as store:
        for run in given.runs or [run.id for run in store.runs()]:
            candidates = _trained(store, run)
            results[run] = {"candidates": len(candidates), "rungs": _ranks(candidates)}
            results[run] |= _replayed(candidates, given.episode)
            _print(run, results[run])
    print(json.dumps(results))


def _trained(store: Store, run: int) -> list[Trained]:
    found = []
    for row in store.candidates(run):
        if row.state != "done" or row.latency is None or row.flops is None:
            continue
        found.append(Trained(cost_of(row.latency), row.flops, losses_by_step(store.layer_losses(row.id))))
    return found


def _ranks(candidates: Sequence[Trained]) -> dict[int, dict[str, float]]:
    """For each rung: Spearman with the final loss, and the share of pairs of like FLOPs ranked right."""
    final = [each.final for each in candidates]
    pairs = [
        (one, other)
        for index, one in enumerate(candidates)
        for other in candidates[:index]
        if max(one.flops, other.flops) <= LIKE_FLOPS * min(one.flops, other.flops)
    ]
    ranks = {}
    for step in sorted(candidates[0].losses)[:-1]:
        right = [(one.losses[step] < other.losses[step]) == (one.final < other.final) for one, other in pairs]
        correlation = spearmanr([each.losses[step] for each in candidates], final).statistic
        ranks[step] = {"spearman": round(float(correlation), 3), "pairs": len(pairs), "right": sum(right)}
    return ranks


def _replayed(candidates: Sequence[Trained], episode: int) -> dict[str, float]:
    budgets = np.quantile([each.cost.ms for each in candidates], BUDGETS)
    whole = [_best(candidates, budget) for budget in budgets]
    saved, same, stopped = [], 0, []
    for seed in range(REPLAYS):
        order = random.Random(seed).sample(list(candidates), len(candidates))
        kept, steps = _replay([order[at : at + episode] for at in range(0, len(order), episode)])
        saved.append(1 - steps / sum(max(each.losses) for each in candidates))
        same += [_best(kept, budget) for budget in budgets] == whole
        stopped.append(len(candidates) - len(kept))
    return {"replays": REPLAYS, "same_picks": same, "steps_saved": fmean(saved), "stopped": fmean(stopped)}


def _replay(episodes: Sequence[Sequence[Trained]]) -> tuple[list[Trained], int]:
    """Returns the candidates that are trained to the end, and the steps that all of them take."""
    peers: list[Peer] = []
    kept, steps = [], 0
    for number, episode in enumerate(episodes):
        earlier = list(peers)
        for each in sorted(episode, key=lambda each: each.flops):
            last = max(each.losses)
            rungs = (step for step in sorted(each.losses) if 0 < step < last)
            known = earlier if number else peers  # in the first episode, also those before it
            one = [each.cost]  # as with one budget
            at = next((s for s in rungs if beaten(each.cost, s, each.losses[s], known, one)), last)
            seen = {step: loss for step, loss in each.losses.items() if step <= at}
            peers.append(Peer(each.cost, seen, each.final if at == last else None))
            steps += at
            kept += [each] if at == last else []
    return kept, steps


def _best(candidates: Sequence[Trained], budget: float) -> Trained | None:
    within = [each for each in candidates if each.cost.ms <= budget]
    return min(within, key=lambda each: each.final, default=None)


def _print(run: int, result: dict[str, object]) -> None:
    print(f"run {run}: {json.dumps(result)}")


if __name__ == "__main__":
    main()
