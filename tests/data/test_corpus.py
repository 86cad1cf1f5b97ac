import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest

from kdnas_core.data import corpus
from kdnas_core.data.corpus import Part, check_corpus, parts_of, read_corpus
from kdnas_core.data.harvest import Paragraph
from kdnas_core.errors import BadInput
from tests.sentences import is_one_sentence

PASSAGES = [f"Passage {number} of the file." for number in range(20)]


def texts_of(path: Path | str, limit: int = 100, seed: int = 0) -> list[str]:
    return read_corpus(str(path), Path("no-cache"), seed, limit)


def sentence_about(source: Path | str, act: Callable[[str], object] = check_corpus) -> str:
    """Returns the one sentence with which a source is refused."""
    with pytest.raises(BadInput) as refusal:
        act(str(source))
    sentence = str(refusal.value)
    assert sentence.endswith(".")
    assert ". " not in sentence and "\n" not in sentence
    return sentence


def file(tmp_path: Path, name: str, content: bytes | str) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# Text files


def test_a_text_file_gives_one_stripped_passage_a_line_without_repeats(tmp_path: Path) -> None:
    path = file(tmp_path, "a.TXT", "\ufeff one \r\n\r\ntwo\u2028halves\none\n   \ncaf\u00e9")

    assert sorted(texts_of(path)) == ["caf\u00e9", "one", "two\u2028halves"]


def test_the_seed_determines_which_texts_are_chosen_and_their_order(tmp_path: Path) -> None:
    path = file(tmp_path, "a.txt", "\n".join(PASSAGES))

    assert texts_of(path, 5, seed=1) == texts_of(path, 5, seed=1)
    assert texts_of(path, 5, seed=1) != texts_of(path, 5, seed=2)
    assert texts_of(path, 20, seed=1) != PASSAGES
    assert texts_of(path, 5, seed=1) == texts_of(path, 20, seed=1)[:5]
    assert sorted(texts_of(path, 1_000)) == sorted(PASSAGES)


def test_a_corpus_file_that_is_not_utf8_is_refused_with_the_place_of_the_byte(tmp_path: Path) -> None:
    # far behind the part that a check of the file reads
    good = b"a line of text\n" * 10_000
    path = file(tmp_path, "a.txt", good + "caf\u00e9".encode("latin-1") + b"\nmore\n")

    sentence = sentence_about(path)

    assert str(path) in sentence
    assert f"byte {len(good) + 3}" in sentence
    assert "line 10001" in sentence
    assert "save it as UTF-8" in sentence
    assert sentence_about(path, texts_of) == sentence


def test_a_text_file_that_ends_inside_a_character_is_refused(tmp_path: Path) -> None:
    assert "byte 3," in sentence_about(file(tmp_path, "a.txt", "caf\u00e9".encode()[:-1]))


@pytest.mark.parametrize("ending", ["txt", "jsonl", "csv", "tsv"])
def test_a_binary_file_is_refused_whatever_its_ending(tmp_path: Path, ending: str) -> None:
    assert "binary" in sentence_about(file(tmp_path, f"a.{ending}", b"abc\0\1\2"))


def test_files_that_are_missing_empty_or_no_files_are_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "folder.txt"
    folder.mkdir()
    file(folder, "en.txt", "text")

    assert "does not exist" in sentence_about(tmp_path / "no.txt")
    assert "is empty" in sentence_about(file(tmp_path, "empty.csv", ""))
    assert "is not a file" in sentence_about(folder, texts_of)  # one plain source only
    assert ".jsonl" in sentence_about(file(tmp_path, "a.docx", "text"))
    assert "not a Parquet file" in sentence_about(file(tmp_path, "a.parquet", "text"))


@pytest.mark.parametrize("source", ["packged", "", "imdb", "C4\0"])
def test_a_source_of_no_kind_is_answered_with_the_choices(source: str) -> None:
    sentence = sentence_about(source)

    assert "'packaged'" in sentence and "hub:NAME" in sentence and ".parquet" in sentence


def test_a_file_of_blank_lines_holds_no_text(tmp_path: Path) -> None:
    assert "holds no text" in sentence_about(file(tmp_path, "a.txt", "\n  \n"), texts_of)


