"""Candidates side by side: processes that each judge one at a time, for the worker that holds the run.

The worker writes the id of a candidate to a process, which answers with it when the candidate is judged. All
else goes through the store, under the worker's lease. A process ends with its worker, whose pipe it reads.
"""

from __future__ import annotations

import logging
import os
import queue
import selectors
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Literal, Self

import torch
from pydantic import BaseModel

from kdnas_core.distillation.side_by_side import best_number
from kdnas_core.errors import Failure
from kdnas_core.hardware import computing_on, cores, gpus
from kdnas_core.models.student import parameters
from kdnas_core.models.teacher import Teacher
from kdnas_core.runs.candidate_journal import MOST_ATTEMPTS, CandidateJournal
from kdnas_core.runs.jobs import Job, Lease
from kdnas_core.runs.launch import environment
from kdnas_core.runs.records import Run
from kdnas_core.runs.store import Store, opened
from kdnas_core.search.judge import Judge
from kdnas_core.search.prepare import Known, make_judge, prepare
from kdnas_core.spec import RunSpec

COMMAND = ["-m", "kdnas_core", "slot"]
MANY = 32  # candidates
LOOK_EVERY_S = 0.2
ENDS_WITHIN_S = 10.0

Dtype = Literal["float32", "bfloat16"]
DTYPES: dict[Dtype, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16}  # of `autocast_dtype`

log = logging.getLogger(__name__)


class Slot(BaseModel):
    """What a process needs to judge candidates of a run.

    Attributes:
        db: the store.
        run: id of the run, whose spec and teacher are in the store.
        fence: of the worker's lease.
        slots: that the device is divided into.
        threads: of this process.
        dtype: of the students' forward pass, as the worker found it.
    """

    db: Path
    run: int
    fence: int
    slots: int
    threads: int
    dtype: Dtype


class Answer(BaseModel):
    """The answer of a process that is ready for its next candidate, or cannot go on."""

    error: str | None = None


def slots_for(spec: RunSpec, teacher: Teacher, say: Callable[[str], None]) -> int:
    """Returns how many candidates of a search to judge side by side, at most one a core.

    One at a time is timed on a GPU, where other processes that use it would make every reading unclean.

    Args:
        spec: of the search.
        teacher: of the search.
        say: called with what is being done, in words; may raise to end the search.
    """
    if spec.latency.runtime == "torch-cuda":
        return 1
    if spec.search.slots != "auto":
        return min(spec.search.slots, cores())
    if spec.search.most_candidates < MANY:  # it is over before more processes have started
        return 1
    measuring = partial(say, "measuring how many candidates to judge side by side")
    measuring()
    return min(best_number(parameters(teacher.model), measuring), cores())


