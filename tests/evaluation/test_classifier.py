from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedModel

from kdnas_core.architecture import Architecture, static_student
from kdnas_core.data.tasks import Row, Task
from kdnas_core.evaluation.classifier import (
    BATCH,
    OfMean,
    Tokens,
    logits_of,
    new_classifier,
    predictions,
    tokens_of,
)
from kdnas_core.models.student import new_student
from kdnas_core.models.teacher import Teacher
from tests.tiny import teacher_of
from tests.tiny_families import DISTINCT, family_teacher

FILLER = ("value", "name", "which", "that", "from", "with", "object")
TELLING = ("class", "function", "module", "statement")  # one word decides
MOBILEBERT = Architecture(2, 24, 32, 4, "relu", 8, 12, 2, True)
KINDS = [*DISTINCT, "mobilebert"]
KNOW_PAIRS = ("bert", "electra, factorised", "mobilebert")
LABELS = ("zebra", "ant", "moth")  # in no order


def word_rows(count: int, classes: int = 2, pairs: bool = False, seed: int = 0) -> list[Row]:
    """Sentences of 4 to 9 words; one of these, at any place, determines the class."""
    rng = random.Random(seed)
    rows = []
    for index in range(count):
        words = rng.choices(FILLER, k=rng.randint(3, 8))
        words.insert(rng.randint(0, len(words)), TELLING[index % classes])
        first = " ".join(rng.choices(FILLER, k=3)) if pairs else " ".join(words)
        rows.append(Row(first, " ".join(words) if pairs else None, float(index % classes)))
    return rows


def word_task(train: int = 160, scored: int = 60, classes: int = 2, pairs: bool = False) -> Task:
    """A task that a tiny model can learn in some tens of steps."""
    splits = {
        "train": word_rows(train, classes, pairs),
        "validation": word_rows(scored, classes, pairs, seed=1),
    }
    return Task("words", ("no", "yes", *LABELS)[:classes], splits, ("validation",))


def count_rows(count: int, seed: int = 0) -> list[Row]:
    """Pairs with a score of 100.5, plus 20 for each of up to 4 occurrences of a word in the second text."""
    rng = random.Random(seed)
    rows = []
    for index in range(count):
        words = ["class"] * (index % 5) + rng.choices(FILLER, k=4)
        rows.append(Row("a value", " ".join(rng.sample(words, len(words))), 100.5 + 20 * (index % 5)))
    return rows


def count_task(train: int = 160, scored: int = 60) -> Task:
    return Task(
        "counts", (), {"train": count_rows(train), "validation": count_rows(scored, 1)}, ("validation",)
    )


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


def encoder_of(kind: str, teacher: Teacher) -> PreTrainedModel:
    if kind == "mobilebert":
        student = new_student(teacher, MOBILEBERT, seed=1)
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.mul_(5 if parameter.dim() > 1 else 1)  # wide enough that the layers do something
        return student
    return family_teacher(teacher, kind).model


def same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Models


