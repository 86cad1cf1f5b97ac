"""The progress bars of what runs in the foreground: a search, a distillation, a scoring."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from kdnas_core.runs.records import Candidate


@contextmanager
def candidates_bar(total: int) -> Iterator[Callable[[Candidate], None]]:
    """A bar on stderr of `total` candidates; gives what to call after each."""
    with tqdm(total=total, unit="candidate", file=sys.stderr, dynamic_ncols=True) as bar:

        def told(candidate: Candidate) -> None:
            loss = "over budget" if candidate.loss is None else f"loss {candidate.loss:.3f}"
            bar.set_postfix_str(f"{candidate.architecture.key} {loss}", refresh=False)
            bar.update()

        yield told


@contextmanager
def steps_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr of a training's steps; gives what to call with what is done, steps taken, of how many.

    Another training, or another count of steps, begins the bar anew; without a count only what is done shows.
    """
    with tqdm(total=None, unit="step", file=sys.stderr, dynamic_ncols=True) as bar:

        def told(activity: str, step: int, steps: int) -> None:
            if bar.desc != f"{activity}: ":
                bar.set_description(activity)
            if not steps:
                return
            if steps != bar.total or step < bar.n:
                bar.reset(steps)
                bar.initial = bar.last_print_n = bar.n = step - 1  # its pace is of the steps from here on
            bar.update(step - bar.n)

        yield told
