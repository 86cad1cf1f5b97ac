"""A student's forward pass where models compute, and its evaluation on held-out texts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel

from kdnas_core.data.tokens import by_length
from kdnas_core.distillation.objective import Objective, Places
from kdnas_core.distillation.terms import PairTerm, Pass, Term
from kdnas_core.distillation.yardstick import Meter
from kdnas_core.hardware import autocast_to, compute_device, moved
from kdnas_core.models.capture import Captured, capture
from kdnas_core.models.targets import Batch, Targets, make_batch
from kdnas_core.models.vocabulary import Vocabulary, only_used_words


class Forward:
    """A student's forward pass under autocast."""

    def __init__(self, student: PreTrainedModel, captured: Captured, autocast: torch.dtype | None) -> None:
        self.student = student.eval()
        self.captured = captured
        self.autocast = autocast
        self.pad = student.config.pad_token_id or 0
        self.layers = int(student.config.num_hidden_layers)

    def __call__(self, batch: Batch) -> Pass:
        """Reads a batch."""
        with autocast_to(self.autocast):
            output = self.student(
                input_ids=batch.ids, attention_mask=batch.mask, output_hidden_states=True, **_pair(batch)
            )
        hidden = output.hidden_states or (output.last_hidden_state,)  # a model without layers returns none
        return Pass(hidden, self.captured, self.student.get_input_embeddings().weight)


def _pair(batch: Batch) -> dict[str, torch.Tensor]:
    """Returns the segments of a batch as an argument of a model; empty if no text is a pair."""
    return {} if batch.types is None else {"token_type_ids": batch.types}


@contextlib.contextmanager
def placed(
    student: PreTrainedModel, objective: Objective, vocabulary: Vocabulary, autocast: torch.dtype | None
) -> Iterator[Forward]:
    """Moves a student with the words in use to where models compute.

    Captures queries, keys and values only if a term reads them.
    """
    reads = any(isinstance(term, PairTerm) for term in objective.all_terms())
    with (
        only_used_words(student, vocabulary),
        moved(student, objective),
        capture(student) if reads else contextlib.nullcontext(Captured()) as captured,
    ):
        yield Forward(student, captured, autocast)


@torch.no_grad()
def evaluate(
    forward: Forward,
    terms: Sequence[Term],
    held_out: Targets,
    texts: Sequence[int],
    batch_size: int,
    meter: Meter | None = None,
) -> dict[str, Places]:
    """Computes the values of terms on held-out texts, each a mean over all that the term counts."""
    device = compute_device()  # whose sums are read once, at the end
    totals, counts = [torch.zeros(len(term.places), device=device) for term in terms], [0] * len(terms)
    for indices in by_length(held_out.lengths, batch_size, texts):
        batch = make_batch(held_out, indices, forward.pad)
        outputs = forward(batch)
        if meter is not None:
            meter.read(outputs, batch)
        for index, term in enumerate(terms):
            count = term.count(batch)
            totals[index] += term(outputs, batch) * count
            counts[index] += count
    return {
        term.name: _by_place(term.places, (total / max(1, count)).cpu().tolist())
        for term, total, count in zip(terms, totals, counts, strict=True)
    }


def _by_place(places: Sequence[tuple[int, int]], values: Sequence[float]) -> Places:
    """The values by place; their mean if a layer is mapped to one teacher layer twice."""
    by_place: dict[tuple[int, int], list[float]] = {}
    for place, value in zip(places, values, strict=True):
        by_place.setdefault(place, []).append(value)
    return {place: sum(of_place) / len(of_place) for place, of_place in by_place.items()}
