from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from kdnas_core.data.tasks import Row, Task
from kdnas_core.distillation import loop
from kdnas_core.distillation.loop import Diverged, Loop
from kdnas_core.errors import BadInput
from kdnas_core.evaluation import fine_tuning as module
from kdnas_core.evaluation.classifier import logits_of, new_classifier, predictions, tokens_of
from kdnas_core.evaluation.fine_tuning import FineTuning, TrainingSet, best_rate, fine_tuned
from kdnas_core.models.teacher import Teacher
from kdnas_core.models.vocabulary import Vocabulary
from tests.evaluation.test_classifier import (
    KINDS,
    count_rows,
    count_task,
    encoder_of,
    same_weights,
    word_task,
)
from tests.tiny import teacher_of

HOW = FineTuning(batch_size=16, sequence_length=32)
RATE = 1.5e-3
STEPS = 60


class Killed(BaseException):
    """Ends the process as a signal does; no code may catch it."""


class Asked(Exception):
    """Ends the work as a user's pause does."""


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


def training_set_of(task: Task, teacher: Teacher, soft: NDArray[np.float32] | None = None) -> TrainingSet:
    return TrainingSet(task, tokens_of(task.splits["train"], teacher.tokenizer, 32), soft)


def tuned(
    teacher: Teacher, data: TrainingSet, steps: int = STEPS, seed: int = 0, **others: Any
) -> PreTrainedModel:
    return fine_tuned(teacher.model, data, HOW, RATE, seed, None, steps=steps, **others)


def predicted(model: PreTrainedModel, task: Task, teacher: Teacher) -> NDArray[np.float64]:
    tokens = tokens_of(task.splits["validation"], teacher.tokenizer, 32)
    return np.array(predictions(logits_of(model, tokens), task))


def labels_of(task: Task) -> NDArray[np.float64]:
    return np.array([row.label for row in task.splits["validation"]])


def opinions(task: Task, seed: int = 0) -> NDArray[np.float32]:
    """Outputs of a teacher for the rows: mostly the labels."""
    noise = np.random.default_rng(seed).normal(size=(len(task.splits["train"]), max(1, len(task.classes))))
    labels = np.array([row.label for row in task.splits["train"]])
    if task.is_regression:
        return (labels[:, None] + noise).astype(np.float32)
    return (3.0 * np.eye(len(task.classes))[labels.astype(int)] + noise).astype(np.float32)


# What is learnt


def test_a_task_where_one_word_decides_is_learnt(teacher: Teacher) -> None:
    task = word_task()
    model = tuned(teacher, training_set_of(task, teacher), steps=100)
    assert np.mean(predicted(model, task, teacher) == labels_of(task)) > 0.85
    assert not model.training


@pytest.mark.slow
@pytest.mark.parametrize("soft", [False, True])
def test_scores_are_learnt_in_their_own_units(soft: bool, teacher: Teacher) -> None:
    task = count_task()
    model = tuned(teacher, training_set_of(task, teacher, opinions(task) if soft else None), steps=120)
    scores, labels = predicted(model, task, teacher), labels_of(task)
    assert np.corrcoef(scores, labels)[0, 1] > 0.8
    assert abs(scores.mean() - labels.mean()) < 0.5 * labels.std()
    assert 0.6 < scores.std() / labels.std() < 1.4


@pytest.mark.parametrize("kind", KINDS)
def test_of_every_family_it_is_the_score_that_is_put_in_units(kind: str, teacher: Teacher) -> None:
    task = count_task()
    model = new_classifier(encoder_of(kind, teacher), task, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 if parameter.dim() == 1 else 0.0)  # a new head's bias is 0
    tokens = tokens_of(task.splits["validation"][:9], teacher.tokenizer, 32)
    before = logits_of(model, tokens).astype(np.float64)
    assert before.std() > 0
    scores = np.array([100.0, 140.0, 190.0])
    module._in_units(model, scores)
    np.testing.assert_allclose(logits_of(model, tokens), before * scores.std() + scores.mean(), rtol=1e-4)


def test_scores_that_are_all_alike_are_in_units_of_1(teacher: Teacher) -> None:
    rows = [replace(row, label=7.0) for row in count_rows(32)]
    task = Task("alike", (), {"train": rows, "validation": rows}, ("validation",))
    scores = predicted(tuned(teacher, training_set_of(task, teacher), steps=10), task, teacher)
    np.testing.assert_allclose(scores, 7.0, atol=1.0)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("what", ["soft labels", "labels", "soft scores", "scores"])
