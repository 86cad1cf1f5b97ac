"""Decides how many trainings to run side by side, by a measurement that is cached."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import psutil
import torch
from pydantic import TypeAdapter

from kdnas_core import files
from kdnas_core.distillation.precision import autocast_dtype
from kdnas_core.hardware import (
    autocast_to,
    compute_device,
    compute_name,
    computing_on,
    exclusive,
    free_gpu_bytes,
    gpus,
)
from kdnas_core.spec import Device

LEAST_GAIN = 1.1  # each process loads teacher and texts once more
MEMORY_EACH = 1.8e9  # bytes of a process with the packaged teacher
OF_PARAMETER = 12  # further bytes, for each parameter of a larger teacher: its weights, and copies to time it
OF_GPU = 2e9  # bytes of a GPU: torch's own, a teacher's and a student's
TIMED_S = 2.0
TEXTS, TOKENS, WIDTH, LAYERS = 32, 48, 192, 3  # of the trained model: a small student and its batch

log = logging.getLogger(__name__)


def best_number(parameters: int, waiting: Callable[[], None]) -> int:
    """Returns into how many processes to divide the threads of this one, so that they train most together.

    Several share a GPU: a small student leaves it idle for most of a step. Several GPUs are divided alike.
    Cached by machine, device, torch version and number of threads.

    Args:
        parameters: of the teacher, which each process loads; as many are started as the free memory holds.
        waiting: as for `exclusive`.
    """
    devices = max(1, len(gpus()))
    threads = max(1, torch.get_num_threads() // devices)
    each = MEMORY_EACH + OF_PARAMETER * parameters
    room = psutil.virtual_memory().available // each // devices
    if compute_device().type == "cuda":
        room = min(room, free_gpu_bytes() // OF_GPU)
    room = max(1, int(room))
    question = {"device": compute_name(), "torch": torch.__version__, "threads": threads}
    answer = files.recall("slots", question)
    numbers = [number for number in (1, 2, 4, 8, 16, 32) if number <= min(threads, room)]
    if answer is None or len(answer["steps_a_second"]) < len(numbers):  # there was less room then
        with exclusive(waiting):
            answer = {"steps_a_second": [[number, _pace(number, threads)] for number in numbers]}
        files.remember("slots", question, answer)
    pace = {int(number): float(steps) for number, steps in answer["steps_a_second"]}
    log.info(f"training steps a second by number of processes: {pace}")
    best = max((number for number in pace if number <= room), key=pace.__getitem__)
    return devices * (best if pace[best] >= LEAST_GAIN * pace[1] else 1)


def _pace(number: int, threads: int) -> float:
    """Steps a second of some processes together, each with its share of the threads."""
    command = [sys.executable, "-m", __name__, str(threads // number), compute_device().type]
    with ExitStack() as started:
        processes = [
            started.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(number)
        ]
        for process in processes:
            assert process.stdin is not None and process.stdout is not None
            process.stdout.readline()  # it is ready
        for process in processes:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.write("begin\n")
                process.stdin.flush()
        paces = [process.communicate()[0] for process in processes]
        return sum(map(float, paces)) if all(paces) else 0.0  # there was too little memory for one


def main() -> None:
    """Trains a small model for some seconds once a line comes in; prints its steps a second."""
    torch.set_num_threads(int(sys.argv[1]))
    with computing_on(TypeAdapter(Device).validate_python(sys.argv[2])):
        _train()


def _train() -> None:
    device = compute_device()
    # a processor is divided alike in float32 and bfloat16
    dtype = None if device.type == "cpu" else autocast_dtype()
    layer = torch.nn.TransformerEncoderLayer(WIDTH, 6, 2 * WIDTH, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False).to(device)
    optimiser = torch.optim.AdamW(model.parameters())
    texts = torch.randn(TEXTS, TOKENS, WIDTH, device=device)

    def step() -> None:
        with autocast_to(dtype):
            loss = model(texts).float().square().mean()
        loss.backward()
        loss.item()  # waits for a GPU, as each step of a training does
        optimiser.step()
        optimiser.zero_grad()

    step()  # warm-up
    print("ready", flush=True)
    sys.stdin.readline()
    steps, began = 0, time.perf_counter()
    while (now := time.perf_counter()) - began < TIMED_S:
        step()
        steps += 1
    print(steps / (now - began))


if __name__ == "__main__":
    main()
