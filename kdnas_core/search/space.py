"""SearchSpace: the architectures of a search."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from kdnas_core.architecture import PRESETS, Architecture
from kdnas_core.errors import BadInput
from kdnas_core.spec import SpaceSpec

# The knobs of every architecture; `embedding_size` is one more if a space has choices for it.
KNOBS = ("layers", "hidden_size", "intermediate_size", "attention_heads", "hidden_act")


@dataclass(frozen=True)
class SearchSpace:
    """The choices for each knob, in the order of `KNOBS`, and for `embedding_size` if there are any.

    Points whose heads do not divide the hidden size, or whose embedding is wider than it, are excluded. A
    space of `presets` has only these, and one knob: the index of the preset.
    """

    layers: tuple[int, ...]
    hidden_size: tuple[int, ...]
    intermediate_size: tuple[int, ...]
    attention_heads: tuple[int, ...]
    hidden_act: tuple[str, ...]
    embedding_size: tuple[int, ...] = ()
    presets: tuple[Architecture, ...] = ()

    @classmethod
    def from_spec(cls, spec: SpaceSpec, teacher: Architecture) -> SearchSpace:
        """Makes the space of a spec; missing knobs are derived from the teacher's shape.

        Raises:
            BadInput: the space has no valid point, or heads or an embedding size that fit no hidden size.
        """
        filled = spec.filled_from(teacher)
        if filled.presets:
            named = dict.fromkeys(PRESETS[name] for name in filled.presets)  # some have the same shape
            return cls((), (), (), (), (), presets=tuple(named))
        space = cls(*(tuple(getattr(filled, knob) or ()) for knob in (*KNOBS, "embedding_size")))
        _check_fits(space)
        if not len(space):
            raise BadInput("The search space has no valid point; give every knob at least one choice.")
        return space

    def __iter__(self) -> Iterator[Architecture]:
        """Every architecture once, in a fixed order."""
        yield from self.presets
        plain = (self.layers, self.hidden_size, self.intermediate_size, self.attention_heads, self.hidden_act)
        embeddings = self.embedding_size or (None,)
        for layers, width, intermediate, heads, act, embedding in product(*plain, embeddings):
            if _exists(width, heads, embedding):
                yield Architecture(layers, width, intermediate, heads, act, embedding)

    def __len__(self) -> int:
        """Returns the number of architectures."""
        embeddings = self.embedding_size or (0,)
        points = sum(
            sum(width % heads == 0 for heads in self.attention_heads)
            * sum(embedding <= width for embedding in embeddings)
            for width in self.hidden_size
        )
        knobs = len(self.layers) * len(self.intermediate_size) * len(self.hidden_act)
        return len(self.presets) + knobs * points

    def shapes(self) -> int:
        """Returns the number of distinct shapes, embedding size included, without heads and activation."""
        return len({(architecture.shape, architecture.embedding_size) for architecture in self})

    def sample(self, rng: random.Random, count: int, seen: Collection[Architecture]) -> list[Architecture]:
        """Draws up to `count` different architectures uniformly, none of them in `seen`."""
        unseen = [architecture for architecture in self if architecture not in seen]
        return rng.sample(unseen, min(count, len(unseen)))

    @property
    def key(self) -> str:
        """A text that is equal for equal spaces."""
        return json.dumps(dataclasses.asdict(self))

    @property
    def depths(self) -> list[int]:
        """The numbers of layers of all architectures."""
        return sorted({*self.layers, *(preset.layers for preset in self.presets)})

    def draw(self, rng: random.Random) -> Architecture:
        """Draws one architecture uniformly."""
        if self.presets:
            return rng.choice(self.presets)
        by_knob = {**self._choices_by_knob(), "embedding_size": self.embedding_size or (None,)}
        while True:
            drawn: dict[str, Any] = {knob: rng.choice(choices) for knob, choices in by_knob.items()}
            if _exists(drawn["hidden_size"], drawn["attention_heads"], drawn["embedding_size"]):
                return Architecture(**drawn)

    def indices(self, architecture: Architecture) -> tuple[int, ...]:
        """Returns the index of the architecture's choice for each knob of this space."""
        if self.presets:
            return (self.presets.index(architecture),)
        return tuple(
            choices.index(getattr(architecture, knob)) for knob, choices in self._choices_by_knob().items()
        )

    def choices(self) -> list[int]:
        """Returns the number of choices of each knob of this space."""
        if self.presets:
            return [len(self.presets)]
        return [len(choices) for choices in self._choices_by_knob().values()]

    def _choices_by_knob(self) -> dict[str, tuple[int, ...] | tuple[str, ...]]:
        knobs = (*KNOBS, "embedding_size") if self.embedding_size else KNOBS
        return {knob: getattr(self, knob) for knob in knobs}

    def smallest(self) -> Architecture:
        """Returns the architecture with the fewest multiply-adds."""
        return min(self, key=lambda architecture: architecture.flops(128))


def _exists(width: int, heads: int, embedding: int | None) -> bool:
    return width % heads == 0 and (embedding or 0) <= width


def _check_fits(space: SearchSpace) -> None:
    """Refuses a choice that would never be drawn because it fits no hidden size."""
    for heads in space.attention_heads:
        if all(width % heads for width in space.hidden_size):
            raise BadInput(
                f"{heads} attention heads divide none of the hidden sizes {list(space.hidden_size)}; "
                f"take {heads} out of space.attention_heads or add a hidden size that it divides."
            )
    for embedding in space.embedding_size:
        if all(width < embedding for width in space.hidden_size):
            raise BadInput(
                f"An embedding size of {embedding} exceeds all of the hidden sizes "
                f"{list(space.hidden_size)}; take it out of space.embedding_size or add a wider hidden size."
            )
