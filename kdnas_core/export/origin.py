"""Where an export comes from: its teacher's licence and language, and a fingerprint of its data."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.repocard import metadata_load

from kdnas_core.distillation.harvest import HARVEST_VERSION, installed_sources
from kdnas_core.distillation.parts import PACKAGED, Part, parts_of
from kdnas_core.distillation.teacher_files import file_of, folder_of
from kdnas_core.errors import BadInput

NOT_STATED = "not stated"
PACKAGED_NAME = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGED_LICENCE = "apache-2.0"


@dataclass(frozen=True)
class Origin:
    """What is known of a teacher beside its weights.

    Attributes:
        licence: as its own card states it, or "not stated".
        base: its id on the hub; None for a local folder.
        languages: as its own card states them.
    """

    licence: str
    base: str | None
    languages: tuple[str, ...]


def origin_of(teacher: str) -> Origin:
    """Reads a teacher's own card, where it has one."""
    card = _card(teacher)
    licence = _PACKAGED_LICENCE if teacher == PACKAGED else card.get("license")
    named = card.get("language")
    languages = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    base = PACKAGED_NAME if teacher == PACKAGED else None if folder_of(teacher) else teacher
    return Origin(
        licence=licence if isinstance(licence, str) else NOT_STATED,
        base=base,
        languages=tuple(each for each in languages if isinstance(each, str)),
    )


def _card(teacher: str) -> dict[str, Any]:
    path = file_of(teacher, "README.md")
    try:
        found = None if path is None else metadata_load(path)
    except Exception:  # somebody else's YAML; what it does not say is "not stated"
        return {}
    return found if isinstance(found, dict) else {}


def data_fingerprint(corpus: str) -> str:
    """SHA-256 of what a corpus is made of, by which two users can tell whether they had the same texts.

    Of the packaged corpus the versions of the packages that it is harvested from, of files their bytes, of a
    hub's data set its name. "not known" where the corpus is there no more.
    """
    try:
        return hashlib.sha256(json.dumps([_part(part) for part in parts_of(corpus)]).encode()).hexdigest()
    except (BadInput, OSError):
        return "not known"


def _part(part: Part) -> list[Any]:
    if part.source == PACKAGED:
        packages = sorted((source.package, source.version) for source in installed_sources())
        return [PACKAGED, HARVEST_VERSION, platform.python_version(), packages]
    if part.is_stream:
        return [part.source]
    with Path(part.source).open("rb") as file:
        return [Path(part.source).name, hashlib.file_digest(file, "sha256").hexdigest()]
