"""Whether this machine trains faster in bfloat16, measured once and remembered."""

from __future__ import annotations

import logging
import statistics
import time

import torch

from kdnas_core.measure import memory
from kdnas_core.measure.reading import device_name

WORTH_IT = 1.3  # a gain below this would be lost in the noise, and float32 is the safer choice

log = logging.getLogger(__name__)


def autocast_dtype() -> torch.dtype | None:
    """bfloat16 where a training step is clearly faster under it on this machine, else None for float32.

    Remembered with the machine's name, torch's version and the number of threads, so that two runs on one
    machine never differ by a measurement's noise.
    """
    question = {"device": device_name(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    answer = memory.recall("bfloat16", question)
    if answer is None:
        answer = {"gain": _measured_gain()}
        memory.remember("bfloat16", question, answer)
    log.info(f"bfloat16 autocast is {answer['gain']:.1f} times as fast as float32 here")
    return torch.bfloat16 if answer["gain"] >= WORTH_IT else None


def _measured_gain(repeats: int = 7) -> float:
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(repeats):
        for bfloat16 in times:
            times[bfloat16].append(_step_seconds(bfloat16))
    return statistics.median(times[False]) / statistics.median(times[True])


def _step_seconds(bfloat16: bool) -> float:
    """Forward and backward of a feed-forward layer of a middling student on 1,024 tokens."""
    layer = torch.nn.Sequential(torch.nn.Linear(256, 1024), torch.nn.GELU(), torch.nn.Linear(1024, 256))
    tokens = torch.zeros(1024, 256)
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        loss = layer(tokens).square().mean()
    loss.backward()
    return time.perf_counter() - start
