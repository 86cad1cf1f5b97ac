"""Opens an export in a zip or a folder. Names and sizes are checked; only known files are read."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from kdnas_core.errors import BadInput
from kdnas_core.package.checks import RECORD
from kdnas_core.package.layout import CONFIG as CONFIG
from kdnas_core.package.layout import FILES, TOKENIZER_FILES
from kdnas_core.package.layout import SUMS as SUMS
from kdnas_core.package.layout import WEIGHTS as WEIGHTS

MANIFEST = RECORD
SPEC = "run.json"
TOKENIZER = frozenset(TOKENIZER_FILES)
KEPT = frozenset(FILES)

MOST_FILES = 1_000
MOST_BYTES = 8 * 2**30  # size limit of the weights
MOST_TEXT_BYTES = 64 * 2**20  # size limit of any other file
CHUNK = 2**20
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)


@dataclass(frozen=True)
class Package:
    """An opened export.

    Attributes:
        title: name of the zip or folder in messages.
        files: a function that opens each known file, by name.
    """

    title: str
    files: dict[str, Callable[[], IO[bytes]]]

    def read(self, name: str) -> bytes:
        """Returns a whole file; raises as `chunks`."""
        return b"".join(self.chunks(name))

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yields a file in chunks. Counts their size, since the size in a zip's header may be wrong.

        Raises:
            BadInput: the file is missing, damaged or too large.
        """
        if name not in self.files:
            raise BadInput(f"{self.title} has no {name}; import a whole export.")
        left = MOST_BYTES if name == WEIGHTS else MOST_TEXT_BYTES
        try:
            with self.files[name]() as file:
                while chunk := file.read(CHUNK):
                    left -= len(chunk)
                    if left < 0:
                        raise BadInput(f"The file {name} in {self.title} is too large to be a student's.")
                    yield chunk
        except DAMAGED as error:
            reason = str(getattr(error, "strerror", None) or error or "it ends too soon").rstrip(".")
            raise BadInput(
                f"The file {name} in {self.title} cannot be read ({reason}); get it anew."
            ) from None


@contextmanager
def opened_package(source: Path | BinaryIO, title: str) -> Iterator[Package]:
    """Opens an export for a `with` block.

    Args:
        source: the folder, the zip, or an open zip.
        title: its name in messages.

        Raises:
            BadInput: it is neither a folder nor a zip, or has a file of a name that no export has.
    """
    if isinstance(source, Path) and _is_folder(source, title):
        yield Package(title, _files_of_folder(source, title))
        return
    try:
        archive = zipfile.ZipFile(source)
    except FileNotFoundError:
        raise BadInput(f"There is no {title}; name the zip or the folder of an exported student.") from None
    except (*DAMAGED, ValueError):
        raise BadInput(
            f"{title} is no zip that can be read; name the zip or folder of an exported student."
        ) from None
    with archive:
        yield Package(title, _files_of_zip(archive, title))


def copied(package: Package, folder: Path) -> dict[str, str]:
    """Copies a student's files to a folder and flushes them to disk; returns their SHA-256 by name.

    Raises:
        BadInput: as `Package.chunks`.
        OSError: the folder cannot be written.
    """
    return {name: _copied(package.chunks(name), folder / name) for name in sorted(KEPT & set(package.files))}


def _copied(chunks: Iterable[bytes], target: Path) -> str:
    digest = hashlib.sha256()
    with target.open("xb") as copy:
        for chunk in chunks:
            copy.write(chunk)
            digest.update(chunk)
        copy.flush()
        os.fsync(copy.fileno())
    return digest.hexdigest()


def _is_folder(path: Path, title: str) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise BadInput(f"{title} cannot be read ({error.strerror}); name a zip or a folder.") from None


def _files_of_folder(folder: Path, title: str) -> dict[str, Callable[[], IO[bytes]]]:
    found = {name: folder / name for name in KEPT | {MANIFEST, SPEC, SUMS}}
    there = {name: path for name, path in found.items() if path.is_symlink() or path.exists()}
    for name, path in there.items():
        if path.is_symlink() or not path.is_file():  # a link could point to any file of this machine
            raise BadInput(f"The file {name} in {title} is a link or none; copy the export with its files.")
    return {name: partial(_opened, path) for name, path in there.items()}


def _opened(path: Path) -> IO[bytes]:
    return path.open("rb")


def _files_of_zip(archive: zipfile.ZipFile, title: str) -> dict[str, Callable[[], IO[bytes]]]:
    entries = archive.infolist()
    if len(entries) > MOST_FILES:
        raise BadInput(f"{title} has {len(entries)} files; an export has less than {MOST_FILES}.")
    for entry in entries:
        _check_entry(entry, title)
    names = Counter(entry.filename.casefold() for entry in entries)
    if twice := [name for name, count in names.items() if count > 1]:
        raise BadInput(f"{title} has two files called {shown(twice[0])}; get the export anew.")
    files = {entry.filename: entry for entry in entries if not entry.is_dir()}
    root = _root(files, title)
    there = {name: files[root + name] for name in KEPT | {MANIFEST, SPEC, SUMS} if root + name in files}
    return {name: partial(archive.open, entry) for name, entry in there.items()}


def _check_entry(entry: zipfile.ZipInfo, title: str) -> None:
    name = entry.orig_filename  # `filename` would end at a NUL
    parts = name.removesuffix("/").split("/")
    leaves = any(part in ("", ".", "..") for part in parts) or re.match(r"[A-Za-z]:", name)
    if leaves or "\0" in name or "\\" in name:
        raise BadInput(f"{title} has a file called {shown(name)}, which no export has; do not trust it.")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise BadInput(f"{title} has a link, {shown(name)}, which no export has; do not trust it.")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadInput(f"{title} is packed in a way that no export is; pack its folder anew as a plain zip.")


def _root(names: Iterable[str], title: str) -> str:
    """The export's folder in the zip, with its slash; empty if it is at the top."""
    paths = [PurePosixPath(name) for name in names]
    for sought in (MANIFEST, SPEC):
        found = [path for path in paths if path.name == sought and len(path.parts) <= 2]
        if len(found) > 1:
            raise BadInput(f"{title} has several exports in it; import one at a time.")
        if found:
            return str(found[0])[: -len(sought)]
    return ""


def shown(text: str) -> str:
    """Formats a foreign text for a message: quoted, shortened, and with invisible characters escaped."""
    return repr(text if len(text) <= 60 else f"{text[:60]}…")
