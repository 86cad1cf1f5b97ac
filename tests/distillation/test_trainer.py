from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kdnas_core.architecture import Architecture
from kdnas_core.distillation.mapping import layer_map
from kdnas_core.distillation.objective import HiddenStateObjective
from kdnas_core.distillation.student import start_student
from kdnas_core.distillation.targets import Targets
from kdnas_core.distillation.teacher import Teacher
from kdnas_core.distillation.trainer import Diverged, HeldOut, Watcher, distil
from kdnas_core.spec import ProxySpec
from tests.tiny import targets_of, teacher_of

SMALL = Architecture(2, 16, 32, 2)
PROXY = ProxySpec(steps=18, batch_size=8, learning_rate=5e-3)


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.fixture(scope="module")
def train(teacher: Teacher, texts: list[str]) -> Targets:
    return targets_of(teacher, texts[:64], sequence_length=24)


@pytest.fixture(scope="module")
def held_out(teacher: Teacher, texts: list[str]) -> Targets:
    return targets_of(teacher, texts[100:124], sequence_length=24)


class Recorder:
    """Remembers what a watcher is told."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.steps: list[int] = []
        self.evaluations: list[HeldOut] = []
        self.stop_at = stop_at
        self.watcher = Watcher(step=self._step, held_out=self.evaluations.append)

    def _step(self, step: int) -> None:
        self.steps.append(step)
        if step == self.stop_at:
            raise Stopped


def trained(
    teacher: Teacher,
    train: Targets,
    held_out: Targets,
    proxy: ProxySpec = PROXY,
    seed: int = 0,
    recorder: Recorder | None = None,
    autocast: torch.dtype | None = None,
) -> HeldOut:
    student = start_student(teacher, SMALL, "random", train, seed=0)
    torch.manual_seed(0)
    objective = HiddenStateObjective(layer_map("uniform+last", 2, 4), 16, 32, "per_layer")
    watcher = (recorder or Recorder()).watcher
    return distil(student, objective, train, held_out, proxy, seed, autocast, watcher)


def test_the_same_arguments_give_the_same_losses(teacher: Teacher, train: Targets, held_out: Targets) -> None:
    first, again = Recorder(), Recorder()
    trained(teacher, train, held_out, recorder=first)
    torch.manual_seed(99)
    trained(teacher, train, held_out, recorder=again)
    assert first.evaluations == again.evaluations


def test_another_seed_has_another_order_of_batches(
    teacher: Teacher, train: Targets, held_out: Targets
) -> None:
    assert trained(teacher, train, held_out) != trained(teacher, train, held_out, seed=1)


def test_the_held_out_loss_falls(teacher: Teacher, train: Targets, held_out: Targets) -> None:
    recorder = Recorder()
    proxy = PROXY.model_copy(update={"steps": 80})
    result = trained(teacher, train, held_out, proxy, recorder=recorder)
    losses = [evaluation.loss for evaluation in recorder.evaluations]
    assert 0 < result.loss < 0.98 * losses[0]


def test_every_step_is_told_and_the_loss_before_the_first_at_times_and_after_the_last(
    teacher: Teacher, train: Targets, held_out: Targets
) -> None:
    recorder = Recorder()
    result = trained(teacher, train, held_out, recorder=recorder)
    assert recorder.steps == list(range(1, 19))
    assert [evaluation.step for evaluation in recorder.evaluations] == [0, 3, 6, 9, 12, 15, 18]
    assert recorder.evaluations[-1] == result


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_however_few_the_steps_the_first_and_the_last_are_evaluated(
    steps: int, teacher: Teacher, train: Targets, held_out: Targets
) -> None:
    recorder = Recorder()
    trained(teacher, train, held_out, PROXY.model_copy(update={"steps": steps}), recorder=recorder)
    evaluated = [evaluation.step for evaluation in recorder.evaluations]
    assert (evaluated[0], evaluated[-1]) == (0, steps)
    assert evaluated == sorted(set(evaluated))


def test_losses_are_by_layer_and_role_and_their_mean_is_the_loss(
    teacher: Teacher, train: Targets, held_out: Targets
) -> None:
    result = trained(teacher, train, held_out)
    assert np.shape(result.losses) == (2, 2)
    assert result.loss == pytest.approx(sum(map(sum, result.losses)) / 4)


def test_held_out_tokens_count_alike_whatever_batch_they_are_in(
    teacher: Teacher, train: Targets, held_out: Targets
) -> None:
    first: list[float] = []
    for batch_size in (5, 24):
        recorder = Recorder()
        student = start_student(teacher, SMALL, "random", train, seed=0)
        torch.manual_seed(0)
        objective = HiddenStateObjective(layer_map("uniform+last", 2, 4), 16, 32, "per_layer")
        objective.fit = lambda batches: None  # type: ignore[method-assign]  # so that both judge the same
        proxy = PROXY.model_copy(update={"steps": 1, "batch_size": batch_size})
        distil(student, objective, train, held_out, proxy, 0, None, recorder.watcher)
        first.append(recorder.evaluations[0].loss)
    assert first[0] == pytest.approx(first[1], rel=1e-5)


def test_an_exception_of_the_watcher_ends_the_training_at_once(
    teacher: Teacher, train: Targets, held_out: Targets
) -> None:
    recorder = Recorder(stop_at=5)
    with pytest.raises(Stopped):
        trained(teacher, train, held_out, recorder=recorder)
    assert recorder.steps == [1, 2, 3, 4, 5]


def test_an_absurd_learning_rate_is_said_to_diverge(
    teacher: Teacher, train: Targets, held_out: Targets
) -> None:
    absurd = PROXY.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(Diverged, match="a lower learning rate may help"):
        trained(teacher, train, held_out, absurd)


def test_the_teacher_and_its_outputs_are_left_alone(
    teacher: Teacher, train: Targets, held_out: Targets
) -> None:
    weights = {name: weight.clone() for name, weight in teacher.model.state_dict().items()}
    outputs = train.hidden.copy()
    trained(teacher, train, held_out)
    assert all(torch.equal(weight, weights[name]) for name, weight in teacher.model.state_dict().items())
    assert np.array_equal(outputs, train.hidden)
    assert not teacher.model.training


def test_student_and_projections_both_learn_without_dropout(
    teacher: Teacher, train: Targets, held_out: Targets
) -> None:
    student = start_student(teacher, SMALL, "random", train, seed=0)
    before = {name: weight.clone() for name, weight in student.state_dict().items()}
    objective = HiddenStateObjective(layer_map("uniform+last", 2, 4), 16, 32, "per_layer")
    fitted: list[torch.Tensor] = []

    def remember(result: HeldOut) -> None:
        if result.step == 0:
            fitted.append(objective.projections[0].weight.detach().clone())

    watcher = Watcher(step=lambda step: None, held_out=remember)
    distil(student, objective, train, held_out, PROXY, 0, None, watcher)
    assert not student.training
    assert not torch.equal(objective.projections[0].weight, fitted[0])
    changed = {name for name, weight in student.state_dict().items() if not torch.equal(weight, before[name])}
    assert {"embeddings.word_embeddings.weight", "encoder.layer.1.output.dense.weight"} <= changed


def test_a_student_learns_in_bfloat16_too(teacher: Teacher, train: Targets, held_out: Targets) -> None:
    recorder = Recorder()
    proxy = PROXY.model_copy(update={"steps": 30})
    result = trained(teacher, train, held_out, proxy, recorder=recorder, autocast=torch.bfloat16)
    assert result.loss < recorder.evaluations[0].loss
