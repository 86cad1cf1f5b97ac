"""Teacher outputs, computed once, memory-mapped and shared by all candidates of a search.

Padding is never stored: the tokens of all texts stand one after another, and `offsets` says where each
text begins. So no loss can touch padding, and a batch is a handful of slices.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kdnas_core.distillation.teacher import Teacher
from kdnas_core.errors import BadInput

BATCH = 32
DAY_S = 86_400
SPARE_BYTES = 500_000_000
FOLDERS_KEPT = 4  # a search uses two; older ones are deleted so that the cache stays bounded


@dataclass(frozen=True)
class Targets:
    """A set of texts as the teacher sees them.

    Attributes:
        ids: (tokens,) token ids of all texts in a row.
        offsets: (texts + 1,) where each text begins in `ids` and `hidden`.
        hidden: (tokens, N, H) float16, the output of teacher layers 1..N, memory-mapped.
        variance: (N,) variance of each layer's output about its mean over tokens, averaged over H: the
            squared error of a student that predicts the mean.
    """

    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    hidden: NDArray[np.float16]
    variance: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(texts,) tokens of each text."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Batch:
    """Some texts, padded, with the teacher's outputs for their real tokens.

    Attributes:
        ids: (B, n) token ids, padded at the end.
        mask: (B, n) 1 for real tokens.
        hidden: (real tokens, N, H) float32, in the order of `mask`'s ones.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    hidden: torch.Tensor


def make_batch(targets: Targets, texts: Sequence[int], pad: int) -> Batch:
    """The batch of the texts with these indices, padded with the token id `pad`."""
    slices = [slice(targets.offsets[text], targets.offsets[text + 1]) for text in texts]
    longest = max(part.stop - part.start for part in slices)
    ids = torch.full((len(slices), longest), pad)
    mask = torch.zeros(len(slices), longest, dtype=torch.long)
    for row, part in enumerate(slices):
        ids[row, : part.stop - part.start] = torch.from_numpy(targets.ids[part])
        mask[row, : part.stop - part.start] = 1
    hidden = np.concatenate([targets.hidden[part] for part in slices])
    return Batch(ids, mask, torch.from_numpy(hidden).float())


def teacher_targets(
    teacher: Teacher,
    texts: Sequence[str],
    sequence_length: int,
    autocast: torch.dtype | None,
    cache: Path,
    progress: Callable[[float], None] = lambda share: None,
) -> Targets:
    """The teacher's hidden states on some texts, computed unless the cache holds them.

    Args:
        teacher: whose outputs.
        texts: cut at `sequence_length` tokens each, special tokens included.
        sequence_length: in tokens.
        autocast: dtype to compute in, None for float32; outputs are kept as float16.
        cache: folder for all cached outputs.
        progress: called with the share done, 0 to 1.

    Raises:
        BadInput: the disk has no room for them.
    """
    question = [teacher.fingerprint, str(autocast), sequence_length, list(texts)]
    folder = cache / "targets" / hashlib.sha256(json.dumps(question).encode()).hexdigest()[:24]
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unfinished-"))
        try:
            _compute(teacher, texts, sequence_length, autocast, unfinished, progress)
            with contextlib.suppress(OSError):  # another process had the same to compute and was first
                unfinished.replace(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        _delete_old(folder.parent)
    folder.touch()  # used just now: the last to be deleted
    return _open(folder)


def _open(folder: Path) -> Targets:
    return Targets(
        ids=np.load(folder / "ids.npy", allow_pickle=False),
        offsets=np.load(folder / "offsets.npy", allow_pickle=False),
        hidden=np.load(folder / "hidden.npy", mmap_mode="r", allow_pickle=False),
        variance=np.load(folder / "variance.npy", allow_pickle=False),
    )


def _delete_old(folder: Path) -> None:
    by_age = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
    finished = [path for path in by_age if not path.name.startswith(".")]
    # left by a process that was killed: nothing takes this long
    abandoned = [
        path for path in by_age if path not in finished and path.stat().st_mtime < time.time() - DAY_S
    ]
    for path in (*(_set_aside(old) for old in finished[:-FOLDERS_KEPT]), *abandoned):
        shutil.rmtree(path, ignore_errors=True)


def _set_aside(folder: Path) -> Path:
    """Takes the folder's name from it first, so that a kill never leaves half of one under its name."""
    return folder.replace(Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unfinished-")))


def _compute(
    teacher: Teacher,
    texts: Sequence[str],
    sequence_length: int,
    autocast: torch.dtype | None,
    folder: Path,
    progress: Callable[[float], None],
) -> None:
    token_lists = teacher.tokenizer(list(texts), truncation=True, max_length=sequence_length)["input_ids"]
    lengths = [len(tokens) for tokens in token_lists]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    shape = (int(offsets[-1]), teacher.layers, teacher.architecture.hidden_size)
    _check_space(folder, bytes_needed=2 * math.prod(shape))
    hidden = np.lib.format.open_memmap(folder / "hidden.npy", mode="w+", dtype=np.float16, shape=shape)
    total, squares = np.zeros(shape[1:]), np.zeros(shape[1:])
    by_length = np.argsort(lengths, kind="stable")
    for done, (rows, states) in enumerate(_forward(teacher, token_lists, by_length, autocast), start=1):
        for row, state in zip(rows, states, strict=True):  # state: (real tokens, N, H)
            hidden[offsets[row] : offsets[row + 1]] = state
            total += state.sum(axis=0, dtype=np.float64)
            squares += np.square(state, dtype=np.float64).sum(axis=0)
        progress(min(1.0, done * BATCH / len(texts)))
    mean = total / shape[0]
    np.save(folder / "variance.npy", (squares / shape[0] - mean**2).mean(axis=1))
    np.save(folder / "ids.npy", np.concatenate(token_lists).astype(np.int64))
    np.save(folder / "offsets.npy", offsets)
    hidden.flush()


def _check_space(folder: Path, bytes_needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if bytes_needed > free - SPARE_BYTES:  # a memory map that meets a full disk kills the process
        raise BadInput(
            f"The teacher's outputs on the proxy set take {bytes_needed / 1e9:.1f} GB, but the cache has "
            f"{free / 1e9:.1f} GB free; lower proxy.sentences or name a larger disk with KDNAS_CACHE."
        )


@torch.inference_mode()
def _forward(
    teacher: Teacher,
    token_lists: Sequence[list[int]],
    order: NDArray[np.int64],
    autocast: torch.dtype | None,
) -> Iterator[tuple[NDArray[np.int64], list[NDArray[np.float32]]]]:
    """Yields batches of text indices with (real tokens, N, H) states for each."""
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        padded = teacher.tokenizer.pad(
            {"input_ids": [token_lists[row] for row in rows]}, return_tensors="pt", padding_side="right"
        )
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            outputs = teacher.model(**padded, output_hidden_states=True)
        states = torch.stack(outputs.hidden_states[1:], dim=2).float().numpy()  # (B, n, N, H)
        yield rows, [state[: len(token_lists[row])] for row, state in zip(rows, states, strict=True)]
