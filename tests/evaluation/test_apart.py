from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from kdnas_core import files
from kdnas_core.data.tasks import Row, Task
from kdnas_core.evaluation.classifier import ANGLE, Apart, Tokens, logits_of, new_classifier, tokens_of
from kdnas_core.evaluation.fine_tuning import FineTuning, TrainingSet, fine_tuned
from kdnas_core.evaluation.scoring import Scored, ScoringListener, score_on
from kdnas_core.models.teacher import Teacher
from tests.evaluation.test_classifier import KINDS, count_task, encoder_of, word_rows, word_task
from tests.tiny import teacher_of

HOW = FineTuning(rates=(2e-3,), batch_size=16, sequence_length=32)
SILENT = ScoringListener(lambda: None, lambda activity, step, steps: None)


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


def pairs_of_texts(texts: list[str]) -> list[Row]:
    return [Row(one, other, 0.0) for one, other in zip(texts[:9], texts[9:18], strict=True)]


def vector(model: PreTrainedModel, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean of the last hidden states of one sentence alone, of length 1, in float64."""
    with torch.inference_mode():
        states = model.double()(input_ids=torch.from_numpy(ids)[None]).last_hidden_state[0]
    mean: NDArray[np.float64] = states.numpy().mean(0)
    return mean / np.sqrt((mean * mean).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_said_of_a_pair_follows_from_the_vectors_of_its_sentences_alone(
    kind: str, teacher: Teacher, texts: list[str]
) -> None:
    encoder = encoder_of(kind, teacher)
    tokens = tokens_of(pairs_of_texts(texts), teacher.tokenizer, 24, reads_apart=True)
    model = new_classifier(encoder, word_task(classes=3, pairs=True), seed=3, reads_apart=True)
    assert isinstance(model, Apart)
    logits = logits_of(model, tokens)
    weight, bias = (part.detach().double().numpy() for part in (model.head.weight, model.head.bias))
    assert tokens.seconds is not None
    for row, (first, second) in enumerate(zip(tokens.ids, tokens.seconds, strict=True)):
        u, v = vector(encoder, first), vector(encoder, second)
        features = np.concatenate([u, v, abs(u - v), u * v]) * np.sqrt(len(u))
        wanted = weight @ np.append(features, ANGLE * (u @ v)) + bias
        np.testing.assert_allclose(logits[row], wanted, atol=2e-5)


def test_each_sentence_of_a_pair_is_cut_by_itself(teacher: Teacher) -> None:
    long, short = " ".join(["value"] * 50), "value"
    (row,) = [Row(long, short, 1.0)]
    tokens = tokens_of([row], teacher.tokenizer, 16, reads_apart=True)
    assert tokens.seconds is not None
    alone = teacher.tokenizer([long, short], truncation=True, max_length=16)["input_ids"]
    assert [tokens.ids[0].tolist(), tokens.seconds[0].tolist()] == alone
    assert tokens.lengths[0] == 16 + len(alone[1])
    assert tokens.types is None


def test_what_is_taken_of_rows_read_apart_keeps_both_sentences_of_each(teacher: Teacher) -> None:
    tokens = tokens_of(word_rows(6, pairs=True), teacher.tokenizer, 32, reads_apart=True)
    some = tokens.only([4, 1])
    assert tokens.seconds is not None
    assert some.seconds is not None
    for index, row in enumerate([4, 1]):
        assert np.array_equal(some.ids[index], tokens.ids[row])
        assert np.array_equal(some.seconds[index], tokens.seconds[row])
    assert sorted(tokens.words()) == sorted(np.concatenate([*tokens.ids, *tokens.seconds]))
    doubled = tokens.renumbered(np.arange(teacher.model.config.vocab_size) * 2)
    assert doubled.seconds is not None
    assert np.array_equal(doubled.seconds[3], 2 * tokens.seconds[3])


def test_batches_of_rows_read_apart_go_by_the_length_of_both_sentences() -> None:
    one, many = np.zeros(2, dtype=np.int64), np.zeros(30, dtype=np.int64)
    tokens = Tokens([many, one, one], None, np.zeros(3), [one, many, one])
    assert tokens.lengths.argmin() == 2


def test_the_encoder_that_is_scored_is_left_as_it_was(teacher: Teacher) -> None:
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    data = _training_set(word_task(pairs=True), teacher)
    model = fine_tuned(teacher.model, data, HOW, 2e-3, 0, None, steps=3)
    assert all(torch.equal(value, before[name]) for name, value in teacher.model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert isinstance(model, Apart)
    moved = model.encoder.state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in moved.items())


def test_scores_are_learnt_in_their_own_units(teacher: Teacher) -> None:
    task = count_task()
    model = fine_tuned(teacher.model, _training_set(task, teacher), HOW, 2e-3, 0, None, steps=15)
    rows = task.splits["validation"]
    said = logits_of(model, tokens_of(rows, teacher.tokenizer, 32, reads_apart=True))[:, 0]
    labels = np.array([row.label for row in rows])
    assert abs(said.mean() - labels.mean()) < labels.std()


@pytest.mark.slow
def test_a_task_of_words_in_the_second_sentence_is_learnt(teacher: Teacher) -> None:
    task = word_task(pairs=True)
    model = fine_tuned(teacher.model, _training_set(task, teacher), HOW, 2e-3, 0, None, steps=80)
    tokens = tokens_of(task.splits["validation"], teacher.tokenizer, 32, reads_apart=True)
    assert (logits_of(model, tokens).argmax(1) == tokens.labels).mean() > 0.8


def test_the_name_of_a_task_says_that_its_pairs_were_read_apart_and_scores_are_not_mixed(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDNAS_CACHE", str(tmp_path))
    model = Scored(teacher.model, teacher.tokenizer, teacher.fingerprint)
    task = word_task(train=32, scored=16, pairs=True)
    names = [score_on(model, task, HOW, [0], None, SILENT, apart).task for apart in (False, True)]
    assert names == ["words", "words (apart)"]
    assert len(list((files.cache_folder() / "scores").iterdir())) == 2


def test_a_task_of_single_sentences_is_read_as_ever(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDNAS_CACHE", str(tmp_path))
    model = Scored(teacher.model, teacher.tokenizer, teacher.fingerprint)
    task = word_task(train=32, scored=16)
    scores = [score_on(model, task, HOW, [0], None, SILENT, apart) for apart in (False, True)]
    assert scores[0] == scores[1]
    assert scores[0].task == "words"


def _training_set(task: Task, teacher: Teacher) -> TrainingSet:
    return TrainingSet(task, tokens_of(task.splits["train"], teacher.tokenizer, 32, reads_apart=True))
