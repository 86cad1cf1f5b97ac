"""Submits the form of a new search; no run is created before its check passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdnas_core.architecture import Architecture
from kdnas_core.dashboard.act import requests
from kdnas_core.data.corpus import check_corpus
from kdnas_core.errors import BadInput
from kdnas_core.latency import protocol as latency_protocol
from kdnas_core.latency.model import LatencyModel, model_here
from kdnas_core.models.sources import check_teacher, teacher_shape
from kdnas_core.search.space import SearchSpace
from kdnas_core.spec import LatencySpec, RunSpec, SpaceSpec, parse_spec


def start(db: Path, fields: dict[str, Any]) -> int:
    """Submits a run with these fields of a spec, and returns the id of its check.

    Raises:
        BadInput: a field cannot be used; nothing was queued.
    """
    return requests.submit(db, "runs", checked(fields))


def checked(fields: dict[str, Any]) -> RunSpec:
    """Returns the spec of these fields, after the checks that take no time.

    Raises:
        BadInput: a field is not allowed, the space is empty, or the teacher or corpus cannot be used.
    """
    spec = parse_spec(fields)
    check_teacher(spec.teacher)
    check_corpus(spec.corpus)
    shape = teacher_shape(spec.teacher)
    if shape is not None:
        SearchSpace.from_spec(spec.filled_from(shape).space, shape)
    return spec


def shape_of(teacher: str) -> Architecture | None:
    """Returns the teacher's shape, or None if it is not known yet.

    Raises:
        BadInput: there is no such teacher.
    """
    if not teacher.strip():
        raise BadInput("Name a teacher: `packaged`, a folder, or a hub id such as org/name.")
    return teacher_shape(teacher)


def teacher_ms(teacher: str, shape: Architecture | None, protocol: LatencySpec) -> float | None:
    """Returns the teacher's cached latency under a protocol, in ms; None if it was never measured."""
    if shape is None:
        return None
    reading = latency_protocol.recall_latency(latency_protocol.question(teacher, shape, shape, protocol))
    return None if reading is None else reading.p50


def latency_model(protocol: LatencySpec) -> LatencyModel | None:
    """Returns a latency model of this device under a protocol; None if there are too few readings."""
    return model_here(protocol)


def protocol(choices: dict[str, Any]) -> LatencySpec:
    """Returns the protocol with these choices.

    Raises:
        BadInput: a choice is not allowed.
    """
    return parse_spec({"latency": choices}).latency


def whole_numbers(knob: str, choices: list[int | str]) -> list[int]:
    """Converts the choices of a knob to ints; some of them may be typed text.

    Raises:
        BadInput: one is not a whole number.
    """
    for choice in choices:
        if not str(choice).strip().isdecimal():
            raise BadInput(f"'{choice}' is not a whole number; {knob} takes numbers such as 192.")
    return sorted({int(choice) for choice in choices})


def space_spec(choices: dict[str, Any]) -> SpaceSpec:
    """Returns the space with these choices for its knobs.

    Raises:
        BadInput: a knob has no choice, or one that is not allowed.
    """
    return parse_spec({"space": choices}).space