# Tables


def jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_the_column_is_text_else_sentence_else_the_only_one_of_strings(tmp_path: Path) -> None:
    both = file(tmp_path, "a.jsonl", jsonl([{"title": "no", "sentence": "no", "text": "yes"}]))
    sentence = file(tmp_path, "b.csv", "title,sentence\nno,yes\n")
    only = file(tmp_path, "c.tsv", "label\tremark\n1\tyes\n0\talso, yes\n")

    assert texts_of(both) == ["yes"]
    assert texts_of(sentence) == ["yes"]
    assert sorted(texts_of(only)) == ["also, yes", "yes"]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_table_without_a_telling_column_is_refused_with_its_columns(tmp_path: Path, ending: str) -> None:
    table = pandas.DataFrame({"title": ["a", "b"], "body": ["c", "d"], "label": [0, 1]})
    path = tmp_path / f"a.{ending}"
    if ending == "jsonl":
        table.to_json(path, orient="records", lines=True)
    elif ending == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)

    sentence = sentence_about(path, texts_of)

    assert str(path) in sentence and "'title', 'body', 'label'" in sentence


def test_numbers_and_nulls_in_the_column_are_dropped(tmp_path: Path) -> None:
    rows = [{"text": value} for value in ("good", 7, None, 1.5, ["no"], "", " good ")] + [{"other": "no"}]
    table = "text,label\ngood,1\n7,1\n,0\n-1.5e3,0\nroute 66,1\n"

    assert texts_of(file(tmp_path, "a.jsonl", jsonl(rows))) == ["good"]
    assert sorted(texts_of(file(tmp_path, "a.csv", table))) == ["good", "route 66"]


def test_a_parquet_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pandas.DataFrame({"label": range(20), "remark": PASSAGES}).to_parquet(path)

    assert sorted(texts_of(path)) == sorted(PASSAGES)


def test_a_lone_surrogate_of_a_json_file_becomes_a_question_mark(tmp_path: Path) -> None:
    assert texts_of(file(tmp_path, "a.jsonl", '{"text": "a \\ud800 b"}')) == ["a ? b"]


@pytest.mark.parametrize("line", ["{'text': 'b'}", "[1]", '"b"', '{"text": "b"'])
def test_a_line_that_is_not_a_json_object_is_named(tmp_path: Path, line: str) -> None:
    path = file(tmp_path, "a.jsonl", '{"text": "a"}\n\n' + line + "\n")

    assert "line 3" in sentence_about(path, texts_of)


def test_a_table_that_is_torn_is_refused_in_one_sentence(tmp_path: Path) -> None:
    ragged = file(tmp_path, "a.csv", "text,label\na,1\nb,1,2,3\n")
    torn = file(tmp_path, "a.parquet", b"PAR1" + b"x" * 100)

    assert "line 3" in sentence_about(ragged, texts_of)
    assert str(torn) in sentence_about(torn, texts_of)


def test_reading_a_local_file_writes_nothing_beside_it(tmp_path: Path) -> None:
    path = file(tmp_path, "a.csv", "text\nhello there\n")
    read_corpus(str(path), tmp_path / "cache", 0, 10)

    assert list(tmp_path.iterdir()) == [path]


# Packaged


def test_the_packaged_corpus_is_the_harvest_in_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def harvest(cache: Path, progress: Callable[[str], None] | None = None) -> list[Paragraph]:
        asked.append(cache)
        return [Paragraph(text, "package", "module") for text in PASSAGES]

    monkeypatch.setattr(corpus, "harvest", harvest)

    assert len(read_corpus("packaged", tmp_path, 0, 7)) == 7
    assert asked == [tmp_path]


# The hub


