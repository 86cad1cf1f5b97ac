from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from kdnas_core.architecture import Architecture
from kdnas_core.data.tasks import Row, read_task
from kdnas_core.distillation import loop
from kdnas_core.distillation.trainer import distil
from kdnas_core.errors import BadInput
from kdnas_core.evaluation.classifier import logits_of, tokens_of
from kdnas_core.evaluation.fine_tuning import FineTuning, TrainingSet, fine_tuned
from kdnas_core.evaluation.scoring import train_tokens
from kdnas_core.files import cache_folder
from kdnas_core.models.student import new_student, read_student, save, shape_of_model, start_student
from kdnas_core.spec import DistilSpec, RunSpec, ScoreSpec, parse_spec
from kdnas_core.students import task_stage as module
from kdnas_core.students import task_teacher
from kdnas_core.students.full import FullResult
from kdnas_core.students.scores import ScoreListener, score_models
from kdnas_core.students.task_file import TASK_FILE
from kdnas_core.students.task_stage import distil_for_task
from tests.evaluation.test_classifier import count_rows, word_rows
from tests.students.test_full import Asked, Killed, Told
from tests.students.test_scores import written
from tests.tiny import made_up_importance, targets_of, teacher_of
from tests.tiny_fields import tiny_fields
from tests.tiny_runs import files_in, own_machine

SMALL = Architecture(2, 16, 32, 4)
OTHER_HEADS = Architecture(2, 16, 32, 2)
MOBILEBERT = Architecture(2, 24, 32, 4, "relu", 8, 12, 2, True)
HOW: dict[str, Any] = {"epochs": 2.0, "sequence_length": 24, "batch_size": 16, "augment": False, "copies": 3}
ROWS = 96
STEPS = 2 * ROWS // 16  # of each stage


