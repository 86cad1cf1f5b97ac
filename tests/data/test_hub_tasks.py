from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest
from huggingface_hub import constants

from kdnas_core.data.tasks import Row, Task, read_task
from kdnas_core.errors import BadInput
from kdnas_core.evaluation.metrics import metrics_of, positive_class
from tests.sentences import is_one_sentence

Sets = dict[str | None, dict[str, datasets.Dataset]]
TEXT = datasets.Value("string")


def rows_of(columns: Sequence[str], feature: Any, labels: Sequence[Any]) -> datasets.Dataset:
    """As many rows as labels, with a number that no task asks for."""
    values: dict[str, list[Any]] = {name: [f"{name} {row}" for row in range(len(labels))] for name in columns}
    features = {**dict.fromkeys(columns, TEXT), "label": feature, "idx": datasets.Value("int32")}
    return datasets.Dataset.from_dict(
        {**values, "label": list(labels), "idx": list(range(len(labels)))}, datasets.Features(features)
    )


def classes(*names: str) -> Any:
    return datasets.ClassLabel(names=list(names))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sets], list[tuple[str, str | None]]]:
    """Replaces the hub by data sets by config, and returns the list of its requests."""
    asked: list[tuple[str, str | None]] = []

    def holds(sets: Sets) -> list[tuple[str, str | None]]:
        def load(name: str, config: str | None) -> dict[str, datasets.Dataset]:
            asked.append((name, config))
            if config not in sets:
                raise ValueError(f"BuilderConfig '{config}' not found. Available: {sorted(map(str, sets))}")
            return sets[config]

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name, timeout: None)
        monkeypatch.setattr(datasets, "load_dataset", load)
        return asked

    return holds


def read(source: str, **asked: Any) -> Task:
    return read_task(source, Path("no-cache"), **asked)


def refusal(source: str, **asked: Any) -> str:
    with pytest.raises(BadInput) as refused:
        read(source, **asked)
    sentence = str(refused.value)
    assert is_one_sentence(sentence), sentence
    return sentence


