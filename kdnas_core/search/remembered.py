"""Results of mini-KD kept on this machine, so that no search trains what an earlier one has trained."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdnas_core.architecture import LayerSource
from kdnas_core.distillation.trainer import HeldOut
from kdnas_core.files import cache_folder, delete_beyond, discard, own_folder, sync_files

FORMAT = 2  # of what is kept: asked for by another, earlier results are not found, and age out
MOST_BYTES = 4 * 2**30  # of all results together; those not used for longest are deleted
log = logging.getLogger(__name__)
_RESULT = "result.json"


@dataclass(frozen=True)
class MiniKD:
    """The result of one mini-KD, without its weights.

    Attributes:
        result: the held-out values at the end, or at the rung where it was stopped.
        looks: the held-out values from before the first step to those.
        notes: sentences on loss terms that are left out.
        sources: what each layer of the student was cut from.
    """

    result: HeldOut
    looks: tuple[HeldOut, ...]
    notes: tuple[str, ...]
    sources: tuple[LayerSource, ...]


@dataclass(frozen=True)
class Remembered:
    """A result that is kept on this machine; `is_whole` unless its training was stopped at a rung."""

    mini_kd: MiniKD
    is_whole: bool
    _place: Path

    def copy_student(self, folder: Path) -> None:
        """Copies the files of its student; the caller flushes them to disk."""
        shutil.copytree(self._place, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(_RESULT))


def remember(question: dict[str, Any], mini_kd: MiniKD, student: Path | None) -> None:
    """Keeps a result with the files of its student, if the disk has room.

    Args:
        question: all that the result depends on.
        mini_kd: the result.
        student: folder of the student in the format of stock `transformers`; None if its training was
            stopped at a rung.
    """
    place = _place(question)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with own_folder(place.parent, ".unfinished-") as own:
            made = own / "made"
            made.mkdir()
            known = recall(question)
            if known is not None and not known.is_whole:  # the same training, stopped at another rung
                discard(place)
            if student is not None:
                shutil.copytree(student, made, dirs_exist_ok=True)
            fields = {**_to_json(mini_kd), "question": question, "sums": _sums(made)}
            (made / _RESULT).write_text(json.dumps(fields), encoding="utf-8")
            sync_files(made)
            with suppress(OSError):  # another process had the same result and was first
                made.replace(place)
        delete_beyond(place.parent, MOST_BYTES, spared=place)
    except OSError as error:
        log.warning(f"A result of mini-KD is not kept: {error}")


def recall(question: dict[str, Any]) -> Remembered | None:
    """Returns a result; None if it is not known, or damaged.

    Args:
        question: as for `remember`.
    """
    place = _place(question)
    if not place.is_dir():
        return None
    try:
        fields = json.loads((place / _RESULT).read_bytes())
        mini_kd = _from_json(fields)
        if fields["sums"] == _sums(place):
            os.utime(place)
            return Remembered(mini_kd, bool(fields["sums"]), place)
    except (OSError, ValueError, LookupError, TypeError) as error:
        log.warning(f"A result of mini-KD cannot be read: {error}")
    discard(place)
    return None


def _place(question: dict[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:24]
    return cache_folder() / "mini_kd" / digest


def _sums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a student."""
    sums = {}
    for path in folder.iterdir():
        if path.name != _RESULT:
            with path.open("rb") as file:
                sums[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def _to_json(mini_kd: MiniKD) -> dict[str, Any]:
    fields = asdict(mini_kd)
    for look in (fields["result"], *fields["looks"]):  # JSON has no tuples as keys
        look["terms"] = {
            name: [[*place, value] for place, value in places.items()]
            for name, places in look["terms"].items()
        }
    return fields


def _from_json(fields: dict[str, Any]) -> MiniKD:
    return MiniKD(
        _held_out(fields["result"]),
        tuple(map(_held_out, fields["looks"])),
        tuple(fields["notes"]),
        tuple(map(LayerSource.from_dict, fields["sources"])),
    )


def _held_out(look: dict[str, Any]) -> HeldOut:
    terms = {
        name: {(layer, of): value for layer, of, value in places} for name, places in look["terms"].items()
    }
    return HeldOut(look["step"], terms, tuple(look["resampled"]), look["languages"])
