from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kdnas_core.architecture import Architecture
from kdnas_core.data.tokens import NOT_HIDDEN, Passage
from kdnas_core.distillation.objective import Objective
from kdnas_core.distillation.plan import RELATED
from kdnas_core.distillation.trainer import HeldOut, ProxySet, Watcher, distil
from kdnas_core.files import cache_folder
from kdnas_core.models.kept_outputs import KeptOutputs
from kdnas_core.models.student import new_student
from kdnas_core.models.targets import Output, Targets, Texts, make_batch, tokenised
from kdnas_core.models.teacher import Teacher
from kdnas_core.models.teacher_outputs import NeededOutputs, OnlineTargets, teacher_targets
from kdnas_core.models.vocabulary import Vocabulary
from kdnas_core.spec import ObjectiveSpec, ProxySpec
from tests.tiny import HIDDEN_STATES, everything_of, objective_of, teacher_of
from tests.tiny_families import DISTINCT, family_teacher

LENGTH = 24
SMALL = Architecture(2, 16, 32, 4)
TERMS = [{"kind": "attention"}, {"kind": "masked_lm"}, {"kind": "hidden"}]


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.fixture
def passes(teacher: Teacher) -> Iterator[list[int]]:
    """The size of each batch that the teacher is given."""
    sizes: list[int] = []
    hook = teacher.model.register_forward_hook(
        lambda _, __, output: sizes.append(len(output.last_hidden_state))
    )
    yield sizes
    hook.remove()


def passages_of(kind: str, texts: Sequence[str]) -> list[Passage]:
    if kind == "texts":
        return [*texts[:20], "Short."]
    return [("Short.", texts[0]), *zip(texts[:20], texts[20:40], strict=True)]


def both(
    teacher: Teacher, passages: Sequence[Passage], wanted: NeededOutputs = HIDDEN_STATES
) -> tuple[Targets, OnlineTargets]:
    """The same texts, stored and online."""
    stored = teacher_targets(teacher, passages, LENGTH, None, cache_folder(), wanted=wanted)
    encoded = tokenised(teacher, passages, LENGTH, wanted.hidden_words)
    hidden: list[Output] = [("hidden", layer) for layer in range(teacher.layers + 1)]
    return stored, OnlineTargets.of(teacher, encoded, stored.variance, None, [*hidden, *wanted.projections])


def assert_same(computed: torch.Tensor, expected: torch.Tensor) -> None:
    """Compares within half precision."""
    torch.testing.assert_close(computed, expected, rtol=2e-3, atol=4e-3)


def assert_same_outputs(
    one: Texts, other: Texts, wanted: NeededOutputs, layers: int, chosen: list[int]
) -> None:
    batches = [make_batch(texts, chosen, pad=0) for texts in (one, other)]
    hidden: list[Output] = [("hidden", layer) for layer in range(layers + 1)]
    for output in [*hidden, *wanted.projections]:
        stored, computed = (batch.teacher(*output) for batch in batches)
        assert computed.dtype == torch.float32
        assert_same(computed, stored)


@pytest.mark.parametrize("kind", ["texts", "pairs"])
def test_a_batch_has_the_outputs_that_are_stored_of_its_texts(
    kind: str, teacher: Teacher, texts: list[str]
) -> None:
    wanted = everything_of(teacher)
    stored, online = both(teacher, passages_of(kind, texts), wanted)
    assert (online.types is None) == (kind == "texts")
    assert (len(online), online.width) == (21, 32)
    assert np.array_equal(online.lengths, stored.lengths)
    assert_same_outputs(stored, online, wanted, teacher.layers, [3, 0, 20, 7])


@pytest.mark.parametrize("family", DISTINCT)
def test_every_family_computes_what_is_stored_of_its_pairs(
    family: str, teacher: Teacher, texts: list[str]
) -> None:
    other = family_teacher(teacher, family)
    wanted = NeededOutputs([(kind, 2) for kind in RELATED])
    stored, online = both(other, passages_of("pairs", texts)[:5], wanted)
    assert_same_outputs(stored, online, wanted, other.layers, [4, 0])