def test_loss_and_gradient_are_those_of_what_is_learnt(what: str, teacher: Teacher) -> None:
    task = count_task(20) if "scores" in what else word_task(20, classes=3)
    soft = opinions(task) if "soft" in what else None
    data, rows = training_set_of(task, teacher, soft), [3, 0, 11, 7, 8]
    labels = data.rows.labels
    model = new_classifier(teacher.model, task, seed=0)
    read: list[NDArray[np.float64]] = []
    head = model.get_submodule("classifier")
    head.register_forward_pre_hook(lambda _, given: read.append(given[0].detach().double().numpy()))
    words = np.arange(model.config.vocab_size)
    loss = module._gradients(model, data, Vocabulary(words, words), None)(rows)

    weight, bias = (head.get_parameter(name).detach().double().numpy() for name in ("weight", "bias"))
    logits = read[0] @ weight.T + bias
    if task.is_regression:
        wanted = labels[rows] if soft is None else soft[rows, 0].astype(np.float64)
        error = logits[:, 0] - (wanted - labels.mean()) / labels.std()
        expected, of_logits = (error**2).mean(), 2 * error[:, None] / len(rows)
    else:
        hard = np.eye(3)[labels[rows].astype(int)]
        shares = hard if soft is None else softmax(soft[rows].astype(np.float64))
        expected = -(shares * np.log(softmax(logits))).sum(1).mean()
        of_logits = (softmax(logits) - shares) / len(rows)
    assert loss == pytest.approx(expected, rel=1e-5)
    gradients = (head.get_parameter(name).grad for name in ("weight", "bias"))
    for gradient, own in zip(gradients, (of_logits.T @ read[0], of_logits.sum(0)), strict=True):
        assert gradient is not None
        np.testing.assert_allclose(gradient.numpy(), own, rtol=1e-4, atol=1e-6)
    table = model.get_input_embeddings().weight
    assert isinstance(table, torch.Tensor)
    assert table.grad is not None  # the encoder learns too


@pytest.mark.parametrize("soft", [False, True])
def test_there_is_dropout_but_where_a_teacher_is_learnt(soft: bool, teacher: Teacher) -> None:
    task, training = word_task(32), set()
    data = training_set_of(task, teacher, opinions(task) if soft else None)

    def spied(model: PreTrainedModel, *rest: Any) -> Any:
        training.update({model.training, model.get_submodule("dropout").training})
        return made(model, *rest)

    made = module._gradients
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_gradients", spied)
        tuned(teacher, data, steps=1)
    assert training == {not soft}


def without_dropout(encoder: PreTrainedModel) -> PreTrainedModel:
    """Returns the same weights with a config in which all dropout is 0."""
    config = deepcopy(encoder.config)
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    model = type(encoder)(config)
    model.load_state_dict(encoder.state_dict())
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_without_dropout_a_model_learns_as_one_whose_config_has_none(kind: str, teacher: Teacher) -> None:
    encoder = encoder_of(kind, teacher)
    data = training_set_of(word_task(32), teacher)

    def learnt(one: PreTrainedModel, how: FineTuning) -> dict[str, torch.Tensor]:
        return fine_tuned(one, data, how, RATE, 0, None, steps=2).state_dict()

    none = learnt(encoder, replace(HOW, dropout=0.0))
    assert same_weights(none, learnt(without_dropout(encoder), HOW))
    assert not same_weights(none, learnt(encoder, HOW)), "its own dropout is left where none is asked for"


def test_all_dropout_layers_get_the_share_that_is_asked_for(teacher: Teacher) -> None:
    data = training_set_of(word_task(16), teacher)
    for asked, expected in ((None, {0.1}), (0.0, {0.0}), (0.25, {0.25})):
        model = fine_tuned(teacher.model, data, replace(HOW, dropout=asked), RATE, 0, None, steps=1)
        assert {each.p for each in model.modules() if isinstance(each, torch.nn.Dropout)} == expected


def test_the_encoder_is_not_changed(teacher: Teacher) -> None:
    before = {name: weight.clone() for name, weight in teacher.model.state_dict().items()}
    config = teacher.model.config.to_json_string()
    model = tuned(teacher, training_set_of(word_task(32), teacher), steps=4)
    assert same_weights(teacher.model.state_dict(), before)
    assert teacher.model.config.to_json_string() == config
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    own = model.base_model.state_dict()
    still = {name for name, weight in before.items() if torch.equal(own[name], weight)}
    assert not still


