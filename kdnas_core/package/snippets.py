"""Code that loads an export with each library, for its model card and its page."""

from __future__ import annotations

import json
from pathlib import Path

_ENCODER = """\
import torch
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModel.from_pretrained("{folder}").eval()
tokens = tokenizer(["A sentence.", "Another one."], padding=True, truncation=True, return_tensors="pt")
with torch.inference_mode():
    states = model(**tokens).last_hidden_state
mask = tokens["attention_mask"][:, :, None]
vectors = (states * mask).sum(1) / mask.sum(1)
"""
_CLASSIFIER = """\
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModelForSequenceClassification.from_pretrained("{folder}").eval()
tokens = tokenizer(["A sentence.", "Another one."], padding=True, truncation=True, return_tensors="pt")
with torch.inference_mode():
    logits = model(**tokens).logits
"""
_ONNX = """\
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("{folder}/tokenizer.json")
tokenizer.enable_truncation({length})
tokenizer.enable_padding(pad_id={pad_id}, pad_token="{pad}")
# or model_int8.onnx
session = onnxruntime.InferenceSession("{folder}/onnx/model.onnx", providers=["CPUExecutionProvider"])
batch = tokenizer.encode_batch(["A sentence.", "Another one."])
given = {{"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}}
feed = {{
    put.name: np.array([getattr(each, given[put.name]) for each in batch], dtype=np.int64)
    for put in session.get_inputs()
}}
output = session.run(None, feed)[0]
"""
_SENTENCES = """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{folder}")
vectors = model.encode(["A sentence.", "Another one."])
"""


def snippets(folder: Path) -> list[tuple[str, str]]:
    """Returns a title and Python code for each library that can load an export."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = config.get("architectures") or []
    classifies = any(name.endswith("ForSequenceClassification") for name in names)
    found = [("transformers", _CLASSIFIER if classifies else _ENCODER)]
    if (folder / "onnx").is_dir():
        found.append(("ONNX Runtime", _ONNX))
    if (folder / "modules.json").is_file():
        found.append(("sentence-transformers", _SENTENCES))
    fields = {"folder": folder.name.replace('"', ""), **_padding(folder, config)}
    return [(title, code.format(**fields)) for title, code in found]


def _padding(folder: Path, config: dict[str, object]) -> dict[str, object]:
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    pad = tokenizer.get("pad_token") or "[PAD]"
    length = min(int(tokenizer.get("model_max_length") or 128), 512)
    return {
        "pad": pad["content"] if isinstance(pad, dict) else pad,
        "pad_id": config.get("pad_token_id") or 0,
        "length": length,
    }
