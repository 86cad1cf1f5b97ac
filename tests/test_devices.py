"""Everything that computes does so on the chosen device, and as on the processor.

That device is a CUDA device where there is one, else a made-up one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from kdnas_core import hardware
from kdnas_core.architecture import Architecture
from kdnas_core.data.tasks import Row, Task
from kdnas_core.distillation.augmentation.candidates import augmenter_for
from kdnas_core.distillation.needs import trained_head
from kdnas_core.distillation.precision import autocast_dtype
from kdnas_core.distillation.supernet import Supernet
from kdnas_core.distillation.trainer import ProxySet, Watcher, distil
from kdnas_core.errors import BadInput
from kdnas_core.evaluation.classifier import logits_of, tokens_of
from kdnas_core.evaluation.fine_tuning import FineTuning, TrainingSet, fine_tuned
from kdnas_core.evaluation.zero_shot import sentence_vectors
from kdnas_core.hardware import chosen_device, compute_device, computing_on, moved
from kdnas_core.models import targets
from kdnas_core.models.importance import importance_of
from kdnas_core.models.student import new_student
from kdnas_core.models.targets import tokenised
from kdnas_core.models.teacher import Teacher, load_teacher
from kdnas_core.models.teacher_outputs import OnlineTargets, teacher_targets
from kdnas_core.models.vocabulary import Vocabulary
from kdnas_core.spec import ObjectiveSpec, ProxySpec, Recipe, Yardstick
from tests.made_up_device import DEVICE, made_up_device
from tests.sentences import is_one_sentence
from tests.tiny import (
    everything_of,
    made_up_importance,
    made_up_words,
    objective_of,
    targets_of,
    teacher_of,
    whole_proxy_set,
)

SMALL = Architecture(2, 16, 32, 4)
PROXY = ProxySpec(steps=3, batch_size=8, learning_rate=5e-3)
RECIPES: list[Recipe] = [recipe for recipe in get_args(Recipe) if recipe != "custom"]


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.fixture(scope="module")
def data(teacher: Teacher, texts: list[str]) -> ProxySet:
    return whole_proxy_set(teacher, texts[:48], texts[100:116])


def on_both(compute: Callable[[], Any]) -> tuple[Any, Any]:
    """Returns what is computed on the processor, and on the other device."""
    first = compute()
    with computing_on("cuda") if torch.cuda.is_available() else made_up_device():
        return first, compute()


@contextlib.contextmanager
def gradients_of_first_step() -> Iterator[list[torch.Tensor]]:
    """Fills a list with the gradients of every weight at the first step of an optimiser."""
    found: list[torch.Tensor] = []

    def keep(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if not found:
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            found.extend(each.grad.cpu().flatten() for each in weights if each.grad is not None)

    handle = register_optimizer_step_pre_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def same(one: Any, other: Any) -> bool:
    """Whether both are the processor's, and equal but for rounding."""
    assert isinstance(other, np.ndarray) or other.device.type == "cpu"
    first, second = (each.detach().numpy() if torch.is_tensor(each) else each for each in (one, other))
    return np.allclose(first, second, rtol=1e-2, atol=1e-3)


# The made-up device


def test_the_made_up_device_computes_and_refuses_tensors_of_the_processor() -> None:
    layer, numbers = torch.nn.Linear(3, 2), torch.ones(4, 3)
    expected = layer(numbers)
    with made_up_device(), moved(layer):
        assert layer.weight.device.type == compute_device().type == DEVICE.type
        assert same(expected.detach(), layer(numbers.to(compute_device())).cpu())
        with pytest.raises(RuntimeError, match="two devices"):
            layer(numbers)
    assert layer.weight.device.type == "cpu"


# What computes


