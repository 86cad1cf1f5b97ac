from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdnas_core.data import retrieval
from kdnas_core.data.retrieval import PACKAGED_RETRIEVAL, is_retrieval, read_retrieval
from kdnas_core.data.tasks import read_task
from kdnas_core.errors import BadInput
from tests.sentences import is_one_sentence

DOCUMENTS = [("d1", "Paris", "The capital of France."), ("d2", "", "A fruit."), ("d3", "Rome", "")]
QUERIES = [("q1", "Which capitals are there?"), ("q2", "What can be eaten?"), ("q3", "Nobody judged this.")]
JUDGED = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td3\t1\nq2\td2\t1\nq2\td1\t0\n"


def written(folder: Path, judged: str = JUDGED, split: str = "test") -> Path:
    (folder / "qrels").mkdir(parents=True)
    documents = [json.dumps({"_id": key, "title": title, "text": text}) for key, title, text in DOCUMENTS]
    (folder / "corpus.jsonl").write_text("\n".join(documents))
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": key, "text": text}) + "\n" for key, text in QUERIES)
    )
    (folder / "qrels" / f"{split}.tsv").write_text(judged)
    return folder


@pytest.mark.parametrize("split", ["test", "dev", "validation"])
def test_a_folder_in_the_layout_of_beir_is_read(split: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "capitals", split=split)
    assert is_retrieval(str(folder))
    task = read_retrieval(str(folder), tmp_path, "validation")
    assert task.name == "capitals"
    assert task.queries == ("Which capitals are there?", "What can be eaten?")
    assert task.documents == ("Paris The capital of France.", "A fruit.", "Rome")
    assert task.relevant == ({0: 2.0, 2: 1.0}, {1: 1.0})
    assert (task.split, task.own) == (split, (None, None))


def test_a_query_that_is_a_document_itself_is_known_as_that(tmp_path: Path) -> None:
    folder = written(tmp_path / "arguments", judged="q1\td2\t1\nd1\td3\t1\n")
    with (folder / "queries.jsonl").open("a") as file:
        file.write('{"_id": "d1", "text": "Paris The capital of France."}')
    assert read_retrieval(str(folder), tmp_path).own == (None, 0)


def test_files_as_windows_writes_them_are_read_the_same(tmp_path: Path) -> None:
    plain, other = written(tmp_path / "one" / "task"), written(tmp_path / "other" / "task")
    for path in (other / "corpus.jsonl", other / "queries.jsonl", other / "qrels" / "test.tsv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    (other / "qrels" / "test.tsv").write_text("\ufeff" + JUDGED.split("\n", 1)[1])  # without the heading
    one, same = (read_retrieval(str(folder), tmp_path) for folder in (plain, other))
    assert same == one
    assert same.fingerprint == one.fingerprint


def test_what_is_judged_irrelevant_need_not_be_there(tmp_path: Path) -> None:
    folder = written(tmp_path / "task", judged=JUDGED + "q9\td9\t0\n")
    assert len(read_retrieval(str(folder), tmp_path).queries) == 2


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("corpus.jsonl", '{"_id": "d1", "text": "One"}\n\nno JSON', "line 3 is not"),
        ("corpus.jsonl", '{"_id": "d1", "text": "One"}\n{"_id": "d1", "text": "Two"}', "Line 2 of"),
        ("corpus.jsonl", '{"_id": "d1", "contents": "One"}\n{"_id": "d2", "contents": "Two"}', "with text"),
        ("corpus.jsonl", b"\xff\xfe", "cannot be read"),
        ("queries.jsonl", '{"text": "no id"}', "Line 1 of"),
        ("queries.jsonl", '{"_id": "q1", "text": null}', "Line 1 of"),
        ("queries.jsonl", '{"_id": "q1", "text": ["a", "b"]}', "Line 1 of"),
        ("qrels/test.tsv", "q1\td9\t1\n", "Line 1 of"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\n", "Line 2 of"),
        ("qrels/test.tsv", f"q1\td1\t1{'0' * 40}\n", "Line 1 of"),
        ("qrels/test.tsv", "q1\td1\t0\n", "No query of"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_line(
    file: str, content: str | bytes, said: str, tmp_path: Path
) -> None:
    folder = written(tmp_path / "damaged")
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadInput, match=said) as refused:
        read_retrieval(str(folder), tmp_path, "test")
    assert is_one_sentence(str(refused.value))


def test_a_single_document_leaves_nothing_to_choose(tmp_path: Path) -> None:
    folder = written(tmp_path / "one", judged="q1\td1\t1\n")
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "One"}\n{"_id": "d2", "text": ""}')
    with pytest.raises(BadInput, match="fewer than two documents"):
        read_retrieval(str(folder), tmp_path, "test")


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("validation", "has no qrels"),
        ("tset", "has no qrels"),
        ("train", "for learning"),
        ("x" * 300, "fix that"),
    ],
)
def test_a_split_without_judgements_is_refused(split: str, said: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "task", split="train")
    with pytest.raises(BadInput, match=said) as refused:
        read_retrieval(str(folder), tmp_path, split)
    assert is_one_sentence(str(refused.value))


def test_a_folder_without_queries_says_what_it_lacks(tmp_path: Path) -> None:
    folder = written(tmp_path / "task")
    (folder / "queries.jsonl").unlink()
    assert is_retrieval(str(folder))
    with pytest.raises(BadInput, match="queries"):
        read_retrieval(str(folder), tmp_path)


def test_the_packaged_task_asks_with_a_first_sentence_for_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paragraphs = [
        "This returns the mean of all values. It skips what is missing. Nothing is changed.",
        "One sentence only, which has no rest at all",
        "Too short. The rest of this one is long enough.",
        "This returns the mean of all values. Another paragraph begins with the same words.",
        "The array is sorted in place. It skips what is missing. Nothing is changed.",
    ]
    monkeypatch.setattr(retrieval, "judged_paragraphs", lambda cache: paragraphs)
    task = read_retrieval(PACKAGED_RETRIEVAL, tmp_path, "validation")
    assert task.queries == ("This returns the mean of all values.", "The array is sorted in place.")
    assert task.documents == (
        "Another paragraph begins with the same words.",
        "It skips what is missing. Nothing is changed.",
    )
    assert task.relevant == ({0: 1.0}, {1: 1.0})
    assert (task.split, task.own) == ("", (None, None))


def test_nothing_can_be_learnt_from_a_retrieval_task(tmp_path: Path) -> None:
    for source in (PACKAGED_RETRIEVAL, str(written(tmp_path / "task"))):
        with pytest.raises(BadInput, match="of retrieval") as refused:
            read_task(source, tmp_path)
        assert is_one_sentence(str(refused.value))


@pytest.mark.parametrize("source", ["packaged", "", "a\0b", "~nobody-here/x", "x" * 5_000])
def test_any_other_name_is_none(source: str) -> None:
    assert not is_retrieval(source)
