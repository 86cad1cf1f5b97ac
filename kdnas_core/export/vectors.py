"""What sentence-transformers has to be told of a student: how its teacher makes vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdnas_core.distillation.sentence_encoders import POOLING_NAMES, Pooling

_MODULE = "sentence_transformers.models."  # a name that all of its versions load


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
    modes = {name: mode == pooling.mode for name, mode in POOLING_NAMES.items()}
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
