"""How latency is measured, and the budget."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from kdnas_core.spec.base import Strict

Runtime = Literal["onnxruntime", "onnxruntime-int8", "torch", "torch-cuda"]
USUAL_RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "onnxruntime-int8", "torch")  # those of every machine


_Amount = Annotated[float, Field(gt=0)]
Budget = _Amount | Annotated[list[_Amount], Field(min_length=1, max_length=20)]


class LatencySpec(Strict):
    """The latency budget, or several, and the protocol that measures against it.

    Of several budgets, nothing over the largest is distilled; a search serves all of them.

    `runtime` is where the model is to run: ONNX Runtime in float32 or with 8-bit weights, or torch, eager, on
    the processor or on a CUDA device. The budget is for that runtime, for students and teacher alike.
    """

    budget_ms: Budget | None = None
    budget_speedup: Budget | None = None
    runtime: Runtime = "onnxruntime"
    threads: int = Field(default=1, ge=1, le=64)
    batch_size: int = Field(default=1, ge=1, le=256)
    sequence_length: int = Field(default=128, ge=8, le=512)
    warmup: int = Field(default=20, ge=20, le=1_000)
    runs: int = Field(default=100, ge=100, le=10_000)

    @property
    def amounts(self) -> tuple[float, ...]:
        """The budgets as numbers, all in milliseconds or all speed-ups, the one that allows most first."""
        given = self.budget_speedup if self.budget_ms is None else self.budget_ms
        assert given is not None  # it has exactly one of the two
        return tuple(given) if isinstance(given, list) else (given,)

    @property
    def budgets(self) -> tuple[LatencySpec, ...]:
        """The same protocol with each of the budgets alone, in the same order."""
        name = "budget_speedup" if self.budget_ms is None else "budget_ms"
        return tuple(self.model_copy(update={name: amount}) for amount in self.amounts)

    @field_validator("budget_ms")
    @classmethod
    def _largest_first(cls, given: Budget | None) -> Budget | None:
        return _ordered(given, largest_first=True)

    @field_validator("budget_speedup")
    @classmethod
    def _smallest_first(cls, given: Budget | None) -> Budget | None:
        return _ordered(given, largest_first=False)

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


def _ordered(given: Budget | None, largest_first: bool) -> Budget | None:
    """Budgets without repeats; a single one as a number."""
    if not isinstance(given, list):
        return given
    amounts = sorted(set(given), reverse=largest_first)
    return amounts if len(amounts) > 1 else amounts[0]
