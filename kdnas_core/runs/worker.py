"""The worker: claims queued work and runs it until it is finished, or until a user pauses or stops it.

Each lane has one worker: runs, students, scorings and sweeps; checks; exports. The workers of checks and
exports stay for a while when idle, so that the next request finds their libraries loaded.

Page and worker communicate only through the store: every second, a second thread writes a heartbeat and
reads the user's requests.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kdnas_core.distillation.layers import floors
from kdnas_core.errors import BadInput, Failure
from kdnas_core.hardware import computing_on, exclusive, in_slot, return_memory
from kdnas_core.models.student import parameters
from kdnas_core.runs import student_journals
from kdnas_core.runs.candidate_journal import CandidateJournal
from kdnas_core.runs.checks import check_asked, queue_asked
from kdnas_core.runs.earlier import earlier_outcomes
from kdnas_core.runs.jobs import LANES, Lane, Lease, RunState, Work, Worker
from kdnas_core.runs.launch import ensure_worker, worker_lock
from kdnas_core.runs.records import (
    AnyWork,
    Candidate,
    Check,
    Export,
    Run,
    Scoring,
    Student,
    Sweep,
    TeacherFacts,
    TeacherLayerFacts,
)
from kdnas_core.runs.search_journal import Judged, StoreJournal
from kdnas_core.runs.signals import put_off
from kdnas_core.runs.slots import SlotPool, slot_of, slots_for
from kdnas_core.runs.store import LeaseLost, Store, opened
from kdnas_core.runs.student_journals import Told
from kdnas_core.search.controllers.lstm import LstmController
from kdnas_core.search.controllers.random import RandomController
from kdnas_core.search.controllers.surrogate import Setting, SurrogateController
from kdnas_core.search.judge import Judge
from kdnas_core.search.loop import Controller, Outcome, search
from kdnas_core.search.prepare import Prepared, make_judge, prepare
from kdnas_core.search.reward import budget_ms, budgets_ms

HEARTBEAT_S = 1.0
MOST_WORKED_S = 10.0  # counted between two heartbeats; in longer gaps the process or machine slept
POLL_S: dict[Lane, float] = {"long": 0.5, "checks": 0.1, "exports": 0.1}
LINGER_S: dict[Lane, float] = {"long": 0.0, "checks": 120.0, "exports": 120.0}  # idle, then the worker ends

log = logging.getLogger(__name__)

Looks = Callable[[], None]
Say = Callable[[str], None]
Exporter = Callable[[Store, Export, Say], None]
ToldCandidate = Callable[[Candidate], None]


class EndRequested(Exception):
    """Raised to end the work in the given state."""

    def __init__(self, state: RunState) -> None:
        super().__init__(state)
        self.state: RunState = state


def serve(db: Path, exporter: Exporter, *, lane: Lane = "long", until_idle: bool) -> None:
    """Runs the queued work of a lane, one piece at a time; a second worker of the lane waits.

    Args:
        db: the store.
        exporter: makes an export; is called with the store, the export, and a callback for its activity.
        lane: the lane to serve.
        until_idle: whether to return when nothing is queued, rather than wait for more.

    Raises:
        BadInput: the store cannot be used.
        KeyboardInterrupt: a signal ended the worker; its work can be resumed.
    """
    # SIGTERM ends the worker as cleanly as Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with opened(db):
        pass  # reports a bad store before it waits for the lock
    while True:
        with worker_lock(db, lane), opened(db) as store:
            _serve(store, exporter, lane, until_idle=until_idle)
        if not db.exists():  # removed
            return
        with opened(db) as store:
            # work queued before the lock was released: its process saw a worker and started none
            if not store.is_waiting(lane):
                return


def _serve(store: Store, exporter: Exporter, lane: Lane, *, until_idle: bool) -> None:
    idle_since, file = time.monotonic(), _file(store.path)
    while True:
        # a look first: a claim keeps others from writing for a moment
        claimed = store.claim(Worker.this_process(), LANES[lane]) if store.is_waiting(lane) else None
        if claimed is not None:
            log.info(f"{claimed.job.title.lower()}: begins")
            _work_on_any(store, claimed, exporter)
            idle_since = time.monotonic()
        elif until_idle and (time.monotonic() - idle_since >= LINGER_S[lane] or _file(store.path) != file):
            return
        else:
            time.sleep(POLL_S[lane])


def _file(path: Path) -> tuple[int, int] | None:
    """The identity of a store's file, which changes if it is replaced; None if it was removed."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _work_on_any(store: Store, claimed: AnyWork, exporter: Exporter) -> RunState:
    if isinstance(claimed, Run):
        return work_on(store, claimed)
    if isinstance(claimed, Student):
        return distil(store, claimed)
    if isinstance(claimed, Scoring):
        return score(store, claimed)
    if isinstance(claimed, Sweep):
        return measure(store, claimed)
    if isinstance(claimed, Check):
        return check(store, claimed)
    return export(store, claimed, exporter)


