"""SearchSpace: the architectures that a search may propose."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import product

from kdnas_core.architecture import Architecture
from kdnas_core.errors import BadInput
from kdnas_core.spec import SpaceSpec

KNOBS = ("layers", "hidden_size", "intermediate_size", "attention_heads", "hidden_act")


@dataclass(frozen=True)
class SearchSpace:
    """The choices for each knob, in the order of `KNOBS`.

    A point whose heads do not divide its hidden size does not exist: it is neither counted nor drawn.
    """

    layers: tuple[int, ...]
    hidden_size: tuple[int, ...]
    intermediate_size: tuple[int, ...]
    attention_heads: tuple[int, ...]
    hidden_act: tuple[str, ...]

    @classmethod
    def from_spec(cls, spec: SpaceSpec, teacher: Architecture) -> SearchSpace:
        """The space of a spec; knobs that it leaves out are derived from the teacher's shape.

        Raises:
            BadInput: the space has no valid point, or heads that divide none of its hidden sizes.
        """
        filled = spec.filled_from(teacher)
        space = cls(*(tuple(getattr(filled, knob) or ()) for knob in KNOBS))
        for heads in space.attention_heads:
            if all(width % heads for width in space.hidden_size):
                raise BadInput(
                    f"{heads} attention heads divide none of the hidden sizes {list(space.hidden_size)}; "
                    f"take {heads} out of space.attention_heads or add a hidden size that it divides."
                )
        if not len(space):
            raise BadInput("The search space has no valid point; give every knob at least one choice.")
        return space

    def __iter__(self) -> Iterator[Architecture]:
        """Every architecture once, in a fixed order."""
        knobs = (self.layers, self.hidden_size, self.intermediate_size, self.attention_heads, self.hidden_act)
        for layers, width, intermediate, heads, act in product(*knobs):
            if width % heads == 0:
                yield Architecture(layers, width, intermediate, heads, act)

    def __len__(self) -> int:
        """How many architectures there are."""
        pairs = sum(width % heads == 0 for width in self.hidden_size for heads in self.attention_heads)
        return len(self.layers) * len(self.intermediate_size) * len(self.hidden_act) * pairs

    def shapes(self) -> int:
        """How many distinct (layers, hidden size, intermediate size): heads and activation weigh nothing."""
        return len({architecture.shape for architecture in self})

    def sample(self, rng: random.Random, count: int, seen: Collection[Architecture]) -> list[Architecture]:
        """Up to `count` different architectures, uniformly, none of them in `seen`."""
        unseen = [architecture for architecture in self if architecture not in seen]
        return rng.sample(unseen, min(count, len(unseen)))

    def indices(self, architecture: Architecture) -> tuple[int, ...]:
        """The position of the architecture's value among the choices of each knob."""
        return (
            self.layers.index(architecture.layers),
            self.hidden_size.index(architecture.hidden_size),
            self.intermediate_size.index(architecture.intermediate_size),
            self.attention_heads.index(architecture.attention_heads),
            self.hidden_act.index(architecture.hidden_act),
        )

    def choices(self) -> list[int]:
        """How many choices each knob has."""
        return [
            len(knob)
            for knob in (
                self.layers,
                self.hidden_size,
                self.intermediate_size,
                self.attention_heads,
                self.hidden_act,
            )
        ]

    def smallest(self) -> Architecture:
        """The architecture with the fewest multiply-adds: what no budget can be below."""
        return min(self, key=lambda architecture: architecture.flops(128))
