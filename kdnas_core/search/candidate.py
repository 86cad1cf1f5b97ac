"""One candidate under judgement: its latency or an estimate of it, the veto, and the rungs of its mini-KD."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from transformers import PreTrainedModel

from kdnas_core.architecture import Architecture, LayerSource
from kdnas_core.distillation.objective import Places
from kdnas_core.distillation.trainer import HeldOut
from kdnas_core.hardware import Turn
from kdnas_core.latency.bench import LatencyBench
from kdnas_core.latency.model import FAR_OVER, MOST_ERROR, model_here
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.models.student import parameters
from kdnas_core.search.reward import budgets_ms, kdnas_reward, within_budget
from kdnas_core.search.rungs import Cost, Peer, Prediction, beaten
from kdnas_core.spec import RunSpec

POLL_S = 0.1
BUSY_S = (2.0, 6.0)  # pauses before an unclean reading over the budget is repeated

KnownPeers = Callable[
    [], Sequence[Peer] | None
]  # None until all that a candidate is compared with are judged


@dataclass(frozen=True)
class Costs:
    """The costs of a candidate, known before training; until its first rung, its latency may be estimated."""

    parameters: int
    flops: int
    latency: LatencyReading | None
    estimated_ms: float | None = None


@dataclass(frozen=True)
class Judgement:
    """The outcome of one candidate.

    Attributes:
        state: "done"; "over_budget"; or "pruned", stopped at a rung since it would hardly be picked.
        loss: L of the reward, at the rung if it was pruned; None if it is over budget.
        reward: of the loss and the latency; if it was pruned, of the predicted loss.
        languages: the held-out loss by language, if there are several.
        scores: on the proxies of the run's tasks, by name.
        estimated_ms: its estimated latency, if that was so far over the budget that it was not measured.
        loss_se: standard error of the loss over held-out texts; None if the loss is the mean over layers.
        resampled: the loss on samples of those texts, the same for each candidate; empty as above.
        cut_from: the sources of its layers; empty for random weights.
        rung: the steps after which it was pruned, or measured and over the budget.
    """

    state: Literal["over_budget", "pruned", "done"]
    loss: float | None
    reward: float | None
    languages: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    estimated_ms: float | None = None
    loss_se: float | None = None
    resampled: tuple[float, ...] = ()
    cut_from: tuple[LayerSource, ...] = ()
    rung: int | None = None


@dataclass(frozen=True)
class Listener:
    """Callbacks of a judgement; any may raise to end it early.

    Attributes:
        waiting: called while another process holds the device.
        costs: called with the candidate's costs before its first step, and again if it is measured later.
        noted: called with a sentence for each loss term that is left out, and for a remembered result.
        step: called with the steps of mini-KD taken; not called if its result is remembered.
        held_out: called with the steps taken and the held-out losses by term and (layer, teacher layer).
    """

    waiting: Callable[[], None]
    costs: Callable[[Costs], None]
    noted: Callable[[Sequence[str]], None]
    step: Callable[[int], None]
    held_out: Callable[[int, dict[str, Places]], None]


class OverBudget(Exception):
    """Raised once a measured latency is over the budget, with the rung at which it was measured, if any."""

    def __init__(self, rung: int | None = None) -> None:
        super().__init__(rung)
        self.rung = rung


class Beaten(Exception):
    """Raised at a rung after which a candidate would hardly be picked."""

    def __init__(self, look: HeldOut, predicted: Prediction) -> None:
        super().__init__(look.step)
        self.look, self.predicted = look, predicted


@dataclass(frozen=True)
class Estimate:
    """An estimated latency in milliseconds.

    Attributes:
        ms: as it is.
        beside_teacher: as a share of the teacher's latency in this run: the other reading of a speed-up, and
            a check of the model at this point.
        error: of the model, as a share: the 90th percentile.
    """

    ms: float
    beside_teacher: float
    error: float

    def is_far_over(self, budget: float) -> bool:
        """Whether both readings are so far over a budget that the candidate is not measured."""
        return min(self.ms, self.beside_teacher) > FAR_OVER * budget

    def is_well_within(self, budget: float) -> bool:
        """Whether both are so far within it that measuring can wait."""
        return max(self.ms, self.beside_teacher) * (1 + MOST_ERROR) <= budget


def estimate(
    architecture: Architecture, spec: RunSpec, bench: LatencyBench, teacher_ms: float
) -> Estimate | None:
    """Returns its estimated latency; None where it is measured at once, or remembered.

    Presets and static students are always measured: they are few and unlike the shapes that the model was
    fitted on.

    Args:
        architecture: of the candidate.
        spec: of the search.
        bench: of the search.
        teacher_ms: the teacher's latency when the search began.
    """
    if spec.space.presets or architecture.is_static or bench.remembered(architecture) is not None:
        return None
    model = model_here(spec.latency)
    if model is None or not model.may_skip:
        return None
    at = spec.latency.batch_size, spec.latency.sequence_length
    ms = model.estimate(architecture, *at)
    beside_teacher = ms * teacher_ms / model.estimate(bench.teacher.architecture, *at)
    return Estimate(ms, beside_teacher, model.p90_error)


def cost_of(latency: LatencyReading) -> Cost:
    """Returns the cost of a measured latency."""
    return Cost(latency.p50, 1 / latency.speedup)


def costs_of_budgets(spec: RunSpec, teacher_ms: float) -> list[Cost]:
    """Returns the most that a candidate may cost within each budget.

    Args:
        spec: of the search.
        teacher_ms: the teacher's latency when the search began.
    """
    budget = spec.latency
    shares = [math.inf if budget.budget_speedup is None else 1 / amount for amount in budget.amounts]
    return list(map(Cost, budgets_ms(budget, teacher_ms), shares))


class CandidateUnderJudgement:
    """Its latency, and what its mini-KD has shown so far.

    A rung is decided once all peers are judged, which is at once unless some are in other slots; until then
    the training goes on. So the number of slots changes no decision.

    Args:
        architecture: of the candidate.
        student: a model of that architecture.
        spec: of the search.
        bench: measures latency.
        teacher_ms: the teacher's latency when the search began.
        listener: callbacks.
        peers: the candidates judged before, by which this one may be pruned.
        estimate: of its latency if it is to be measured at its first rung; else None.
        turn: of the slot that it computes in.
    """

    def __init__(
        self,
        architecture: Architecture,
        student: PreTrainedModel,
        spec: RunSpec,
        bench: LatencyBench,
        teacher_ms: float,
        listener: Listener,
        peers: KnownPeers,
        estimate: Estimate | None,
        turn: Turn,
    ) -> None:
        self.architecture, self.student, self.listener = architecture, student, listener
        self.spec, self.bench, self.teacher_ms, self.peers = spec, bench, teacher_ms, peers
        self.latency: LatencyReading | None = None
        self.estimate = estimate
        self.notes: Sequence[str] = ()
        self.sources: tuple[LayerSource, ...] = ()
        self.looks: list[HeldOut] = []
        self.decided = 0  # of the looks
        self.is_split = False
        self.turn = turn
        if estimate is None:
            self.measure()
        else:
            self._tell_costs()

    def begins(self, notes: Sequence[str], sources: tuple[LayerSource, ...]) -> None:
        """Begins a training, or the looks of a remembered one."""
        self.looks, self.decided, self.notes, self.sources = [], 0, notes, sources
        self.listener.noted(notes)

    def split(self, note: str) -> None:
        """Takes in that its batches are split, with a sentence for the user."""
        self.is_split = True
        self.notes = [*self.notes, note]
        self.listener.noted(self.notes)

    def measure(self) -> LatencyReading:
        """Returns its latency, measured at the first call.

        Raises:
            OverBudget: it is over the budget.
        """
        if self.latency is None:
            self.latency = self._reading()
            for pause in BUSY_S:  # a veto is final, and an unclean reading is an upper bound
                if self.latency.clean or self._is_within(self.latency):
                    break
                with self.turn.idle():
                    self._wait(pause)
                again = self._reading()
                self.latency = min(self.latency, again, key=lambda each: (not each.clean, each.p50))
            self._tell_costs()
            if not self._is_within(self.latency):
                raise OverBudget
        return self.latency

    def step(self, taken: int) -> None:
        """Tells a step; decides on rungs that are still open."""
        self.listener.step(taken)
        self.turn.let_others()
        self._decide()

    def look(self, look: HeldOut) -> None:
        """Takes an evaluation in; the rungs are those before the last step, of a supernet the start too.

        Raises:
            Beaten: by its loss at a rung it would hardly be picked.
            OverBudget: it passes its first rung, and its latency turns out to be over the budget.
        """
        self.looks.append(look)
        self.listener.held_out(look.step, look.terms)
        self._decide()

    def settle(self) -> None:
        """Waits until all rungs are decided, after the last step; raises as `look` does."""
        while self.decided < len(self.looks):
            with self.turn.idle():  # those that it waits for may wait for its cores
                self._wait(POLL_S)
            self._decide()

    def _decide(self) -> None:
        while self.decided < len(self.looks):
            look = self.looks[self.decided]
            if self._first_rung <= look.step < self.spec.proxy.steps:
                peers = self.peers() if self.spec.prunes else []
                if peers is None:
                    return
                self._decide_rung(look, peers)
            self.decided += 1

    @property
    def _first_rung(self) -> int:
        """0 if candidates are compared before their first step: after a training for all shapes."""
        return 0 if self.spec.objective.start == "supernet" else 1

    def _decide_rung(self, look: HeldOut, peers: Sequence[Peer]) -> None:
        cost, budgets = self._least_cost, costs_of_budgets(self.spec, self.teacher_ms)
        if cost and (predicted := beaten(cost, look.step, look.loss, peers, budgets)):
            raise Beaten(look, predicted)
        try:
            self.measure()
        except OverBudget:
            raise OverBudget(look.step) from None

    def pruned(self, stopped: Beaten) -> Judgement:
        """Returns the judgement of a candidate that was stopped at a rung."""
        look, constants = stopped.look, self.spec.search.reward
        likely = stopped.predicted.loss
        if self.latency is not None:
            reward = kdnas_reward(likely, self.latency.p50, self.latency.teacher_p50, constants)
        else:
            assert self.estimate is not None, "it is measured, or has an estimate"
            reward = kdnas_reward(likely, self.estimate.ms, self.teacher_ms, constants)
        return Judgement("pruned", look.loss, reward, cut_from=self.sources, rung=look.step)

    @property
    def _least_cost(self) -> Cost | None:
        """The least that it may cost; None if an unclean reading says no more than the most."""
        if self.latency is not None:
            return cost_of(self.latency) if self.latency.clean else None
        assert self.estimate is not None, "it is measured, or has an estimate"
        least = 1 - self.estimate.error
        return Cost(least * self.estimate.ms, least * self.estimate.beside_teacher / self.teacher_ms)

    def _tell_costs(self) -> None:
        flops = self.architecture.flops(self.spec.latency.sequence_length)
        estimated_ms = None if self.estimate is None else self.estimate.ms
        self.listener.costs(Costs(parameters(self.student), flops, self.latency, estimated_ms))

    def _reading(self) -> LatencyReading:
        return self.bench.student_latency(self.architecture, self.student, self.turn.alone)

    def _is_within(self, latency: LatencyReading) -> bool:
        return within_budget(latency, self.spec.latency, self.teacher_ms)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.listener.waiting()
            time.sleep(POLL_S)