def check(store: Store, asked: Check) -> RunState:
    """Checks a request, queues its work if it passes, and makes sure that a worker serves it.

    Args:
        store: open for writing, in this thread.
        asked: the claimed check.

    Raises:
        KeyboardInterrupt: after the check was marked as interrupted.
    """

    def work(leased: Store, look: Looks) -> None:
        check_asked(leased, asked, _saying(leased, asked, look))
        if not leased.accept(asked.id, lambda: queue_asked(leased, asked)):
            raise EndRequested("stopped")

    state = _worked(store, asked, work)
    if state == "finished":
        ensure_worker(store.path)
    return state


def export(store: Store, asked: Export, exporter: Exporter) -> RunState:
    """Makes an export claimed by this process, and returns its final state.

    Raises:
        KeyboardInterrupt: after the export was marked as interrupted.
    """
    return _worked(store, asked, lambda leased, look: exporter(leased, asked, _saying(leased, asked, look)))


def _saying(store: Store, work: Work, look: Looks) -> Say:
    """Returns a callback that writes each new activity, and raises to end the work."""
    last = ""

    def say(activity: str) -> None:
        nonlocal last
        look()
        if activity != last:
            store.set_activity(work.job, activity)
            last = activity

    return say


def work_on(
    store: Store,
    run: Run,
    prepared: Prepared | None = None,
    told: ToldCandidate = lambda candidate: None,
) -> RunState:
    """Runs a search claimed by this process, and returns its final state.

    Args:
        store: open for writing, in this thread.
        run: the claimed run.
        prepared: its prepared spec, if it was prepared before.
        told: called after each candidate.

    Raises:
        KeyboardInterrupt: after the run was marked as interrupted.
    """
    return _worked(store, run, lambda leased, check: _search(leased, run, prepared, check, told))


def distil(store: Store, student: Student, told: Told = lambda activity, step, steps: None) -> RunState:
    """Distils a student claimed by this process, and returns its final state.

    A signal ends it at its next step, so that its progress is kept.

    Args:
        store: open for writing, in this thread.
        student: the claimed student.
        told: called at each step.

    Raises:
        KeyboardInterrupt: after the student was marked as interrupted.
    """
    with put_off() as is_asked:

        def work(leased: Store, check: Looks) -> None:
            def check_both() -> None:
                check()
                if is_asked():
                    raise EndRequested("interrupted")

            student_journals.distil(leased, student, check_both, told)

        state = _worked(store, student, work)
    if is_asked():  # the signal came too late for this work, but must still end the process
        raise KeyboardInterrupt
    return state


def score(store: Store, scoring: Scoring, told: Told = lambda activity, step, steps: None) -> RunState:
    """Runs a scoring claimed by this process, and returns its final state.

    Args:
        store: open for writing, in this thread.
        scoring: the claimed scoring.
        told: called at each step.

    Raises:
        KeyboardInterrupt: after the scoring was marked as interrupted.
    """
    return _worked(store, scoring, lambda leased, check: student_journals.score(leased, scoring, check, told))


