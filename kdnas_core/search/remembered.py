"""Results of mini-KD kept on this machine, so that no search trains what an earlier one has trained."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdnas_core.architecture import LayerSource
from kdnas_core.distillation.trainer import HeldOut
from kdnas_core.files import cache_folder, delete_beyond, own_folder

MOST_BYTES = 4 * 2**30  # of all results together; those not used for longest are deleted
log = logging.getLogger(__name__)
_RESULT, _WEIGHTS = "result.json", "model.safetensors"


@dataclass(frozen=True)
class MiniKD:
    """The result of one mini-KD, without its weights.

    Attributes:
        result: the held-out values at the end.
        looks: the held-out values from before the first step to the end.
        notes: sentences on loss terms that are left out.
        sources: what each layer of the student was cut from.
    """

    result: HeldOut
    looks: tuple[HeldOut, ...]
    notes: tuple[str, ...]
    sources: tuple[LayerSource, ...]


def remember(question: dict[str, Any], mini_kd: MiniKD, student: Path) -> None:
    """Keeps a result with the files of its student, if the disk has room.

    Args:
        question: all that the result depends on.
        mini_kd: the result.
        student: folder of the student in the format of stock `transformers`.
    """
    place = _place(question)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with own_folder(place.parent, ".unfinished-") as own:
            made = own / "made"
            shutil.copytree(student, made)
            fields = {**_to_json(mini_kd), "question": question, "sha256": _sha256(made / _WEIGHTS)}
            (made / _RESULT).write_text(json.dumps(fields), encoding="utf-8")
            with suppress(OSError):  # another process had the same result and was first
                made.replace(place)
        delete_beyond(place.parent, MOST_BYTES, spared=place)
    except OSError as error:
        log.warning(f"A result of mini-KD is not kept: {error}")


def recall(question: dict[str, Any], student: Path) -> MiniKD | None:
    """Returns a result and copies its student into a folder; None if it is not known, or damaged."""
    place = _place(question)
    try:
        fields = json.loads((place / _RESULT).read_bytes())
        mini_kd = _from_json(fields)
        whole = fields["sha256"] == _sha256(place / _WEIGHTS)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError):
        whole = False
    if not whole:
        shutil.rmtree(place, ignore_errors=True)
        return None
    place.touch()
    shutil.copytree(place, student, dirs_exist_ok=True, ignore=shutil.ignore_patterns(_RESULT))
    return mini_kd


def _place(question: dict[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:24]
    return cache_folder() / "mini_kd" / digest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    return HeldOut(look["step"], terms, look["standard_error"], look["languages"])