def test_words_that_the_training_split_has_not_keep_their_embedding(teacher: Teacher) -> None:
    data = training_set_of(word_task(32), teacher)
    model = tuned(teacher, data, steps=4)
    before, after = (each.get_input_embeddings().weight for each in (teacher.model, model))
    assert isinstance(before, torch.Tensor)
    assert isinstance(after, torch.Tensor)
    assert after.shape == before.shape
    changed = set((after != before).any(1).nonzero()[:, 0].tolist())
    assert changed == set(np.concatenate(data.rows.ids).tolist())


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The loss of each step."""
    told_losses: list[float] = []
    made = module._gradients

    def spied(*given: Any) -> Any:
        gradients = made(*given)

        def told(rows: Sequence[int]) -> float:
            told_losses.append(gradients(rows))
            return told_losses[-1]

        return told

    monkeypatch.setattr(module, "_gradients", spied)
    return told_losses


@pytest.mark.parametrize(("kind", "autocast"), [*((kind, None) for kind in KINDS), ("bert", torch.bfloat16)])
def test_every_family_is_fine_tuned_on_pairs_and_in_bfloat16_too(
    kind: str, autocast: torch.dtype | None, teacher: Teacher, losses: list[float]
) -> None:
    task = word_task(32, 8, classes=3, pairs=True)
    data = training_set_of(task, teacher, opinions(task))
    how = replace(HOW, batch_size=32)  # all rows in each
    model = fine_tuned(encoder_of(kind, teacher), data, how, 2e-3, 0, autocast, steps=8)
    assert losses[-1] < losses[0]
    assert set(predicted(model, task, teacher)) <= {0, 1, 2}


# Seeds, orders and steps


def test_the_same_seed_gives_the_same_model_and_another_seed_another(teacher: Teacher) -> None:
    data = training_set_of(word_task(32), teacher)
    torch.manual_seed(1)
    one = tuned(teacher, data, steps=5).state_dict()
    torch.manual_seed(2)
    expected = torch.get_rng_state()
    assert same_weights(one, tuned(teacher, data, steps=5).state_dict())
    assert not same_weights(one, tuned(teacher, data, steps=5, seed=1).state_dict())
    assert torch.equal(torch.get_rng_state(), expected)


@pytest.mark.parametrize(
    ("rows", "steps"),
    [(10, 2), (2_000, 250), (5_000, 625), (10_000, 625), (20_000, 625), (40_000, 1_250), (100_000, 3_125)],
)
def test_a_small_task_is_read_4_times_a_large_one_once(rows: int, steps: int) -> None:
    assert FineTuning().steps(rows) == steps


def test_each_step_is_told(teacher: Teacher) -> None:
    told: list[tuple[int, int]] = []
    data = training_set_of(word_task(40), teacher)
    tuned(teacher, data, steps=3, progress=lambda step, steps: told.append((step, steps)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    told.clear()
    fine_tuned(teacher.model, data, HOW, RATE, 0, None, lambda step, steps: told.append((step, steps)))
    assert told[-1] == (10, 10)  # 40 rows, 4 times, by 16


# Where it was ended


@pytest.mark.parametrize(
    ("task", "moment", "error", "kept"),
    [
        (word_task(64), 7, Asked, 7),
        (count_task(64), 7, Killed, 5),
        (count_task(64), 12, Killed, 12),  # not twice put in units
    ],
)
def test_learning_of_a_teacher_goes_on_to_the_same_model(
    task: Task,
    moment: int,
    error: type[BaseException],
    kept: int,
    teacher: Teacher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_STEPS", 5)
    data, saved = training_set_of(task, teacher, opinions(task)), tmp_path / "saved"
    whole = tuned(teacher, data, steps=12)

    def end(step: int, steps: int) -> None:
        if step == moment:
            raise error

    with pytest.raises(error):
        tuned(teacher, data, steps=12, progress=end, saved=saved)
    told: list[int] = []
    again = tuned(teacher, data, steps=12, progress=lambda step, steps: told.append(step), saved=saved)
    assert told == list(range(kept + 1, 13))
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("other", [{"seed": 1}, {"steps": 13}, {"data": 63}, {"how": 8}])
def test_what_was_kept_of_another_training_is_refused(
    other: dict[str, int], teacher: Teacher, tmp_path: Path
) -> None:
    saved = tmp_path / "saved"
    tuned(teacher, training_set_of(word_task(64), teacher), steps=12, saved=saved)
    data = training_set_of(word_task(other.get("data", 64)), teacher)
    how = replace(HOW, batch_size=other.get("how", 16))
    with pytest.raises(BadInput, match="other settings"):
        fine_tuned(
            teacher.model,
            data,
            how,
            RATE,
            other.get("seed", 0),
            None,
            steps=other.get("steps", 12),
            saved=saved,
        )


# The learning rate


class Unread(dict[str, list[Row]]):
    """Splits of which only the training split may be read."""

    def __getitem__(self, split: str) -> list[Row]:
        assert split == "train", f"{split} was looked at"
        return super().__getitem__(split)


def accuracy(labels: NDArray[np.float64], logits: NDArray[np.float32]) -> float:
    return float(np.mean(logits.argmax(1) == labels))


@pytest.mark.parametrize("rates", [(RATE, 0.5), (1e30, RATE)])
def test_the_better_of_a_good_rate_and_an_absurd_one_is_chosen_and_nothing_else_is_read(
    rates: tuple[float, ...], teacher: Teacher
) -> None:
    task = word_task(200)
    unread = replace(task, splits=Unread(train=task.splits["train"], validation=[]))
    how = replace(HOW, rates=rates, examples=1_600)
    assert best_rate(teacher.model, training_set_of(unread, teacher), how, None, accuracy) == RATE


def test_a_rate_is_judged_by_rows_that_it_did_not_learn(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [replace(row, label=float(index)) for index, row in enumerate(count_rows(60))]
    task = Task("numbered", (), {"train": rows}, ())
    soft = np.array([[row.label] for row in rows], dtype=np.float32)
    learnt: list[list[float]] = []
    judged: list[list[float]] = []
    tune = fine_tuned

    def spied(encoder: PreTrainedModel, data: TrainingSet, *rest: Any) -> PreTrainedModel:
        assert data.soft is not None
        assert data.soft[:, 0].tolist() == data.rows.labels.tolist()
        learnt.append(data.rows.labels.tolist())
        return tune(encoder, data, *rest)

    def value(labels: NDArray[np.float64], logits: NDArray[np.float32]) -> float:
        assert logits.shape == (6, 1)
        judged.append(labels.tolist())
        return 0.0

    monkeypatch.setattr(module, "fine_tuned", spied)
    how = replace(HOW, rates=(1e-4, 1e-3), trial=2)
    assert best_rate(teacher.model, training_set_of(task, teacher, soft), how, None, value) == 1e-4
    assert learnt[0] == learnt[1]
    assert judged[0] == judged[1]
    assert sorted(learnt[0] + judged[0]) == list(range(60))


@pytest.mark.parametrize(("rows", "held"), [(2, 1), (3, 1), (60, 6), (50_000, 1_000)])
def test_a_tenth_of_the_rows_judges_but_no_more_than_a_thousand(rows: int, held: int) -> None:
    cut, rest = module._cut(rows)
    assert len(cut) == held
    assert sorted(cut + rest) == list(range(rows))
    assert (cut, rest) == module._cut(rows)


def test_the_steps_of_all_trials_are_told_as_one(teacher: Teacher) -> None:
    told: list[tuple[int, int]] = []
    how = replace(HOW, rates=(1e-3, 1e-4, 1e-5), trial=4)
    data = training_set_of(word_task(160), teacher)
    best_rate(teacher.model, data, how, None, accuracy, lambda *given: told.append(given))
    assert told == [(step, 12) for step in range(1, 13)]


def test_a_single_rate_is_not_tried(teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(module, "fine_tuned")
    how = replace(HOW, rates=(0.1,))
    assert best_rate(teacher.model, training_set_of(word_task(32), teacher), how, None, accuracy) == 0.1


def test_a_model_that_says_no_number_in_the_end_is_not_chosen(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = iter([np.full((3, 2), math.nan), np.eye(2)[[0, 1, 0]]])
    monkeypatch.setattr(module, "logits_of", lambda *given: next(logits))
    how = replace(HOW, rates=(1e-4, 1e-3), trial=1)
    chosen = best_rate(teacher.model, training_set_of(word_task(30), teacher), how, None, lambda *given: 0.0)
    assert chosen == 1e-3


def test_weights_that_the_very_last_step_has_ruined_are_no_result(teacher: Teacher) -> None:
    def ruin(step: int, steps: int) -> None:
        if step == steps:
            for group in seen[0].optimiser.param_groups:
                group["params"][0].data.fill_(math.nan)

    def made(*given: Any) -> Loop:
        seen.append(Loop(*given))
        return seen[0]

    seen: list[Loop] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Loop", made)
        with pytest.raises(Diverged, match="after the last step"):
            fine_tuned(
                teacher.model, training_set_of(word_task(32), teacher), HOW, 1e-3, 0, None, ruin, steps=2
            )


def test_an_absurd_rate_diverges_and_where_all_do_that_is_said(teacher: Teacher) -> None:
    data = training_set_of(word_task(64), teacher)
    with pytest.raises(Diverged, match="a lower learning rate may help"):
        fine_tuned(teacher.model, data, HOW, 1e30, 0, None, steps=5)
    how = replace(HOW, rates=(1e30, 1e31))
    with pytest.raises(Diverged, match=r"each of the rates 1e\+30, 1e\+31"):
        best_rate(teacher.model, data, how, None, accuracy)