def measure(store: Store, sweep: Sweep, told: Told = lambda activity, step, steps: None) -> RunState:
    """Runs a sweep claimed by this process, and returns its final state.

    Args:
        store: open for writing, in this thread.
        sweep: the claimed sweep.
        told: called at each point.

    Raises:
        KeyboardInterrupt: after the sweep was marked as interrupted.
    """
    return _worked(store, sweep, lambda leased, check: student_journals.measure(leased, sweep, check, told))


def _worked(store: Store, claimed: Work, work: Callable[[Store, Looks], None]) -> RunState:
    job, leased = claimed.job, store.leased(claimed.lease)
    try:
        with _heartbeat(store.path, claimed.lease) as check:
            state, error = _outcome(lambda: work(leased, check))
        leased.end(job, state, error)
    except LeaseLost as lost:
        log.warning(str(lost))
        return "interrupted"
    log.info(f"{job.title.lower()}: {state}{f' ({error})' if error else ''}")
    if state == "interrupted":
        raise KeyboardInterrupt
    return state


def _outcome(work: Callable[[], None]) -> tuple[RunState, str | None]:
    try:
        work()
    except EndRequested as asked:
        return asked.state, None
    except KeyboardInterrupt:
        return "interrupted", None
    except LeaseLost:
        raise
    except (BadInput, Failure) as error:
        return "failed", str(error)
    except Exception as error:
        log.exception("the work failed")
        return "failed", f"{type(error).__name__}: {error}"
    return "finished", None


def _search(store: Store, run: Run, prepared: Prepared | None, check: Looks, told: ToldCandidate) -> None:
    say = _saying(store, run, check)
    if prepared is None:
        prepared = prepare(run.spec, say)
    store.set_teacher(run.id, prepared.spec, _facts(prepared))
    spec = prepared.spec.search
    with (
        computing_on(prepared.spec.device),
        _judging(store, run, prepared, check, say) as judged,
    ):
        journal = StoreJournal(store, run.id, prepared.spec, judged, told)
        earlier: list[Outcome] = []
        if spec.warm_start:
            earlier = earlier_outcomes(store, run, prepared.spec, prepared.teacher_latency.p50)
        controller = make_controller(prepared, earlier)

        def is_over(episode: int, outcomes: Sequence[Outcome]) -> bool:
            say("estimating what another episode would bring")
            try:
                with in_slot(1, check):  # it computes, and others may be timing
                    surrogate = _surrogate(controller, prepared, earlier, outcomes)
                    outlook = surrogate.outlook(episode, spec.candidates)
            except (ValueError, ArithmeticError):  # an estimate that cannot be made must not end a search
                log.exception("nothing can be said of another episode")
                return False
            outlook = outlook.after(store.run(run.id).outlook)
            store.set_outlook(run.id, outlook)
            return spec.until == "no_gain" and episode >= spec.least_episodes and outlook.no_gain

        search(controller, journal, spec.episodes, spec.candidates, prepared.beside, is_over)


@contextmanager
def _judging(store: Store, run: Run, prepared: Prepared, check: Looks, say: Say) -> Iterator[Judged]:
    """Yields what judges candidates: this process, or several that each have a share of the device."""
    judge = make_judge(prepared, say)
    _compare_layers(store, run, prepared, judge, check)
    slots = slots_for(judge.spec, judge.bench.teacher, say)
    if slots == 1:
        yield CandidateJournal(store, run.id, judge, check, say).judged
        return
    slot = slot_of(store, run, judge, slots)
    del judge  # its processes have judges of their own
    prepared.bench.release()
    return_memory()
    with SlotPool(slot, check, say) as pool:
        yield pool.judged


