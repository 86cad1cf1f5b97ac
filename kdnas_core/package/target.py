"""Where an export goes: refused in a sentence where it cannot, and there whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kdnas_core.errors import BadInput, Failure

_FULL = (errno.ENOSPC, errno.EDQUOT)
_PREFIX = ".export-"
_LITTLE = 100_000  # bytes: what is left where a write did not fit


@contextmanager
def new_folder(folder: Path, with_zip: bool) -> Iterator[Path]:
    """An empty folder to write an export to, which becomes `folder` when the `with` block ends well.

    What the block leaves beside it as `archive_of` it becomes that of `folder`. Where the block does not end
    well, however that comes about, nothing is left, not even the parents that were made for it.

    Args:
        folder: a name that nothing has yet, anywhere: the user may say `../x` on their own machine.
        with_zip: whether its archive is to come too.

    Raises:
        BadInput: it cannot be written there; says why.
    """
    wanted = [folder, *([archive_of(folder)] if with_zip else [])]
    made: list[Path] = []
    try:
        for path in wanted:
            _check(path)
        made = _missing_parents(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=folder.parent, prefix=_PREFIX, ignore_cleanup_errors=True
        ) as own:
            unfinished = Path(own) / folder.name
            unfinished.mkdir()
            with _full_disk_said(folder, Path(own)):
                yield unfinished
            _move([Path(own) / path.name for path in wanted], wanted)
            made = []
    except OSError as error:
        raise _refusal(folder, error) from None
    finally:
        for parent in made:
            with suppress(OSError):  # somebody else may have put something there meanwhile
                parent.rmdir()


def place_of(folder: Path) -> Path:
    """Where a name leads: `missing/../new` is `new`, and `missing` is not made on the way.

    Raises:
        BadInput: it is no name for a folder.
    """
    _check_name(folder)
    return folder.parent.resolve() / folder.name if ".." in folder.parts else folder


@contextmanager
def _full_disk_said(folder: Path, own: Path) -> Iterator[None]:
    """Says what a child that failed for want of room could not: libraries have errors of their own for it."""
    try:
        yield
    except Failure:
        if shutil.disk_usage(own).free < _LITTLE:
            raise full(folder) from None
        raise


def archive_of(folder: Path) -> Path:
    """The zip of an export, beside it."""
    return folder.parent / f"{folder.name}.zip"


def _check_name(folder: Path) -> None:
    """Refuses a name that is none."""
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in str(folder)):
        raise BadInput(
            f"The name {str(folder)[:60]!r} has characters that no folder should have; name another."
        )
    if folder.name in ("", ".."):
        raise BadInput("The export needs a folder of its own; name one that does not exist yet.")


def _check(folder: Path) -> None:
    """Refuses a name that is none, or is taken; a dangling link takes its name too."""
    _check_name(folder)
    try:
        taken = bool(folder.lstat())
    except FileNotFoundError:
        taken = False
    if taken:
        what = "folder" if folder.is_dir() else "file"
        raise BadInput(f"The {what} {folder} exists already; name a folder that does not.")


def _missing_parents(folder: Path) -> list[Path]:
    """Those that have to be made, the innermost first."""
    return [parent for parent in folder.parents if not parent.exists()]


def _move(written: list[Path], wanted: list[Path]) -> None:
    """Everything into its place, or nothing."""
    for path in [*written[0].rglob("*"), *written[1:]]:
        _on_disk(path)
    done: list[Path] = []
    try:
        for path, place in zip(written, wanted, strict=True):
            path.rename(place)
            done.append(place)
    except BaseException:
        for place in done:
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        raise


def _on_disk(path: Path) -> None:
    """On the disk before it has its name: a crash must not leave half a file that looks whole."""
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _refusal(folder: Path, error: OSError) -> BadInput:
    if error.errno in _FULL:
        return full(folder)
    shown = str(folder) if len(str(folder)) <= 200 else f"{str(folder)[:60]} and so on"
    reason = error.strerror or type(error).__name__
    return BadInput(f"The folder {shown} cannot be written ({reason}); name another.")


def full(folder: Path) -> BadInput:
    """What is said where a disk has no room left."""
    return BadInput(
        f"The disk of {folder.parent} is full; free some space, or name a folder on another disk."
    )
