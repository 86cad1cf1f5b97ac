from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest

from kdnas_core.data import tasks
from kdnas_core.data.packaged_task import LIBRARIES, Example
from kdnas_core.data.tasks import Row, Task, read_task
from kdnas_core.errors import BadInput
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
        ({"train": GOOD}, "no validation split, but 'train'; add validation.jsonl"),
        ({"validation": GOOD}, "no train split"),
        (
            {"train": [*GOOD, {"sentence": "A.", "label": None}], "validation": GOOD},
            "1 of 3 rows without a label",
        ),
        ({"train": [{"sentence": "A."}], "validation": GOOD}, "train split has no column 'label'"),
        ({"train": GOOD[:1], "validation": GOOD[:1]}, "one class only, '1'"),
        ({"train": GOOD, "validation": [{"sentence": "A.", "label": 7}]}, "'7', which train lacks"),
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
        ({"train": GOOD, "validation": [{"sentence": "A."}]}, "validation split has no column 'label'"),
        ({"train": GOOD, "validation": [{"sentence": "A.", "label": -1}]}, "validation split of"),
        ({"train": GOOD, "validation": GOOD, "test": [*GOOD, GOOD[0] | {"label": " "}]}, "1 of 3 rows"),
        ({"train": [*GOOD, GOOD[0] | {"label": math.nan}], "validation": GOOD}, "1 of 3 rows without"),
        ({"train": [*GOOD, GOOD[0] | {"label": math.inf}], "validation": GOOD}, "Row 3 of train has an inf"),
        ({"train": GOOD, "validation": [GOOD[0] | {"label": True}]}, "the label true; write 0 and 1"),
        ({"train": GOOD, "validation": [GOOD[0] | {"label": [1]}]}, "a label that is a list"),
        ({"train": GOOD, "validation": [GOOD[0] | {"label": {"a": 1}}]}, "a label that is a dict"),
        ({"train": PAIRS[:1] * 3, "validation": PAIRS}, "one score only, 2.5"),
        (
            {"train": [{"sentence1": "A.", "label": 1}, {"sentence1": "B.", "label": 0}], "validation": GOOD},
            "'sentence1' without the other",
        ),
        (
            {"train": [{"sentence": "A.", "sentence2": "B.", "label": 1}], "validation": GOOD},
            "'sentence2' without the other",
        ),
        (
            {"train": GOOD, "validation": [{"sentence1": "A.", "sentence2": "B.", "label": 1}]},
            "has pairs and the other not",
        ),
        ({"train": [*GOOD, {"sentence": 7, "label": 1}], "validation": GOOD}, "Row 3 of train has no text"),
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


@pytest.mark.parametrize(
    "content",
    [
        '\ufeffsentence,label\r\nOne.,1\r\n"Two, three.",0\r\n',
        '\ufeff{"sentence": "One.", "label": 1}\r\n\r\n{"sentence": "Two, three.", "label": 0}\r\n',
    ],
)
def test_a_byte_order_mark_and_line_ends_of_windows_are_no_part_of_a_table(
    content: str, tmp_path: Path
) -> None:
    ending = "jsonl" if "{" in content else "CSV"
    for split in ("train", "validation"):
        (tmp_path / f"{split}.{ending}").write_bytes(content.encode())
    rows = read_task(str(tmp_path), tmp_path).splits["validation"]
    assert rows == [Row("One.", None, 1), Row("Two, three.", None, 0)]


