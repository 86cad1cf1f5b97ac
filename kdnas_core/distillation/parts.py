"""What a corpus is made of: one plain source, or several of them, as a rule one a language."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from kdnas_core.distillation.hub_texts import HUB, parse_hub
from kdnas_core.distillation.text_files import ENDINGS
from kdnas_core.errors import BadInput

PACKAGED = "packaged"

_JOINT = re.compile(r"(?<=\s)\+(?=\s)")


@dataclass(frozen=True)
class Part:
    """A plain source of text and the name of its language.

    Attributes:
        source: `packaged`, `hub:NAME[:CONFIG[:SPLIT[:COLUMN]]]`, or the path of a file.
        language: the file's name without its ending, the hub's config (else the data set's name without its
            owner), or `packaged`. Of equal names the second is NAME-2, and so on.
    """

    source: str
    language: str

    @property
    def is_stream(self) -> bool:
        """Whether it is read only as far as it is needed."""
        return self.source.startswith(HUB)


def parts_of(source: str) -> tuple[Part, ...]:
    """The parts of a corpus, in order; reads no text.

    Args:
        source: plain; a folder with one file a language, hidden ones and read-mes aside; or several of these
            with " + " between them.

    Raises:
        BadInput: a folder holds no corpus file or one of another kind, a side of a "+" is empty, a part is
            named twice, or the name of a hub data set is malformed.
    """
    sources = list(chain.from_iterable(map(_files_of, _sides(source))))
    for number, one in enumerate(sources):
        if one in sources[:number]:
            raise BadInput(f"The corpus {source} names {one} twice; name each of its parts once.")
    names = _unequal(map(_language_of, sources))
    return tuple(Part(*pair) for pair in zip(sources, names, strict=True))


def _sides(source: str) -> list[str]:
    sides = _JOINT.split(f" {source} ")
    if len(sides) == 1 or _exists(source):  # a file's name may hold a " + "
        return [source]
    stripped = [side.strip() for side in sides]
    if not all(stripped):
        raise BadInput(f"'{source}' has nothing on one side of a '+'; name a corpus on each side.")
    return stripped


def _exists(source: str) -> bool:
    try:
        return Path(source).exists()
    except OSError:  # several names in a row can be too long for one
        return False


def _files_of(source: str) -> list[str]:
    """The files of a folder; whatever else it is stays as it is."""
    try:
        # "" would be the working folder
        if not source or source == PACKAGED or source.startswith(HUB) or not Path(source).is_dir():
            return [source]
        files = sorted(path for path in Path(source).iterdir() if not _is_aside(path.name))
    except OSError as error:
        raise BadInput(f"{source} cannot be read ({error.strerror}); mend that, or name another.") from None
    if not files:
        raise BadInput(f"The folder {source} holds no corpus; put one file a language into it, as en.txt.")
    for path in files:
        _check_ending(path)
    return [str(path) for path in files]


def _is_aside(name: str) -> bool:
    return name.startswith(".") or name.lower().startswith("readme") or name.lower().endswith(".md")


def _check_ending(path: Path) -> None:
    if path.suffix.lower() not in ENDINGS:
        raise BadInput(
            f"The folder {path.parent} also holds {path.name}, which is no corpus file "
            f"({', '.join(ENDINGS)}); take it out."
        )


def _language_of(source: str) -> str:
    if source == PACKAGED:
        return PACKAGED
    if source.startswith(HUB):
        hub = parse_hub(source)
        return hub.config or hub.name.rpartition("/")[2]
    # the name of a file can hold bytes that are no character, which no database takes
    return Path(source).stem.encode("utf-8", "replace").decode("utf-8")


def _unequal(names: Iterable[str]) -> Iterator[str]:
    taken: set[str] = set()
    for name in names:
        free, number = name, 1
        while free in taken:
            number += 1
            free = f"{name}-{number}"
        taken.add(free)
        yield free
