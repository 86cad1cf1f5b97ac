"""Decides whether to train in bfloat16, by a measurement that is cached."""

from __future__ import annotations

import logging
import math
import time

import torch

from kdnas_core import files
from kdnas_core.hardware import autocast_to, compute_device, device_name, exclusive

LEAST_GAIN = 1.3  # a smaller gain is within the noise, and float32 is the safer choice
NO_GAIN = 0.1  # no noise makes up for it; a processor that emulates bfloat16 takes 20 times as long

log = logging.getLogger(__name__)


def autocast_dtype() -> torch.dtype | None:
    """Returns bfloat16 where models compute faster in it, else None for float32.

    On a GPU that is where it has units for it; on a processor, where a training step is clearly faster.

    The measurement is cached by machine, torch version and number of threads, so that its noise does not make
    two runs on one machine differ.
    """
    device = compute_device()
    if device.type != "cpu":  # launches, not products, take most of so small a step
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else None
    question = {"device": device_name(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    answer = files.recall("bfloat16", question)
    if answer is None:
        answer = {"gain": _measured_gain()}
        files.remember("bfloat16", question, answer)
    log.info(f"bfloat16 autocast is {answer['gain']:.2g} times as fast as float32 here")
    return torch.bfloat16 if answer["gain"] >= LEAST_GAIN else None


def _measured_gain(repeats: int = 8) -> float:
    """Fastest float32 step over fastest bfloat16 step; other work disturbs the fastest least."""
    blocks = torch.nn.Sequential(*(_block(width=256) for _ in range(3)))
    tokens = torch.randn(1024, 256)
    fastest = {False: math.inf, True: math.inf}
    with exclusive():
        for bfloat16 in (False, True):
            _step_seconds(blocks, tokens[:64], bfloat16)  # warm-up
        for repeat in range(repeats):
            for bfloat16 in fastest:
                fastest[bfloat16] = min(fastest[bfloat16], _step_seconds(blocks, tokens, bfloat16))
            if repeat and fastest[False] / fastest[True] < NO_GAIN:
                break
    return fastest[False] / fastest[True]


def _block(width: int) -> torch.nn.Module:
    """The feed-forward layer of a medium student, which takes most of its time."""
    wide = torch.nn.Linear(width, 4 * width)
    return torch.nn.Sequential(wide, torch.nn.GELU(), torch.nn.Linear(4 * width, width))


def _step_seconds(blocks: torch.nn.Module, tokens: torch.Tensor, bfloat16: bool) -> float:
    start = time.perf_counter()
    with autocast_to(torch.bfloat16 if bfloat16 else None):
        loss = blocks(tokens).square().mean()
    loss.backward()
    return time.perf_counter() - start
