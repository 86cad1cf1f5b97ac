"""The journal of a search in the store, which saves each result at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from kdnas_core.runs.candidate_journal import drop_weights
from kdnas_core.runs.picks import picks
from kdnas_core.runs.records import Candidate
from kdnas_core.runs.store import Store
from kdnas_core.search.loop import Outcome, Proposal
from kdnas_core.search.pareto import frontier
from kdnas_core.search.reward import loss_of
from kdnas_core.spec import RewardSpec, RunSpec

Judged = Callable[[Sequence[int]], Iterator[int]]


class StoreJournal:
    """Reads and writes one run's episodes.

    Args:
        store: open for writing, in this thread.
        run: id of the run.
        spec: of the run.
        judged: judges candidates, and yields the id of each that is done.
        told: called with each candidate after it is judged.
    """

    def __init__(
        self,
        store: Store,
        run: int,
        spec: RunSpec,
        judged: Judged,
        told: Callable[[Candidate], None],
    ) -> None:
        self.store = store
        self.run = run
        self.spec = spec
        self.judged = judged
        self.told = told

    def has(self, episode: int) -> bool:
        """Returns whether the episode's candidates have been proposed."""
        return bool(self.store.candidates(self.run, episode))

    def begin(self, episode: int, proposals: Sequence[Proposal]) -> None:
        """Writes an episode's candidates in one transaction, in the order in which they are judged.

        In the first episode the cheapest come first: it takes a cheaper one to prune a candidate. Later the
        most expensive do, so that at the end of an episode no slot waits long for another.
        """
        length = self.spec.latency.sequence_length
        ordered = sorted(proposals, key=lambda each: each.architecture.flops(length), reverse=episode > 1)
        rows = [(proposal.architecture, proposal.predicted_reward) for proposal in ordered]
        self.store.begin_episode(self.run, episode, rows)

    def outcomes(self, episode: int) -> list[Outcome]:
        """Judges the episode's candidates that are not judged yet, and returns all outcomes."""
        proposed = [each.id for each in self.store.candidates(self.run, episode) if each.state == "proposed"]
        for candidate in self.judged(proposed):
            self._drop_weights()
            self.told(self.store.candidate(candidate))
        teacher = self.store.run(self.run).teacher
        assert teacher is not None, "it is kept before the first episode"
        constants, teacher_ms = self.spec.search.reward, teacher.latency.p50
        judged = self.store.candidates(self.run, episode)
        return [outcome_of(candidate, constants, teacher_ms) for candidate in judged]

    def _drop_weights(self) -> None:
        """Deletes weights of what is neither on the frontier nor picked, unless the spec keeps all."""
        if self.spec.search.keep_weights == "all":
            return
        done = [candidate for candidate in self.store.candidates(self.run) if candidate.state == "done"]
        kept = frontier([candidate.point for candidate in done])
        kept += frontier([_by_speedup(candidate) for candidate in done])  # what `pick --speedup` may take
        picked = {pick.best.id for pick in picks(self.store.run(self.run), done) if pick.best}
        used = {*self.store.candidates_in_use(self.run), *picked}
        for index, candidate in enumerate(done):
            if candidate.weights and index not in kept and candidate.id not in used:
                drop_weights(self.store.files(self.run, candidate.id))
                self.store.update_candidate(candidate.id, weights=0)


def _by_speedup(candidate: Candidate) -> tuple[float, float]:
    latency, loss = candidate.point
    return (1 / candidate.latency.speedup if candidate.latency else latency), loss


def outcome_of(candidate: Candidate, constants: RewardSpec, teacher_ms: float) -> Outcome:
    """Returns what a controller is told of a judged candidate.

    Args:
        candidate: judged.
        constants: of the reward.
        teacher_ms: the teacher's latency in the search that is told of it.
    """
    latency, pruned = candidate.latency, candidate.state == "pruned"
    reward = 0.0 if candidate.state == "over_budget" else candidate.reward
    # what stands on the frontier: one minus the score where a run has tasks
    loss = candidate.loss if candidate.proxy_score is None else 1 - candidate.proxy_score
    ms, beside = (
        (candidate.estimated_ms, teacher_ms) if latency is None else (latency.p50, latency.teacher_p50)
    )
    if pruned and ms is not None and reward is not None:
        loss = loss_of(reward, ms, beside, constants)  # after all steps, as its peers make it likely
    # as if the teacher had taken in that session what it took in this run
    measured = None if latency is None or ms is None else ms * teacher_ms / beside
    return Outcome(candidate.architecture, reward, loss, measured, pruned)
