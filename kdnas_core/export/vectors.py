"""Sentence vectors: what sentence-transformers has to be told, taken over from the teacher."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kdnas_core.export.origin import file_of

Mode = Literal["mean", "cls", "max"]
_OLD_NAMES: dict[str, Mode] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}
_MODULE = "sentence_transformers.models."  # a name that all of its versions load


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


def pooling_of(teacher: str) -> Pooling | str | None:
    """How a teacher makes vectors; a sentence where a student cannot do so; None where it makes none.

    Prompts are not taken over: a student learns from its teacher on plain texts.
    """
    modules = _read(teacher, "modules.json")
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
        return next((mode for mode in _OLD_NAMES.values() if mode == new), None)
    chosen = [name for name, is_on in config.items() if name.startswith("pooling_mode_") and is_on is True]
    return _OLD_NAMES.get(chosen[0]) if len(chosen) == 1 else None


def _read(teacher: str, name: str) -> Any:
    path = file_of(teacher, name)
    try:
        return None if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_modules(folder: Path, pooling: Pooling, width: int, length: int) -> None:
    """Makes an export a folder of sentence-transformers too.

    Args:
        folder: of the export.
        pooling: the teacher's.
        width: of the student's hidden states.
        length: tokens at which sentences are cut.
    """
    kinds = {
        "Transformer": "",
        "Pooling": "1_Pooling",
        **({"Normalize": "2_Normalize"} if pooling.normalised else {}),
    }
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"{_MODULE}{kind}"}
        for index, (kind, path) in enumerate(kinds.items())
    ]
    modes = {name: mode == pooling.mode for name, mode in _OLD_NAMES.items()}
    for path in filter(None, kinds.values()):
        (folder / path).mkdir()
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **modes})
    if pooling.normalised:  # it has nothing to say, and a folder without a file is lost in many places
        _write(folder / "2_Normalize" / "config.json", {})
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})
    _write(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
