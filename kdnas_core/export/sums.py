"""SHA256SUMS: the digest of every file of an export, as `sha256sum -c` reads it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kdnas_core.errors import Failure

SUMS = "SHA256SUMS"
WEIGHTS = "model.safetensors"


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(folder: Path) -> list[str]:
    """The files of a folder, by their names relative to it, in order."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def write_sums(folder: Path) -> None:
    """Writes the digests of all files of a folder but of the list itself."""
    lines = [f"{sha256(folder / name)}  {name}\n" for name in files_of(folder) if name != SUMS]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def read_sums(folder: Path) -> dict[str, str]:
    """The digests that a folder lists, by the name of the file.

    Raises:
        OSError: it has no such list.
        ValueError: a line of it is none.
    """
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def check_sums(folder: Path) -> None:
    """Refuses an export that is no longer what was checked.

    Raises:
        Failure: a file is not as it is listed; names it.
    """
    try:
        for name, digest in read_sums(folder).items():
            if sha256(folder / name) != digest:
                raise Failure(
                    f"The file {name} of {folder} was changed since it was checked; export it anew."
                )
    except (OSError, ValueError):
        raise Failure(f"The files of {folder} are not whole any more; export it anew.") from None