@pytest.mark.parametrize("kind", ["texts", "pairs"])
def test_the_teacher_reads_its_own_numbers_whatever_the_students_are(
    kind: str, teacher: Teacher, texts: list[str]
) -> None:
    wanted = everything_of(teacher)
    stored, online = both(teacher, passages_of(kind, texts), wanted)
    vocabulary = Vocabulary.used([stored], teacher.model.config.vocab_size, 0)
    renumbered = vocabulary.renumbered(online)
    assert not np.array_equal(renumbered.ids, online.ids)
    assert np.array_equal(vocabulary.rows[renumbered.ids], online.ids)
    batches = [make_batch(each, [5, 2], pad=0) for each in (vocabulary.renumbered(stored), renumbered)]
    for field in ("ids", "mask", "labels"):
        assert torch.equal(*(getattr(batch, field) for batch in batches))
    assert_same_outputs(stored, renumbered, wanted, teacher.layers, [5, 2])


def test_padding_changes_nothing(teacher: Teacher, texts: list[str]) -> None:
    wanted = everything_of(teacher)
    _, online = both(teacher, passages_of("texts", texts), wanted)
    short = int(online.lengths.argmin())
    long = int(online.lengths.argmax())
    assert online.lengths[long] > 2 * online.lengths[short]
    alone, beside = make_batch(online, [short], 0), make_batch(online, [long, short], 0)
    outputs: list[Output] = [("hidden", 4), *wanted.projections]
    for output in outputs:
        own = alone.teacher(*output)
        assert_same(beside.teacher(*output)[-len(own) :], own)


def test_all_that_is_asked_of_a_batch_is_one_pass_and_none_before(
    teacher: Teacher, texts: list[str], passes: list[int]
) -> None:
    _, online = both(teacher, texts[:9], everything_of(teacher))
    passes.clear()
    batch = make_batch(online, [1, 2, 3], 0)
    assert passes == []
    for layer in range(1, 5):
        batch.teacher("hidden", layer)
        batch.teacher("query", layer)
    assert passes == [3]
    make_batch(online, [4], 0).teacher("hidden", 4)
    assert passes == [3, 1]


def test_what_was_not_wanted_is_not_kept(teacher: Teacher, texts: list[str]) -> None:
    _, online = both(teacher, texts[:3], NeededOutputs([("value", 2)]))
    batch = make_batch(online, [0], 0)
    assert batch.teacher("value", 2).shape[1] == 32
    with pytest.raises(KeyError):
        batch.teacher("query", 2)


def test_outputs_that_are_kept_are_computed_once_whoever_else_is_in_the_batch(
    teacher: Teacher, texts: list[str], passes: list[int], tmp_path: Path
) -> None:
    _, online = both(teacher, texts[:6])
    outputs: list[Output] = [("hidden", 2), ("hidden", 4)]
    kept = KeptOutputs(tmp_path, outputs, online.offsets, 32)
    remembering = replace(online, wanted=frozenset(outputs), kept=kept)
    passes.clear()
    first = [make_batch(remembering, chosen, 0).teacher("hidden", 2) for chosen in ([0, 1, 2], [3, 4, 5])]
    assert passes == [3, 3]
    assert_same(torch.cat(first), make_batch(online, range(6), 0).teacher("hidden", 2))
    passes.clear()
    again = make_batch(remembering, [5, 0], 0).teacher("hidden", 2)
    assert passes == []
    assert torch.equal(again[-len(again) + int(online.lengths[5]) :], first[0][: int(online.lengths[0])])