@pytest.mark.parametrize("recipe", RECIPES)
def test_mini_kd_gives_the_same_losses_and_a_student_on_the_processor(
    recipe: Recipe, teacher: Teacher, data: ProxySet
) -> None:
    yardstick: Yardstick = "last_layer" if recipe == "tinybert" else "vectors"

    def compute() -> Any:
        spec = ObjectiveSpec(recipe=recipe, yardstick=yardstick)
        student = new_student(teacher, SMALL, 0)
        objective = objective_of(spec, SMALL, teacher, data.vocabulary)
        watcher = Watcher(lambda step: None, lambda result: None)
        with gradients_of_first_step() as gradients:
            result = distil(student, objective, data, PROXY, 0, None, watcher)
        assert {each.device.type for each in (*student.parameters(), *objective.parameters())} == {"cpu"}
        weights = student.get_parameter("embeddings.word_embeddings.weight").detach()
        return result, torch.cat(gradients), weights

    (expected, gradients, weights), (result, other_gradients, moved_weights) = on_both(compute)
    assert len(gradients) > 9_000
    # projections fitted by least squares amplify what devices round in their own ways
    assert (gradients - other_gradients).norm() < 1e-2 * gradients.norm()
    for name, places in expected.terms.items():
        assert result.terms[name] == pytest.approx(places, rel=1e-2, abs=1e-3), name
    # Adam moves a weight by whole steps whose gradient is only rounding
    assert np.isclose(weights, moved_weights, rtol=1e-2, atol=1e-3).mean() > 0.99


@pytest.mark.parametrize("shape", [SMALL, Architecture(2, 16, 32, 4, embedding_size=8)])
def test_a_step_of_a_supernet_has_the_same_gradients(
    shape: Architecture, teacher: Teacher, texts: list[str]
) -> None:
    train = targets_of(teacher, texts[:24], 24)

    def compute() -> Any:
        net = Supernet(teacher, train, made_up_importance(teacher), "mean", {2: None})
        with moved(net):
            loss = net.gradients([shape, shape], range(8), None)
            of_queries = net.model.get_parameter("encoder.layer.1.attention.self.query.weight").grad
            assert of_queries is not None and of_queries.device.type == compute_device().type
            return loss, of_queries.cpu()

    (loss, gradient), (other_loss, other_gradient) = on_both(compute)
    assert other_loss == pytest.approx(loss, rel=1e-3)
    assert same(gradient, other_gradient)


