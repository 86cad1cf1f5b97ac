"""Whether this machine trains faster in bfloat16, measured once and remembered."""

from __future__ import annotations

import logging
import math
import time

import torch

from kdnas_core import files
from kdnas_core.hardware import device_name, exclusive

WORTH_IT = 1.3  # a gain below this would be lost in the noise, and float32 is the safer choice

log = logging.getLogger(__name__)


def autocast_dtype() -> torch.dtype | None:
    """bfloat16 where a training step is clearly faster under it on this machine, else None for float32.

    Remembered with the machine's name, torch's version and the number of threads, so that two runs on one
    machine never differ by a measurement's noise.
    """
    question = {"device": device_name(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    answer = files.recall("bfloat16", question)
    if answer is None:
        answer = {"gain": _measured_gain()}
        files.remember("bfloat16", question, answer)
    log.info(f"bfloat16 autocast is {answer['gain']:.1f} times as fast as float32 here")
    return torch.bfloat16 if answer["gain"] >= WORTH_IT else None


def _measured_gain(repeats: int = 8) -> float:
    """Fastest float32 step over fastest bfloat16 step: the fastest is the least disturbed by other work."""
    blocks = torch.nn.Sequential(*(_block(width=256) for _ in range(3)))
    tokens = torch.randn(1024, 256)
    fastest = {False: math.inf, True: math.inf}
    for bfloat16 in (False, True):
        _step_seconds(blocks, tokens, bfloat16)  # the first step of each also sets up
    with exclusive():
        for _ in range(repeats):
            for bfloat16 in fastest:
                fastest[bfloat16] = min(fastest[bfloat16], _step_seconds(blocks, tokens, bfloat16))
    return fastest[False] / fastest[True]


def _block(width: int) -> torch.nn.Module:
    """Like the feed-forward layer of a middling student, where most of its time goes."""
    wide = torch.nn.Linear(width, 4 * width)
    return torch.nn.Sequential(wide, torch.nn.GELU(), torch.nn.Linear(4 * width, width))


def _step_seconds(blocks: torch.nn.Module, tokens: torch.Tensor, bfloat16: bool) -> float:
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        loss = blocks(tokens).square().mean()
    loss.backward()
    return time.perf_counter() - start