def test_words_that_are_masked_anew_are_computed_anew(
    teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    _, online = both(teacher, texts[:6], everything_of(teacher))
    remembering = replace(online, kept=KeptOutputs(tmp_path, [("hidden", 4)], online.offsets, 32))
    assert remembering.in_pass(1).kept is None


def test_the_teacher_learns_nothing_and_what_it_says_can_be_learnt_from(
    teacher: Teacher, texts: list[str]
) -> None:
    trainable = family_teacher(teacher, "bert")
    trainable.model.requires_grad_(True)  # as one that was fine-tuned just now
    _, online = both(trainable, texts[:5])
    said = make_batch(online, [0, 1], 0).teacher("hidden", 4)
    weight = torch.ones(32, requires_grad=True)
    (said * weight).square().mean().backward()
    assert weight.grad is not None
    assert not said.requires_grad
    assert not trainable.model.training
    assert all(parameter.grad is None for parameter in trainable.model.parameters())
    assert not trainable.model.get_submodule("encoder.layer.0.attention.self.query")._forward_hooks


def test_outputs_are_computed_in_bfloat16_where_that_is_asked_for(teacher: Teacher, texts: list[str]) -> None:
    _, online = both(teacher, texts[:5])
    coarse = replace(online, autocast=torch.bfloat16)
    exact, other = (make_batch(each, [0, 1], 0).teacher("hidden", 4) for each in (online, coarse))
    assert not torch.equal(exact, other)
    torch.testing.assert_close(other, exact, rtol=0.1, atol=0.3)


def learnt(teacher: Teacher, data: ProxySet) -> tuple[HeldOut, dict[str, torch.Tensor]]:
    spec = ObjectiveSpec.model_validate({"recipe": "custom", "terms": TERMS})
    student = new_student(teacher, SMALL, seed=0)
    objective: Objective = objective_of(spec, SMALL, teacher, data.vocabulary)
    # one pass: in the next the full corpus has other words hidden
    proxy = ProxySpec(steps=min(24, len(data.learnt)), batch_size=1, learning_rate=5e-3)
    watcher = Watcher(step=lambda step: None, held_out=lambda result: None)
    return distil(student, objective, data, proxy, 0, None, watcher), student.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["texts", "pairs"])
def test_a_student_learns_the_same_from_both(kind: str, teacher: Teacher, texts: list[str]) -> None:
    wanted = everything_of(teacher)
    stored, online = both(teacher, passages_of(kind, texts[:40]), wanted)
    held_out, _ = both(teacher, passages_of(kind, texts[50:90]), wanted)
    config = teacher.model.config
    expected, weights = learnt(teacher, ProxySet.of(stored, held_out, config))
    result, own = learnt(teacher, ProxySet.of(stored, held_out, config, full=online))
    for term, places in expected.terms.items():
        assert result.terms[term] == pytest.approx(places, rel=1e-2)
    for name, weight in weights.items():
        torch.testing.assert_close(own[name], weight, rtol=0, atol=2e-3)


@pytest.mark.slow
def test_what_is_learnt_is_the_whole_corpus_and_not_its_sample(teacher: Teacher, texts: list[str]) -> None:
    wanted = everything_of(teacher)
    sample, _ = both(teacher, texts[:20], wanted)
    held_out, online = both(teacher, texts[20:60], wanted)
    data = ProxySet.of(sample, held_out, teacher.model.config, full=online)
    assert data.learnt is data.full
    assert len(data.learnt) == 40
    assert learnt(teacher, data)[0] != learnt(teacher, replace(data, full=None))[0]


def test_each_pass_hides_other_words_from_teacher_and_student_alike(
    teacher: Teacher, texts: list[str]
) -> None:
    stored, online = both(teacher, texts[:40], everything_of(teacher))
    vocabulary = Vocabulary.used([stored], teacher.model.config.vocab_size, 0)
    student = vocabulary.renumbered(online)
    passes = [student.in_pass(number) for number in range(3)]
    assert passes[0] is student
    assert np.array_equal(passes[1].ids, student.in_pass(1).ids)
    hidden = [some.labels != NOT_HIDDEN for some in passes]
    assert (hidden[0] & hidden[1]).sum() < 0.5 * hidden[0].sum()
    assert not np.array_equal(hidden[1], hidden[2])
    for some in passes:
        assert np.array_equal(vocabulary.rows[some.ids], some.teacher_ids)
        known = some.labels != NOT_HIDDEN
        assert np.array_equal(vocabulary.rows[some.labels[known]], online.whole_ids[known])
    plain = teacher.tokenizer(texts[:40], truncation=True, max_length=LENGTH)["input_ids"]
    assert online.whole_ids.tolist() == [token for text in plain for token in text]


def test_texts_with_no_word_hidden_are_the_same_in_each_pass(teacher: Teacher, texts: list[str]) -> None:
    stored, online = both(teacher, texts[:10])
    assert online.in_pass(3) is online
    assert stored.in_pass(3) is stored
