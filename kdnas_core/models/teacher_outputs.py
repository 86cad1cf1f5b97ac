"""The teacher's outputs on texts: computed once and cached on disk, or online for each batch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from kdnas_core.data.tokens import NOT_HIDDEN, Passage, by_length, hide_words
from kdnas_core.errors import BadInput
from kdnas_core.files import discard
from kdnas_core.hardware import autocast_to, compute_device, moved, other_device
from kdnas_core.models.capture import Captured, capture
from kdnas_core.models.kept_outputs import KeptOutputs
from kdnas_core.models.targets import (
    Kind,
    Output,
    Reader,
    Targets,
    Texts,
    TokenizedTexts,
    padded,
    real_places,
    real_states,
    tokenised,
)
from kdnas_core.models.teacher import Teacher

BATCH = 32
DAY_S = 86_400
SPARE_BYTES = 500_000_000
FOLDERS_KEPT = 4  # a search uses two; older ones are deleted to bound the cache

Computed = Callable[[Output], NDArray[np.float32]]


@dataclass(frozen=True)
class NeededOutputs:
    """The needed teacher outputs besides all hidden states.

    Attributes:
        projections: queries, keys and values, by kind and layer.
        hidden_words: whether the teacher reads masked texts.
    """

    projections: Collection[Output] = ()
    hidden_words: bool = False


def teacher_targets(
    teacher: Teacher,
    texts: Sequence[Passage],
    sequence_length: int,
    autocast: torch.dtype | None,
    cache: Path,
    progress: Callable[[float], None] = lambda share: None,
    wanted: NeededOutputs = NeededOutputs(),
) -> Targets:
    """Returns the teacher's outputs on texts, computed unless the cache holds them.

    Args:
        teacher: computes the outputs.
        texts: or pairs; each is cut at `sequence_length` tokens, special tokens included.
        sequence_length: in tokens.
        autocast: dtype to compute in, None for float32; outputs are stored as float16.
        cache: folder for all cached outputs.
        progress: called with the share done, 0 to 1.
        wanted: outputs besides hidden states.

    Raises:
        BadInput: the disk has too little room, or the tokenizer has no mask token.
    """
    outputs = _outputs(teacher, wanted)
    encoded = tokenised(teacher, texts, sequence_length, wanted.hidden_words)
    names = sorted(map(_name, outputs))
    question = [teacher.fingerprint, str(autocast), names, encoded.fingerprint, *other_device()]
    folder = cache / "targets" / hashlib.sha256(json.dumps(question).encode()).hexdigest()[:24]
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unfinished-"))
        try:
            with moved(teacher.model):
                _compute(teacher, encoded, outputs, autocast, unfinished, progress)
            with contextlib.suppress(OSError):  # another process computed the same and was first
                unfinished.replace(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        _delete_old(folder.parent)
    os.utime(folder)  # the least recently used folder is deleted first
    return _open(folder, outputs)


def _outputs(teacher: Teacher, wanted: NeededOutputs) -> list[Output]:
    hidden: list[Output] = [("hidden", layer) for layer in range(teacher.layers + 1)]
    return [*hidden, *wanted.projections]


def _name(output: Output) -> str:
    kind, layer = output
    return f"{kind}-{layer}"


def _open(folder: Path, outputs: Sequence[Output]) -> Targets:
    def load(name: str, mode: Literal["r"] | None = None) -> Any:
        # as a plain array, whose slices are made in half the time of a `memmap`'s
        return np.load(folder / f"{name}.npy", mmap_mode=mode, allow_pickle=False).view(np.ndarray)

    return Targets(
        ids=load("ids"),
        labels=load("labels"),
        offsets=load("offsets"),
        outputs={output: load(_name(output), "r") for output in outputs},
        variance=load("variance"),
        types=load("types") if (folder / "types.npy").is_file() else None,
    )


def _delete_old(folder: Path) -> None:
    by_age = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
    finished = [path for path in by_age if not path.name.startswith(".")]
    # left by a killed process: no computation takes this long
    abandoned = [
        path for path in by_age if path not in finished and path.stat().st_mtime < time.time() - DAY_S
    ]
    for path in (*finished[:-FOLDERS_KEPT], *abandoned):
        discard(path)


def _compute(
    teacher: Teacher,
    encoded: TokenizedTexts,
    outputs: Sequence[Output],
    autocast: torch.dtype | None,
    folder: Path,
    progress: Callable[[float], None],
) -> None:
    shape = (len(encoded.ids), teacher.architecture.hidden_size)
    _check_space(folder, bytes_needed=2 * math.prod(shape) * len(outputs))
    files = {
        output: np.lib.format.open_memmap(
            folder / f"{_name(output)}.npy", mode="w+", dtype=np.float16, shape=shape
        )
        for output in outputs
    }
    total, squares = np.zeros((teacher.layers + 1, shape[1])), np.zeros((teacher.layers + 1, shape[1]))
    texts = len(encoded.offsets) - 1
    for done, (rows, computed) in enumerate(_forward(teacher, encoded, autocast), start=1):
        for (kind, layer), file in files.items():
            for row, state in zip(rows, computed((kind, layer)), strict=True):
                part = state[: encoded.offsets[row + 1] - encoded.offsets[row]]  # without padding
                file[encoded.offsets[row] : encoded.offsets[row + 1]] = part
                if kind == "hidden":
                    total[layer] += part.sum(axis=0, dtype=np.float64)
                    squares[layer] += np.square(part, dtype=np.float64).sum(axis=0)
        progress(min(1.0, done * BATCH / texts))
    mean = total / shape[0]
    np.save(folder / "variance.npy", (squares / shape[0] - mean**2).mean(axis=1))
    arrays = {
        "ids": encoded.ids,
        "labels": encoded.labels,
        "offsets": encoded.offsets,
        "types": encoded.types,
    }
    for name, array in arrays.items():
        if array is not None:
            np.save(folder / f"{name}.npy", array)
    for file in files.values():
        file.flush()


def _check_space(folder: Path, bytes_needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if bytes_needed > free - SPARE_BYTES:  # writing a memory map to a full disk kills the process
        raise BadInput(
            f"The teacher's outputs on the proxy set take {bytes_needed / 1e9:.1f} GB, but the cache has "
            f"{free / 1e9:.1f} GB free; lower proxy.sentences or name a larger disk with KDNAS_CACHE."
        )


@torch.inference_mode()
def _forward(
    teacher: Teacher, encoded: TokenizedTexts, autocast: torch.dtype | None
) -> Iterator[tuple[list[int], Computed]]:
    """Yields batches of text indices with a function that returns each output (B, n, H), padding included."""
    with capture(teacher.model) as captured:
        for rows in by_length(np.diff(encoded.offsets), BATCH):
            slices = [encoded.slice(row) for row in rows]
            ids, mask = padded([encoded.ids[part] for part in slices], teacher.tokenizer.pad_token_id)
            types = {}
            if encoded.types is not None:
                types["token_type_ids"] = padded([encoded.types[part] for part in slices], 0)[0]
            with autocast_to(autocast):
                states = teacher.model(
                    input_ids=ids, attention_mask=mask, output_hidden_states=True, **types
                ).hidden_states
            yield rows, partial(_computed, states, captured)


def _computed(states: Sequence[torch.Tensor], captured: Captured, output: Output) -> NDArray[np.float32]:
    kind, layer = output
    if kind == "hidden":
        return states[layer].float().cpu().numpy()
    tensors = {"query": captured.queries, "key": captured.keys, "value": captured.values}[kind]
    return tensors[layer - 1].float().cpu().numpy()


@dataclass(frozen=True)
class OnlineTargets(Texts):
    """Texts whose teacher outputs are computed when a batch is first read, where the teacher's weights are.

    Attributes:
        teacher: computes the outputs.
        teacher_ids: (tokens,) token ids for the teacher; the student's may be renumbered.
        whole_ids: (tokens,) the same without masks.
        numbers: (V,) the student's number of each id; None where it is the id.
        wanted: the outputs to compute.
        autocast: dtype to compute in, None for float32.
        kept: the outputs that were computed before; None if all are computed anew.
    """

    teacher: Teacher
    teacher_ids: NDArray[np.int64]
    whole_ids: NDArray[np.int64]
    numbers: NDArray[np.int64] | None
    wanted: frozenset[Output]
    autocast: torch.dtype | None
    kept: KeptOutputs | None = None

    @classmethod
    def of(
        cls,
        teacher: Teacher,
        encoded: TokenizedTexts,
        variance: NDArray[np.float64],
        autocast: torch.dtype | None,
        wanted: Collection[Output],
        kept: KeptOutputs | None = None,
    ) -> OnlineTargets:
        """Makes them from tokenized texts; arguments as the attributes."""
        return cls(
            ids=encoded.ids,
            labels=encoded.labels,
            offsets=encoded.offsets,
            variance=variance,
            types=encoded.types,
            teacher=teacher,
            teacher_ids=encoded.ids,
            whole_ids=np.where(encoded.labels == NOT_HIDDEN, encoded.ids, encoded.labels),
            numbers=None,
            wanted=frozenset(wanted),
            autocast=autocast,
            kept=kept,
        )

    @property
    def width(self) -> int:
        """H, the teacher's hidden size."""
        return self.teacher.architecture.hidden_size

    def renumbered(self, numbers: NDArray[np.int64]) -> Self:
        """Returns the same texts with the student's ids replaced by their new numbers, (V,)."""
        return replace(super().renumbered(numbers), numbers=numbers)

    def in_pass(self, number: int) -> Self:
        """Returns the texts with other words masked in each pass (RoBERTa, arXiv 1907.11692, section 4.1)."""
        if number == 0 or (self.labels == NOT_HIDDEN).all():
            return self
        ids, labels = hide_words(self.whole_ids, self.teacher.tokenizer, seed=number)
        anew = replace(self, ids=ids, labels=labels, teacher_ids=ids, kept=None)
        return anew if self.numbers is None else anew.renumbered(self.numbers)

    def reader(self, slices: Sequence[slice]) -> Reader:
        """Returns a reader of the teacher's outputs; its first call computes all of them, unless kept."""
        outputs = cache(lambda: self._kept_or_computed(slices))

        def read(kind: Kind, layer: int) -> torch.Tensor:
            return outputs()[kind, layer].to(compute_device()).float()

        return read

    def _kept_or_computed(self, slices: Sequence[slice]) -> dict[Output, torch.Tensor]:
        if self.kept is None:
            return self._computed(slices)
        known = self.kept.read(slices)
        if known is None:
            known = self._computed(slices)
            self.kept.write(slices, {output: states.cpu() for output, states in known.items()})
        return known

    @torch.inference_mode()
    def _computed(self, slices: Sequence[slice]) -> dict[Output, torch.Tensor]:
        """The wanted outputs, (real tokens, H) each, in half precision."""
        ids, mask = padded([self.teacher_ids[part] for part in slices], self.teacher.tokenizer.pad_token_id)
        types = {}
        if self.types is not None:
            types["token_type_ids"] = padded([self.types[part] for part in slices], 0)[0]
        real = real_places(mask)
        with (
            capture(self.teacher.model) as captured,
            autocast_to(self.autocast),
        ):
            states = self.teacher.model(
                input_ids=ids, attention_mask=mask, output_hidden_states=True, **types
            ).hidden_states
        by_kind = {"query": captured.queries, "key": captured.keys, "value": captured.values}
        return {
            (kind, layer): real_states(
                states[layer] if kind == "hidden" else by_kind[kind][layer - 1], real
            ).half()
            for kind, layer in self.wanted
        }
