import os
import sys
from pathlib import Path

import pytest

from kdnas_core.data.harvest import Paragraph, Source, harvest, harvest_sources, installed_sources, prose

FIRST = "The reader opens a file of the catalogue and returns every record that it holds."
SECOND = "A record that cannot be read is skipped, and the number of those is written to the log."
METHOD = "Close the file, which can be done more than once and is done when the block is left."
COMPILED = "Compute the sum of a list of numbers by the compiled kernel that is found in the library."

MODULE = f'''
"""{FIRST}

>>> from catalogue import reader and the rest of it for a doctest that is long enough
42

{SECOND}
"""

class Reader:
    def close(self):
        """{METHOD}"""

add_docstring(kernel.sum, """{COMPILED}""")
logger.warning("This is a message to the user of the program and not a part of the documentation of it.")
'''


def source(folder: Path, package: str = "catalogue", version: str = "1.0") -> Source:
    return Source(package, version, (folder,))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "catalogue"
    write(folder / "__init__.py", "")
    write(folder / "files" / "reader.py", MODULE)
    return folder


def test_each_paragraph_of_prose_comes_with_its_package_and_module_in_the_order_of_the_file(
    package: Path, tmp_path: Path
) -> None:
    found = harvest_sources([source(package)], tmp_path / "cache")

    texts = [FIRST, SECOND, METHOD, COMPILED]
    assert found == [Paragraph(text, "catalogue", "catalogue.files.reader") for text in texts]


def test_modules_come_in_the_order_of_package_and_name(tmp_path: Path) -> None:
    for name, text in (("b/z", FIRST), ("b/a/__init__", SECOND), ("a/m", METHOD)):
        write(tmp_path / f"{name}.py", f'"""{text}"""')

    found = harvest_sources([source(tmp_path / "b", "b"), source(tmp_path / "a", "a")], tmp_path / "cache")

    assert [paragraph.module for paragraph in found] == ["a.m", "b.a", "b.z"]


def test_a_paragraph_that_is_repeated_is_kept_where_it_comes_first(package: Path, tmp_path: Path) -> None:
    write(package / "files" / "writer.py", MODULE)

    found = harvest_sources([source(package)], tmp_path / "cache")

    assert {paragraph.module for paragraph in found} == {"catalogue.files.reader"}


def test_tests_and_files_that_are_not_utf8_are_skipped(package: Path, tmp_path: Path) -> None:
    prose_of_a_test = "This is what is proven by the test of the reader, and it is for nobody else to read."
    write(package / "tests" / "helpers.py", f'"""{prose_of_a_test}"""')
    (package / "latin.py").write_bytes(f'"""{prose_of_a_test} \xe9"""'.encode("latin-1"))

    found = harvest_sources([source(package)], tmp_path / "cache")

    assert prose_of_a_test not in [paragraph.text for paragraph in found]
    assert len(found) == 4


def test_a_string_that_documents_nothing_is_left_out_whatever_quotes_are_before_it(
    tmp_path: Path,
) -> None:
    code = f"""
# don't take this comment for the beginning of a string: \'\'\'
IT = 'a "word" of it\\\'s own'; THE_TEXT = \'\'\'{SECOND}\'\'\'
r\'\'\'\\
{FIRST}
\'\'\'
LAST = "the string has no end
"""
    write(tmp_path / "catalogue" / "odd.py", code)

    found = harvest_sources([source(tmp_path / "catalogue")], tmp_path / "cache")

    assert [paragraph.text for paragraph in found] == [FIRST]


def test_a_long_file_of_numbers_takes_no_time_that_grows_with_its_square(
    tmp_path: Path,
) -> None:
    write(tmp_path / "catalogue" / "table.py", f'"""{FIRST}"""\nTABLE = [{"1, " * 100_000}]')

    found = harvest_sources([source(tmp_path / "catalogue")], tmp_path / "cache")

    assert [paragraph.text for paragraph in found] == [FIRST]


def test_the_language_reference_is_read_from_its_dictionary(tmp_path: Path) -> None:
    write(tmp_path / "pydoc_data" / "topics.py", f'topics = {{"files": "Files\\n*****\\n\\n{FIRST}"}}')

    found = harvest_sources([source(tmp_path, "python")], tmp_path / "cache")

    assert found == [Paragraph(FIRST, "python", "pydoc_data.topics")]