@pytest.fixture(scope="module", autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sets a learning rate at which a tiny teacher learns to find a word."""
    folder = tmp_path_factory.mktemp("machine")
    with own_machine(folder / "own"), pytest.MonkeyPatch.context() as patch:
        for each in (module, task_teacher):
            patch.setattr(each, "FineTuning", partial(FineTuning, rates=(2e-3,)))
        yield


@pytest.fixture(scope="module")
def spec(tiny_teacher: Path, corpus_file: Path) -> RunSpec:
    return parse_spec(tiny_fields(tiny_teacher, corpus_file))


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(tmp_path_factory.mktemp("tasks") / "words", word_rows(ROWS), word_rows(40, seed=1))


@pytest.fixture(scope="module")
def start(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return begun_as(SMALL, tiny_teacher, tmp_path_factory.mktemp("start"))


@dataclass(frozen=True)
class Whole:
    """An uninterrupted distillation, the calls of its listener, and the files that its start had before."""

    result: FullResult
    folder: Path
    told: Told
    before: dict[str, bytes]


@pytest.fixture(scope="module")
def whole(spec: RunSpec, words: str, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder, told, before = tmp_path_factory.mktemp("whole"), Told(), files_in(start)
    return Whole(taught(spec, words, start, folder, told), folder, told, before)


def begun_as(architecture: Architecture, teacher: Path, folder: Path) -> Path:
    save(new_student(teacher_of(teacher), architecture, seed=1), teacher_of(teacher).tokenizer, folder)
    return folder


def taught(
    spec: RunSpec, task: str, start: Path, folder: Path, told: Told | None = None, **how: Any
) -> FullResult:
    settings = DistilSpec(**{**HOW, "task": task, **how})
    return distil_for_task(spec, settings, start, folder, (told or Told()).listener)


def accuracy(folder: Path, task: str) -> float:
    """Returns the accuracy of a stock model from a folder, on the scored split."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = read_task(task, folder).splits["validation"]
    right = 0
    for row in rows:
        with torch.no_grad():
            logits = model(**tokenizer(row.first, row.second, return_tensors="pt")).logits
        right += int(logits[0].argmax()) == row.label
    return right / len(rows)


# What is learnt


@pytest.mark.slow
def test_a_student_learns_a_task_and_is_left_as_stock_transformers_loads_it(
    spec: RunSpec,
    tiny_teacher: Path,
    texts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FineTuning", partial(FineTuning, rates=(2e-3,), epochs=10))
    task = written(tmp_path / "words", word_rows(160), word_rows(60, seed=1))
    teacher = teacher_of(tiny_teacher)
    shape = Architecture(3, 24, 48, 4)
    targets = targets_of(teacher, texts[:60])
    cut, _ = start_student(teacher, shape, targets, 0, made_up_importance(teacher))
    save(cut, teacher.tokenizer, tmp_path / "start")
    told = Told()
    result = taught(spec, task, tmp_path / "start", tmp_path / "student", told, epochs=8)
    assert accuracy(tmp_path / "student", task) > 0.7
    assert result.loss < math.log(2)
    first, last = told.held_out[0][1], told.held_out[-1][1]
    assert first.keys() == {"embedding", "attention", "hidden"}
    assert all(sum(last[term].values()) < sum(first[term].values()) for term in ("attention", "hidden"))
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student").config
    assert (config.num_hidden_layers, config.hidden_size, config.id2label) == (3, 24, {0: "0", 1: "1"})


def test_pairs_are_learnt_in_both_stages_with_what_tells_their_sentences_apart(
    spec: RunSpec, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told_types: list[bool] = []

    def distilled(student: Any, objective: Any, data: Any, *rest: Any) -> Any:
        told_types.append(data.learnt.types is not None)
        return distil(student, objective, data, *rest)

    def tuned(encoder: Any, training_set: TrainingSet, *rest: Any) -> Any:
        told_types.append(training_set.rows.types is not None)
        return fine_tuned(encoder, training_set, *rest)

    monkeypatch.setattr(module, "distil", distilled)
    for each in (module, task_teacher):
        monkeypatch.setattr(each, "fine_tuned", tuned)
    task = written(tmp_path / "pairs", word_rows(32, pairs=True), word_rows(8, pairs=True, seed=1))
    taught(spec, task, start, tmp_path / "student", epochs=1)
    assert told_types == [True] * 3  # the teacher, and the student twice
    assert 0 <= accuracy(tmp_path / "student", task) <= 1


@pytest.mark.slow
def test_scores_are_learnt_too(spec: RunSpec, start: Path, tmp_path: Path) -> None:
    task = written(tmp_path / "counts", count_rows(ROWS), count_rows(20, seed=1))
    result = taught(spec, task, start, tmp_path / "student", epochs=6)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student").eval()
    rows = read_task(task, tmp_path).splits["validation"]
    scores = logits_of(model, tokens_of(rows, teacher_of(Path(spec.teacher)).tokenizer, 24))[:, 0]
    assert abs(scores.mean() - np.mean([row.label for row in rows])) < 20
    assert result.loss < np.var([row.label for row in rows])


def test_nothing_but_the_student_is_left_on_the_disk(
    words: str, start: Path, whole: Whole, tmp_path: Path
) -> None:
    assert set(files_in(whole.folder)) == {*files_in(start), TASK_FILE}
    assert files_in(start) == whole.before
    kept = json.loads((whole.folder / TASK_FILE).read_text())
    assert kept == {"task": words, "fingerprint": read_task(words, tmp_path).fingerprint}


def test_its_loss_is_how_far_it_is_from_the_fine_tuned_teacher_on_rows_not_learnt(
    spec: RunSpec, words: str, whole: Whole, tmp_path: Path
) -> None:
    teacher, task = teacher_of(Path(spec.teacher)), read_task(words, tmp_path)
    classifier = task_teacher.fine_tuned_teacher(teacher, task, lambda: None, lambda said: None)
    tokens = tokens_of(task.splits["validation"], teacher.tokenizer, 64)
    pupil = AutoModelForSequenceClassification.from_pretrained(whole.folder)
    mine, theirs = (logits_of(model, tokens).astype(float) for model in (pupil, classifier))
    shares, own = (np.exp(each) / np.exp(each).sum(1, keepdims=True) for each in (theirs, mine))
    assert whole.result.loss == pytest.approx(-(shares * np.log(own)).sum(1).mean(), rel=1e-4)
    assert whole.result.languages == {}


def test_the_second_stage_learns_what_the_fine_tuned_teacher_says_to_each_row(
    spec: RunSpec, words: str, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[TrainingSet, PreTrainedModel]] = []
    shutil.rmtree(cache_folder() / "task-teachers", ignore_errors=True)

    def spied(encoder: Any, training_set: TrainingSet, *rest: Any) -> PreTrainedModel:
        given.append((training_set, fine_tuned(encoder, training_set, *rest)))
        return given[-1][1]

    for each in (module, task_teacher):
        monkeypatch.setattr(each, "fine_tuned", spied)
    taught(spec, words, start, tmp_path / "student", epochs=0.2)
    (data, teacher), (soft, pupil) = given
    for model, share in ((teacher, 0.1), (pupil, 0.0)):  # the teacher's own, and none
        assert {each.p for each in model.modules() if isinstance(each, torch.nn.Dropout)} == {share}
    task = read_task(words, tmp_path)
    tokenizer = teacher_of(Path(spec.teacher)).tokenizer
    assert data.soft is None
    assert [ids.tolist() for ids in data.rows.ids] == [
        ids.tolist() for ids in train_tokens(tokenizer, task, FineTuning()).ids
    ]
    assert [ids.tolist() for ids in soft.rows.ids] == [
        tokenizer(row.first)["input_ids"] for row in task.splits["train"]
    ]
    assert soft.soft is not None
    np.testing.assert_allclose(soft.soft, logits_of(teacher, soft.rows), rtol=1e-5)
    assert soft.soft.std(axis=0).min() > 0


@pytest.mark.slow
def test_the_teacher_is_fine_tuned_once_for_all_students_of_a_task(
    spec: RunSpec, words: str, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any) -> PreTrainedModel:
        raise AssertionError("the teacher was fine-tuned again")

    first = taught(spec, words, start, tmp_path / "first")
    monkeypatch.setattr(task_teacher, "fine_tuned", never)
    assert taught(spec, words, start, tmp_path / "second").loss == pytest.approx(first.loss, abs=1e-6)


def test_few_fine_tuned_teachers_are_kept(
    spec: RunSpec, words: str, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_teacher, "KEPT", 1)
    taught(spec, words, start, tmp_path / "first", epochs=0.2)
    other = written(tmp_path / "others", word_rows(40, seed=5), word_rows(8, seed=6))
    taught(spec, other, start, tmp_path / "second", epochs=0.2)
    assert len(list((cache_folder() / "task-teachers").iterdir())) == 1


@pytest.mark.slow
def test_a_student_of_a_task_is_scored_on_it_as_it_is(
    spec: RunSpec, words: str, whole: Whole, tmp_path: Path
) -> None:
    told: list[tuple[str, Any]] = []
    listener = ScoreListener(
        lambda: None, lambda said: None, lambda step, of: None, lambda *score: told.append(score)
    )
    other = written(tmp_path / "others", word_rows(64, seed=5), word_rows(20, seed=6))
    score_models(spec, ScoreSpec(tasks=[words, other], seeds=2), whole.folder, listener)
    of_student = [score for subject, score in told if subject == "student"]
    assert [len(score.seeds) for score in of_student] == [1, 2]  # the other is fine-tuned for
    assert of_student[0].rate is None
    assert of_student[0].mean("accuracy") == accuracy(whole.folder, words)


def test_a_loss_term_can_be_left_out(
    spec: RunSpec, words: str, start: Path, whole: Whole, tmp_path: Path
) -> None:
    told, all_terms = Told(), {"embedding", "attention", "hidden"}
    how = DistilSpec(task=words, **{**HOW, "epochs": 0.2})
    distil_for_task(spec, how, start, tmp_path / "student", told.listener, ["attention"])
    assert told.held_out[0][1].keys() & all_terms == {"embedding", "hidden"}
    assert whole.told.held_out[0][1].keys() & all_terms == all_terms


# Steps


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "steps"), [({}, STEPS), ({"batch_size": 8}, 24), ({"epochs": 0.5}, 3), ({"batch_size": 32}, 6)]
)
def test_the_rows_are_read_as_often_as_there_are_epochs_in_each_of_both_stages(
    how: dict[str, Any], steps: int, spec: RunSpec, words: str, start: Path, tmp_path: Path
) -> None:
    told = Told()
    taught(spec, words, start, tmp_path / "student", told, **how)
    assert told.steps_in_all == [2 * steps]
    assert told.steps == list(range(1, 2 * steps + 1))


def test_other_processes_get_the_device_on_the_way(
    spec: RunSpec, words: str, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("kdnas_core.hardware.TURN_S", -1.0)
    monkeypatch.setattr("kdnas_core.hardware.time.sleep", pauses.append)
    taught(spec, words, start, tmp_path / "student", epochs=0.5)
    assert len(pauses) >= 2 * STEPS / 4


# Where it was ended


def ends_once(call: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a function so that its first call ends as by a signal, after it is done."""
    ended: list[bool] = []

    def ending(*given: Any, **named: Any) -> Any:
        found = call(*given, **named)
        if not ended:
            ended.append(True)
            raise Killed
        return found

    return ending


def assert_goes_on(spec: RunSpec, words: str, start: Path, tmp_path: Path, whole: Whole, first: int) -> None:
    told = Told()
    result = taught(spec, words, start, tmp_path / "ended", told)
    assert result.loss == pytest.approx(whole.result.loss, abs=1e-4)
    assert told.steps == list(range(first, 2 * STEPS + 1))
    assert set(files_in(tmp_path / "ended")) == set(files_in(whole.folder))


@pytest.mark.parametrize(
    ("moment", "error", "kept"),
    [
        (8, Asked, 8),
        (STEPS, Killed, STEPS),  # the first stage is over, and its student not yet written
        (STEPS + 8, Killed, STEPS + 5),
    ],
)
def test_a_distillation_that_was_ended_in_either_stage_goes_on_to_the_same_student(
    moment: int,
    error: type[BaseException],
    kept: int,
    spec: RunSpec,
    words: str,
    start: Path,
    whole: Whole,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_STEPS", 5)
    with pytest.raises(error):
        taught(spec, words, start, tmp_path / "ended", Told(stop_at=moment, error=error))
    assert_goes_on(spec, words, start, tmp_path, whole, kept + 1)


def test_it_goes_on_where_it_was_ended_between_the_stages(
    spec: RunSpec, words: str, start: Path, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "_intermediate", ends_once(module._intermediate))
        with pytest.raises(Killed):
            taught(spec, words, start, tmp_path / "ended")
    assert_goes_on(spec, words, start, tmp_path, whole, STEPS + 1)


def test_it_goes_on_where_it_was_ended_while_the_student_was_written(
    spec: RunSpec, words: str, start: Path, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def half(student: Any, tokenizer: Any, folder: Path) -> None:
        student.config.save_pretrained(folder)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, "save", half)
        with pytest.raises(Killed):
            taught(spec, words, start, tmp_path / "ended")
    assert_goes_on(spec, words, start, tmp_path, whole, 2 * STEPS + 1)


def test_it_goes_on_where_it_was_ended_while_it_tidied_up(
    spec: RunSpec, words: str, start: Path, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", ends_once(Path.unlink))
        with pytest.raises(Killed):
            taught(spec, words, start, tmp_path / "ended")
    assert (tmp_path / "ended" / TASK_FILE).is_file()  # what was learnt is whole
    assert accuracy(tmp_path / "ended", words) == accuracy(whole.folder, words)
    result = taught(spec, words, start, tmp_path / "ended")
    assert result.loss == pytest.approx(whole.result.loss, abs=1e-4)
    assert set(files_in(tmp_path / "ended")) == set(files_in(whole.folder))


# Variants


def test_each_row_is_followed_by_its_variants_with_its_label(
    spec: RunSpec, words: str, tmp_path: Path
) -> None:
    task, told = read_task(words, tmp_path), Told()
    how = DistilSpec(**{**HOW, "task": words, "augment": True})
    rows = module.augmented(task, teacher_of(Path(spec.teacher)), how, told.listener)
    originals = iter([*task.splits["train"], Row("", None, -1.0)])
    current, coming, variants = Row("", None, -1.0), next(originals), [0]
    for row in rows:
        if row == coming:
            current, coming, variants = coming, next(originals), [*variants, 0]
            continue
        assert row.label == current.label
        assert row.second is None
        assert sum(a == b for a, b in zip(row.first.split(), current.first.split(), strict=False)) > 0
        variants[-1] += 1
    assert coming.label == -1.0  # all rows came, in their order
    assert max(variants) <= 3
    assert np.mean(variants) > 2
    assert any(said.startswith("augmenting the rows of words: 100%") for said in told.said)


def test_of_a_pair_both_sentences_are_varied(spec: RunSpec, tmp_path: Path) -> None:
    source = written(tmp_path / "pairs", word_rows(16, pairs=True), word_rows(8, pairs=True))
    task = read_task(source, tmp_path)
    how = DistilSpec(**{**HOW, "task": source, "augment": True})
    rows = module.augmented(task, teacher_of(Path(spec.teacher)), how, Told().listener)
    given = {row.first for row in task.splits["train"]}, {row.second for row in task.splits["train"]}
    assert {row.first for row in rows} - given[0]
    assert {row.second for row in rows} - given[1]
    assert all(row.second is not None for row in rows)


def test_a_student_is_taught_on_the_variants_too_and_a_teacher_without_a_masked_lm_head_is_noted(
    spec: RunSpec, words: str, start: Path, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[list[Row]] = []
    augmented = module.augmented

    def spied(*given: Any) -> list[Row]:
        made.append(augmented(*given))
        return made[-1]

    monkeypatch.setattr(module, "augmented", spied)
    learnt: list[int] = []

    def tuned(encoder: Any, data: TrainingSet, *rest: Any) -> Any:
        learnt.append(len(data.rows))
        return fine_tuned(encoder, data, *rest)

    monkeypatch.setattr(module, "fine_tuned", tuned)
    told = Told()
    taught(spec, words, start, tmp_path / "student", told, augment=True, epochs=0.25)
    assert len(made[0]) > 2 * ROWS
    assert told.steps_in_all == [2 * math.ceil(len(made[0]) / 4 / 16)]
    assert learnt == [len(made[0])]
    (note,) = notes_of(told)
    assert "no masked-LM head" in note
    assert "nearest neighbours in its own embeddings" in note
    assert notes_of(whole.told) == []


# Notes


def notes_of(told: Told) -> Sequence[str]:
    return [note for notes in told.notes for note in notes]


def test_a_teacher_with_a_masked_lm_head_predicts_the_variants(
    tiny_spec: dict[str, Any], words: str, tiny_teacher: Path, tmp_path: Path
) -> None:
    teacher = teacher_of(tiny_teacher)
    save(AutoModelForMaskedLM.from_config(teacher.model.config), teacher.tokenizer, tmp_path / "predicting")
    spec, told = parse_spec({**tiny_spec, "teacher": str(tmp_path / "predicting")}), Told()
    start = begun_as(SMALL, tmp_path / "predicting", tmp_path / "start")
    taught(spec, words, start, tmp_path / "student", told, augment=True, epochs=0.05)
    assert notes_of(told) == []


@pytest.mark.parametrize("architecture", [OTHER_HEADS, MOBILEBERT])
def test_attention_is_left_out_where_the_heads_are_not_as_many(
    architecture: Architecture, spec: RunSpec, words: str, tiny_teacher: Path, tmp_path: Path
) -> None:
    start = begun_as(architecture, tiny_teacher, tmp_path / "start")
    assert shape_of_model(read_student(start)) == architecture
    told = Told()
    taught(spec, words, start, tmp_path / "student", told, epochs=0.2)
    same = architecture.attention_heads == 4
    assert len(notes_of(told)) == (0 if same else 1)
    assert all("attention loss is left out" in note for note in notes_of(told))
    assert ("attention" in told.held_out[0][1]) == same
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "student").config.num_labels == 2


def test_a_task_that_cannot_be_read_is_refused_and_nothing_is_written(
    spec: RunSpec, start: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInput):
        taught(spec, "/nowhere/at/all", start, tmp_path / "student")
    assert not (tmp_path / "student").exists()
