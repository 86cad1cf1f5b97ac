"""Tasks of local folders: a table a split, or a folder a language with a table a split."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from kdnas_core.errors import BadInput
from kdnas_core.measure.task_columns import ENDINGS
from kdnas_core.measure.task_sources import SCORABLE, TRAIN, Found, Splits
from kdnas_core.measure.task_tables import read_table, sound

_CHOICES = (
    "name 'packaged', hub:NAME[:CONFIG], or a folder with train and validation as "
    ".jsonl, .csv, .tsv or .parquet"
)
_SPLIT = re.compile(rf"{TRAIN}|({'|'.join(SCORABLE)})(_\w+)?")  # validation_matched is one of two
_ENGLISH = ("en", "english")


def find_folder(source: str) -> Found:
    """The task of a folder: its own splits, or those of its languages, which are its subfolders.

    Raises:
        BadInput: there is no such folder, or it does not hold a task.
    """
    folder = _folder(source)
    splits, languages = _splits(folder, ""), _languages(folder)
    if languages and not {TRAIN, SCORABLE[0]} <= set(splits):
        if splits:
            raise BadInput(
                f"The task {source} has the split {next(iter(splits))} beside folders of languages; move it "
                "into the folder of its own language."
            )
        return Found(_name(folder), languages, _train_language(source, languages))
    return Found(_name(folder), {"": splits})


def _folder(source: str) -> Path:
    try:
        folder = Path(source).expanduser()
        is_folder, exists = bool(source) and folder.is_dir(), folder.exists()
    except (OSError, RuntimeError, ValueError):  # a name too long, an unknown ~user, a NUL byte
        is_folder = exists = False
    if not is_folder and exists and source:
        raise BadInput(f"The task {source} is a file; name the folder that holds its splits.")
    if not is_folder:
        raise BadInput(f"There is no folder {source[:200]!r}; {_CHOICES}.")
    return folder


def _name(folder: Path) -> str:
    name = folder.name if folder.name not in ("", "..") else folder.resolve().name
    return sound(name)


def _languages(folder: Path) -> dict[str, Splits]:
    """Those subfolders that hold splits."""
    inner = [path for path in _listed(folder) if path.is_dir() and not path.name.startswith(".")]
    found = {sound(path.name): _splits(path, f"{sound(path.name)}/") for path in inner}
    languages = {name: splits for name, splits in found.items() if splits}
    if TRAIN in languages:
        raise BadInput(f"The folder {folder} has a folder 'train', which no language is called; rename it.")
    return languages


def _train_language(source: str, languages: dict[str, Splits]) -> str:
    able = [name for name, splits in languages.items() if TRAIN in splits]
    if not able:
        raise BadInput(
            f"The task {source} has no train split in any of its languages; add one, as en/train.jsonl."
        )
    return next((name for name in able if name.lower() in _ENGLISH), able[0])


def _splits(folder: Path, prefix: str) -> Splits:
    found: dict[str, Path] = {}
    for path in _listed(folder):
        split = path.stem
        if path.suffix.lower() not in ENDINGS or not _SPLIT.fullmatch(split) or not path.is_file():
            continue
        if split in found:
            raise BadInput(f"The folder {folder} has {found[split].name} and {path.name}; keep one of them.")
        found[split] = path
    return {split: partial(read_table, path, f"{prefix}{split}") for split, path in found.items()}


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise BadInput(
            f"The folder {folder} cannot be read ({error.strerror}); mend that, or name another."
        ) from None
