"""The pooling of sentence-embedding teachers, read from the files beside their weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from kdnas_core.models.sources import file_of, has_file, teacher_folder

_MODULES = "modules.json"  # written by sentence-transformers

Mode = Literal["mean", "cls", "max"]
POOLING_NAMES: dict[str, Mode] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}


@dataclass(frozen=True)
class Pooling:
    """Pools the last hidden states of a sentence's tokens into its vector.

    Attributes:
        mode: the mean over its tokens, the first token, or the maximum.
        normalised: whether vectors are scaled to length 1.
        length: the most tokens of a sentence; None if the teacher does not say.
    """

    mode: Mode
    normalised: bool
    length: int | None


def is_embedding_teacher(source: str) -> bool:
    """Returns whether a teacher is a sentence-embedding model: whether it has a modules.json.

    Args:
        source: `packaged`, a local folder, or a hub id; False if the hub does not answer.

    Raises:
        BadInput: as `teacher_folder`.
    """
    teacher_folder(source)  # for its errors
    return has_file(source, _MODULES)


def pooling_mode(source: str) -> Mode:
    """Returns the pooling mode of a teacher; the mean if it has none or an unsupported one."""
    pooling = pooling_of(source)
    return pooling.mode if isinstance(pooling, Pooling) else "mean"


def pooling_of(teacher: str) -> Pooling | str | None:
    """Returns a teacher's pooling; a sentence on why it is not supported; None if it has none.

    Prompts are ignored: a student learns from its teacher on plain texts.
    """
    modules = _read(teacher, _MODULES)
    if not isinstance(modules, list):
        return None
    kinds = {str(module.get("type")).rpartition(".")[2]: str(module.get("path")) for module in modules}
    mode = _mode(_read(teacher, f"{kinds.get('Pooling')}/config.json"))
    if mode is None or not kinds.keys() <= {"Transformer", "Pooling", "Normalize"}:
        return "Its teacher makes vectors by steps of its own, so there is no sentence-transformers folder."
    settings = _read(teacher, "sentence_bert_config.json")
    length = settings.get("max_seq_length") if isinstance(settings, dict) else None
    return Pooling(mode, "Normalize" in kinds, length if isinstance(length, int) else None)


def _mode(config: Any) -> Mode | None:
    """The mode of a pooling config in the old or the new form; None for another mode or several."""
    if not isinstance(config, dict):
        return None
    new = config.get("pooling_mode")
    if isinstance(new, str):
        return next((mode for mode in POOLING_NAMES.values() if mode == new), None)
    chosen = [name for name, is_on in config.items() if name.startswith("pooling_mode_") and is_on is True]
    return POOLING_NAMES.get(chosen[0]) if len(chosen) == 1 else None


def _read(teacher: str, name: str) -> Any:
    path = file_of(teacher, name)
    try:
        return None if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
