"""Teacher outputs kept on disk as they are computed, for later epochs and for other students."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdnas_core.files import delete_beyond, discard
from kdnas_core.hardware import other_device
from kdnas_core.models.targets import Output, TokenizedTexts
from kdnas_core.models.teacher import Teacher

MOST_BYTES = 8 * 2**30  # of all texts together; those not used for longest are deleted
SPARE_BYTES = 500_000_000  # of the disk

log = logging.getLogger(__name__)


class KeptOutputs:
    """The outputs of one teacher on the same texts, by text; they fill as they are computed.

    The checksum of each text shows whether its outputs are there and whole. So processes may share them
    without a lock, and one that is killed leaves nothing that would be believed.

    Args:
        folder: of the two files; made unless it exists.
        outputs: by kind and layer.
        offsets: (texts + 1,) the start of each text in the tokens.
        width: H, of the teacher.

    Raises:
        OSError: the disk has too little room.
    """

    def __init__(
        self, folder: Path, outputs: Sequence[Output], offsets: NDArray[np.int64], width: int
    ) -> None:
        self.outputs, self.offsets = list(outputs), offsets
        folder.mkdir(parents=True, exist_ok=True)
        shape = (int(offsets[-1]), len(self.outputs), width)
        self._states: NDArray[np.float16] = _mapped(folder / "states.bin", np.float16, shape)
        self._sums: NDArray[np.uint32] = _mapped(folder / "sums.bin", np.uint32, (len(offsets) - 1,))

    def read(self, slices: Sequence[slice]) -> dict[Output, torch.Tensor] | None:
        """Returns the (real tokens, H) outputs of the texts with these tokens; None if any text has none."""
        parts = [(text, self._states[part]) for text, part in self._texts(slices)]
        if any(self._sums[text] != _sum(part) for text, part in parts):
            return None
        states = torch.from_numpy(np.concatenate([part for _, part in parts]))
        return {output: states[:, place] for place, output in enumerate(self.outputs)}

    def write(self, slices: Sequence[slice], computed: dict[Output, torch.Tensor]) -> None:
        """Keeps the (real tokens, H) outputs of the texts with these tokens."""
        states = torch.stack([computed[output] for output in self.outputs], 1).half().numpy()
        begin = 0
        for text, part in self._texts(slices):
            end = begin + part.stop - part.start
            self._states[part] = states[begin:end]
            self._sums[text] = _sum(states[begin:end])
            begin = end

    def _texts(self, slices: Sequence[slice]) -> Iterator[tuple[int, slice]]:
        starts = np.searchsorted(self.offsets, [part.start for part in slices])
        return zip(starts.tolist(), slices, strict=True)


def kept_outputs(
    teacher: Teacher,
    texts: TokenizedTexts,
    autocast: torch.dtype | None,
    outputs: Sequence[Output],
    cache: Path,
) -> KeptOutputs | None:
    """Returns the place for a teacher's outputs on texts; None if they are too large to be kept.

    Args:
        teacher: whose outputs.
        texts: without masked words, which differ from pass to pass.
        autocast: dtype that the outputs are computed in.
        outputs: by kind and layer.
        cache: folder for all cached outputs.
    """
    width = teacher.architecture.hidden_size
    needed = 2 * len(texts.ids) * len(outputs) * width
    if needed > MOST_BYTES:
        return None
    question = json.dumps(
        [teacher.fingerprint, str(autocast), sorted(outputs), texts.fingerprint, *other_device()]
    )
    folder = cache / "outputs" / hashlib.sha256(question.encode()).hexdigest()[:24]
    folder.parent.mkdir(parents=True, exist_ok=True)
    delete_beyond(folder.parent, MOST_BYTES - needed, spared=folder)
    try:
        kept = KeptOutputs(folder, sorted(outputs), texts.offsets, width)
        os.utime(folder)
    except OSError as error:
        log.warning(f"The teacher's outputs are not kept: {error}")
        discard(folder)
        return None
    return kept


def _mapped(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
    """A file as an array that can be written; what is already in it stays."""
    needed = np.dtype(dtype).itemsize * math.prod(shape)
    path.touch()
    with path.open("r+b") as file:
        missing = needed - path.stat().st_size
        if missing > 0 and shutil.disk_usage(path.parent).free < missing + SPARE_BYTES:
            raise OSError(f"they take {needed / 1e9:.1f} GB, for which {path.parent} has too little room")
        # a write to a memory map for which the disk has no room would kill the process
        with contextlib.suppress(AttributeError):  # macOS has no such call
            os.posix_fallocate(file.fileno(), 0, needed)
        if missing > 0:
            file.truncate(needed)
    return np.memmap(path, dtype, "r+", shape=shape)


def _sum(states: NDArray[np.float16]) -> int:
    """A checksum that is never 0, which stands for a text without outputs."""
    return zlib.crc32(np.ascontiguousarray(states).data) or 1
