"""SearchSpace: the architectures of a search."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from kdnas_core.architecture import PRESETS, Architecture
from kdnas_core.errors import BadInput
from kdnas_core.spec import SpaceSpec

# The knobs of every architecture; `embedding_size` is one more if a space has choices for it.
KNOBS = ("layers", "hidden_size", "intermediate_size", "attention_heads", "hidden_act")

SMALL = 1_000  # architectures: a space no larger is listed to draw from
MANY = 16  # choices of a knob: of more, some are passed over between neighbours
CROWDED = 4  # times the architectures that are wanted or seen: the same


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

    @cached_property
    def _fits(self) -> dict[int, tuple[tuple[int, str, int | None], ...]]:
        """For each hidden size the heads, activations and embedding sizes that go with it."""
        embeddings = self.embedding_size or (None,)
        return {
            width: tuple(
                (heads, act, embedding)
                for heads, act, embedding in product(self.attention_heads, self.hidden_act, embeddings)
                if width % heads == 0 and (embedding or 0) <= width
            )
            for width in self.hidden_size
        }

    def kinds(self) -> Iterator[Architecture]:
        """Yields one architecture for each depth, hidden size, heads and embedding size, or all presets."""
        yield from self.presets
        for layers, (width, fits) in product(self.layers, self._fits.items()):
            for heads, act, embedding in fits:
                if act == self.hidden_act[0]:
                    yield Architecture(layers, width, self.intermediate_size[0], heads, act, embedding)

    def __len__(self) -> int:
        """Returns the number of architectures; a space is not listed for it."""
        return len(self.presets) + len(self.layers) * self._of_a_depth

    @property
    def _of_a_depth(self) -> int:
        return len(self.intermediate_size) * sum(map(len, self._fits.values()))

    def __getitem__(self, index: int) -> Architecture:
        """Returns one architecture by its number, 0 to below the length.

        Raises:
            IndexError: there is no such number, so that iterating ends.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self.presets:
            return self.presets[index]
        layers, index = divmod(index, self._of_a_depth)
        for width, fits in self._fits.items():
            if index < len(self.intermediate_size) * len(fits):
                inner, place = divmod(index, len(fits))
                heads, act, embedding = fits[place]
                inner_size = self.intermediate_size[inner]
                return Architecture(self.layers[layers], width, inner_size, heads, act, embedding)
            index -= len(self.intermediate_size) * len(fits)
        raise AssertionError("the numbers of all hidden sizes make that of a depth")

    def __iter__(self) -> Iterator[Architecture]:
        """Every architecture once, in a fixed order."""
        return (self[index] for index in range(len(self)))

    def __contains__(self, architecture: object) -> bool:
        """Returns whether an architecture is a point of the space."""
        if not isinstance(architecture, Architecture) or self.presets:
            return architecture in self.presets
        is_one = architecture.layers in self.layers
        return is_one and architecture.intermediate_size in self.intermediate_size and self._fit(architecture)

    def _fit(self, point: Architecture) -> bool:
        """Whether heads, activation and embedding size go with a hidden size of the space."""
        fit = (point.attention_heads, point.hidden_act, point.embedding_size)
        return fit in self._fits.get(point.hidden_size, ())

    def shapes(self) -> int:
        """Returns the number of distinct shapes, embedding size included, without heads and activation."""
        if self.presets:
            return len({(preset.shape, preset.embedding_size) for preset in self.presets})
        widths = {(width, embedding) for width, fits in self._fits.items() for _, _, embedding in fits}
        return len(self.layers) * len(self.intermediate_size) * len(widths)

    def sample(self, rng: random.Random, count: int, seen: Collection[Architecture]) -> list[Architecture]:
        """Draws up to `count` different architectures uniformly, none of them in `seen`."""
        taken = {architecture for architecture in seen if architecture in self}
        if len(self) <= max(SMALL, CROWDED * (count + len(taken))):
            unseen = [architecture for architecture in self if architecture not in taken]
            return rng.sample(unseen, min(count, len(unseen)))
        drawn: dict[Architecture, None] = {}
        while len(drawn) < count:  # at most one draw in `CROWDED` is in vain
            architecture = self[rng.randrange(len(self))]
            if architecture not in taken:
                drawn[architecture] = None
        return list(drawn)

    @property
    def key(self) -> str:
        """A text that is equal for equal spaces."""
        return json.dumps(dataclasses.asdict(self))

    @property
    def depths(self) -> list[int]:
        """The numbers of layers of all architectures."""
        return sorted({*self.layers, *(preset.layers for preset in self.presets)})

    def draw(self, rng: random.Random) -> Architecture:
        """Draws one architecture uniformly.

        Knob by knob, until they fit: a supernet in the cache was trained on the shapes that this draws.
        """
        if self.presets:
            return rng.choice(self.presets)
        by_knob = {**self._choices_by_knob(), "embedding_size": self.embedding_size or (None,)}
        while True:
            drawn: dict[str, Any] = {knob: rng.choice(choices) for knob, choices in by_knob.items()}
            fit = (drawn["attention_heads"], drawn["hidden_act"], drawn["embedding_size"])
            if fit in self._fits[drawn["hidden_size"]]:
                return Architecture(**drawn)

    def neighbours(self, architecture: Architecture) -> list[Architecture]:
        """Returns the points that differ in one knob, by the next choice or, of many, by some choices.

        Where the heads do not divide another hidden size, those nearest in number that do are taken.
        """
        if self.presets:
            return []
        found = []
        for knob, choices in self._choices_by_knob().items():
            for other in _near(choices, getattr(architecture, knob)):
                moved = {**vars(architecture), knob: other}
                heads = self.attention_heads if knob == "hidden_size" else (moved["attention_heads"],)
                fitting = [
                    count
                    for count in sorted(heads, key=lambda count: abs(count - architecture.attention_heads))
                    if (count, moved["hidden_act"], moved["embedding_size"])
                    in self._fits[moved["hidden_size"]]
                ]
                if fitting:
                    found.append(Architecture(**{**moved, "attention_heads": fitting[0]}))
        return found

    def indices(self, architecture: Architecture) -> tuple[int, ...]:
        """Returns the index of the architecture's choice for each knob of this space."""
        if self.presets:
            return (self.presets.index(architecture),)
        return tuple(
            choices.index(getattr(architecture, knob)) for knob, choices in self._choices_by_knob().items()
        )

    def at(self, indices: Sequence[int]) -> Architecture | None:
        """Returns the architecture with these choices, as `indices` has them; None if they do not fit."""
        if self.presets:
            return self.presets[indices[0]]
        knobs = self._choices_by_knob().items()
        chosen: dict[str, Any] = {
            knob: choices[index] for (knob, choices), index in zip(knobs, indices, strict=True)
        }
        fit = (chosen["attention_heads"], chosen["hidden_act"], chosen.get("embedding_size"))
        return Architecture(**chosen) if fit in self._fits[chosen["hidden_size"]] else None

    def choices(self) -> list[int]:
        """Returns the number of choices of each knob of this space."""
        if self.presets:
            return [len(self.presets)]
        return [len(choices) for choices in self._choices_by_knob().values()]

    def _choices_by_knob(self) -> dict[str, tuple[int, ...] | tuple[str, ...]]:
        knobs = (*KNOBS, "embedding_size") if self.embedding_size else KNOBS
        return {knob: getattr(self, knob) for knob in knobs}

    def smallest(self) -> Architecture:
        """Returns an architecture with the fewest multiply-adds."""
        inner = min(self.intermediate_size, default=0)
        fewest = self.presets or [
            Architecture(min(self.layers), width, inner, heads, act, embedding)
            for width, fits in self._fits.items()
            for heads, act, embedding in fits
        ]
        return min(fewest, key=lambda architecture: architecture.flops(128))


def _near(choices: Sequence[Any], own: Any) -> list[Any]:
    """The next choices, and those a few on where there are many."""
    place, few = choices.index(own), max(1, len(choices) // MANY)
    steps = sorted({-few, -1, 1, few})
    return [choices[place + step] for step in steps if 0 <= place + step < len(choices)]


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
