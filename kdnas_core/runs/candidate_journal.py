"""Judges one candidate of a run at a time, and writes what it shows at once."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from kdnas_core.distillation.objective import Places
from kdnas_core.hardware import return_memory
from kdnas_core.resampling import packed
from kdnas_core.runs.losses import losses_by_step
from kdnas_core.runs.records import Candidate, LayerLoss
from kdnas_core.runs.store import Store
from kdnas_core.search.candidate import Costs, KnownPeers, Listener, cost_of
from kdnas_core.search.judge import Judge
from kdnas_core.search.rungs import Peer

MOST_ATTEMPTS = 3  # for a candidate that ends its process
STEP_SECONDS = 0.5  # between two progress rows of one mini-KD, and between two looks at its peers

log = logging.getLogger(__name__)


class CandidateJournal:
    """Judges candidates of one run, in the worker's process or in that of a slot.

    Args:
        store: open for writing, in this thread.
        run: id of the run.
        judge: judges one candidate.
        check: called often; raises to end the search.
        say: called with what is being done, in words.
    """

    def __init__(
        self,
        store: Store,
        run: int,
        judge: Judge,
        check: Callable[[], None],
        say: Callable[[str], None] = lambda activity: None,
    ) -> None:
        self.store = store
        self.run = run
        self.judge = judge
        self.check = check
        self.say = say
        self._peers: dict[int, Peer] = {}

    def judged(self, candidates: Sequence[int]) -> Iterator[int]:
        """Judges candidates one after another, and yields the id of each that is done."""
        for candidate in candidates:
            self.judge_candidate(candidate)
            yield candidate

    def judge_candidate(self, number: int) -> None:
        """Judges a candidate, and writes its state."""
        candidate = self.store.candidate(number)
        if candidate.state not in ("proposed", "distilling"):  # its process ended before it could say so
            return
        self.check()
        self.say(f"measuring the latency of {candidate.architecture.key}")
        started = time.monotonic()
        if candidate.attempts >= MOST_ATTEMPTS:
            error = f"It ended its process {candidate.attempts} times: is there too little memory for it?"
            self._finish(candidate.id, started, state="failed", error=error)
            return
        self.store.begin_attempt(candidate.id)
        try:
            judgement = self.judge.judge(
                candidate.architecture,
                self.store.files(self.run, candidate.id),
                self._listener(candidate.id),
                self._peers_of(candidate),
            )
        except (RuntimeError, ValueError, MemoryError) as error:
            # one bad candidate must not end the search
            log.exception(f"candidate {candidate.id} failed")
            self._finish(candidate.id, started, state="failed", error=str(error) or type(error).__name__)
        else:
            if judgement.estimated_ms is not None:
                self._not_measured(candidate, judgement.estimated_ms)
            if judgement.rung is not None:
                self._drop_beyond(candidate.id, judgement.rung)
            self._finish(
                candidate.id,
                started,
                state=judgement.state,
                loss=judgement.loss,
                loss_se=judgement.loss_se,
                resampled=packed(judgement.resampled),
                cut_from=[asdict(source) for source in judgement.cut_from],
                similarity=self._similarity(candidate) if judgement.state == "done" else [],
                reward=judgement.reward,
                languages=judgement.languages,
                scores=judgement.scores,
                weights=int(judgement.state == "done"),
                **({} if judgement.rung is None else {"step": judgement.rung}),
            )

    def _similarity(self, candidate: Candidate) -> list[list[float]]:
        """How alike its layers are to its teacher's; what is only to be looked at must not fail it."""
        try:
            folder = self.store.files(self.run, candidate.id)
            return self.judge.similarity(candidate.architecture, folder, self.check)
        except (RuntimeError, ValueError, MemoryError):
            log.exception(f"the layers of candidate {candidate.id} were not compared")
            return []

    def _not_measured(self, candidate: Candidate, estimated_ms: float) -> None:
        """Writes the estimates of a candidate that was not built: it has no parameters and no latency."""
        spec = self.judge.spec
        self.store.update_candidate(
            candidate.id,
            estimated_ms=estimated_ms,
            flops=candidate.architecture.flops(spec.latency.sequence_length),
            steps=spec.proxy.steps,
        )

    def _drop_beyond(self, candidate: int, rung: int) -> None:
        """Drops what a candidate did after its rung, while the decision on it was open."""
        self.store.drop_layer_losses(candidate, after=rung)
        drop_weights(self.store.files(self.run, candidate))

    def _finish(self, candidate: int, started: float, **fields: object) -> None:
        return_memory()  # of this student and its training
        share = (time.monotonic() - started) / self.judge.slots  # of the time that those side by side take
        self.store.update_candidate(candidate, seconds=share, **fields)

    def _listener(self, candidate: int) -> Listener:
        last_written = 0.0

        def costs_known(costs: Costs) -> None:
            self.check()
            self.store.update_candidate(
                candidate,
                state="distilling",
                parameters=costs.parameters,
                flops=costs.flops,
                latency=None if costs.latency is None else costs.latency.to_dict(),
                estimated_ms=costs.estimated_ms,
                steps=self.judge.spec.proxy.steps,
            )
            self.say(f"mini-KD of candidate {candidate}")

        def step(taken: int) -> None:
            nonlocal last_written
            self.check()
            if time.monotonic() - last_written > STEP_SECONDS or taken == self.judge.spec.proxy.steps:
                self.store.update_candidate(candidate, step=taken)
                last_written = time.monotonic()

        def noted(notes: Sequence[str]) -> None:
            self.store.update_candidate(candidate, notes=list(notes))

        def held_out(taken: int, terms: dict[str, Places]) -> None:
            rows = [
                LayerLoss(taken, layer, of, loss, term)
                for term, places in terms.items()
                for (layer, of), loss in places.items()
            ]
            self.store.add_layer_losses(candidate, rows)

        return Listener(self.check, costs_known, noted, step, held_out)

    def _peers_of(self, candidate: Candidate) -> KnownPeers:
        """Returns a function that returns the peers of a candidate once all of them are judged.

        These are the candidates of earlier episodes; in the first episode, those that come before it. So they
        depend on the order of the candidates alone, not on how many slots judge them. Those that were not
        measured are left out: whatever they dominate, what dominates them does. So is a static student,
        whose losses on the way tell nothing of those of layers: it has little left to learn.
        """
        looked_at = -STEP_SECONDS
        found: list[Peer] | None = None

        def peers() -> Sequence[Peer] | None:
            nonlocal looked_at, found
            if found is not None or time.monotonic() - looked_at < STEP_SECONDS:
                return found
            looked_at = time.monotonic()
            before = [each for each in self.store.candidates(self.run) if _comes_before(each, candidate)]
            if any(each.state in ("proposed", "distilling") for each in before):
                return None
            found = [self._peer(each) for each in before if _is_peer(each)]
            return found

        return peers

    def _peer(self, candidate: Candidate) -> Peer:
        if candidate.id not in self._peers:
            assert candidate.latency is not None, "it was measured"
            losses = losses_by_step(self.store.layer_losses(candidate.id))
            final = candidate.loss if candidate.state == "done" else None
            self._peers[candidate.id] = Peer(cost_of(candidate.latency), losses, final)
        return self._peers[candidate.id]


def drop_weights(folder: Path) -> None:
    """Deletes the files of a candidate, but for its configuration."""
    for path in folder.iterdir():
        if path.name != "config.json":
            path.unlink() if path.is_file() else shutil.rmtree(path)


def _is_peer(candidate: Candidate) -> bool:
    was_judged = candidate.state in ("done", "pruned") and candidate.latency is not None
    return was_judged and not candidate.architecture.is_static


def _comes_before(one: Candidate, other: Candidate) -> bool:
    """Whether a candidate is one by which the other may be pruned."""
    in_first = one.episode == other.episode == 1
    return one.episode < other.episode or (in_first and one.id < other.id)
