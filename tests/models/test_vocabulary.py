from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kdnas_core.architecture import Architecture
from kdnas_core.data.tokens import NOT_HIDDEN
from kdnas_core.distillation.trainer import ProxySet, Watcher, distil
from kdnas_core.models.student import new_student
from kdnas_core.models.targets import Targets, make_batch
from kdnas_core.models.teacher import Teacher, load_teacher
from kdnas_core.models.vocabulary import Vocabulary, only_used_words
from kdnas_core.spec import ObjectiveSpec, ProxySpec
from tests.tiny import everything_of, made_up_targets, objective_of, targets_of, teacher_of, whole_vocabulary
from tests.tiny_xlmr import made_up_texts, tiny_xlmr

SMALL = Architecture(2, 16, 32, 2)
PROXY = ProxySpec(steps=8, batch_size=4, learning_rate=5e-3)


@pytest.fixture(scope="module")
def bert(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.fixture(scope="module")
def xlmr(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    """A teacher whose padding has id 1, from which positions are counted."""
    return load_teacher(str(tiny_xlmr(tmp_path_factory.mktemp("xlmr"), made_up_texts(), steps=0)))


@pytest.fixture(params=["bert", "xlmr"])
def teacher(request: pytest.FixtureRequest) -> Teacher:
    found: Teacher = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def sets(teacher: Teacher, texts: list[str]) -> list[Targets]:
    """Target sets of few texts, which use a small part of the vocabulary; some words are hidden."""
    some = made_up_texts()["en"] if teacher.architecture.hidden_size == 64 else texts
    wanted = everything_of(teacher)
    return [
        targets_of(teacher, ["Short.", *some[:8]], 20, wanted),
        targets_of(teacher, some[9:13], 20, wanted),
    ]


def used_of(teacher: Teacher, sets: Sequence[Targets]) -> Vocabulary:
    config = teacher.model.config
    return Vocabulary.used(sets, config.vocab_size, config.pad_token_id)


def words_of(student: nn.Module) -> torch.Tensor:
    """A copy of its whole word embedding."""
    return student.get_parameter("embeddings.word_embeddings.weight").detach().clone()


def test_the_words_in_use_are_those_of_the_texts_and_the_hidden_ones_in_order(
    teacher: Teacher, sets: list[Targets]
) -> None:
    vocabulary = used_of(teacher, sets)
    pad = teacher.model.config.pad_token_id
    expected = set(range(pad + 1))
    for each in sets:
        expected |= set(each.ids.tolist()) | set(each.labels[each.labels != NOT_HIDDEN].tolist())
    assert vocabulary.rows.tolist() == sorted(expected)
    assert len(expected) < teacher.model.config.vocab_size / 2
    hidden_only = {label for each in sets for label in each.labels.tolist() if label != NOT_HIDDEN} - {
        token for each in sets for token in each.ids.tolist()
    }
    assert hidden_only  # or else nothing shows that labels are taken too


def test_numbers_lead_back_to_the_words_and_words_out_of_use_have_none(
    teacher: Teacher, sets: list[Targets]
) -> None:
    vocabulary = used_of(teacher, sets)
    assert len(vocabulary.numbers) == teacher.model.config.vocab_size
    assert vocabulary.numbers[vocabulary.rows].tolist() == list(range(len(vocabulary.rows)))
    assert (np.delete(vocabulary.numbers, vocabulary.rows) == -1).all()


def test_the_padding_keeps_its_number(teacher: Teacher, sets: list[Targets]) -> None:
    pad = teacher.model.config.pad_token_id
    assert used_of(teacher, sets).numbers[pad] == pad


def test_also_where_no_text_uses_what_comes_before_it() -> None:
    targets = made_up_targets(0, [5, 9], layers=1, width=3)
    assert {0, 1, 2, 3, 4} - set(targets.ids.tolist()) >= {0, 2}
    assert Vocabulary.used([targets], 60, pad=4).numbers[:5].tolist() == [0, 1, 2, 3, 4]


def test_texts_in_new_numbers_are_the_same_texts(teacher: Teacher, sets: list[Targets]) -> None:
    vocabulary = used_of(teacher, sets)
    before = sets[0].ids.copy(), sets[0].labels.copy()
    renumbered = vocabulary.renumbered(sets[0])
    hidden = sets[0].labels != NOT_HIDDEN
    assert hidden.any()
    assert np.array_equal(vocabulary.rows[renumbered.ids], sets[0].ids)
    assert np.array_equal(renumbered.labels != NOT_HIDDEN, hidden)
    assert np.array_equal(vocabulary.rows[renumbered.labels[hidden]], sets[0].labels[hidden])
    assert renumbered.outputs is sets[0].outputs
    assert np.array_equal(sets[0].ids, before[0]) and np.array_equal(sets[0].labels, before[1])


def test_a_student_reads_the_new_numbers_as_it_read_the_old_ones(
    teacher: Teacher, sets: list[Targets]
) -> None:
    vocabulary, pad = used_of(teacher, sets), teacher.model.config.pad_token_id
    student = new_student(teacher, SMALL, seed=0)
    old, new = (make_batch(each, range(9), pad) for each in (sets[0], vocabulary.renumbered(sets[0])))
    assert not old.mask.bool().all()
    assert not torch.equal(old.ids, new.ids)
    with torch.no_grad():
        expected = student(input_ids=old.ids, attention_mask=old.mask, output_hidden_states=True)
        with only_used_words(student, vocabulary):
            table = student.get_input_embeddings()
            assert isinstance(table, nn.Embedding)
            assert table.num_embeddings == len(vocabulary.rows)
            # without token types and positions that hang on the ids, this would not be equal
            found = student(input_ids=new.ids, attention_mask=new.mask, output_hidden_states=True)
    for one, other in zip(found.hidden_states, expected.hidden_states, strict=True):
        assert torch.equal(one, other)


def test_the_embedding_of_padding_is_not_trained(teacher: Teacher, sets: list[Targets]) -> None:
    vocabulary, pad = used_of(teacher, sets), teacher.model.config.pad_token_id
    student = new_student(teacher, SMALL, seed=0)
    with only_used_words(student, vocabulary):
        table = student.get_input_embeddings()
        assert isinstance(table, nn.Embedding)
        table(torch.tensor([pad, pad + 1])).sum().backward()
        assert table.weight.grad is not None
        assert table.weight.grad[pad].abs().sum() == 0 < table.weight.grad[pad + 1].abs().sum()


def learnt(teacher: Teacher, sets: list[Targets], vocabulary: Vocabulary) -> dict[str, torch.Tensor]:
    """All weights of a student after some steps."""
    student = new_student(teacher, SMALL, seed=0)
    spec = ObjectiveSpec.model_validate(
        {"recipe": "custom", "terms": [{"kind": "hidden"}, {"kind": "relations", "relation_heads": 4}]}
    )
    objective = objective_of(spec, SMALL, teacher, vocabulary)
    data = ProxySet(vocabulary.renumbered(sets[0]), vocabulary.renumbered(sets[1]), vocabulary)
    distil(student, objective, data, PROXY, 0, None, Watcher(lambda step: None, lambda result: None))
    return student.state_dict()


def test_a_student_learns_the_same_from_the_words_in_use_as_from_all(
    teacher: Teacher, sets: list[Targets]
) -> None:
    used, words = used_of(teacher, sets), "embeddings.word_embeddings.weight"
    before = words_of(new_student(teacher, SMALL, seed=0))
    of_used, of_all = (learnt(teacher, sets, each) for each in (used, whole_vocabulary(teacher)))
    assert of_used.keys() == of_all.keys()
    assert of_used[words].shape == before.shape
    rows = torch.from_numpy(used.rows)
    assert (of_used[words][rows] - before[rows]).abs().max() > 1e-2
    torch.testing.assert_close(of_used[words][rows], of_all[words][rows], atol=1e-6, rtol=0)
    for name in set(of_used) - {words}:
        torch.testing.assert_close(of_used[name], of_all[name], atol=1e-6, rtol=0)


def test_words_out_of_use_stay_exactly_what_they_were(teacher: Teacher, sets: list[Targets]) -> None:
    used = used_of(teacher, sets)
    before = words_of(new_student(teacher, SMALL, seed=0)).numpy()
    after = learnt(teacher, sets, used)["embeddings.word_embeddings.weight"].numpy()
    assert np.array_equal(np.delete(after, used.rows, axis=0), np.delete(before, used.rows, axis=0))


def test_what_was_learnt_is_put_back_also_where_training_ends_early(bert: Teacher, texts: list[str]) -> None:
    vocabulary = used_of(bert, [targets_of(bert, texts[:4], 20)])
    student = new_student(bert, SMALL, seed=0)
    whole, before = student.get_input_embeddings(), words_of(student)
    with pytest.raises(KeyboardInterrupt), only_used_words(student, vocabulary):
        with torch.no_grad():
            student.get_parameter("embeddings.word_embeddings.weight").add_(1.0)
        raise KeyboardInterrupt
    assert student.get_input_embeddings() is whole
    expected = before.clone()
    expected[vocabulary.rows] += 1.0
    assert torch.equal(words_of(student), expected)
