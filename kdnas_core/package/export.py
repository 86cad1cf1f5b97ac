"""Makes an export: copies, completes, checks and describes it, then moves it into place."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

from kdnas_core.errors import Failure
from kdnas_core.package.card import card
from kdnas_core.package.checking import checked
from kdnas_core.package.checks import RECORD, Checks, Exported, read_export
from kdnas_core.package.children import Say
from kdnas_core.package.facts import Facts, facts_of, record
from kdnas_core.package.layout import FILES, NEEDED, WEIGHTS, sha256, write_sums, write_zip
from kdnas_core.package.target import archive_of, new_folder, place_of
from kdnas_core.runs.names import Source, source_named, weights_of
from kdnas_core.runs.records import Export
from kdnas_core.runs.store import Store
from kdnas_core.spec import Format

HF: frozenset[Format] = frozenset({"hf"})


def _silently(activity: str) -> None:
    pass


def export_student(
    store: Store,
    name: int | str,
    folder: Path,
    formats: frozenset[Format] = HF,
    say: Say = _silently,
) -> Exported:
    """Writes a candidate or a student as a folder that stock libraries load, and checks that they do.

    The folder is only created once all of it has been written and verified.

    Args:
        store: has the candidate or student.
        name: of the candidate, as in 12, or of the student, as in s3.
        folder: must not exist yet.
        formats: what to write in addition to the `transformers` files.
        say: called with the activity several times a second; may raise, and then nothing is left.

    Raises:
        BadInput: the name is unknown, there are no weights, or the folder cannot be written.
        Failure: the export does not load, or is not the student.
    """
    folder = place_of(folder)
    source = source_named(store, str(name))
    weights = weights_of(store, source)
    facts = facts_of(store, source)
    with new_folder(folder, "zip" in formats) as unfinished:
        say("copying")
        _copy(weights, unfinished, source)
        checks = checked(unfinished, facts, "onnx" in formats, say)
        say("writing the model card and the checksums")
        _describe(unfinished, facts, checks)
        if "zip" in formats:
            say("writing the zip")
            write_zip(unfinished, archive_of(unfinished))
    return read_export(folder)


def serve_export(store: Store, export: Export, say: Say) -> None:
    """Makes a queued export, unless it exists already; as `export_student`."""
    folder, formats = Path(export.spec.folder), frozenset(export.spec.formats)
    weights = weights_of(store, source_named(store, export.subject))
    with suppress(OSError, ValueError):
        if read_export(folder).sha256 == sha256(weights / WEIGHTS):
            return  # an earlier worker made it, but ended before it marked it as finished
    export_student(store, export.subject, folder, formats, say)


def _copy(weights: Path, folder: Path, source: Source) -> None:
    for name in FILES:  # not all files: a checkpoint may lie beside them
        if name in NEEDED or (weights / name).is_file():
            _copy_file(weights / name, folder / name, source)
    _unset_cutting(folder / "tokenizer.json")


def _copy_file(path: Path, target: Path, source: Source) -> None:
    try:
        reading = path.open("rb")
    except OSError:
        raise Failure(f"The files of {source.title.lower()} could not be read whole; try again.") from None
    with reading, target.open("wb") as writing:
        shutil.copyfileobj(reading, writing)


def _unset_cutting(tokenizer: Path) -> None:
    """Removes the truncation and padding of the last training batch, which the library saves in the file.

    Stock `transformers` sets both for each batch; `tokenizers` alone would apply the saved ones.
    """
    if not tokenizer.is_file():
        return
    fields = json.loads(tokenizer.read_text(encoding="utf-8"))
    if fields.get("truncation") or fields.get("padding"):
        fields |= {"truncation": None, "padding": None}
        tokenizer.write_text(json.dumps(fields, indent=2, ensure_ascii=False), encoding="utf-8")


def _describe(folder: Path, facts: Facts, checks: Checks) -> None:
    (folder / "run.json").write_text(facts.run.spec.to_json() + "\n", encoding="utf-8")
    fields = {**record(facts), "checks": checks.to_dict()}
    (folder / RECORD).write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card(facts, checks, folder), encoding="utf-8")
    write_sums(folder)