def _compare_layers(store: Store, run: Run, prepared: Prepared, judge: Judge, check: Looks) -> None:
    """Keeps what a page shows of the teacher's own layers, once."""
    if judge.layers is None or store.teacher_layers(run.id) is not None:
        return
    with exclusive(check):
        least = floors(*prepared.read_by_layer)
    facts = TeacherLayerFacts(
        [[round(value, 5) for value in row] for row in least.tolist()],
        [[round(value, 4) for value in row] for row in judge.layers.of_teacher.tolist()],
    )
    store.set_teacher_layers(run.id, facts)


def make_controller(prepared: Prepared, earlier: Sequence[Outcome] = ()) -> Controller:
    """Creates the controller that a spec names.

    Args:
        prepared: the search.
        earlier: outcomes of other searches, from which the surrogate learns.
    """
    spec, space = prepared.spec, prepared.space
    match spec.search.controller:
        case "lstm":
            return LstmController(space, spec.search, spec.seed)
        case "random":
            return RandomController(space, spec.seed)
        case "surrogate":
            return _new_surrogate(prepared, earlier)
        case "optuna-tpe" | "optuna-nsga2" | "optuna-gp":
            # imported where it is used: few searches load it
            from kdnas_core.search.controllers.optuna import OptunaController

            largest = budget_ms(spec.latency, prepared.teacher_latency.p50)
            return OptunaController(space, spec.search.controller, largest, spec.seed)


def _new_surrogate(prepared: Prepared, earlier: Sequence[Outcome]) -> SurrogateController:
    spec, teacher_ms = prepared.spec, prepared.teacher_latency.p50
    setting = Setting(
        budgets_ms(spec.latency, teacher_ms),
        prepared.teacher.architecture,
        teacher_ms,
        spec.latency.batch_size,
        spec.latency.sequence_length,
    )
    return SurrogateController(prepared.space, setting, spec.seed, earlier)


def _surrogate(
    controller: Controller, prepared: Prepared, earlier: Sequence[Outcome], outcomes: Sequence[Outcome]
) -> SurrogateController:
    """The surrogate of a search; where another controller proposes, one that is told the same."""
    if isinstance(controller, SurrogateController):
        return controller
    surrogate = _new_surrogate(prepared, earlier)
    surrogate.tell(outcomes)
    return surrogate


def _facts(prepared: Prepared) -> TeacherFacts:
    teacher, length = prepared.teacher, prepared.spec.latency.sequence_length
    return TeacherFacts(
        name=teacher.name,
        architecture=teacher.architecture,
        parameters=parameters(teacher.model),
        flops=teacher.architecture.flops(length),
        latency=prepared.teacher_latency,
    )


@contextmanager
def _heartbeat(db: Path, lease: Lease) -> Iterator[Looks]:
    """Writes heartbeats in a thread; yields a check that raises `EndRequested` or `LeaseLost`."""
    request: list[RunState] = []
    lost = threading.Event()
    ended = threading.Event()
    last = time.monotonic()

    states: dict[str | None, list[RunState]] = {"pause": ["paused"], "stop": ["stopped"]}

    def beat(store: Store) -> None:
        nonlocal last
        over = False
        while not over:
            over = ended.wait(HEARTBEAT_S)
            now = time.monotonic()
            worked, last = min(now - last, MOST_WORKED_S), now
            request[:] = states.get(store.heartbeat(lease.job, worked), [])  # only the last request counts

    def beat_on() -> None:
        while not (ended.is_set() or lost.is_set()):
            try:
                with opened(db) as store:  # SQLite connections cannot be shared between threads
                    beat(store.leased(lease))
            except LeaseLost:
                lost.set()
            except Exception:  # a disk that is full for a moment must not end the heartbeat
                log.exception(f"{lease.job.title.lower()}: no heartbeat")
                ended.wait(HEARTBEAT_S)

    def check() -> None:
        if lost.is_set():
            raise LeaseLost(lease)
        if request:
            raise EndRequested(request[0])

    thread = threading.Thread(target=beat_on, daemon=True)
    thread.start()
    try:
        yield check
    finally:
        ended.set()
        thread.join()
