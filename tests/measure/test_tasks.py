from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdnas_core.errors import BadInput
from kdnas_core.measure.tasks import Row, Task, read_task
from tests.sentences import is_one_sentence

Rows = list[dict[str, Any]]
GOOD: Rows = [{"sentence": "It works.", "label": 1}, {"sentence": "It does not.", "label": 0}]
PAIRS: Rows = [
    {"sentence1": "One.", "sentence2": "Another.", "label": 2.5},
    {"sentence1": "One.", "sentence2": "One.", "label": 5.0},
]


def written(folder: Path, **splits: Rows) -> Path:
    folder.mkdir(exist_ok=True)
    for split, rows in splits.items():
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def read(folder: Path, **splits: Rows) -> Task:
    return read_task(str(written(folder, **splits)), folder)


def refusal(folder: Path, **splits: Rows) -> str:
    with pytest.raises(BadInput) as refused:
        read(folder, **splits)
    assert is_one_sentence(str(refused.value))
    return str(refused.value)


def test_a_folder_of_sentences_and_classes_is_a_task(tmp_path: Path) -> None:
    task = read(tmp_path / "mine", train=GOOD, validation=GOOD[:1])
    assert (task.name, task.classes, task.is_regression) == ("mine", ("0", "1"), False)
    assert task.splits == {
        "train": [Row("It works.", None, 1), Row("It does not.", None, 0)],
        "validation": [Row("It works.", None, 1)],
    }


def test_pairs_with_scores_are_a_regression(tmp_path: Path) -> None:
    task = read(tmp_path, train=PAIRS, validation=PAIRS, test=PAIRS)
    assert task.is_regression
    assert task.splits["test"] == [Row("One.", "Another.", 2.5), Row("One.", "One.", 5.0)]


def test_the_order_of_classes_is_that_of_their_names_whatever_comes_first(tmp_path: Path) -> None:
    words: Rows = [{"sentence": "A.", "label": name} for name in ("neutral", "entailment", "contradiction")]
    assert read(tmp_path, train=words, validation=words).classes == ("contradiction", "entailment", "neutral")
    numbers: Rows = [{"sentence": "A.", "label": label} for label in (10, 9, 2)]
    assert read(tmp_path, train=numbers, validation=numbers).classes == ("2", "9", "10")


@pytest.mark.parametrize(("ending", "separator"), [("csv", ","), ("tsv", "\t")])
def test_tables_hold_the_same_as_lines(ending: str, separator: str, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        lines = [
            separator.join(("label", "sentence")),
            *(f"{row['label']}{separator}{row['sentence']}" for row in GOOD),
        ]
        (tmp_path / f"{split}.{ending}").write_text("\n".join(lines), encoding="utf-8")
    task = read_task(str(tmp_path), tmp_path)
    assert task.splits["train"] == [Row("It works.", None, 1), Row("It does not.", None, 0)]


def test_a_sentence_that_reads_none_or_na_is_a_sentence(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text("sentence,label\nNone,0\nNA,1\n", encoding="utf-8")
    assert [row.first for row in read_task(str(tmp_path), tmp_path).splits["train"]] == ["None", "NA"]


def test_a_line_of_emoji_and_a_very_long_text_are_text(tmp_path: Path) -> None:
    rows: Rows = [{"sentence": "🙂🙃", "label": 0}, {"sentence": "long " * 20_000, "label": 1}]
    task = read(tmp_path, train=rows, validation=rows)
    assert [len(row.first) for row in task.splits["train"]] == [2, 100_000]


def test_a_label_means_the_same_whatever_type_a_split_writes_it_in(tmp_path: Path) -> None:
    words: Rows = [row | {"label": str(row["label"])} for row in GOOD]
    floats: Rows = [row | {"label": float(row["label"])} for row in GOOD]
    task = read(tmp_path, train=GOOD, validation=words, test=floats)
    assert task.splits["train"] == task.splits["validation"] == task.splits["test"]


@pytest.mark.parametrize(
    ("splits", "reason"),
    [
        ({"train": GOOD}, "no validation split"),
        ({"validation": GOOD}, "no train split"),
        (
            {"train": [*GOOD, {"sentence": "A.", "label": None}], "validation": GOOD},
            "1 of 3 rows without a label",
        ),
        ({"train": [{"sentence": "A."}], "validation": GOOD}, "train split has no column 'label'"),
        ({"train": GOOD[:1], "validation": GOOD[:1]}, "one class only, '1'"),
        ({"train": GOOD, "validation": [{"sentence": "A.", "label": 7}]}, "'7', which train has not"),
        (
            {"train": [{"sentence": "A.", "label": "2.5"}], "validation": GOOD},
            "'2.5' is a score written as text",
        ),
        ({"train": [*PAIRS, PAIRS[0] | {"label": "high"}], "validation": PAIRS}, "'high' among scores"),
        (
            {"train": [*PAIRS, PAIRS[0] | {"sentence2": None}], "validation": PAIRS},
            "Row 3 of train has no text",
        ),
        (
            {"train": [{"text": "A.", "label": 1}, {"text": "B.", "label": 0}], "validation": GOOD},
            "no column 'sentence'",
        ),
        (
            {"train": [*GOOD, {"sentence": "  ", "label": 1}], "validation": GOOD},
            "Row 3 of train has no text",
        ),
    ],
)
def test_what_cannot_be_scored_on_is_refused_in_one_sentence(
    splits: dict[str, Rows], reason: str, tmp_path: Path
) -> None:
    assert reason in refusal(tmp_path, **splits)


def test_a_split_twice_and_a_folder_that_is_not_there_are_refused(tmp_path: Path) -> None:
    written(tmp_path, train=GOOD, validation=GOOD)
    (tmp_path / "train.csv").write_text("sentence,label\nA,1\n", encoding="utf-8")
    assert "keep one" in refusal(tmp_path)
    with pytest.raises(BadInput, match="There is no folder"):
        read_task(str(tmp_path / "nowhere"), tmp_path)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    written(tmp_path, train=GOOD, validation=GOOD)
    (tmp_path / "train.jsonl").write_text("{not json", encoding="utf-8")
    assert "cannot be read" in refusal(tmp_path)