GLUE: list[tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = [
    ("cola", ("sentence",), ("unacceptable", "acceptable"), ("matthews",)),
    ("sst2", ("sentence",), ("negative", "positive"), ("accuracy",)),
    ("mrpc", ("sentence1", "sentence2"), ("not_equivalent", "equivalent"), ("f1", "accuracy")),
    ("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), ("f1", "accuracy")),
    ("stsb", ("sentence1", "sentence2"), (), ("spearman", "pearson")),
    ("mnli", ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), ("accuracy",)),
    ("qnli", ("question", "sentence"), ("entailment", "not_entailment"), ("accuracy",)),
    ("rte", ("sentence1", "sentence2"), ("entailment", "not_entailment"), ("accuracy",)),
    ("wnli", ("sentence1", "sentence2"), ("not_entailment", "entailment"), ("accuracy",)),
]


@pytest.mark.parametrize(("name", "columns", "names", "metrics"), GLUE)
def test_glue_is_read_with_its_columns_classes_and_metrics_and_without_its_hidden_labels(
    name: str,
    columns: tuple[str, ...],
    names: tuple[str, ...],
    metrics: tuple[str, ...],
    hub: Callable[[Sets], list[tuple[str, str | None]]],
) -> None:
    feature = classes(*names) if names else datasets.Value("float32")
    labels = [0, 1, 1] if names else [0.5, 5.0, 2.0]
    halves = ["_matched", "_mismatched"] if name == "mnli" else [""]
    splits = {"train": rows_of(columns, feature, labels)}
    splits |= {f"validation{half}": rows_of(columns, feature, labels[:2]) for half in halves}
    splits |= {f"test{half}": rows_of(columns, feature, [-1, -1]) for half in halves}
    asked = hub({name: splits})

    task = read(f"hub:nyu-mll/glue:{name}")

    assert asked == [("nyu-mll/glue", name)]
    assert (task.name, task.classes, metrics_of(task)) == (name, names, metrics)
    assert task.scored == tuple(f"validation{half}" for half in halves)
    assert set(task.splits) == {"train", *task.scored}
    assert task.is_pair == (len(columns) == 2)
    texts = [*(f"{column} 1" for column in columns), None][:2]
    assert task.splits["train"][1] == Row(str(texts[0]), texts[1], labels[1])
    if "f1" in metrics:
        assert task.classes[positive_class(task.classes)] in ("equivalent", "duplicate")
    assert "is without labels" in refusal(f"hub:nyu-mll/glue:{name}", split="test")


def languages(*names: str) -> Sets:
    feature = classes("entailment", "neutral", "contradiction")
    return {
        name: {
            split: rows_of(("premise", "hypothesis"), feature, labels)
            for split, labels in (("train", [2, 0]), ("test", [1, 1]), ("validation", [0, len(name)]))
        }
        for name in names
    }


def test_a_config_a_language_trains_on_the_first_and_scores_all(
    hub: Callable[[Sets], list[tuple[str, str | None]]],
) -> None:
    asked = hub(languages("en", "d", "fr"))
    task = read("hub:facebook/xnli:fr+d+en")
    assert asked == [("facebook/xnli", name) for name in ("fr", "d", "en")]
    assert (task.name, task.languages, task.scored) == ("xnli", ("fr", "d", "en"), ("fr", "d", "en"))
    assert set(task.splits) == {"train", "fr", "d", "en"}
    assert [row.label for row in task.splits["d"]] == [0, 1]
    assert read("hub:facebook/xnli:fr+d+en", train_language="en").languages == ("en", "fr", "d")
    assert read("hub:facebook/xnli:fr+d", split="test").splits["d"][0].label == 1
    assert read("hub:facebook/xnli:d").languages == ()


def test_configs_that_are_not_one_task_are_refused(
    hub: Callable[[Sets], list[tuple[str, str | None]]],
) -> None:
    sets = languages("en", "de")
    other = rows_of(("premise", "hypothesis"), classes("no", "yes"), [0, 1])
    hub(sets | {"it": {"train": other, "validation": other}})
    assert "different classes" in refusal("hub:facebook/xnli:en+it")
    assert "twice" in refusal("hub:facebook/xnli:en+de+en")
    assert "none beside a '+'" in refusal("hub:facebook/xnli:en+")
    assert "'xx' not found" in refusal("hub:facebook/xnli:en+xx")
    assert "no train split in 'it'" in refusal("hub:facebook/xnli:en+de", train_language="it")


def test_any_set_with_a_column_of_text_and_labels_is_a_task(
    hub: Callable[[Sets], list[tuple[str, str | None]]],
) -> None:
    feature = classes("World", "Sports")
    for columns in (("text",), ("sentence",), ("remark",), ("title", "text")):
        rows = rows_of(columns, feature, [1, 0])
        hub({None: {"train": rows, "validation": rows}})
        task = read("hub:owner/news")
        assert (task.name, task.classes) == ("news", ("World", "Sports"))
        assert task.splits["train"][0] == Row(f"{columns[-1]} 0", None, 1)


def test_columns_and_the_split_to_score_can_be_named(
    hub: Callable[[Sets], list[tuple[str, str | None]]],
) -> None:
    rows = rows_of(("title", "content"), classes("a", "b"), [1, 0])
    hub({None: {"train": rows, "dev": rows}})
    assert "as hub:NAME:CONFIG::title+content" in refusal("hub:o/dbpedia::dev")
    assert "no validation split, but 'train', 'dev'; name the split" in refusal("hub:o/dbpedia:::content")
    task = read("hub:o/dbpedia::dev:content")
    assert (task.scored, task.splits["dev"][0]) == (("dev",), Row("content 0", None, 1))
    assert read("hub:o/dbpedia::dev:title+content").splits["dev"][0] == Row("title 0", "content 0", 1)
    assert "not in 'idx'" in refusal("hub:o/dbpedia::dev:idx")
    assert "not in 'nope'" in refusal("hub:o/dbpedia::dev:nope")


def test_labels_without_names_are_classes_in_their_order_or_scores(
    hub: Callable[[Sets], list[tuple[str, str | None]]],
) -> None:
    words = rows_of(("text",), TEXT, ["pos", "neg"])
    hub({None: {"train": words, "validation": words}})
    assert read("hub:o/x").classes == ("neg", "pos")
    numbers = rows_of(("text",), datasets.Value("int64"), [3, 1])
    hub({None: {"train": numbers, "validation": numbers}})
    assert read("hub:o/x").classes == ("1", "3")


def test_rows_without_a_class_are_left_out_and_rows_without_text_are_not(
    hub: Callable[[Sets], list[tuple[str, str | None]]],
) -> None:
    rows = rows_of(("question1", "question2"), classes("no", "yes"), [0, -1, 1])
    blank = rows.map(lambda row: {"question2": None if row["idx"] == 2 else row["question2"]})
    hub({None: {"train": blank, "validation": blank}})
    assert read("hub:o/x").splits["train"] == [
        Row("question1 0", "question2 0", 0),
        Row("question1 2", "", 1),
    ]


def test_a_class_that_train_lacks_can_be_scored_where_the_data_declares_it(
    hub: Callable[[Sets], list[tuple[str, str | None]]],
) -> None:
    feature = classes("a", "b", "c")
    hub(
        {None: {"train": rows_of(("text",), feature, [0, 1]), "validation": rows_of(("text",), feature, [2])}}
    )
    assert read("hub:o/x").splits["validation"][0].label == 2


def test_what_is_no_task_is_refused_in_one_sentence(
    hub: Callable[[Sets], list[tuple[str, str | None]]],
) -> None:
    rows = rows_of(("text",), classes("a", "b"), [0, 1])
    hub({None: {"test": rows, "validation": rows}})
    assert "has no train split" in refusal("hub:o/x")
    unlabelled = rows.remove_columns("label")
    hub({None: {"train": unlabelled, "validation": unlabelled}})
    assert "no column 'label', but 'text', 'idx'" in refusal("hub:o/x")
    hub({None: {"train": rows, "validation": rows, "test": unlabelled}})
    assert set(read("hub:o/x").splits) == {"train", "validation"}
    one = rows_of(("text",), classes("a", "b"), [1, 1])
    hub({None: {"train": one, "validation": rows}})
    assert "one class only, 'b'" in refusal("hub:o/x")
    strange = rows_of(("text",), datasets.List(datasets.Value("int64")), [[1], [0]])
    hub({None: {"train": strange, "validation": strange}})
    assert "a label that is a list" in refusal("hub:o/x")


def test_a_hub_that_does_not_answer_is_asked_once_and_the_other_choices_named(
    hub: Callable[[Sets], list[tuple[str, str | None]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = hub({})
    waits: list[float] = []

    def unreachable(self: object, name: str, timeout: float) -> None:
        waits.append(timeout)
        raise ConnectionError("Name or service not known. Try again.\nAnd again.")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    sentence = refusal("hub:facebook/xnli:en+de+fr")
    assert "network" in sentence and "'packaged' or a folder" in sentence
    assert len(waits) == 1 and waits[0] < 5
    assert asked == []


def test_a_set_that_the_hub_does_not_have_is_refused_by_name(
    hub: Callable[[Sets], list[tuple[str, str | None]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class NotFound(huggingface_hub.errors.RepositoryNotFoundError):
        def __init__(self) -> None: ...

    def refuse(self: object, name: str, timeout: float) -> None:
        raise NotFound

    hub({})
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    assert "has no data set 'owner/typo'" in refusal("hub:owner/typo")
    assert "does not name a data set" in refusal("hub:two words")


def test_without_a_network_a_set_comes_from_the_cache_of_datasets(
    hub: Callable[[Sets], list[tuple[str, str | None]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(("text",), classes("a", "b"), [0, 1])
    hub({None: {"train": rows, "validation": rows}})

    def never(self: object, name: str, timeout: float) -> None:
        raise AssertionError("asked the hub")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", never)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert read("hub:owner/name").name == "name"
