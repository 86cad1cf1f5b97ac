"""The fields of a RunSpec whose search takes seconds: 2 episodes of 3 candidates out of 24."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def tiny_fields(teacher: Path, corpus: Path) -> dict[str, Any]:
    return {
        "name": "tiny",
        "teacher": str(teacher),
        "corpus": str(corpus),
        "space": {
            "layers": [1, 2, 3],
            "hidden_size": [16, 24],
            "intermediate_size": [32, 48],
            "attention_heads": [2, 4],
            "hidden_act": ["gelu"],
        },
        "latency": {"budget_speedup": 0.5, "sequence_length": 16},
        "proxy": {"sentences": 200, "held_out": 40, "sequence_length": 32, "steps": 12, "batch_size": 16},
        "search": {"episodes": 2, "candidates": 3, "keep_weights": "all", "remember": False},
    }