def test_a_parquet_file_is_a_split(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        pandas.DataFrame(GOOD).to_parquet(tmp_path / f"{split}.parquet")
    assert read_task(str(tmp_path), tmp_path).splits["train"][0] == Row("It works.", None, 1)


def test_scores_in_a_table_without_types_are_numbers_and_words_are_words(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text("label,sentence\n2.5,2024\n3,1.5\n", encoding="utf-8")
    assert read_task(str(tmp_path), tmp_path).splits["train"] == [
        Row("2024", None, 2.5),
        Row("1.5", None, 3.0),
    ]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text("label,sentence\n007,A\n1e,B\n", encoding="utf-8")
    assert read_task(str(tmp_path), tmp_path).classes == ("007", "1e")


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("sentence,label\nHello, world,1\n", "3 cells on line 2 under 2 columns"),
        ("sentence,label,label\nHello,1,1\n", "two columns 'label'"),
        ("sentence,label\n", "split is empty"),
        ("", "split is empty"),
        ("sentence,label\nA,inf\nB,1\n", "infinite"),
        ("sentence,label\nA,nan\nB,1\n", "1 of 2 rows without a label"),
        ("sentence,label\nA,2.5\nB,high\n", "'high' among scores"),
    ],
)
def test_a_table_that_is_torn_or_empty_is_refused(table: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(table, encoding="utf-8")
    assert reason in refusal(tmp_path, validation=GOOD)


def test_half_a_character_becomes_a_question_mark(tmp_path: Path) -> None:
    written(tmp_path, validation=GOOD)
    (tmp_path / "train.jsonl").write_text(
        '{"sentence": "a \\ud800 b", "label": 1}\n{"sentence": "c", "label": 0}', encoding="utf-8"
    )
    assert read_task(str(tmp_path), tmp_path).splits["train"][0].first == "a ? b"


def test_other_public_pairs_are_pairs(tmp_path: Path) -> None:
    rows: Rows = [{"question": "Why?", "sentence": "So.", "label": label} for label in (0, 1)]
    task = read(tmp_path, train=rows, validation=rows)
    assert task.is_pair
    assert task.splits["train"][0] == Row("Why?", "So.", 0)


def test_a_split_of_one_class_can_be_scored_on(tmp_path: Path) -> None:
    assert read(tmp_path, train=GOOD, validation=GOOD[:1] * 3).classes == ("0", "1")


# Which split is scored


def test_validation_is_scored_unless_the_test_split_is_asked_for(tmp_path: Path) -> None:
    folder = str(written(tmp_path, train=GOOD, validation=GOOD, test=GOOD[:1]))
    assert read_task(folder, tmp_path).scored == ("validation",)
    assert read_task(folder, tmp_path, split="test").scored == ("test",)


@pytest.mark.parametrize("hidden", [-1, None, "-1"])
def test_a_test_split_without_labels_is_left_out_and_cannot_be_scored(hidden: Any, tmp_path: Path) -> None:
    label = {"label": int(hidden) if hidden else None}
    test: Rows = [{"sentence": "A."} | label, {"sentence": "B."} | label]
    folder = str(written(tmp_path, train=GOOD, validation=GOOD, test=test))
    assert set(read_task(folder, tmp_path).splits) == {"train", "validation"}
    with pytest.raises(BadInput, match=r"The test split of .* is without labels"):
        read_task(folder, tmp_path, split="test")


def test_minus_one_is_a_class_where_train_has_it(tmp_path: Path) -> None:
    rows: Rows = [{"sentence": "A.", "label": 1}, {"sentence": "B.", "label": -1}]
    task = read(tmp_path, train=rows, validation=rows[1:])
    assert task.classes == ("-1", "1")
    assert task.splits["validation"] == [Row("B.", None, 0)]


def test_both_validation_splits_are_scored_where_there_are_two(tmp_path: Path) -> None:
    task = read(tmp_path, train=GOOD, validation_matched=GOOD, validation_mismatched=GOOD[:1])
    assert task.scored == ("validation_matched", "validation_mismatched")


@pytest.mark.parametrize("split", ["train", "test", "nonsense", ""])
def test_a_split_that_cannot_be_scored_is_refused(split: str, tmp_path: Path) -> None:
    folder = str(written(tmp_path, train=GOOD, validation=GOOD))
    with pytest.raises(BadInput) as refused:
        read_task(folder, tmp_path, split=split)
    assert is_one_sentence(str(refused.value))


# Fingerprints


def test_a_fingerprint_is_of_classes_rows_and_what_is_scored_and_of_no_types_or_names(tmp_path: Path) -> None:
    one = read(tmp_path / "one", train=GOOD, validation=GOOD, test=GOOD)
    floats: Rows = [row | {"label": float(row["label"])} for row in GOOD]
    assert read(tmp_path / "two", test=GOOD, validation=floats, train=GOOD).fingerprint == one.fingerprint
    others = {
        read_task(str(tmp_path / "one"), tmp_path, split="test").fingerprint,
        read(tmp_path / "rows", train=GOOD, validation=GOOD[::-1], test=GOOD).fingerprint,
        read(tmp_path / "split", train=GOOD, validation=GOOD).fingerprint,
        Task("one", ("no", "yes"), one.splits, one.scored).fingerprint,
        Task("one", (), {"train": [Row("ab", "c", 1)]}, ()).fingerprint,
        Task("one", (), {"train": [Row("a", "bc", 1)]}, ()).fingerprint,
    }
    assert len(others | {one.fingerprint}) == 7
    assert len(one.fingerprint) == 64


def test_a_fingerprint_is_the_same_in_every_version_of_the_product() -> None:
    task = Task("t", ("a", "b"), {"train": [Row("caf\u00e9 \U0001f642", None, 1)]}, ("validation",))
    assert task.fingerprint == "37dfa08f09a19b4cfbafbd901ce4383b502acb746bdef433f41c5900ecfbc728"


# Languages


def folder_of_languages(folder: Path, **languages: list[str]) -> Path:
    folder.mkdir()
    for language, splits in languages.items():
        written(
            folder / language,
            **{split: [row | {"sentence": f"{language} {split}"} for row in GOOD] for split in splits},
        )
    return folder


def test_a_folder_a_language_trains_on_the_only_one_that_can_and_scores_all(tmp_path: Path) -> None:
    folder = folder_of_languages(
        tmp_path / "xnli", de=["validation"], sw=["train", "validation"], zh=["validation", "test"]
    )
    (folder / "README.md").write_text("about")
    (folder / ".git").mkdir()
    (folder / "notes").mkdir()
    task = read_task(str(folder), tmp_path)
    assert (task.name, task.scored, task.languages) == ("xnli", ("sw", "de", "zh"), ("sw", "de", "zh"))
    assert {split: rows[0].first for split, rows in task.splits.items()} == {
        "train": "sw train",
        "sw": "sw validation",
        "de": "de validation",
        "zh": "zh validation",
    }
    tested = read_task(str(folder), tmp_path, split="test")
    assert (tested.scored, tested.splits["zh"][0].first) == (("zh",), "zh test")


@pytest.mark.parametrize(
    ("able", "asked", "trained"),
    [
        (["de", "en", "fr"], None, "en"),
        (["arabic", "english"], None, "english"),
        (["fr", "de"], None, "de"),
        (["de", "en", "fr"], "fr", "fr"),
    ],
)
def test_the_language_trained_on_is_the_one_asked_for_else_english_else_the_first(
    able: list[str], asked: str | None, trained: str, tmp_path: Path
) -> None:
    folder = folder_of_languages(
        tmp_path / "x", aa=["validation"], **{one: ["train", "validation"] for one in able}
    )
    task = read_task(str(folder), tmp_path, train_language=asked)
    assert task.splits["train"][0].first == f"{trained} train"
    assert task.languages[0] == trained
    assert set(task.languages) == {"aa", *able}


def test_a_language_to_train_on_that_is_not_there_is_refused(tmp_path: Path) -> None:
    folder = folder_of_languages(tmp_path / "x", de=["validation"], en=["train", "validation"])
    for language in ("de", "fr"):
        with pytest.raises(BadInput, match=f"no train split in '{language}'; train on 'en'"):
            read_task(str(folder), tmp_path, train_language=language)
    with pytest.raises(BadInput, match="names no languages"):
        read_task(str(folder / "en"), tmp_path, train_language="en")


@pytest.mark.parametrize(
    ("languages", "reason"),
    [
        ({"de": ["validation"], "en": ["validation"]}, "no train split in any"),
        ({"de": ["train"]}, "no validation split in any"),
        ({"train": ["validation"], "en": ["train"]}, "a folder 'train'"),
    ],
)
def test_languages_that_cannot_be_trained_on_or_scored_are_refused(
    languages: dict[str, list[str]], reason: str, tmp_path: Path
) -> None:
    folder = folder_of_languages(tmp_path / "x", **languages)
    assert reason in refusal(folder)


def test_what_is_wrong_in_one_language_is_said_of_it(tmp_path: Path) -> None:
    folder = folder_of_languages(tmp_path / "x", de=["validation"], en=["train", "validation"])
    written(folder / "de", validation=[{"sentence": "A.", "label": "ja"}])
    assert "The de/validation split has the label 'ja', which en/train lacks" in refusal(folder)
    written(folder / "de", validation=[{"sentence": "A."}])
    assert "The de/validation split has no column 'label'" in refusal(folder)
    assert "has the split train beside folders of languages" in refusal(folder, train=GOOD)


def test_a_whole_task_may_have_folders_beside_its_splits(tmp_path: Path) -> None:
    written(tmp_path / "old", train=GOOD)
    assert read(tmp_path, train=GOOD, validation=GOOD).languages == ()


# Names


def test_the_packaged_task_keeps_the_order_of_its_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = [Example("About arrays.", 1), Example("About tables.", 2)]
    monkeypatch.setattr(
        tasks, "packaged_task", lambda cache: dict.fromkeys(("train", "validation"), examples)
    )
    task = read_task("packaged", tmp_path)
    assert (task.name, task.classes, task.scored) == ("packaged", LIBRARIES, ("validation",))
    assert task.splits["validation"] == [Row("About arrays.", None, 1), Row("About tables.", None, 2)]
    assert not task.is_pair


@pytest.mark.parametrize("source", ["", "no/where", "~nobody-here/x", "a\0b", "x" * 5_000])
def test_a_name_of_no_folder_is_refused_with_the_choices(source: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refused:
        read_task(source, tmp_path)
    assert is_one_sentence(str(refused.value)) and "'packaged', hub:NAME" in str(refused.value)


def test_a_file_is_no_task_but_its_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path / "mine", train=GOOD, validation=GOOD)
    with pytest.raises(BadInput, match="is a file; name the folder"):
        read_task(str(folder / "train.jsonl"), tmp_path)
    monkeypatch.chdir(folder)
    assert read_task(".", tmp_path).name == "mine"


def test_tasks_are_named_without_anything_heavy() -> None:
    program = (
        "import sys, kdnas_core.data.tasks; "
        "heavy = {'torch', 'transformers', 'datasets', 'sklearn'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