def test_the_second_harvest_is_read_from_the_cache(package: Path, tmp_path: Path) -> None:
    told: list[str] = []
    first = harvest_sources([source(package)], tmp_path / "cache", told.append)
    (package / "files" / "reader.py").unlink()

    second = harvest_sources([source(package)], tmp_path / "cache", told.append)

    assert second == first
    assert told == ["Reading the documentation of catalogue (1 of 1)"]


def test_another_version_of_a_package_is_harvested_anew(package: Path, tmp_path: Path) -> None:
    harvest_sources([source(package)], tmp_path / "cache")
    write(package / "files" / "reader.py", f'"""{SECOND}"""')

    found = harvest_sources([source(package, version="1.1")], tmp_path / "cache")

    assert [paragraph.text for paragraph in found] == [SECOND]


def test_a_harvest_that_is_cut_short_leaves_nothing_in_the_cache(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plug_is_pulled(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", plug_is_pulled)
    with pytest.raises(KeyboardInterrupt):
        harvest_sources([source(package)], tmp_path / "cache")

    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("damage", [b'{"text": "ha', b'{"words": 1}\n', b"\xff\xfe", b"[1]\n"])
def test_a_damaged_cache_is_harvested_anew(package: Path, tmp_path: Path, damage: bytes) -> None:
    first = harvest_sources([source(package)], tmp_path / "cache")
    [path] = (tmp_path / "cache").iterdir()
    path.write_bytes(damage)

    assert harvest_sources([source(package)], tmp_path / "cache") == first


@pytest.mark.parametrize(
    "block",
    [
        "Return the sum of the two.",  # short
        ">>> the_sum = add_the_numbers_of_a_list([1, 2, 3])  # this is the sum of the list",
        "Parameters\n----------\nsize : int\n    The size of the window that is moved over the signal.",
        "size : int, optional\n    The size of the window that is moved over the signal, or one.",
        "size (`int`, *optional* (of the model)):\n    The size of the window that is moved over the signal.",
        ":param size: the size of the window that is moved over the signal, if it is given.",
        "Args:\n    size: the size of the window that is moved over the signal, if it is given.",
        ".. versionadded:: 1.2 of the library, in which the window was first moved over the signal.",
        "https://example.org/the/documentation/of/the/library/that/is/in/the/network/and/not/here",
        "    if the_window in the_signal:\n        the_window = the_window.move(to=the_signal, by=1)",
        "from the_library import the_window\nthe_window is the one for the signal and for that in it",
        "- the window that is moved over the signal\n- the signal that is in the window of the two",
        "where \\bar{x} is the mean of the elements of the vector and \\cdot the product of the two",
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho",
        "The window is of \ud800 and cannot be written as UTF-8 by any of the tokenizers in the library.",
    ],
)
def test_a_block_that_is_not_english_prose_is_dropped(block: str) -> None:
    assert prose(block) is None


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (
            "The mean of\n:class:`~torch.Tensor` elements, as is said\nin `the manual <https://x.y>`_ [1]_.",
            "The mean of torch.Tensor elements, as is said in the manual.",
        ),
        ("Notes\n-----\n" + FIRST, FIRST),
        ("    " + SECOND.replace(", ", ",\n    "), SECOND),
        ("1. " + FIRST, FIRST),
    ],
)
def test_prose_is_given_as_one_line_without_markup(block: str, text: str) -> None:
    assert prose(block) == text


def test_the_installed_packages_are_found_without_being_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "plotly", raising=False)

    found = {source.package: source for source in installed_sources()}

    assert "plotly" not in sys.modules
    assert (found["plotly"].folders[0] / "__init__.py").is_file()
    assert (found["python"].folders[0] / "ast.py").is_file()
    assert found["numpy"].version.count(".") >= 1


@pytest.mark.slow
def test_the_installed_documentation_gives_a_corpus_in_an_order_that_is_always_the_same(
    tmp_path: Path,
) -> None:
    found = harvest(tmp_path / "one")

    assert len(found) > 20_000
    assert len({paragraph.text for paragraph in found}) == len(found)
    assert [paragraph.package for paragraph in found] == sorted(paragraph.package for paragraph in found)
    assert harvest(tmp_path / "one") == found
    assert harvest(tmp_path / "two") == found
