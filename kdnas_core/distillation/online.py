"""Texts whose teacher outputs are computed when a batch is read: a full corpus's would not fit on a disk."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from kdnas_core.distillation.capture import capture
from kdnas_core.distillation.masking import NOT_HIDDEN, hide_words
from kdnas_core.distillation.sheet import Sheet
from kdnas_core.distillation.targets import Kind, Output, Reader, Texts, padded
from kdnas_core.distillation.teacher import Teacher


@dataclass(frozen=True)
class OnlineTargets(Texts):
    """A set of texts with a teacher at hand.

    Attributes:
        teacher: computes.
        teacher_ids: (tokens,) as it reads them; the student may read them in other numbers.
        whole_ids: (tokens,) the same with no word hidden.
        numbers: (V,) what the student has for each id; None where that is the id.
        projections: queries, keys and values that are wanted besides all hidden states.
        autocast: dtype to compute in, None for float32.
    """

    teacher: Teacher
    teacher_ids: NDArray[np.int64]
    whole_ids: NDArray[np.int64]
    numbers: NDArray[np.int64] | None
    projections: frozenset[Output]
    autocast: torch.dtype | None

    @classmethod
    def of(
        cls,
        teacher: Teacher,
        sheet: Sheet,
        variance: NDArray[np.float64],
        autocast: torch.dtype | None,
        projections: Collection[Output] = (),
    ) -> OnlineTargets:
        """Of the texts of a sheet."""
        return cls(
            ids=sheet.ids,
            labels=sheet.labels,
            offsets=sheet.offsets,
            variance=variance,
            types=sheet.types,
            teacher=teacher,
            teacher_ids=sheet.ids,
            whole_ids=np.where(sheet.labels == NOT_HIDDEN, sheet.ids, sheet.labels),
            numbers=None,
            projections=frozenset(projections),
            autocast=autocast,
        )

    @property
    def width(self) -> int:
        """H, the teacher's hidden size."""
        return self.teacher.architecture.hidden_size

    def renumbered(self, numbers: NDArray[np.int64]) -> Self:
        """The same texts with the new number of each id, (V,), for the student."""
        return replace(super().renumbered(numbers), numbers=numbers)

    def in_pass(self, number: int) -> Self:
        """The texts with other words hidden in each pass (RoBERTa, arXiv 1907.11692, section 4.1)."""
        if number == 0 or (self.labels == NOT_HIDDEN).all():
            return self
        ids, labels = hide_words(self.whole_ids, self.teacher.tokenizer, seed=number)
        anew = replace(self, ids=ids, labels=labels, teacher_ids=ids)
        return anew if self.numbers is None else anew.renumbered(self.numbers)

    def reader(self, slices: Sequence[slice]) -> Reader:
        """The teacher's outputs on some texts: computed at the first question, together."""
        computed = cache(lambda: self._computed(slices))

        def read(kind: Kind, layer: int) -> torch.Tensor:
            return computed()[kind, layer].float()

        return read

    @torch.inference_mode()
    def _computed(self, slices: Sequence[slice]) -> dict[Output, torch.Tensor]:
        """All that is wanted, (real tokens, H) each; in half precision, since batches may be kept."""
        ids, mask = padded([self.teacher_ids[part] for part in slices], self.teacher.tokenizer.pad_token_id)
        types = {}
        if self.types is not None:
            types["token_type_ids"] = padded([self.types[part] for part in slices], 0)[0]
        real = mask.bool()
        with (
            capture(self.teacher.model) as captured,
            torch.autocast("cpu", self.autocast, enabled=self.autocast is not None),
        ):
            states = self.teacher.model(
                input_ids=ids, attention_mask=mask, output_hidden_states=True, **types
            ).hidden_states
        found: dict[Output, torch.Tensor] = {
            ("hidden", layer): state[real].half() for layer, state in enumerate(states)
        }
        kept = {"query": captured.queries, "key": captured.keys, "value": captured.values}
        for kind, layer in self.projections:
            found[kind, layer] = kept[kind][layer - 1][real].half()
        return found