def slot_of(store: Store, run: Run, judge: Judge, slots: int) -> Slot:
    """Returns what the processes of a run need.

    Args:
        store: of the run.
        run: the claimed run.
        judge: of the run, as its worker has made it.
        slots: the number of processes.
    """
    dtype = next(name for name, dtype in DTYPES.items() if dtype == judge.autocast)
    threads = max(1, torch.get_num_threads() // slots)
    return Slot(db=store.path, run=run.id, fence=run.lease.fence, slots=slots, threads=threads, dtype=dtype)


class SlotPool:
    """Judges candidates in processes of their own, in the order given; to be closed after use.

    Args:
        slot: what each process needs.
        check: called often; raises to end the search.
        say: called with what is being done, in words.
    """

    def __init__(self, slot: Slot, check: Callable[[], None], say: Callable[[str], None]) -> None:
        self.slot, self.check, self.say = slot, check, say
        self.processes: list[_Process] = []
        self.selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.close()
        for process in self.processes:
            process.end()
        self.selector.close()

    def judged(self, candidates: Sequence[int]) -> Iterator[int]:
        """Judges candidates, and yields the id of each that is done, in the order in which they are.

        Raises:
            Failure: a process cannot go on, or the processes end again and again.
        """
        waiting, ends = list(candidates), Counter[int | None]()
        while waiting or self._busy():
            self._start()
            while waiting and (free := self._free()):
                free[0].ask(waiting.pop(0))
            self._say()
            for process in self._answering():
                answer, candidate = process.answer(), process.candidate
                if answer is None:
                    self._forget(process)
                    ends[candidate] += 1
                    if ends[candidate] > MOST_ATTEMPTS:
                        raise Failure(_ends_again(candidate))
                    waiting[:0] = [] if candidate is None else [candidate]  # others may wait for it
                elif answer.error is not None:
                    raise Failure(answer.error)
                else:
                    process.candidate, process.is_ready = None, True
                    if candidate is not None:
                        yield candidate

    def _busy(self) -> list[_Process]:
        return [process for process in self.processes if process.candidate is not None]

    def _free(self) -> list[_Process]:
        """The processes without a candidate, once all are ready: none starts while another is timed."""
        all_are_ready = all(process.is_ready for process in self.processes)
        return [each for each in self.processes if each.candidate is None] if all_are_ready else []

    def _start(self) -> None:
        for number in sorted(set(range(self.slot.slots)) - {process.number for process in self.processes}):
            process = _Process(self.slot, number)
            self.processes.append(process)
            self.selector.register(process.answers, selectors.EVENT_READ, process)

    def _say(self) -> None:
        busy = sorted(process.candidate for process in self._busy() if process.candidate is not None)
        self.say(f"judging candidates {', '.join(map(str, busy))}" if busy else "starting processes")

    def _forget(self, process: _Process) -> None:
        log.warning("a process that judges candidates ended")
        self.processes.remove(process)
        self.selector.unregister(process.answers)
        process.close()
        process.end()

    def _answering(self) -> list[_Process]:
        """Waits for answers, or for the end of a process."""
        while True:
            self.check()
            if ready := self.selector.select(LOOK_EVERY_S):
                return [key.data for key, _ in ready]


def _ends_again(candidate: int | None) -> str:
    whose = (
        "A process that judges candidates" if candidate is None else f"The process of candidate {candidate}"
    )
    return f"{whose} ends again and again; the log says why, and search.slots=1 does without it."


class _Process:
    """A process of a slot, as its worker sees it; it sees one GPU, if there are any.

    Attributes:
        number: of the slot.
        is_ready: whether it has begun to wait for candidates.
        candidate: that it judges.
    """

    def __init__(self, slot: Slot, number: int) -> None:
        self.number, seen = number, gpus()
        self.is_ready = False
        self.candidate: int | None = None
        gpu = {"CUDA_VISIBLE_DEVICES": seen[number % len(seen)]} if seen else {}
        self.process = subprocess.Popen(
            [sys.executable, *COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C in a terminal is for the worker
            env={**environment(), **gpu},
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.questions: IO[str] = self.process.stdin
        self.answers: IO[str] = self.process.stdout
        self._write(slot.model_dump_json())

    def ask(self, candidate: int) -> None:
        self.candidate = candidate
        self._write(str(candidate))

    def answer(self) -> Answer | None:
        """Its answer; None if it has ended."""
        line = self.answers.readline()
        return Answer.model_validate_json(line) if line else None

    def close(self) -> None:
        """Ends the process at any point, as a kill would."""
        with suppress(BrokenPipeError):
            self.questions.close()

    def end(self) -> None:
        """Waits for the end of a closed process."""
        try:
            self.process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.answers.close()

    def _write(self, line: str) -> None:
        with suppress(BrokenPipeError):  # it has ended, which shows when its answer is read
            self.questions.write(f"{line}\n")
            self.questions.flush()


def serve_slot() -> None:
    """Judges the candidates that are named on stdin, until it is closed; runs in a process of a slot.

    It answers once it is ready, and after each candidate.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer

    def answer(error: str | None = None) -> None:
        print(Answer(error=error).model_dump_json(), file=answers, flush=True)

    slot = Slot.model_validate_json(sys.stdin.readline())
    asked: queue.SimpleQueue[int] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=[asked], daemon=True).start()
    try:
        _serve(slot, asked, answer)
    except Exception as error:  # as in a worker that judges alone, it ends the search and no candidate
        log.exception("a slot cannot go on")
        answer(str(error) or type(error).__name__)


def _serve(slot: Slot, asked: queue.SimpleQueue[int], answer: Callable[[], None]) -> None:
    torch.set_num_threads(slot.threads)
    with opened(slot.db) as store:
        leased = store.leased(Lease(Job("runs", slot.run), slot.fence))
        run = store.run(slot.run)
        assert run.teacher is not None, "its worker has prepared it"
        prepared = prepare(run.spec, _unheard, Known(run.teacher.latency, DTYPES[slot.dtype]))
        with computing_on(run.spec.device):
            judge = make_judge(prepared, _unheard, slot.slots)
            journal = CandidateJournal(leased, slot.run, judge, lambda: None)
            while True:
                answer()
                journal.judge_candidate(asked.get())


def _listen(asked: queue.SimpleQueue[int]) -> None:
    """Takes in the candidates that are named; ends the process with its worker."""
    for line in sys.stdin:
        asked.put(int(line))
    os._exit(0)  # at any point: the store is written in transactions, and locks end with their process


def _unheard(activity: str) -> None:
    pass
