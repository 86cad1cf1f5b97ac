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
STEP = 8  # of derived widths: as many float32 numbers as a vector register holds
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

        Depths are all up to the teacher's; widths a quarter to all of it and feed-forward widths a sixteenth
        to all, in steps of `STEP`; heads those that divide the teacher's, from two. The activation is the
        teacher's. Presets stay as they are.

        Args:
            teacher: its shape.
            same_heads: whether students need as many heads as the teacher, by `ObjectiveSpec.compares_heads`.
        """
        if self.presets:
            return self
        own = teacher.attention_heads
        divisors = [own] if same_heads or own == 1 else [n for n in range(2, own + 1) if own % n == 0]
        heads = self.attention_heads or divisors
        usual = _steps(teacher.hidden_size // 4, teacher.hidden_size)
        widths = self.hidden_size or [width for width in usual if any(width % n == 0 for n in heads)] or usual
        derived = SpaceSpec(
            layers=list(range(1, teacher.layers + 1)),
            hidden_size=widths,
            intermediate_size=_steps(teacher.intermediate_size // 16, teacher.intermediate_size),
            # whatever the widths are; those that were given and divide none are refused with a sentence
            attention_heads=[n for n in heads if any(width % n == 0 for width in widths)] or heads,
            hidden_act=[act for act in get_args(Activation) if act == teacher.hidden_act] or ["gelu"],
        )
        return derived.model_copy(update=self.model_dump(exclude_none=True))


def _steps(least: int, most: int) -> list[int]:
    """The multiples of `STEP` between two sizes, and the larger of them."""
    return [*range(STEP * -(-max(1, least) // STEP), most, STEP), most]


# The search space of KD-NAS (arXiv 2303.09639): 1,200 points, 80 distinct shapes.
KDNAS_SPACE = SpaceSpec(
    layers=[3, 4, 6, 10, 12],
    hidden_size=[384, 768],
    intermediate_size=[384, 512, 576, 768, 1024, 1536, 2048, 3072],
    attention_heads=[2, 3, 4, 6, 12],
    hidden_act=["gelu", "relu", "silu"],
)
