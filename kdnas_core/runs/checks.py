"""Checks a request of a page before it is queued."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdnas_core.runs.names import check_student, new_scoring, new_student, source_named, weights_of
from kdnas_core.runs.records import Check
from kdnas_core.runs.store import Store
from kdnas_core.runs.student_journals import check_distillation, check_evaluation, check_latency
from kdnas_core.search.prepare import prepare
from kdnas_core.spec import DistilSpec, RunSpec, ScoreSpec


def check_asked(store: Store, asked: Check, say: Callable[[str], None]) -> None:
    """Checks what the worker would check; takes seconds.

    Args:
        store: open, in this thread.
        asked: the request.
        say: called with a sentence on what is being done.

    Raises:
        BadInput: the worker would refuse it; says why.
    """
    spec = asked.spec
    if isinstance(spec, RunSpec):
        prepare(spec, say)
        return
    source = source_named(store, asked.sources[0])  # the other sources read the same data
    say("loading the teacher, and what is to be read")
    if isinstance(spec, DistilSpec):
        check_student(store, source, spec)
        check_distillation(store, source, spec)
    elif isinstance(spec, ScoreSpec):
        weights_of(store, source)
        check_evaluation(store, source, spec)
    else:
        check_latency(store, source.candidate, spec)


def queue_asked(store: Store, asked: Check) -> Sequence[int]:
    """Queues the requested work and returns its ids.

    Raises:
        BadInput: a source has changed since the request.
    """
    spec = asked.spec
    if isinstance(spec, RunSpec):
        return [store.create_run(spec)]
    sources = [source_named(store, name) for name in asked.sources]
    if isinstance(spec, DistilSpec):
        return [new_student(store, source, spec) for source in sources]
    if isinstance(spec, ScoreSpec):
        return [new_scoring(store, source, spec) for source in sources]
    return [store.create_sweep(spec, source.candidate.id) for source in sources]
