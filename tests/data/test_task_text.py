from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from kdnas_core.data.corpus import Part, check_corpus, parts_of, read_corpus
from kdnas_core.data.task_text import judged_texts
from kdnas_core.errors import BadInput
from tests.sentences import is_one_sentence

CACHE = Path("no-cache")
PAIR = {"sentence1": "one side", "sentence2": "the other", "label": 1}


def task(folder: Path, **splits: Sequence[Mapping[str, object]]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return f"task:{folder}"


def test_both_sentences_of_each_training_pair_are_texts_and_no_scored_one_is(tmp_path: Path) -> None:
    scored = {"sentence1": "asked", "sentence2": "answered", "label": 0}
    source = task(tmp_path / "mine", train=[PAIR, PAIR], validation=[scored], test_matched=[scored])
    assert sorted(read_corpus(source, CACHE, 0, 10)) == ["one side", "the other"]
    assert sorted(set(judged_texts(str(tmp_path / "mine"), CACHE))) == ["answered", "asked"]


def test_of_a_split_without_labels_nothing_is_scored(tmp_path: Path) -> None:
    hidden = [{"sentence1": "kept", "sentence2": "back", "label": -1}]
    task(tmp_path / "mine", train=[PAIR], validation=[PAIR], test=hidden)
    assert judged_texts(str(tmp_path / "mine"), CACHE) == ["one side", "the other"]


def test_labels_are_not_looked_at(tmp_path: Path) -> None:
    rows = [{"sentence": "a text", "label": {"is": "odd"}}]
    assert read_corpus(task(tmp_path, train=rows), CACHE, 0, 10) == ["a text"]


def test_a_task_of_several_languages_gives_the_training_texts_of_all(tmp_path: Path) -> None:
    for language in ("en", "sw"):
        task(tmp_path / language, train=[{"sentence": f"in {language}", "label": 0}], validation=[PAIR])
    task(tmp_path / "de", validation=[PAIR])
    assert sorted(read_corpus(f"task:{tmp_path}", CACHE, 0, 10)) == ["in en", "in sw"]


def test_tasks_are_parts_of_a_corpus_beside_others(tmp_path: Path) -> None:
    mine = task(tmp_path / "mine", train=[PAIR])
    source = f"packaged + {mine} + task:packaged + task:hub:nyu-mll/glue:rte"
    check_corpus(source)
    parts = parts_of(source)
    assert [part.language for part in parts] == ["packaged", "mine", "packaged-2", "rte"]
    assert [part.task for part in parts] == [None, f"{tmp_path}/mine", "packaged", "hub:nyu-mll/glue:rte"]
    assert Part("hub:c4", "c4").task is None


@pytest.mark.parametrize(
    "name", ["", "/no/such/folder", "packaged-retrieval", "hub:", "a\0b", "without-training"]
)
def test_a_task_without_text_to_learn_from_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    task(tmp_path / "without-training", validation=[PAIR])
    source = f"task:{tmp_path / name}" if name.startswith("without") else f"task:{name}"
    with pytest.raises(BadInput) as refusal:
        check_corpus(source)
    assert is_one_sentence(str(refusal.value))
    with pytest.raises(BadInput):
        read_corpus(source, CACHE, 0, 10)
