from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kdnas_core.architecture import Architecture
from kdnas_core.distillation import supernet
from kdnas_core.distillation.supernet import Supernet, supernet_of
from kdnas_core.distillation.trainer import ProxySet
from kdnas_core.models.cut import WORDS, Weights, cut_out
from kdnas_core.models.student import new_student
from kdnas_core.models.targets import Batch, Targets, make_batch
from kdnas_core.models.teacher import Teacher
from kdnas_core.search.space import SearchSpace
from kdnas_core.spec import SUPERNET_SHAPES
from tests.tiny import made_up_importance, proxy_set_of, targets_of, teacher_of
from tests.tiny_families import DISTINCT, family_teacher

SPACE = SearchSpace((1, 2, 4), (16, 24, 32), (32, 64), (2, 4), ("gelu",))
STUDENTS = [
    Architecture(2, 24, 48, 4),
    Architecture(3, 16, 32, 4, "relu"),
    Architecture(2, 24, 48, 4, embedding_size=12),
]
SOURCES = dict.fromkeys((1, 2, 3, 4))


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.fixture(scope="module")
def train(teacher: Teacher, texts: list[str]) -> Targets:
    return targets_of(teacher, texts[:60], 24)


@pytest.fixture(scope="module")
def data(teacher: Teacher, train: Targets, texts: list[str]) -> ProxySet:
    return proxy_set_of(teacher, train, targets_of(teacher, texts[60:80], 24))


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supernet, "SUPERNET_STEPS", 6)


def untrained(teacher: Teacher, train: Targets) -> Supernet:
    return Supernet(teacher, train, made_up_importance(teacher), "mean", SOURCES)


def trained(
    teacher: Teacher,
    data: ProxySet,
    cache: Path,
    space: SearchSpace = SPACE,
    stepped: Callable[[int], None] = lambda step: None,
) -> Weights:
    importance = made_up_importance(teacher)
    return supernet_of(teacher, data, importance, "mean", space, SOURCES, None, cache, stepped)


def batch_of(train: Targets, texts: int = 8) -> Batch:
    return make_batch(train, range(texts), pad=0)


