from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, PreTrainedModel

from kdnas_core.models import importance as module
from kdnas_core.models.importance import SAME_WORD_SHARE, Importance, importance_of
from kdnas_core.models.mapping import layer_map
from kdnas_core.models.pooling import Mode
from kdnas_core.models.teacher import Teacher
from tests.tiny import made_up_importance, teacher_of
from tests.tiny_families import CONFIGS, family_teacher

LAYERS, HEADS, NEURONS = 4, 4, 64
MODULES = {
    "bert": ("encoder.layer.{}.attention.output.dense", "encoder.layer.{}.output.dense"),
    "distilbert": ("transformer.layer.{}.attention.out_lin", "transformer.layer.{}.ffn.lin2"),
}


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.fixture
def some(texts: list[str]) -> list[str]:
    return texts[:6]


# What heads and neurons do


def vector_of(model: Any, tokenizer: Any, text: str, mode: Mode) -> torch.Tensor:
    """The unit vector of a text that is read alone."""
    inputs = tokenizer(text, truncation=True, max_length=48, return_tensors="pt")
    with torch.no_grad():
        states = model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        ).last_hidden_state[0]
    vector = {"mean": states.mean(0), "cls": states[0], "max": states.amax(0)}[mode]
    return vector / vector.norm()


@cache
def in_double(model: PreTrainedModel) -> Any:
    double = AutoModel.from_config(model.config).double().eval()
    double.load_state_dict(model.state_dict())
    return double


def by_differences(teacher: Teacher, texts: list[str], mode: Mode, path: str, part: slice) -> float:
    """Computes the RMS change of the vector if a slice of a module's input is scaled down."""
    step, double = 1e-4, in_double(teacher.model)

    def scaled(by: float) -> Callable[[Any, Any], tuple[torch.Tensor]]:
        def hook(_: Any, arguments: Any) -> tuple[torch.Tensor]:
            states = arguments[0].clone()
            states[..., part] *= by
            return (states,)

        return hook

    total = 0.0
    for text in texts:
        sides = []
        for by in (1 + step, 1 - step):
            handle = double.get_submodule(path).register_forward_pre_hook(scaled(by))
            sides.append(vector_of(double, teacher.tokenizer, text, mode))
            handle.remove()
        total += float(((sides[0] - sides[1]) / (2 * step)).square().sum())
    return (total / len(texts)) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["mean", "cls"])
