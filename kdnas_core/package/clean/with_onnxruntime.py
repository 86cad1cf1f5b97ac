"""Uses the ONNX file of an export with `onnxruntime`, `tokenizers` and `numpy` alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

BATCH = 8


def main(folder: str) -> None:
    """Prints the result as JSON."""
    asked = json.load(sys.stdin)
    place = Path(folder)
    session = onnxruntime.InferenceSession(place / "onnx/model.onnx", providers=["CPUExecutionProvider"])
    tokenizer = tokenizer_of(place, asked["length"])
    vectors: list[list[float]] = []
    for start in range(0, len(asked["sentences"]), BATCH):
        batch = tokenizer.encode_batch(asked["sentences"][start : start + BATCH])
        vectors += outputs(session, batch, asked["pooling"]).tolist()
    heavy = sorted({"torch", "transformers"} & set(sys.modules))
    print(json.dumps({"vectors": vectors, "heavy": heavy}))


def tokenizer_of(folder: Path, length: int) -> Tokenizer:
    """Loads the tokenizer, with truncation and padding."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    pad = config["pad_token"]
    pad = pad["content"] if isinstance(pad, dict) else pad
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(pad), pad_token=pad)
    return tokenizer


def outputs(session: onnxruntime.InferenceSession, batch: list[Any], pooling: str) -> Any:
    """Returns the vector or the logits of each sentence: (sentences, H)."""
    fields = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    feed = {
        put.name: np.array([getattr(each, fields[put.name]) for each in batch], dtype=np.int64)
        for put in session.get_inputs()
    }
    values = session.run(None, feed)[0]
    return values if values.ndim == 2 else pooled(values, feed["attention_mask"], pooling)


def pooled(states: Any, mask: Any, how: str) -> Any:
    """Returns the vector of each sentence: its first token's, or the maximum or mean over its tokens."""
    if how == "cls":
        return states[:, 0]
    weights = mask[:, :, None].astype(states.dtype)
    if how == "max":
        return np.where(weights == 0, -np.inf, states).max(1)
    return (states * weights).sum(1) / weights.sum(1)


if __name__ == "__main__":
    main(sys.argv[1])
