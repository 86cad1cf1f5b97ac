"""How latency is measured, and the budget."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    Field,
    model_validator,
)

from kdnas_core.spec.base import Strict

Runtime = Literal["onnxruntime", "onnxruntime-int8", "torch", "torch-cuda"]
USUAL_RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "onnxruntime-int8", "torch")  # those of every machine


class LatencySpec(Strict):
    """The latency budget and the protocol that measures against it.

    `runtime` is where the model is to run: ONNX Runtime in float32 or with 8-bit weights, or torch, eager, on
    the processor or on a CUDA device. The budget is for that runtime, for students and teacher alike.
    """

    budget_ms: float | None = Field(default=None, gt=0)
    budget_speedup: float | None = Field(default=None, gt=0)
    runtime: Runtime = "onnxruntime"
    threads: int = Field(default=1, ge=1, le=64)
    batch_size: int = Field(default=1, ge=1, le=256)
    sequence_length: int = Field(default=128, ge=8, le=512)
    warmup: int = Field(default=20, ge=20, le=1_000)
    runs: int = Field(default=100, ge=100, le=10_000)

    @model_validator(mode="before")
    @classmethod
    def _one_budget(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        budgets = [given.get("budget_ms"), given.get("budget_speedup")]
        if all(budget is None for budget in budgets):
            return {**given, "budget_speedup": 2.0}
        if all(budget is not None for budget in budgets):
            raise ValueError("set budget_ms or budget_speedup, not both")
        return given
