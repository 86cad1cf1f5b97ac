from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kdnas_core.architecture import Architecture
from kdnas_core.distillation import supernet
from kdnas_core.distillation.supernet import Supernet, supernet_of
from kdnas_core.distillation.trainer import ProxySet
from kdnas_core.errors import Failure
from kdnas_core.models.cut import WORDS, cut_out
from kdnas_core.models.families import shape_of
from kdnas_core.models.heads import Weights
from kdnas_core.models.student import new_student
from kdnas_core.models.targets import Batch, Targets, make_batch
from kdnas_core.models.teacher import Teacher
from kdnas_core.search.space import SearchSpace
from kdnas_core.spec import SUPERNET_SHAPES
from tests.sentences import is_one_sentence
from tests.tiny import made_up_importance, proxy_set_of, targets_of, teacher_of
from tests.tiny_families import DISTINCT, family_teacher, model_of

SPACE = SearchSpace((1, 2, 4), (16, 24, 32), (32, 64), (2, 4), ("gelu",))
STUDENTS = {
    "smaller in all": Architecture(2, 24, 48, 4),
    "narrow heads and another activation": Architecture(3, 16, 32, 4, "relu"),
    "factorised": Architecture(2, 24, 48, 4, embedding_size=12),
    "wider heads and more neurons than its teacher": Architecture(2, 32, 96, 2),
    "more heads than its teacher": Architecture(2, 24, 48, 8),
}
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


@pytest.mark.parametrize("kind", DISTINCT)
@pytest.mark.parametrize("shape", STUDENTS.values(), ids=STUDENTS)
def test_a_student_reads_within_the_supernet_as_the_one_that_is_cut_out_of_it(
    kind: str, shape: Architecture, teacher: Teacher, texts: list[str]
) -> None:
    of_kind = family_teacher(teacher, kind)
    pairs = [(texts[index], texts[index + 1]) for index in range(20)]
    reads_alike(of_kind, shape, targets_of(of_kind, [*texts[:20], *pairs], 24))


def test_it_is_so_where_the_padding_is_not_the_first_word(teacher: Teacher, texts: list[str]) -> None:
    model = model_of("roberta", teacher.model.config.vocab_size, pad=1)
    shape = shape_of(model.config.to_dict(), "roberta")
    tokenizer = copy.deepcopy(teacher.tokenizer)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(1)
    other = dataclasses.replace(
        teacher, name="roberta", model=model, tokenizer=tokenizer, architecture=shape, fingerprint="pad 1"
    )
    reads_alike(other, STUDENTS["smaller in all"], targets_of(other, texts[:40], 24))


def reads_alike(teacher: Teacher, shape: Architecture, train: Targets) -> None:
    """Compares a student within a supernet, after a change of its weights, with the one cut out of it."""
    net, pad = untrained(teacher, train), teacher.tokenizer.pad_token_id
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in net.model.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=generator))
    batch, student = make_batch(train, range(len(train)), pad), new_student(teacher, shape, seed=0)
    shared = dict(net.model.state_dict())
    cut = cut_out(student, teacher, train, made_up_importance(teacher), shared=shared)
    student.load_state_dict(cut.weights, strict=False)
    types = {} if batch.types is None else {"token_type_ids": batch.types}

    with torch.no_grad():
        states, _ = net.states(shape, batch)
        alone = student(input_ids=batch.ids, attention_mask=batch.mask, **types).last_hidden_state

    torch.testing.assert_close(states, batch.real(alone), atol=2e-5, rtol=0)


