"""Loads an export with stock `transformers`, and checks that it has no other tensors."""

from __future__ import annotations

import json
import math
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

BATCH = 8


def main(folder: str) -> None:
    """Prints the result as JSON."""
    asked = json.load(sys.stdin)
    config = AutoConfig.from_pretrained(folder)
    classifies = any(name.endswith("ForSequenceClassification") for name in config.architectures or [])
    kind: Any = AutoModelForSequenceClassification if classifies else AutoModel
    model, report = kind.from_pretrained(folder, output_loading_info=True)
    vectors, states = outputs(model.eval(), AutoTokenizer.from_pretrained(folder), asked)
    found = {
        "classifies": classifies,
        "parameters": count(model),
        "encoder_parameters": count(model.base_model),
        "stored": stored(Path(folder) / "model.safetensors"),
        "finite": bool(torch.isfinite(vectors).all() and torch.isfinite(states).all()),
        "width": states.shape[-1],
        "layers": config.num_hidden_layers,
        "strays": [list(report[kind]) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")],
        "vectors": vectors.tolist(),
    }
    print(json.dumps(found))


def count(model: Any) -> int:
    """Returns the number of a model's parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def stored(weights: Path) -> int:
    """Returns the number of values in a file of weights."""
    with safe_open(weights, framework="pt") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118


@torch.inference_mode()
def outputs(model: Any, tokenizer: Any, asked: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the vector or logits of each sentence, (sentences, H), and the last batch's hidden states."""
    sentences, found = iter(asked["sentences"]), []
    states = torch.empty(0)
    while batch := list(islice(sentences, BATCH)):
        tokens = tokenizer(
            batch, padding=True, truncation=True, max_length=asked["length"], return_tensors="pt"
        )
        output = model(**tokens, output_hidden_states=True)
        # a classifier has no last hidden state, a model without layers no list of them
        states = output.hidden_states[-1] if output.hidden_states else output.last_hidden_state
        classified = "logits" in output
        found.append(
            output.logits if classified else pooled(states, tokens["attention_mask"], asked["pooling"])
        )
    return torch.cat(found), states


def pooled(states: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    """Returns the vector of each sentence: its first token's, or the maximum or mean over its tokens."""
    if how == "cls":
        return states[:, 0]
    weights = mask[:, :, None].to(states.dtype)
    if how == "max":
        return states.masked_fill(weights == 0, -math.inf).amax(1)
    return (states * weights).sum(1) / weights.sum(1)


if __name__ == "__main__":
    main(sys.argv[1])
