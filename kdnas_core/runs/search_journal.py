"""The journal of a search in the store, which saves each result at once."""

from __future__ import annotations

import logging
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

from kdnas_core.distillation.objective import Places
from kdnas_core.distillation.trainer import HeldOut
from kdnas_core.runs.records import Candidate, LayerLoss
from kdnas_core.runs.store import Store
from kdnas_core.search.candidate import Costs, Listener, cost_of
from kdnas_core.search.judge import Judge
from kdnas_core.search.loop import Outcome, Proposal
from kdnas_core.search.pareto import frontier
from kdnas_core.search.rungs import Peer

MOST_ATTEMPTS = 3  # for a candidate that ends its process
STEP_SECONDS = 0.5  # between two progress rows of one mini-KD

log = logging.getLogger(__name__)


class StoreJournal:
    """Reads and writes one run's episodes, and judges the candidates that are not judged yet.

    Args:
        store: open for writing, in this thread.
        run: id of the run.
        judge: judges one candidate.
        check: called often; raises to end the search.
        told: called with each candidate after it is judged.
    """

    def __init__(
        self,
        store: Store,
        run: int,
        judge: Judge,
        check: Callable[[], None],
        told: Callable[[Candidate], None],
    ) -> None:
        self.store = store
        self.run = run
        self.judge = judge
        self.check = check
        self.told = told
        self._peers: list[Peer] | None = None

    def has(self, episode: int) -> bool:
        """Returns whether the episode's candidates have been proposed."""
        return bool(self.store.candidates(self.run, episode))

    def begin(self, episode: int, proposals: Sequence[Proposal]) -> None:
        """Writes an episode's candidates in one transaction, in the order in which they are judged.

        The cheapest come first: it takes a cheaper one to prune a candidate.
        """
        length = self.judge.spec.latency.sequence_length
        rows = [
            (proposal.architecture, proposal.predicted_reward)
            for proposal in sorted(proposals, key=lambda each: each.architecture.flops(length))
        ]
        self.store.begin_episode(self.run, episode, rows)

    def outcomes(self, episode: int) -> list[Outcome]:
        """Judges the episode's candidates that are not judged yet, and returns all outcomes."""
        for candidate in self.store.candidates(self.run, episode):
            if candidate.state == "proposed":
                self._judge(candidate)
        return [_outcome(candidate) for candidate in self.store.candidates(self.run, episode)]

    def _judge(self, candidate: Candidate) -> None:
        self.check()
        self.store.set_activity(self.run, f"measuring the latency of {candidate.architecture.key}")
        started = time.monotonic()
        if candidate.attempts >= MOST_ATTEMPTS:
            error = f"It ended its process {candidate.attempts} times: is there too little memory for it?"
            self._finish(candidate.id, started, state="failed", error=error)
            self.told(self.store.candidate(candidate.id))
            return
        self.store.begin_attempt(candidate.id)
        try:
            judgement = self.judge.judge(
                candidate.architecture,
                self.store.files(self.run, candidate.id),
                self._listener(candidate.id),
                self._judged_before(),
            )
        except (RuntimeError, ValueError, MemoryError) as error:
            # one bad candidate must not end the search
            log.exception(f"candidate {candidate.id} failed")
            self._finish(candidate.id, started, state="failed", error=str(error) or type(error).__name__)
        else:
            if judgement.estimated_ms is not None:
                self._not_measured(candidate, judgement.estimated_ms)
            self._finish(
                candidate.id,
                started,
                state=judgement.state,
                loss=judgement.loss,
                loss_se=judgement.loss_se,
                cut_from=[asdict(source) for source in judgement.cut_from],
                reward=judgement.reward,
                languages=judgement.languages,
                scores=judgement.scores,
                weights=int(judgement.state == "done"),
                **({} if judgement.rung is None else {"step": judgement.rung}),
            )
            self._drop_weights()
        judged = self.store.candidate(candidate.id)
        if _is_peer(judged):
            self._judged_before().append(self._peer(judged))
        self.told(judged)

    def _not_measured(self, candidate: Candidate, estimated_ms: float) -> None:
        """Writes the estimates of a candidate that was not built: it has no parameters and no latency."""
        spec = self.judge.spec
        self.store.update_candidate(
            candidate.id,
            estimated_ms=estimated_ms,
            flops=candidate.architecture.flops(spec.latency.sequence_length),
            steps=spec.proxy.steps,
        )

    def _finish(self, candidate: int, started: float, **fields: object) -> None:
        self.store.update_candidate(candidate, seconds=time.monotonic() - started, **fields)

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
            self.store.set_activity(self.run, f"mini-KD of candidate {candidate}")

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

    def _judged_before(self) -> list[Peer]:
        """The candidates of the run that were trained, to a rung or to the end; read at the first call.

        Those that were not measured are left out: whatever they dominate, what dominates them does.
        """
        if self._peers is None:
            self._peers = list(map(self._peer, filter(_is_peer, self.store.candidates(self.run))))
        return self._peers

    def _peer(self, candidate: Candidate) -> Peer:
        assert candidate.latency is not None, "it was measured"
        losses = losses_by_step(self.store.layer_losses(candidate.id))
        return Peer(cost_of(candidate.latency), losses, candidate.loss if candidate.state == "done" else None)

    def _drop_weights(self) -> None:
        """Deletes the weights of students that are no longer on the frontier, unless the spec keeps all."""
        if self.judge.spec.search.keep_weights == "all":
            return
        done = [candidate for candidate in self.store.candidates(self.run) if candidate.state == "done"]
        kept = frontier([candidate.point for candidate in done])
        kept += frontier([_by_speedup(candidate) for candidate in done])  # what `pick --speedup` may take
        used = self.store.candidates_in_use(self.run)
        for index, candidate in enumerate(done):
            if candidate.weights and index not in kept and candidate.id not in used:
                for path in self.store.files(self.run, candidate.id).iterdir():
                    if path.name != "config.json":
                        path.unlink() if path.is_file() else shutil.rmtree(path)
                self.store.update_candidate(candidate.id, weights=0)


def losses_by_step(rows: Iterable[LayerLoss]) -> dict[int, float]:
    """Returns a candidate's held-out loss after each number of steps, from its losses by layer and term."""
    looks: defaultdict[int, dict[str, Places]] = defaultdict(dict)
    for row in rows:
        looks[row.step].setdefault(row.term, {})[row.layer, row.teacher_layer] = row.loss
    return {step: HeldOut(step, terms).loss for step, terms in looks.items()}


def _is_peer(candidate: Candidate) -> bool:
    return candidate.state in ("done", "pruned") and candidate.latency is not None


def _by_speedup(candidate: Candidate) -> tuple[float, float]:
    latency, loss = candidate.point
    return (1 / candidate.latency.speedup if candidate.latency else latency), loss


def _outcome(candidate: Candidate) -> Outcome:
    reward = 0.0 if candidate.state == "over_budget" else candidate.reward
    return Outcome(candidate.architecture, reward)
