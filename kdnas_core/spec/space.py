"""The search space that a user chooses."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from kdnas_core.architecture import PRESETS, Architecture
from kdnas_core.spec.base import Strict

Activation = Literal["gelu", "relu", "silu"]
Knob = Annotated[list[Annotated[int, Field(ge=1, le=16_384)]], Field(min_length=1)]


class SpaceSpec(Strict):
    """The choices for each knob of an architecture; a knob left out is derived from the teacher.

    Or `presets`: published students by name, and no knob.
    """

    layers: Annotated[list[Annotated[int, Field(ge=1, le=48)]], Field(min_length=1)] | None = None
    hidden_size: Knob | None = None
    intermediate_size: Knob | None = None
    attention_heads: Knob | None = None
    hidden_act: Annotated[list[Activation], Field(min_length=1)] | None = None
    embedding_size: Knob | None = None  # left out: embeddings are as wide as the hidden states
    presets: Annotated[list[str], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _presets_alone(self) -> SpaceSpec:
        unknown = [name for name in self.presets or () if name not in PRESETS]
        if unknown:
            choices = ", ".join(PRESETS)
            raise ValueError(f"there is no published student or space {unknown[0]!r}, choose of {choices}")
        if self.presets and len(self.model_dump(exclude_none=True)) > 1:
            raise ValueError("presets are whole students, give them or choices for the knobs")
        return self

    @field_validator("*")
    @classmethod
    def _sorted_without_repeats(cls, choices: list[Any] | None) -> list[Any] | None:
        return None if choices is None else sorted(set(choices))

    def filled_from(self, teacher: Architecture, same_heads: bool = False) -> SpaceSpec:
        """This space with each knob that was left out derived from the teacher's own shape.

        Depths are a sixth to all of the teacher's, widths quarters, feed-forward widths a quarter, half
        and all, heads all, half and a quarter; the activation is the teacher's. Presets stay as they are.

        Args:
            teacher: its shape.
            same_heads: whether students need as many heads as the teacher, by `ObjectiveSpec.compares_heads`.
        """
        if self.presets:
            return self
        parts = (1,) if same_heads else (1, 2, 4)
        heads = [teacher.attention_heads // part for part in parts if teacher.attention_heads % part == 0]
        derived = SpaceSpec(
            layers=[max(1, teacher.layers * part // 12) for part in (2, 4, 6, 8, 12)],
            hidden_size=[
                width
                for width in (teacher.hidden_size * part // 4 for part in (1, 2, 3, 4))
                if any(width % count == 0 for count in heads)
            ],
            intermediate_size=[max(1, teacher.intermediate_size // part) for part in (4, 2, 1)],
            attention_heads=heads,
            hidden_act=[act for act in get_args(Activation) if act == teacher.hidden_act] or ["gelu"],
        )
        return derived.model_copy(update=self.model_dump(exclude_none=True))


# The search space of KD-NAS (arXiv 2303.09639): 1,200 points, 80 distinct shapes.
KDNAS_SPACE = SpaceSpec(
    layers=[3, 4, 6, 10, 12],
    hidden_size=[384, 768],
    intermediate_size=[384, 512, 576, 768, 1024, 1536, 2048, 3072],
    attention_heads=[2, 3, 4, 6, 12],
    hidden_act=["gelu", "relu", "silu"],
)
