"""The files of an exported student: their names, their checksums, and the zip."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import IO, get_args

from kdnas_core.errors import BadInput, Failure
from kdnas_core.spec import Format
from kdnas_core.students.task_file import TASK_FILE

FORMATS: tuple[Format, ...] = get_args(Format)
# possible files of a tokenizer; none of them can hold code
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
)

SUMS = "SHA256SUMS"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
NEEDED = (CONFIG, WEIGHTS)
# possible files of a student, the only ones that an import copies; none of them can hold code
FILES = (*NEEDED, *TOKENIZER_FILES, TASK_FILE)


def parse_formats(text: str) -> frozenset[Format]:
    """Parses a comma-separated list of formats; the result always has `hf`, the folder itself.

    Raises:
        BadInput: a format is unknown.
    """
    named = [name.strip() for name in text.split(",")]
    for name in named:
        if name not in FORMATS:
            choices = ", ".join(FORMATS)
            raise BadInput(
                f"The format {name[:60]!r} is not known; write --format with {choices}, or several."
            )
    return frozenset(each for each in FORMATS if each in named or each == "hf")


def sha256(path: Path) -> str:
    """Returns a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(folder: Path) -> list[str]:
    """Returns the names of a folder's files, relative to it and sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def write_sums(folder: Path) -> None:
    """Writes the list of checksums of all other files of a folder."""
    lines = [f"{sha256(folder / name)}  {name}\n" for name in files_of(folder) if name != SUMS]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def read_sums(folder: Path) -> dict[str, str]:
    """Reads a folder's list of checksums, by file name.

    Raises:
        OSError: there is no such list.
        ValueError: a line is malformed.
    """
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def check_sums(folder: Path) -> None:
    """Compares the files of an export with its list of checksums.

    Raises:
        Failure: a file was changed, or a file or the list is missing.
    """
    try:
        for name, digest in read_sums(folder).items():
            if sha256(folder / name) != digest:
                raise Failure(
                    f"The file {name} of {folder} was changed since it was checked; export it anew."
                )
    except (OSError, ValueError):
        raise Failure(f"The files of {folder} are not whole any more; export it anew.") from None


def write_zip(folder: Path, out: Path | IO[bytes]) -> None:
    """Writes the files of an export as a zip, with the folder's name as its top folder.

    Raises:
        Failure: a file was changed since the export was checked.
    """
    check_sums(folder)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:  # weights do not compress
        for name in files_of(folder):
            archive.write(folder / name, f"{folder.name}/{name}")