class Stream:
    """A stand-in for a stream of the hub, which remembers how it was shuffled and how far it was read."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows, self.seed, self.read = rows, -1, 0

    def shuffle(self, seed: int, buffer_size: int) -> Iterator[dict[str, Any]]:
        assert buffer_size > 1
        self.seed = seed
        for row in self.rows:
            self.read += 1
            yield row


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Stream], list[tuple[Any, ...]]]:
    """Replaces the hub by a stream, and returns the list of its requests."""
    import datasets
    import huggingface_hub

    asked: list[tuple[Any, ...]] = []

    def answer_with(stream: Stream) -> list[tuple[Any, ...]]:
        def load(name: str, config: str | None, *, split: str, streaming: bool) -> Stream:
            asked.append((name, config, split, streaming))
            return stream

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name, timeout: None)
        monkeypatch.setattr(datasets, "load_dataset", load)
        return asked

    return answer_with


def test_a_hub_set_is_streamed_with_the_seed_and_no_further_than_the_limit(
    hub: Callable[[Stream], list[tuple[Any, ...]]],
) -> None:
    stream = Stream([{"label": 0, "text": f"passage {number // 2}"} for number in range(10_000)])
    asked = hub(stream)

    assert texts_of("hub:owner/name", limit=300, seed=9) == [f"passage {number}" for number in range(300)]
    assert asked == [("owner/name", None, "train", True)]
    assert stream.seed == 9
    assert stream.read < 1_000


def test_config_split_and_column_of_a_hub_set_are_taken_from_its_name(
    hub: Callable[[Stream], list[tuple[Any, ...]]],
) -> None:
    asked = hub(Stream([{"text": "no", "a:b": "yes"}]))

    assert texts_of("hub:name:en:test:a:b") == ["yes"]
    assert asked == [("name", "en", "test", True)]
    assert "text, a:b" in sentence_about("hub:name:::other", texts_of)


def test_a_hub_set_that_does_not_exist_is_refused_by_name(
    hub: Callable[[Stream], list[tuple[Any, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    class NotFound(huggingface_hub.errors.RepositoryNotFoundError):
        def __init__(self) -> None: ...

    def refuse(self: object, name: str, timeout: float) -> None:
        raise NotFound

    hub(Stream([]))
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)

    assert "'owner/typo'" in sentence_about("hub:owner/typo", texts_of)


def test_a_hub_that_cannot_be_reached_is_answered_with_the_other_choices(
    hub: Callable[[Stream], list[tuple[Any, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def unreachable(self: object, name: str, timeout: float) -> None:
        assert timeout < 10
        raise ConnectionError("Name or service not known. Try again.\nAnd again.")

    hub(Stream([]))
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    sentence = sentence_about("hub:owner/name", texts_of)

    assert "network" in sentence and "'packaged'" in sentence and ".csv" in sentence


@pytest.mark.parametrize("source", ["hub:", "hub::en", "hub:a/b/c", "hub:two words", "hub:../up"])
def test_a_hub_name_that_is_malformed_is_refused_without_a_network(source: str) -> None:
    assert "hub:NAME[:CONFIG[:SPLIT[:COLUMN]]]" in sentence_about(source)


@pytest.mark.parametrize("source", ["packaged", "hub:imdb", "hub:stanfordnlp/imdb:plain_text:test:text"])
def test_a_well_formed_name_passes_the_early_check(source: str) -> None:
    check_corpus(source)


def test_checking_a_corpus_imports_no_heavy_library(tmp_path: Path) -> None:
    path = file(tmp_path, "a.txt", "text")
    program = (
        "import sys; from kdnas_core.data.corpus import check_corpus\n"
        "for source in ('packaged', 'hub:imdb', sys.argv[1]): check_corpus(source)\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pandas', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


# Folders and several sources


def languages_of(source: Path | str) -> list[str]:
    return [part.language for part in parts_of(str(source))]


def refused_at_once(source: Path | str) -> str:
    """The sentence with which the early check refuses a source."""
    sentence = sentence_about(source)
    assert is_one_sentence(sentence), sentence
    return sentence


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one corpus file for each language, and other files."""
    folder = tmp_path / "languages"
    folder.mkdir()
    file(folder, "fr.jsonl", jsonl([{"text": "un"}, {"text": "deux"}]))
    file(folder, "en.txt", "one\ntwo\n")
    file(folder, "sw.TSV", "text\tlabel\nmoja\t1\n")
    for name in ("README", "readme.txt", "LICENCE.md", ".hidden.docx"):
        file(folder, name, "about these files")
    return folder