def last_states(student: torch.nn.Module, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        output = student(input_ids=batch.ids, attention_mask=batch.mask)
    return batch.real(output.last_hidden_state)


@pytest.mark.parametrize("kind", DISTINCT)
@pytest.mark.parametrize("shape", STUDENTS)
def test_a_student_reads_within_the_supernet_as_the_one_that_is_cut_out_of_it(
    kind: str, shape: Architecture, teacher: Teacher, texts: list[str]
) -> None:
    of_kind = family_teacher(teacher, kind)
    train = targets_of(of_kind, texts[:40], 24)
    net = Supernet(of_kind, train, made_up_importance(of_kind), "mean", SOURCES)
    with torch.no_grad():
        for weight in net.model.parameters():  # as after a training
            weight.add_(0.02 * torch.randn_like(weight))
    batch = make_batch(train, range(6), pad=0)
    student = new_student(of_kind, shape, seed=0)
    shared = dict(net.model.state_dict())
    cut = cut_out(student, of_kind, train, made_up_importance(of_kind), shared=shared)
    student.load_state_dict(cut.weights, strict=False)

    with torch.no_grad():
        states, _ = net.states(shape, batch)

    torch.testing.assert_close(states, last_states(student, batch), atol=2e-5, rtol=0)


def test_before_the_first_step_a_student_of_the_teachers_shape_is_the_teacher(
    teacher: Teacher, train: Targets
) -> None:
    batch = batch_of(train)
    with torch.no_grad():
        states, directions = untrained(teacher, train).states(teacher.architecture, batch)

    torch.testing.assert_close(states, batch.teacher("hidden", teacher.layers), atol=5e-3, rtol=0)
    assert torch.equal(directions, torch.eye(teacher.architecture.hidden_size))


def test_the_gradients_of_a_student_are_those_of_finite_differences(teacher: Teacher, train: Targets) -> None:
    net, batch, shape = untrained(teacher, train), batch_of(train), STUDENTS[0]
    net.loss(shape, batch).backward()
    trained_ones = [weight for weight in net.parameters() if weight.grad is not None]
    generator = torch.Generator().manual_seed(0)
    directions = [torch.randn(weight.shape, generator=generator) for weight in trained_ones]
    expected = sum(
        float((weight.grad * each).sum())
        for weight, each in zip(trained_ones, directions, strict=True)
        if weight.grad is not None
    )
    size, losses = 1e-4, []
    with torch.no_grad():
        for sign in (1, -2):  # to one side, and from there to the other
            for weight, each in zip(trained_ones, directions, strict=True):
                weight.add_(sign * size * each)
            losses.append(float(net.loss(shape, batch)))
    assert (losses[0] - losses[1]) / (2 * size) == pytest.approx(expected, rel=0.02)


def test_steps_for_some_shapes_lower_the_error_of_another(
    teacher: Teacher, train: Targets, data: ProxySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supernet, "SUPERNET_STEPS", 60)
    unseen, batch, net = Architecture(3, 24, 48, 4), batch_of(train, 24), untrained(teacher, train)
    before = net.loss(unseen, batch).item()
    net.model.load_state_dict(trained(teacher, data, tmp_path))
    assert net.loss(unseen, batch).item() < 0.9 * before


def test_the_same_question_gives_the_same_weights_also_after_an_interruption(
    teacher: Teacher, data: ProxySet, tmp_path: Path
) -> None:
    class Ended(Exception):
        pass

    def end(step: int) -> None:
        if step == 3:
            raise Ended

    taken: list[int] = []
    at_once = trained(teacher, data, tmp_path / "one")
    with pytest.raises(Ended):
        trained(teacher, data, tmp_path / "two", stepped=end)
    resumed = trained(teacher, data, tmp_path / "two", stepped=taken.append)

    assert taken == [4, 5, 6]
    assert at_once.keys() == resumed.keys() == teacher.model.state_dict().keys()
    for name, weight in at_once.items():
        torch.testing.assert_close(weight, resumed[name], rtol=0, atol=1e-6)


def test_a_supernet_is_trained_once_for_a_space_and_anew_for_another(
    teacher: Teacher, data: ProxySet, tmp_path: Path
) -> None:
    taken: list[int] = []
    first = trained(teacher, data, tmp_path, stepped=taken.append)
    again = trained(teacher, data, tmp_path, stepped=taken.append)

    assert len(taken) == 6
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())
    other = SearchSpace((1,), (16,), (32,), (2,), ("gelu",))
    trained(teacher, data, tmp_path, other, taken.append)
    assert len(taken) == 12
    assert not list(tmp_path.rglob("*.checkpoint"))


def test_words_that_no_text_has_and_the_teacher_itself_stay_as_they_are(
    teacher: Teacher, data: ProxySet, tmp_path: Path
) -> None:
    before = {name: weight.clone() for name, weight in teacher.model.state_dict().items()}
    weights = trained(teacher, data, tmp_path)
    unused = torch.ones(len(before[WORDS]), dtype=torch.bool)
    unused[torch.from_numpy(data.vocabulary.rows)] = False

    assert unused.any()
    assert torch.equal(weights[WORDS][unused], before[WORDS][unused])
    assert all(torch.equal(weight, before[name]) for name, weight in teacher.model.state_dict().items())


def test_shapes_are_drawn_from_the_space_alone(teacher: Teacher, data: ProxySet, tmp_path: Path) -> None:
    drawn: list[Architecture] = []

    class Watched:
        key, depths = SPACE.key, SPACE.depths

        def draw(self, rng: random.Random) -> Architecture:
            drawn.append(SPACE.draw(rng))
            return drawn[-1]

    importance = made_up_importance(teacher)
    supernet_of(teacher, data, importance, "mean", Watched(), SOURCES, None, tmp_path, lambda step: None)
    assert len(drawn) == 6 * SUPERNET_SHAPES