def test_the_teachers_outputs_are_the_same_stored_and_online(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    paths = iter([tmp_path / "one", tmp_path / "other"])

    def compute() -> Any:
        wanted = everything_of(teacher)
        stored = teacher_targets(teacher, texts[:8], 24, None, next(paths), wanted=wanted)
        encoded = tokenised(teacher, texts[:8], 24)
        reads = [("hidden", 2), ("query", 1)]
        online = OnlineTargets.of(teacher, encoded, stored.variance, None, reads)  # type: ignore[arg-type]
        with moved(teacher.model):
            read = online.reader([slice(0, 5), slice(5, 9)])
            states = read("hidden", 2)
        assert states.device.type == compute_device().type
        return stored.outputs["key", 1], states.cpu()

    (stored, states), (other_stored, other_states) = on_both(compute)
    assert np.allclose(stored, other_stored, atol=1e-3)
    assert np.allclose(states, other_states, atol=1e-3)


def test_stored_outputs_are_the_same_from_a_gpu_that_has_room_for_them(
    teacher: Teacher, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = targets_of(teacher, texts[:8], 24)
    parts = [slice(stored.offsets[text], stored.offsets[text + 1]) for text in (5, 2)]

    def compute() -> Any:
        mine = replace(stored)  # nothing is on the device yet
        states = mine.reader(parts)("hidden", 2)
        assert states.device.type == compute_device().type
        return states.cpu(), len(vars(mine).get("_on_gpu", {}))

    monkeypatch.setattr(targets, "free_gpu_bytes", lambda: 0)
    (expected, _), (without_room, none) = on_both(compute)
    monkeypatch.setattr(targets, "free_gpu_bytes", lambda: 10**9)
    _, (with_room, some) = on_both(compute)
    assert torch.equal(expected, without_room)
    assert torch.equal(expected, with_room)
    assert (none, some) == (0, len(stored.outputs))


def test_a_full_distillation_reads_its_teacher_on_the_device(
    teacher: Teacher, texts: list[str], data: ProxySet
) -> None:
    encoded = tokenised(teacher, texts[:48], 24)
    full = OnlineTargets.of(teacher, encoded, data.train.variance, None, [("hidden", n) for n in range(5)])
    train, held_out = (targets_of(teacher, some, 24) for some in (texts[:48], texts[100:116]))
    whole = ProxySet.of(train, held_out, teacher.model.config, full=full)

    def compute() -> Any:
        student = new_student(teacher, SMALL, 0)
        spec = ObjectiveSpec(recipe="kdnas")
        objective = objective_of(spec, SMALL, teacher, whole.vocabulary)
        watcher = Watcher(lambda step: None, lambda result: None)
        with moved(teacher.model):
            return distil(student, objective, whole, PROXY, 0, None, watcher).loss

    expected, loss = on_both(compute)
    assert loss == pytest.approx(expected, rel=1e-2)


def test_the_importance_of_heads_and_neurons_is_the_same(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    paths = iter([tmp_path / "one", tmp_path / "other"])
    one, other = on_both(lambda: importance_of(teacher, texts[:16], "mean", next(paths)))
    assert all(same(value, vars(other)[name]) for name, value in vars(one).items())


def test_a_masked_lm_head_is_trained_on_the_device(teacher: Teacher, data: ProxySet) -> None:
    one, other = on_both(lambda: trained_head(teacher, data.train, data.vocabulary, 0))
    assert same(one.head.dense.weight, other.head.dense.weight)


def test_a_classifier_is_tuned_and_scored_on_the_device(teacher: Teacher, texts: list[str]) -> None:
    rows = [Row(text, None, float(len(text) % 2)) for text in texts[:24]]
    task = Task("parity", ("even", "odd"), {"train": rows, "validation": rows}, ("validation",))
    tokens = tokens_of(rows, teacher.tokenizer, 16)
    how = FineTuning(rows=24, epochs=1, sequence_length=16, examples=24, dropout=0.0)

    def compute() -> Any:
        model = fine_tuned(teacher.model, TrainingSet(task, tokens), how, 1e-3, 0, None, steps=3)
        return logits_of(model, tokens)

    one, other = on_both(compute)
    assert same(one, other)


def test_sentence_vectors_are_computed_on_the_device(teacher: Teacher, texts: list[str]) -> None:
    one, other = on_both(lambda: sentence_vectors(teacher.model, teacher.tokenizer, texts[:5], 16))
    assert same(one, other)


def test_words_are_predicted_on_the_device(tiny_teacher: Path, texts: list[str]) -> None:
    teacher = load_teacher(str(tiny_teacher))
    words = teacher.model.config.vocab_size
    everything = Vocabulary(np.arange(words), np.arange(words))
    augmenter, _ = augmenter_for(teacher, made_up_words(teacher, everything), sequence_length=24)
    places = [(reading, place) for reading in augmenter.read(texts[:6]) for place in reading.places]
    one, other = on_both(lambda: augmenter.candidates(places, 3, {}))
    assert one == other
    assert any(one.values())


# The choice


def test_a_device_that_this_machine_lacks_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for wanted in ("cuda", "mps"):
        with pytest.raises(BadInput, match=f"{wanted} device") as refused, computing_on(wanted):
            pass
        assert is_one_sentence(str(refused.value))
    assert chosen_device("auto") == "cpu"


def test_the_best_device_is_chosen_for_a_block_and_the_processor_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    with computing_on("auto"):
        assert compute_device() == torch.device("cuda")
        assert hardware.compute_name() == f"{hardware.device_name()}, NVIDIA H100"
        assert autocast_dtype() is torch.bfloat16
        with computing_on("cpu"):
            assert hardware.compute_name() == hardware.device_name()
    assert compute_device() == torch.device("cpu")


def test_a_gpu_without_units_for_bfloat16_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with computing_on("cuda"):
        assert autocast_dtype() is None
