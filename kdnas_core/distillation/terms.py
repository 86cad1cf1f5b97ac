"""Loss terms: each compares an output of student and teacher, layer by layer, through its own projections.

A term returns one value for each of its places: pairs (student layer, teacher layer), where layer 0 is the
embedding and M + 1 (N + 1) the prediction layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from kdnas_core.data.tokens import NOT_HIDDEN
from kdnas_core.distillation import losses
from kdnas_core.models.capture import Captured, dot_scores
from kdnas_core.models.mlm_head import MlmHead, TeacherHead
from kdnas_core.models.pooling import Mode
from kdnas_core.models.targets import Batch, Kind, Output, pooled

StateKind = Literal["embedding", "hidden", "cosine", "patience", "feature_map", "vector", "vector_mse"]
VECTORS = ("vector", "vector_mse")
WordKind = Literal["prediction", "prediction_kl", "masked_lm"]

Place = tuple[int, int]


@dataclass(frozen=True)
class Pass:
    """The outputs of one forward pass of a student.

    Attributes:
        hidden: M + 1 tensors (B, n, H), the embedding's output first.
        captured: queries, keys and values of each layer; empty unless a term reads them.
        table: (words, E), the student's word embedding.
    """

    hidden: Sequence[torch.Tensor]
    captured: Captured
    table: torch.Tensor


class Term(nn.Module):
    """The base class of loss terms.

    Attributes:
        name: the key of its values.
        places: (student layer, teacher layer) of each value.
        reads: the teacher outputs that it needs besides hidden states.
    """

    name: str
    places: list[Place]
    reads: frozenset[Output] = frozenset()

    def forward(self, outputs: Pass, batch: Batch) -> torch.Tensor:
        """Computes the values (places,) on one batch, each a mean over what `count` counts."""
        raise NotImplementedError

    def count(self, batch: Batch) -> int:
        """Returns the number of items that a value is a mean over: its weight in a mean over batches."""
        return len(batch.places)


class StateTerm(Term):
    """Compares states of single tokens, through a learnable projection to the teacher's width.

    Hidden states and embeddings always have a projection (KD-NAS, TinyBERT). Other kinds have one only if the
    widths differ, since they were published without.
    """

    def __init__(
        self,
        name: str,
        kind: StateKind,
        mapping: Sequence[tuple[int, ...]],
        widths: tuple[int, int],
        projection: Literal["per_layer", "shared"],
        pooling: Mode = "mean",
    ) -> None:
        """Makes the term and its projections.

        Args:
            name: of the term.
            kind: of loss.
            mapping: teacher layers of student layer 0, 1, ...
            widths: hidden size of the student and of the teacher.
            projection: one for each layer, or one for all.
            pooling: of the sentence vectors; for those kinds only.
        """
        super().__init__()
        self.name, self.kind, self.width, self.pooling = name, kind, widths[1], pooling
        self.layers = {layer: teachers for layer, teachers in enumerate(mapping) if teachers}
        self.places = [(layer, teacher) for layer, teachers in self.layers.items() for teacher in teachers]
        self.projections: dict[int, nn.Linear] = {}
        if kind in ("hidden", "embedding") or widths[0] != widths[1]:
            self.projections = self._made(widths[0], shared=projection == "shared")
        distinct = dict.fromkeys(self.projections.values())
        self._registered = nn.ModuleList(distinct)  # so that `parameters` finds each once

    def _made(self, width: int, shared: bool) -> dict[int, nn.Linear]:
        made: dict[int, nn.Linear] = {}  # by the number of teacher layers
        projections = {}
        for layer, teachers in self.layers.items():
            key = len(teachers) if shared else -layer
            made.setdefault(key, nn.Linear(width, len(teachers) * self.width))
            projections[layer] = made[key]
        return projections

    def forward(self, outputs: Pass, batch: Batch) -> torch.Tensor:
        """Computes the values (places,)."""
        values = []
        for layer, teachers in self.layers.items():
            state = self.picked(batch.real(outputs.hidden[layer]), batch)
            if layer in self.projections:
                state = self.projections[layer](state)
            predictions = state.unflatten(1, (-1, self.width))  # (tokens, roles or 1, H_T)
            for role, teacher in enumerate(teachers):
                target = self.picked(batch.teacher("hidden", teacher), batch)
                prediction = predictions[:, min(role, predictions.shape[1] - 1)]
                values.append(self._loss(prediction, target, float(batch.variance[teacher])))
        return torch.stack(values)

    def last_errors(self, outputs: Pass, batch: Batch) -> torch.Tensor:
        """Computes (B,) squared errors of the last states over the teacher's variance, summed over tokens."""
        layer = max(self.layers)
        teacher = max(self.layers[layer])
        state = self.projections[layer](batch.real(outputs.hidden[layer])).unflatten(1, (-1, self.width))
        prediction = state[:, min(self.layers[layer].index(teacher), state.shape[1] - 1)]
        squares = (prediction - batch.teacher("hidden", teacher)).square().mean(1)
        by_text = torch.segment_reduce(squares, "sum", lengths=batch.lengths)
        return by_text / float(batch.variance[teacher])

    def picked(self, tokens: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Returns all tokens (tokens, H); (B, H) first tokens for "patience", or pooled vectors."""
        if self.kind == "patience":
            return pooled(tokens, batch.lengths, "cls")
        return pooled(tokens, batch.lengths, self.pooling) if self.kind in VECTORS else tokens

    def count(self, batch: Batch) -> int:
        """Returns the number of tokens, or of texts for "patience" and vectors."""
        return len(batch.mask) if self.kind in ("patience", *VECTORS) else super().count(batch)

    def _loss(self, prediction: torch.Tensor, target: torch.Tensor, variance: float) -> torch.Tensor:
        match self.kind:
            case "hidden" | "embedding":
                return losses.normalised_mse(prediction, target, variance)
            case "vector_mse":
                return losses.vector_mse(prediction, target)
            case "cosine" | "vector":
                return losses.cosine_distance(prediction, target)
            case "patience":
                return losses.normalised_distance(prediction, target)
            case "feature_map":
                return losses.feature_map(prediction, target)


class SimilarityTerm(Term):
    """Compares the similarities of a batch's texts to each other, by their sentence vectors of one layer."""

    def __init__(
        self,
        name: str,
        mapping: Sequence[tuple[int, ...]],
        compare: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        pooling: Mode,
    ) -> None:
        """Makes the term.

        Args:
            name: of the term.
            mapping: teacher layers of student layer 0, 1, ...
            compare: (B, H_S) vectors of the student and (B, H_T) of the teacher -> a scalar.
            pooling: of the sentence vectors.
        """
        super().__init__()
        self.name, self.compare, self.pooling = name, compare, pooling
        self.places = [(layer, teacher) for layer, teachers in enumerate(mapping) for teacher in teachers]

    def forward(self, outputs: Pass, batch: Batch) -> torch.Tensor:
        """Computes the values (places,)."""
        lengths = batch.lengths
        return torch.stack(
            [
                self.compare(
                    pooled(batch.real(outputs.hidden[layer]), lengths, self.pooling),
                    pooled(batch.teacher("hidden", teacher), lengths, self.pooling),
                )
                for layer, teacher in self.places
            ]
        )

    def count(self, batch: Batch) -> int:
        """Returns the number of texts."""
        return len(batch.mask)


class PairTerm(Term):
    """Compares pairs of tokens: attention, or relations of queries, keys or values with themselves."""

    def __init__(
        self,
        name: str,
        mapping: Sequence[tuple[int, ...]],
        compare: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
        of: Literal["attention", "query", "key", "value"],
        heads: int,
    ) -> None:
        """Makes the term.

        Args:
            name: of the term.
            mapping: teacher layers of student layer 0, 1, ...
            compare: scores (B, heads, n, n) of student and teacher and a mask (B, n) -> (heads,).
            of: queries with keys ("attention"), or one of the three with itself.
            heads: number of (relation) heads.
        """
        super().__init__()
        self.name, self.compare, self.of, self.heads = name, compare, of, heads
        self.places = [(layer, teacher) for layer, teachers in enumerate(mapping) for teacher in teachers]
        kinds: tuple[Kind, ...] = ("query", "key") if of == "attention" else (of,)
        self.reads = frozenset((kind, teacher) for _, teacher in self.places for kind in kinds)

    def forward(self, outputs: Pass, batch: Batch) -> torch.Tensor:
        """Computes the values (places,), each a mean over heads."""
        return self.by_head(outputs, batch).mean(1)

    def by_head(self, outputs: Pass, batch: Batch) -> torch.Tensor:
        """Computes the values (places, heads)."""
        return torch.stack(
            [
                self.compare(self._scores(outputs, layer), self._teacher_scores(batch, teacher), batch.mask)
                for layer, teacher in self.places
            ]
        )

    def count(self, batch: Batch) -> int:
        """Returns the number of real queries, or of pairs of real tokens for squared errors."""
        squared = self.compare is losses.attention_mse
        return int(batch.lengths.square().sum()) if squared else len(batch.places)

    def _scores(self, outputs: Pass, layer: int) -> torch.Tensor:
        captured, index = outputs.captured, layer - 1
        if self.of == "attention":
            return dot_scores(captured.queries[index].float(), captured.keys[index].float(), self.heads)
        of = {"query": captured.queries, "key": captured.keys, "value": captured.values}[self.of]
        return losses.relation_scores(of[index].float(), self.heads)

    def _teacher_scores(self, batch: Batch, layer: int) -> torch.Tensor:
        if self.of == "attention":
            queries, keys = (batch.teacher_padded(kind, layer) for kind in ("query", "key"))
            return dot_scores(queries, keys, self.heads)
        return losses.relation_scores(batch.teacher_padded(self.of, layer), self.heads)


class WordTerm(Term):
    """Compares the student's predictions at masked words with the teacher's, or with the words."""

    def __init__(
        self,
        name: str,
        kind: WordKind,
        place: Place,
        head: MlmHead,
        teacher: TeacherHead | None,
        temperature: float,
    ) -> None:
        """Makes the term.

        Args:
            name: of the term.
            kind: of loss.
            place: the prediction layers.
            head: the student's, shared by all word terms.
            teacher: the teacher's head; None for "masked_lm".
            temperature: divides the logits.
        """
        super().__init__()
        self.name, self.kind, self.places, self.temperature = name, kind, [place], temperature
        self.head = head
        self._teacher = teacher  # not registered as a module, so not trained

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> WordTerm:
        """Moves the teacher's head along."""
        if self._teacher is not None:
            self._teacher = self._teacher.applied(fn)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def forward(self, outputs: Pass, batch: Batch) -> torch.Tensor:
        """Computes the value (1,)."""
        hidden = batch.labels != NOT_HIDDEN
        logits = self.head(batch.real(outputs.hidden[-1])[hidden], outputs.table)
        if not hidden.any():  # a batch of a few short texts may have no masked word
            return logits.sum()[None]
        if self._teacher is None:
            return losses.masked_lm(logits, batch.labels[hidden])[None]
        target = self._teacher.logits(batch.teacher("hidden", self.places[0][1] - 1)[hidden])
        compare = losses.soft_cross_entropy if self.kind == "prediction" else losses.distribution_kl
        return compare(logits, target, self.temperature)[None]

    def count(self, batch: Batch) -> int:
        """Returns the number of masked words."""
        return int((batch.labels != NOT_HIDDEN).sum())
