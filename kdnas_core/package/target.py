"""Creates the folder of an export, complete or not at all."""

from __future__ import annotations

import errno
import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kdnas_core.errors import BadInput, Failure
from kdnas_core.files import own_folder, sync, sync_files

_FULL = (errno.ENOSPC, errno.EDQUOT)
_PREFIX = ".kdnas-export-"
_LITTLE = 100_000  # bytes; a disk with less free space is full


@contextmanager
def new_folder(folder: Path, with_zip: bool) -> Iterator[Path]:
    """Yields an empty folder for an export, and renames it to `folder` after the `with` block.

    Its `archive_of`, if the block wrote it, is renamed in the same way. If the block raises, nothing is left,
    not even the parent folders that were created.

    Args:
        folder: must not exist; it may be outside the working folder.
        with_zip: whether the block writes an archive too.

    Raises:
        BadInput: the folder cannot be written; says why.
    """
    wanted = [folder, *([archive_of(folder)] if with_zip else [])]
    made: list[Path] = []
    try:
        for path in wanted:
            _check(path)
        made = _missing_parents(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with own_folder(folder.parent, _PREFIX) as own:
            unfinished = own / "files" / folder.name
            unfinished.mkdir(parents=True)
            with _full_disk_said(folder, own):
                yield unfinished
            _move([unfinished.parent / path.name for path in wanted], wanted)
            made = []
    except OSError as error:
        raise _refusal(folder, error) from None
    finally:
        for parent in made:
            with suppress(OSError):  # another process may have put files there
                parent.rmdir()


def place_of(folder: Path) -> Path:
    """Resolves `..` in a path, so that `missing/../new` is `new` and `missing` is not created.

    Raises:
        BadInput: the name is not valid for a folder.
    """
    _check_name(folder)
    return folder.parent.resolve() / folder.name if ".." in folder.parts else folder


@contextmanager
def _full_disk_said(folder: Path, own: Path) -> Iterator[None]:
    """Reports a full disk if a child failed for it: the libraries raise various errors then."""
    try:
        yield
    except Failure:
        if shutil.disk_usage(own).free < _LITTLE:
            raise full(folder) from None
        raise


def archive_of(folder: Path) -> Path:
    """Returns the path of an export's zip, beside its folder."""
    return folder.parent / f"{folder.name}.zip"


def _check_name(folder: Path) -> None:
    """Raises `BadInput` if a name is not valid for a folder."""
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in str(folder)):
        raise BadInput(
            f"The name {str(folder)[:60]!r} has characters that no folder should have; name another."
        )
    if folder.name in ("", ".."):
        raise BadInput("The export needs a folder of its own; name one that does not exist yet.")


def _check(folder: Path) -> None:
    """Raises `BadInput` if a name is not valid or exists already, even as a dangling link."""
    _check_name(folder)
    try:
        taken = bool(folder.lstat())
    except FileNotFoundError:
        taken = False
    if taken:
        what = "folder" if folder.is_dir() else "file"
        raise BadInput(f"The {what} {folder} exists already; name a folder that does not.")


def _missing_parents(folder: Path) -> list[Path]:
    """The parent folders that do not exist, the innermost first."""
    return [parent for parent in folder.parents if not parent.exists()]


def _move(written: list[Path], wanted: list[Path]) -> None:
    """Renames all paths, or none of them."""
    sync_files(written[0])  # before they are renamed, so that a crash leaves no incomplete file
    for archive in written[1:]:
        sync(archive)
    done: list[Path] = []
    try:
        for path, place in zip(written, wanted, strict=True):
            path.rename(place)
            done.append(place)
    except BaseException:
        for place in done:
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        raise


def _refusal(folder: Path, error: OSError) -> BadInput:
    if error.errno in _FULL:
        return full(folder)
    shown = str(folder) if len(str(folder)) <= 200 else f"{str(folder)[:60]} and so on"
    reason = error.strerror or type(error).__name__
    return BadInput(f"The folder {shown} cannot be written ({reason}); name another.")


def full(folder: Path) -> BadInput:
    """Returns the error for a full disk."""
    return BadInput(
        f"The disk of {folder.parent} is full; free some space, or name a folder on another disk."
    )
