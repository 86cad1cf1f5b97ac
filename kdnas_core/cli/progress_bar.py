"""The progress bars of work in the foreground."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from kdnas_core.runs.records import Candidate


@contextmanager
def candidates_bar(total: int, judged: int = 0) -> Iterator[Callable[[Candidate], None]]:
    """Shows a bar of `total` candidates on stderr; yields a callback for each one that is judged from now on.

    Args:
        total: number of candidates.
        judged: of these, before.
    """
    with tqdm(total=total, initial=judged, unit="candidate", file=sys.stderr, dynamic_ncols=True) as bar:

        def told(candidate: Candidate) -> None:
            loss = "over budget" if candidate.loss is None else f"loss {candidate.loss:.3f}"
            loss += "" if candidate.stopped is None else f", {candidate.stopped}"
            bar.set_postfix_str(f"{candidate.architecture.key} {loss}", refresh=False)
            bar.update()

        yield told


@contextmanager
def steps_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Shows a bar of steps on stderr; yields a callback for the activity, steps taken, and steps in all.

    The bar restarts if the number of steps changes or the steps taken decrease. With 0 steps in all, it only
    shows the activity.
    """
    with tqdm(total=None, unit="step", file=sys.stderr, dynamic_ncols=True) as bar:

        def told(activity: str, step: int, steps: int) -> None:
            if bar.desc != f"{activity}: ":
                bar.set_description(activity)
            if not steps:
                return
            if steps != bar.total or step < bar.n:
                bar.reset(steps)
                bar.initial = bar.last_print_n = bar.n = step - 1  # its pace counts the steps from here on
            bar.update(step - bar.n)

        yield told
