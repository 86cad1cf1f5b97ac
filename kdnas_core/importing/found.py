"""What a user dropped on the page: a search, or a student with the search that it is from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from kdnas_core.errors import BadInput
from kdnas_core.importing.manifest import Manifest, manifest_of
from kdnas_core.importing.package import MANIFEST, MOST_TEXT_BYTES, SPEC, opened_package
from kdnas_core.spec import RunSpec, parse_spec_json


@dataclass(frozen=True)
class Found:
    """What is in a file.

    Attributes:
        spec: of the search.
        manifest: of the student; None where the file holds a search alone.
    """

    spec: RunSpec
    manifest: Manifest | None


def look(file: BinaryIO, title: str) -> Found:
    """Tells what a file holds, from its small parts alone.

    Args:
        file: a RunSpec as JSON where `title` ends in .json, else a zip.
        title: the file's name.

    Raises:
        BadInput: it is neither a search nor an export.
    """
    file.seek(0)
    if title.lower().endswith(".json"):
        return Found(_spec(file.read(MOST_TEXT_BYTES), title), None)
    with opened_package(file, title) as package:
        if MANIFEST not in package.files and SPEC in package.files:
            return Found(_spec(package.read(SPEC), title), None)
        manifest = manifest_of(package)
        return Found(manifest.spec, manifest)


def _spec(written: bytes, title: str) -> RunSpec:
    try:
        return parse_spec_json(written.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise BadInput(f"{title} is not the JSON of a search, since it is not UTF-8.") from None
    except BadInput as error:
        raise BadInput(f"{title} is not the JSON of a search. {error}") from None