def test_a_folder_is_one_part_a_language_in_the_order_of_their_names(folder: Path) -> None:
    check_corpus(str(folder))

    assert parts_of(str(folder)) == (
        Part(str(folder / "en.txt"), "en"),
        Part(str(folder / "fr.jsonl"), "fr"),
        Part(str(folder / "sw.TSV"), "sw"),
    )


def test_the_order_of_the_parts_is_not_that_of_the_disk(tmp_path: Path) -> None:
    names = [f"l{number}" for number in range(10, 40)]
    for name in reversed(names[::2] + names[1::2]):
        file(tmp_path, f"{name}.txt", "text")

    assert languages_of(tmp_path) == names


@pytest.mark.parametrize(
    ("source", "language"),
    [
        ("packaged", "packaged"),
        ("hub:mc4:en", "en"),
        ("hub:owner/name", "name"),
        ("hub:owner/name::test", "name"),
        ("some/where/fr.parquet", "fr"),
        ("wiki.de.txt", "wiki.de"),
    ],
)
def test_a_plain_source_is_one_part_with_the_name_of_its_language(source: str, language: str) -> None:
    assert parts_of(source) == (Part(source, language),)


def test_sources_of_all_kinds_are_joined_and_equal_names_numbered(folder: Path) -> None:
    joined = f"hub:mc4:en + {folder} +  packaged + hub:c4:en + hub:a:en-2"
    check_corpus(joined)

    assert languages_of(joined) == ["en", "en-2", "fr", "sw", "packaged", "en-3", "en-2-2"]
    assert [part.source for part in parts_of(joined)][-3:] == ["packaged", "hub:c4:en", "hub:a:en-2"]


def test_only_a_plus_between_spaces_joins_and_none_in_the_name_of_what_exists(tmp_path: Path) -> None:
    path = file(tmp_path, "a + b.txt", "text")
    check_corpus(str(path))

    assert languages_of(path) == ["a + b"]
    assert languages_of("c++.txt") == ["c++"]


def test_more_names_than_a_path_may_have_letters_can_be_joined() -> None:
    assert len(parts_of(" + ".join(f"hub:owner/name:language{number}" for number in range(500)))) == 500


@pytest.mark.parametrize("source", ["packaged +", "+ packaged", "packaged + + hub:imdb", "+", " + "])
def test_a_plus_without_a_source_on_each_side_is_refused(source: str) -> None:
    assert "on each side" in refused_at_once(source)


def test_a_source_that_is_named_twice_is_refused(folder: Path) -> None:
    assert "packaged twice" in refused_at_once("packaged + hub:imdb + packaged")
    assert "en.txt twice" in refused_at_once(f"{folder} + {folder / 'en.txt'}")


@pytest.mark.parametrize("names", [(), ("README.md", ".git")])
def test_a_folder_without_a_corpus_file_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        file(tmp_path, name, "about these files")

    assert "holds no corpus" in refused_at_once(tmp_path)


@pytest.mark.parametrize("name", ["es.docx", "es", "Makefile"])
def test_a_file_of_another_kind_in_a_folder_is_refused_by_name(folder: Path, name: str) -> None:
    file(folder, name, "text")

    assert f"holds {name}," in refused_at_once(folder)


def test_what_is_wrong_with_one_part_is_found_early_and_named(folder: Path, tmp_path: Path) -> None:
    empty = file(folder, "de.txt", "")
    assert f"{empty} is empty" in refused_at_once(folder)
    empty.write_bytes("stra\u00dfe".encode("latin-1"))
    assert f"{empty} is not UTF-8" in refused_at_once(folder)
    empty.unlink()
    (folder / "more.txt").mkdir()
    assert "more.txt is not a file" in refused_at_once(folder)

    assert "no.txt does not exist" in refused_at_once(f"packaged + {tmp_path / 'no.txt'}")
    assert "'packged' is not a corpus" in refused_at_once("packged + hub:imdb")
    assert "'hub:two words'" in refused_at_once("packaged + hub:two words")
