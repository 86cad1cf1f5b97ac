"""Files beside a teacher's weights, in its folder or on a hub. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache

from kdnas_core.distillation.sources import teacher_folder
from kdnas_core.errors import BadInput

_SECONDS = 4.0  # to wait for the hub
_LISTED: dict[str, frozenset[str]] = {}  # of teachers that a hub was asked for


def file_of(teacher: str, name: str) -> Path | None:
    """A file beside a teacher's weights; None where there is none, or a hub does not answer."""
    folder = folder_of(teacher)
    if folder is not None:
        return path if (path := folder / name).is_file() else None
    cached = try_to_load_from_cache(teacher, name)
    if isinstance(cached, str):
        return Path(cached)
    if name not in _at_hub(teacher):
        return None
    try:
        return Path(hf_hub_download(teacher, name))
    except Exception:  # the network is gone again
        return None


def has_file(teacher: str, name: str) -> bool:
    """Whether a file lies beside a teacher's weights; not where a hub does not answer."""
    folder = folder_of(teacher)
    if folder is not None:
        return (folder / name).is_file()
    return isinstance(try_to_load_from_cache(teacher, name), str) or name in _at_hub(teacher)


def folder_of(teacher: str) -> Path | None:
    """The folder of a teacher's files; None for one of a hub. It may be there no more."""
    try:
        return teacher_folder(teacher)
    except BadInput:  # a folder that is there no more
        return Path(teacher)


def _at_hub(teacher: str) -> frozenset[str]:
    """The names of a teacher's files on a hub; none where it does not answer, which is not remembered."""
    if teacher not in _LISTED:
        try:
            files = HfApi().model_info(teacher, timeout=_SECONDS).siblings or []
        except Exception:  # whatever it is, there is nothing to read now
            return frozenset()
        _LISTED[teacher] = frozenset(file.rfilename for file in files)
    return _LISTED[teacher]
