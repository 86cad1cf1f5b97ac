"""The progress bar of a foreground search."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from kdnas_core.runs.rows import Candidate


@contextmanager
def candidates_bar(total: int) -> Iterator[Callable[[Candidate], None]]:
    """A bar on stderr of `total` candidates; gives what to call after each."""
    with tqdm(total=total, unit="candidate", file=sys.stderr, dynamic_ncols=True) as bar:

        def told(candidate: Candidate) -> None:
            loss = "over budget" if candidate.loss is None else f"loss {candidate.loss:.3f}"
            bar.set_postfix_str(f"{candidate.architecture.key} {loss}", refresh=False)
            bar.update()

        yield told
