"""Teachers made for sentence vectors: how such a one makes them, as the files beside its weights say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from kdnas_core.models.sources import file_of, has_file, teacher_folder

_MODULES = "modules.json"  # what sentence-transformers writes beside a model that is made for vectors

Mode = Literal["mean", "cls", "max"]
POOLING_NAMES: dict[str, Mode] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}


@dataclass(frozen=True)
class Pooling:
    """How a sentence's vector is made of the last hidden states of its tokens.

    Attributes:
        mode: the mean over its tokens, the first token's, or the largest values.
        normalised: whether its length is made 1.
        length: tokens at which sentences are cut; None where the teacher does not say.
    """

    mode: Mode
    normalised: bool
    length: int | None


def is_embedding_teacher(source: str) -> bool:
    """Whether a teacher is made for sentence vectors: it comes with the modules.json of such models.

    Args:
        source: `packaged`, a local folder, or a hub id; of a hub that does not answer, none is.

    Raises:
        BadInput: it is neither.
    """
    teacher_folder(source)  # refuses what is neither
    return has_file(source, _MODULES)


def pooling_mode(source: str) -> Mode:
    """How a teacher makes a text's vector of its tokens; the mean where it says nothing that we can do."""
    found = pooling_of(source)
    return found.mode if isinstance(found, Pooling) else "mean"


def pooling_of(teacher: str) -> Pooling | str | None:
    """How a teacher makes vectors; a sentence where a student cannot do so; None where it makes none.

    Prompts are not taken over: a student learns from its teacher on plain texts.
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
    """The one mode of a pooling's config, in the old form or the new; None where it is another or several."""
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