def test_what_a_cut_leaves_random_can_be_learnt_though_it_changes_no_output(
    teacher: Teacher, train: Targets
) -> None:
    shape, batch = STUDENTS["wider heads and more neurons than its teacher"], batch_of(train)
    student = new_student(teacher, shape, seed=0)
    shared = dict(untrained(teacher, train).model.state_dict())
    cut = cut_out(student, teacher, train, made_up_importance(teacher), shared=shared)
    student.load_state_dict(cut.weights, strict=False)
    student(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state.square().sum().backward()

    for name in ("attention.self.query", "attention.self.key"):
        rest = student.get_parameter(f"encoder.layer.0.{name}.weight").unflatten(0, (2, 16))[:, 8:]
        assert rest.any() == (name == "attention.self.query")
    key = student.get_parameter("encoder.layer.0.attention.self.key.weight").grad
    output = student.get_parameter("encoder.layer.0.output.dense.weight")
    assert key is not None and key.unflatten(0, (2, 16))[:, 8:].any()
    assert not output[:, 64:].any()
    assert output.grad is not None and output.grad[:, 64:].any()


def test_in_bfloat16_a_student_reads_nearly_alike_and_its_gradients_are_finite(
    teacher: Teacher, train: Targets
) -> None:
    net, batch, shape = untrained(teacher, train), batch_of(train), STUDENTS["smaller in all"]
    net.loss(shape, batch, torch.bfloat16).backward()
    assert all(weight.grad.isfinite().all() for weight in net.parameters() if weight.grad is not None)
    with torch.no_grad():
        (whole, _), (half, _) = (net.states(shape, batch, dtype) for dtype in (None, torch.bfloat16))
    assert half.dtype == torch.float32
    assert 0 < (whole - half).abs().mean() < 0.05 * whole.abs().mean()


def test_a_batch_that_does_not_fit_is_read_in_parts_of_the_same_weight(
    teacher: Teacher, train: Targets, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def loss(self: Supernet, shape: Architecture, batch: Batch, autocast: object) -> torch.Tensor:
        if len(batch.mask) > 4:
            raise torch.OutOfMemoryError
        read.append(len(batch.mask))
        return self.to_states.bias.sum() + 3.0

    monkeypatch.setattr(Supernet, "loss", loss)
    net = untrained(teacher, train)
    mean = net.gradients([STUDENTS["factorised"]] * 2, range(10), None)

    assert read == [3, 3, 3, 1] * 2
    assert mean == pytest.approx(3.0)
    assert net.to_states.bias.grad is not None
    torch.testing.assert_close(net.to_states.bias.grad, torch.ones(32))


def test_before_the_first_step_a_student_of_the_teachers_shape_is_the_teacher(
    teacher: Teacher, train: Targets
) -> None:
    batch = batch_of(train)
    with torch.no_grad():
        states, directions = untrained(teacher, train).states(teacher.architecture, batch)

    torch.testing.assert_close(states, batch.teacher("hidden", teacher.layers), atol=5e-3, rtol=0)
    assert torch.equal(directions, torch.eye(teacher.architecture.hidden_size))


def test_the_gradients_of_a_student_are_those_of_finite_differences(teacher: Teacher, train: Targets) -> None:
    net, batch, shape = untrained(teacher, train), batch_of(train), STUDENTS["smaller in all"]
    net.loss(shape, batch).backward()
    trained_ones = [weight for weight in net.parameters() if weight.grad is not None]
    starts = [weight.detach().clone() for weight in trained_ones]
    gradient = [weight.grad.clone() for weight in trained_ones if weight.grad is not None]
    norm = float(torch.stack([each.norm() for each in gradient]).norm())
    generator = torch.Generator().manual_seed(0)

    # of the second one the derivative may be near zero: its error is small beside the gradient's norm
    for directions in (
        [each / norm for each in gradient],
        [torch.randn(each.shape, generator=generator) for each in gradient],
    ):
        expected = sum(float((mine * each).sum()) for mine, each in zip(gradient, directions, strict=True))
        size, losses = 1e-3, []
        with torch.no_grad():
            for step in (size, -size):
                for weight, start, each in zip(trained_ones, starts, directions, strict=True):
                    weight.copy_(start + step * each)
                losses.append(float(net.loss(shape, batch)))
        assert (losses[0] - losses[1]) / (2 * size) == pytest.approx(expected, abs=2e-3 * norm)


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


def test_the_shapes_that_are_trained_are_drawn_from_the_space(
    teacher: Teacher, data: ProxySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Architecture] = []

    def gradients(self: Supernet, shapes: Sequence[Architecture], *others: object) -> float:
        given.extend(shapes)
        return 0.0

    monkeypatch.setattr(Supernet, "gradients", gradients)
    monkeypatch.setattr(supernet, "SUPERNET_STEPS", 200)
    trained(teacher, data, tmp_path)
    assert len(given) == 200 * SUPERNET_SHAPES
    assert set(given) == set(SPACE)


def test_a_damaged_file_is_made_again(teacher: Teacher, data: ProxySet, tmp_path: Path) -> None:
    whole = trained(teacher, data, tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:1_000])
    again = trained(teacher, data, tmp_path)

    assert all(torch.equal(weight, again[name]) for name, weight in whole.items())
    assert load_file(path).keys() == whole.keys()


def test_of_many_spaces_the_supernets_used_last_are_kept(
    teacher: Teacher, data: ProxySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supernet, "KEPT", 2)
    taken: list[int] = []
    spaces = [SearchSpace((1,), (16,), (width,), (2,), ("gelu",)) for width in (32, 48, 64)]
    for number in (0, 1, 0, 2):  # the second is the one not used for longest
        trained(teacher, data, tmp_path, spaces[number])
        for path in tmp_path.rglob("*.safetensors"):  # as if ten seconds had passed
            os.utime(path, (path.stat().st_mtime - 10,) * 2)
    trained(teacher, data, tmp_path, spaces[0], taken.append)
    assert taken == []
    trained(teacher, data, tmp_path, spaces[1], taken.append)
    assert len(taken) == 6


def test_a_training_that_diverges_says_what_to_do(
    teacher: Teacher, data: ProxySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Supernet, "gradients", lambda *arguments: float("nan"))
    with pytest.raises(Failure, match=r"objective\.start=teacher") as caught:
        trained(teacher, data, tmp_path)
    assert is_one_sentence(str(caught.value))