@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_the_effect_of_a_head_or_neuron_is_the_change_of_the_vector_where_it_is_scaled_down(
    kind: str,
    mode: Mode,
    teacher: Teacher,
    some: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PROBES", 200)  # so many that the random error is within 2%
    monkeypatch.setattr(module, "BATCH", 4)  # batches of unequal lengths, the last of them smaller
    other = teacher if kind == "bert" else family_teacher(teacher, kind)
    found = importance_of(other, some, mode, tmp_path)
    heads, neurons = MODULES[kind]
    expected = [
        [
            by_differences(other, some, mode, heads.format(layer), slice(head * 8, head * 8 + 8))
            for head in range(HEADS)
        ]
        for layer in range(LAYERS)
    ]
    torch.testing.assert_close(found.heads, torch.tensor(expected), rtol=0.1, atol=1e-5)
    for layer, neuron in ((0, 0), (1, 63), (3, 17)):
        effect = by_differences(other, some, mode, neurons.format(layer), slice(neuron, neuron + 1))
        assert float(found.neurons[layer, neuron]) == pytest.approx(effect, rel=0.1, abs=1e-5)


@pytest.mark.slow
def test_two_probes_of_each_text_rank_heads_and_neurons_as_many_do(
    teacher: Teacher, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = importance_of(teacher, texts, "mean", tmp_path / "few")
    monkeypatch.setattr(module, "PROBES", 20)
    many = importance_of(teacher, texts, "mean", tmp_path / "many")
    for some, others in ((few.heads, many.heads), (few.neurons, many.neurons)):
        ranks = torch.stack([values.flatten().argsort().argsort().double() for values in (some, others)])
        assert torch.corrcoef(ranks)[0, 1] > 0.9


def test_of_a_part_that_writes_nothing_there_is_no_effect(
    teacher: Teacher, some: list[str], tmp_path: Path
) -> None:
    model = AutoModel.from_config(teacher.model.config).eval().requires_grad_(False)
    model.load_state_dict(teacher.model.state_dict())
    model.get_parameter("encoder.layer.1.attention.output.dense.weight")[:, 8:16] = 0
    model.get_parameter("encoder.layer.2.output.dense.weight")[:, 5] = 0
    found = importance_of(
        dataclasses.replace(teacher, model=model, fingerprint="cut"), some, "mean", tmp_path
    )
    assert (found.heads == 0).nonzero().tolist() == [[1, 1]]
    assert found.neurons[2, 5] == 0
    assert (found.neurons == 0).sum() == 1


@pytest.mark.parametrize("kind", CONFIGS)
def test_heads_and_neurons_of_every_family_are_measured_and_its_model_left_alone(
    kind: str, teacher: Teacher, some: list[str], tmp_path: Path
) -> None:
    other = family_teacher(teacher, kind)
    before = {name: weight.clone() for name, weight in other.model.state_dict().items()}
    found = importance_of(other, some, "mean", tmp_path)
    assert found.heads.shape == found.same_word.shape == (LAYERS, HEADS)
    assert found.neurons.shape == (LAYERS, NEURONS)
    assert (found.heads > 0).all() and found.heads.isfinite().all()
    assert (found.neurons >= 0).all() and found.neurons.isfinite().all()
    assert ((found.same_word > 0) & (found.same_word < 1)).all()
    assert all(torch.equal(weight, before[name]) for name, weight in other.model.state_dict().items())
    assert all(weight.grad is None and not weight.requires_grad for weight in other.model.parameters())
    assert not any(each._forward_pre_hooks or each._forward_hooks for each in other.model.modules())


# The same word


def same_word_by_loops(teacher: Teacher, pairs: list[tuple[str, str]]) -> list[list[float]]:
    """Computes the measure from the model's own attentions, pair by pair and token by token."""
    eager = AutoModel.from_config(teacher.model.config, attn_implementation="eager").eval()
    eager.load_state_dict(teacher.model.state_dict())
    total, count = [[0.0] * HEADS for _ in range(LAYERS)], 0
    for pair in pairs:
        inputs = teacher.tokenizer(*pair, truncation=True, max_length=48, return_tensors="pt")
        with torch.no_grad():
            attentions = eager(**inputs, output_attentions=True).attentions
        ids, segments = inputs["input_ids"][0].tolist(), inputs.sequence_ids(0)
        for query, word in enumerate(ids):
            same = [
                key
                for key, other in enumerate(ids)
                if other == word and {segments[query], segments[key]} == {0, 1}
            ]
            count += bool(same)
            for layer, attention in enumerate(attentions):
                for head in range(HEADS):
                    total[layer][head] += sum(float(attention[0, head, query, key]) for key in same)
    return [[of_head / count for of_head in of_layer] for of_layer in total]


def test_attention_to_the_same_word_is_what_the_models_own_attentions_say(
    teacher: Teacher, some: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 4)
    found = importance_of(teacher, some, "mean", tmp_path).same_word
    expected = torch.tensor(same_word_by_loops(teacher, module._synthetic_pairs(some)))
    assert expected.max() - expected.min() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_made_up_pairs_share_about_half_of_their_words_in_place(texts: list[str]) -> None:
    pairs = module._synthetic_pairs(texts)
    assert [first for first, _ in pairs] == [" ".join(text.split()[:24]) for text in texts]
    kept = [
        one == other
        for first, second in pairs
        for one, other in zip(first.split(), second.split(), strict=True)
    ]
    assert sum(kept) / len(kept) == pytest.approx(0.5, abs=0.05)
    assert pairs == module._synthetic_pairs(texts)


# What is kept of it


def importance_with(same_word: dict[tuple[int, int], float], layers: int = 6) -> Importance:
    """Returns an importance with four heads in each layer; the named (layer, head) find the same word."""
    generator = torch.Generator().manual_seed(3)
    shares = torch.full((layers, HEADS), 0.02)
    for (layer, head), share in same_word.items():
        shares[layer - 1, head - 1] = share
    return Importance(torch.rand(layers, HEADS, generator=generator), torch.rand(layers, 8), shares)


def test_heads_that_find_the_same_word_come_first_and_then_those_of_most_effect() -> None:
    importance = importance_with({(2, 1): 0.5, (2, 3): SAME_WORD_SHARE, (3, 4): SAME_WORD_SHARE - 1e-3})
    importance.heads[1] = torch.tensor([0.0, 7.0, 0.1, 9.0])
    importance.heads[2] = torch.tensor([5.0, 7.0, 0.1, 6.0])
    importance.heads[3] = torch.tensor([0.0, 0.0, 0.0, 0.0])
    assert importance.ranked_heads(2).argsort(descending=True).tolist() == [0, 2, 3, 1]
    assert importance.ranked_heads(3).argsort(descending=True).tolist() == [1, 3, 0, 2]
    assert importance.ranked_heads(4).isfinite().all()


@pytest.mark.parametrize(
    ("layers", "sources"),
    [(1, [6]), (2, [3, 6]), (3, [2, 3, 6]), (4, [2, 3, 4, 6]), (5, [1, 2, 3, 4, 6]), (6, [1, 2, 3, 4, 5, 6])],
)
def test_layers_with_a_head_that_finds_the_same_word_take_the_place_of_the_nearest_that_have_none(
    layers: int, sources: list[int]
) -> None:
    assert importance_with({(2, 2): 0.3, (3, 4): 0.47}).source_layers(layers) == sources


def test_of_two_layers_for_one_place_the_better_at_finding_the_same_word_is_taken() -> None:
    assert importance_with({(1, 2): 0.3, (2, 4): 0.4}).source_layers(2) == [2, 6]
    assert importance_with({(1, 2): 0.4, (2, 4): 0.3}).source_layers(2) == [1, 6]


@pytest.mark.parametrize("skilled", [{}, {(6, 1): 0.5}, {(2, 1): SAME_WORD_SHARE - 1e-3}])
def test_without_such_a_layer_or_with_the_last_one_layers_are_spread_evenly(
    skilled: dict[tuple[int, int], float],
) -> None:
    for layers in range(1, 10):
        uniform = [source for (source,) in layer_map("uniform", layers, 6)]
        assert importance_with(skilled).source_layers(layers) == uniform


@pytest.mark.parametrize("seed", range(5))
def test_layers_to_cut_from_are_so_many_in_order_within_the_teacher_and_end_with_its_last(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for teacher_layers in range(1, 9):
        shares = 0.4 * torch.rand(teacher_layers, HEADS, generator=generator) ** 2
        importance = Importance(shares, shares, shares)
        for layers in range(1, 12):
            sources = importance.source_layers(layers)
            assert len(sources) == layers
            assert sources == sorted(sources)
            assert sources[0] >= 1 and sources[-1] == teacher_layers
            if layers <= teacher_layers:
                assert len(set(sources)) == layers


def test_the_made_up_importance_of_other_tests_has_no_head_that_finds_the_same_word(teacher: Teacher) -> None:
    assert made_up_importance(teacher).source_layers(3) == [1, 2, 4]


# What is remembered


def counted(teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each pass of the teacher."""
    passes: list[int] = []
    forward = teacher.model.forward

    def spied(*arguments: Any, **named: Any) -> Any:
        passes.append(1)
        return forward(*arguments, **named)

    monkeypatch.setattr(teacher.model, "forward", spied)
    return passes


def test_what_a_teacher_does_on_the_same_texts_is_remembered(
    teacher: Teacher, some: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = counted(teacher, monkeypatch)
    first = importance_of(teacher, some, "mean", tmp_path)
    taken = len(passes)
    assert taken > 0
    again = importance_of(teacher, some, "mean", tmp_path)
    assert len(passes) == taken
    assert all(torch.equal(value, getattr(first, name)) for name, value in vars(again).items())
    others: list[tuple[Teacher, list[str], Mode]] = [
        (teacher, some[1:], "mean"),
        (teacher, some, "cls"),
        (dataclasses.replace(teacher, fingerprint="another"), some, "mean"),
    ]
    for other in others:
        importance_of(*other, tmp_path)
        assert len(passes) > taken
        taken = len(passes)


def test_it_is_the_same_whatever_chance_came_before_and_leaves_it_alone(
    teacher: Teacher, some: list[str], tmp_path: Path
) -> None:
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(importance_of(teacher, some, "mean", tmp_path / str(seed)))
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, getattr(found[1], name)) for name, value in vars(found[0]).items())


def test_few_teachers_are_remembered_those_used_last(
    teacher: Teacher, some: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 2)
    for fingerprint in ("a", "b", "c"):
        importance_of(dataclasses.replace(teacher, fingerprint=fingerprint), some, "mean", tmp_path)
    assert len(list((tmp_path / "importance").iterdir())) == 2
    passes = counted(teacher, monkeypatch)
    importance_of(dataclasses.replace(teacher, fingerprint="c"), some, "mean", tmp_path)
    assert passes == []


def test_no_more_than_the_first_texts_are_read_and_progress_is_told_to_the_end(
    teacher: Teacher, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TEXTS", 10)
    monkeypatch.setattr(module, "BATCH", 4)
    told: list[float] = []
    first = importance_of(teacher, texts, "mean", tmp_path, told.append)
    assert told == [0.4, 0.8, 1.0]
    assert torch.equal(importance_of(teacher, texts[:10], "mean", tmp_path / "other").heads, first.heads)


def test_an_effect_is_of_the_unit_vector_so_that_its_length_does_not_count(
    teacher: Teacher, some: list[str], tmp_path: Path
) -> None:
    model = AutoModel.from_config(teacher.model.config).eval().requires_grad_(False)
    model.load_state_dict(teacher.model.state_dict())
    for name in ("weight", "bias"):
        model.get_parameter(f"encoder.layer.3.output.LayerNorm.{name}").mul_(3)
    longer = dataclasses.replace(teacher, model=model, fingerprint="longer")
    found, expected = (importance_of(each, some, "mean", tmp_path).heads for each in (longer, teacher))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