@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier_of_every_family_sees_what_its_encoder_sees(kind: str, teacher: Teacher) -> None:
    encoder = encoder_of(kind, teacher)
    model = new_classifier(encoder, word_task(), seed=0)
    ids = torch.tensor([[2, 20, 30, 40, 3], [2, 50, 3, 0, 0]])
    inputs = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    with torch.no_grad():
        expected = encoder(**inputs, output_hidden_states=True).hidden_states
        own = model(**inputs, output_hidden_states=True).hidden_states
    assert len(own) == len(expected)
    for one, other in zip(own, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", ["bert", "mobilebert"])
def test_a_pooler_goes_along_where_the_head_has_one(kind: str, teacher: Teacher) -> None:
    encoder = encoder_of(kind, teacher)
    model = new_classifier(encoder, word_task(), seed=0)
    ids = torch.tensor([[2, 20, 30, 40, 3]])
    with torch.no_grad():
        expected = encoder(input_ids=ids).pooler_output
        torch.testing.assert_close(model.base_model(input_ids=ids).pooler_output, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_its_labels_are_those_of_the_task_in_the_order_of_the_data(
    kind: str, teacher: Teacher, tmp_path: Path
) -> None:
    task = Task("animals", LABELS, {"train": word_rows(6, 3)}, ())
    new_classifier(encoder_of(kind, teacher), task, seed=0).save_pretrained(tmp_path)
    loaded, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[strays] for strays in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert loaded.config.id2label == dict(enumerate(LABELS))
    assert loaded.config.label2id == {"zebra": 0, "ant": 1, "moth": 2}
    assert loaded.config.num_labels == 3
    with torch.no_grad():
        assert loaded(input_ids=torch.tensor([[2, 20, 3]])).logits.shape == (1, 3)


def test_a_task_of_scores_makes_a_model_of_one_score(teacher: Teacher) -> None:
    config = new_classifier(teacher.model, count_task(), seed=0).config
    assert (config.num_labels, config.id2label, config.problem_type) == (1, {0: "score"}, "regression")


def test_what_the_encoder_was_made_for_before_is_forgotten(teacher: Teacher) -> None:
    scores = new_classifier(teacher.model, count_task(), seed=0)
    base = scores.base_model
    assert isinstance(base, PreTrainedModel)
    config = new_classifier(base, word_task(classes=3), seed=0).config
    assert config.problem_type == "single_label_classification"
    assert config.id2label == {0: "no", 1: "yes", 2: "zebra"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_classifier_shares_nothing_with_its_encoder(kind: str, teacher: Teacher) -> None:
    encoder = encoder_of(kind, teacher)
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    config = encoder.config.to_json_string()
    model = new_classifier(encoder, word_task(classes=3), seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.requires_grad
            parameter.add_(1.0)
    assert same_weights(encoder.state_dict(), before)
    assert encoder.config.to_json_string() == config


def test_the_seed_decides_the_head_and_no_other_random_number(teacher: Teacher) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, again, other = (new_classifier(teacher.model, word_task(), seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert same_weights(one, again)
    different = {name for name in one if not torch.equal(one[name], other[name])}
    assert different == {"classifier.weight"}  # its bias is 0


# Tokens


def test_rows_are_tokens_as_the_tokenizer_has_them_with_their_labels(teacher: Teacher) -> None:
    rows = word_rows(9, 3)
    tokens = tokens_of(rows, teacher.tokenizer, 32)
    assert [ids.tolist() for ids in tokens.ids] == [teacher.tokenizer(row.first)["input_ids"] for row in rows]
    assert tokens.types is None
    assert tokens.labels.tolist() == [0, 1, 2] * 3
    assert len(tokens) == 9


def test_pairs_are_told_apart_and_the_longer_sentence_is_cut(teacher: Teacher) -> None:
    rows = [Row("a name", "value " * 40, 1.5), Row("a name", "a value", 2.5)]
    tokens = tokens_of(rows, teacher.tokenizer, 12)
    assert tokens.types is not None
    first = len(teacher.tokenizer("a name")["input_ids"])
    assert tokens.types[0].tolist() == [0] * first + [1] * (12 - first)
    assert tokens.ids[1].tolist() == teacher.tokenizer("a name", "a value")["input_ids"]
    assert tokens.labels.tolist() == [1.5, 2.5]


def test_some_of_the_rows_are_themselves(teacher: Teacher) -> None:
    tokens = tokens_of(word_rows(9, 3, pairs=True), teacher.tokenizer, 32)
    some = tokens.only([7, 2])
    assert some.types is not None
    assert tokens.types is not None
    for place, row in enumerate((7, 2)):
        assert np.array_equal(some.ids[place], tokens.ids[row])
        assert np.array_equal(some.types[place], tokens.types[row])
    assert some.labels.tolist() == [1, 2]


def test_what_a_model_is_given_is_padded_at_the_end_with_its_own_padding() -> None:
    tokens = Tokens(
        [np.array([7, 8]), np.array([7, 8, 9])], [np.array([0, 1]), np.array([0, 0, 1])], np.zeros(2)
    )
    inputs = tokens.inputs([1, 0], BertConfig(pad_token_id=5))
    assert inputs["input_ids"].tolist() == [[7, 8, 9], [7, 8, 5]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert inputs["token_type_ids"].tolist() == [[0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_told_of_pairs_only_if_it_knows_them(kind: str, teacher: Teacher) -> None:
    model = new_classifier(encoder_of(kind, teacher), word_task(pairs=True), seed=0)
    tokens = tokens_of(word_rows(4, pairs=True), teacher.tokenizer, 32)
    assert tokens.types is not None  # its tokenizer is BERT's
    assert ("token_type_ids" in tokens.inputs([0], model.config)) == (kind in KNOW_PAIRS)
    logits = logits_of(model, tokens)
    untold = logits_of(model, Tokens(tokens.ids, None, tokens.labels))
    assert np.isfinite(logits).all()
    assert np.array_equal(logits, untold) != (kind in KNOW_PAIRS)


# What a model makes of them


@pytest.mark.parametrize(("pairs", "kind"), [(False, "bert"), *((True, kind) for kind in KINDS)])
def test_logits_are_those_of_each_row_alone_whatever_it_is_read_with(
    pairs: bool, kind: str, teacher: Teacher
) -> None:
    model = new_classifier(encoder_of(kind, teacher), word_task(classes=3), seed=0)
    rows = [*word_rows(BATCH + 6, 3, pairs), *word_rows(1, 3, pairs, seed=2)]
    logits = logits_of(model, tokens_of(rows, teacher.tokenizer, 32))
    assert logits.shape == (BATCH + 7, 3)
    for index in (0, 1, BATCH, BATCH + 6):
        row = rows[index]
        inputs = teacher.tokenizer(*([row.first, row.second] if row.second else [row.first]))
        if kind not in KNOW_PAIRS:
            del inputs["token_type_ids"]
        with torch.no_grad():
            alone = model(**{name: torch.tensor([value]) for name, value in inputs.items()}).logits[0]
        np.testing.assert_allclose(logits[index], alone.numpy(), rtol=1e-3, atol=1e-5)
    assert logits.std(axis=0).min() > 0


def test_nothing_is_dropped_out_where_nothing_is_learnt(teacher: Teacher) -> None:
    model = new_classifier(teacher.model, word_task(), seed=0).train()
    tokens = tokens_of(word_rows(4), teacher.tokenizer, 32)
    assert np.array_equal(logits_of(model, tokens), logits_of(model.train(), tokens))


@pytest.mark.parametrize(
    ("task", "expected"), [(word_task(classes=3), [2.0, 0.0]), (count_task(), [-1.5, 3.0])]
)
def test_the_likeliest_class_is_predicted_or_the_score(task: Task, expected: list[float]) -> None:
    logits = np.array([[-1.5, 0.0, 4.0], [3.0, 2.0, -1.0]], dtype=np.float32)
    assert predictions(logits if task.classes else logits[:, :1], task) == expected


def test_a_static_encoder_is_classified_by_its_mean_since_its_first_token_is_always_the_same(
    teacher: Teacher,
) -> None:
    encoder = new_student(teacher, static_student(32), seed=0)
    task = word_task()
    model = new_classifier(encoder, task, seed=0)
    tokens = tokens_of(task.splits["validation"], teacher.tokenizer, 32)
    logits = logits_of(model, tokens)
    assert np.unique(logits.round(6), axis=0).shape[0] > len(logits) / 2
    assert isinstance(model, OfMean)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert {name.rpartition(".")[0].rpartition("_")[0].rpartition(".")[2] for name in frozen} == {
        "position",
        "token_type",
    }
    table = encoder.get_parameter("embeddings.word_embeddings.weight").detach().double().numpy()
    weight, bias = (part.detach().double().numpy() for part in (model.head.weight, model.head.bias))
    for ids, found in zip(tokens.ids, logits, strict=True):
        words = table[ids] - table[ids].mean(1, keepdims=True)
        mean = (words / np.sqrt((words**2).mean(1, keepdims=True) + encoder.config.layer_norm_eps)).mean(0)
        np.testing.assert_allclose(found, weight @ (mean / np.linalg.norm(mean) * 32**0.5) + bias, atol=1e-4)
