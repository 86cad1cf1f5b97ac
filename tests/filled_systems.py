"""A store with finished scorings of several systems, as a worker would leave them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from kdnas_core.architecture import PRESETS
from kdnas_core.dashboard.model.published import scaled
from kdnas_core.runs.jobs import Job, Worker
from kdnas_core.runs.records import Score, Scored
from kdnas_core.runs.score_table import ZERO_SHOT
from kdnas_core.runs.store import Store, opened
from kdnas_core.spec import DistilSpec, ObjectiveSpec, RunSpec, ScoreSpec, quick_spec
from tests.filled_store import (
    TEACHER,
    add_episode,
    begin_run,
    copy_store,
    fill,
    judge,
    path_for_copies,
    tinybert_spec,
)

SIMILAR = f"stsb{ZERO_SHOT}"
TEACHERS = {"packaged": 0.90, "sst2": 0.92, "mrpc": 0.88, SIMILAR: 0.82}
TINYBERT4 = scaled(PRESETS["tinybert4"], TEACHER)
DEEP = scaled(PRESETS["tinybert6"], TEACHER)


def add_scoring(
    store: Store,
    figures: Mapping[str, float],
    *,
    candidate: int | None = None,
    student: int | None = None,
    control: float | None = None,
    spec: ScoreSpec | None = None,
    teachers: Mapping[str, float] = TEACHERS,
    chance: float | None = None,
) -> int:
    """Adds a finished scoring, with two seeds of the student and the teacher on each task."""
    tuned = [task for task in figures if not task.endswith(ZERO_SHOT)]
    how = spec or ScoreSpec(tasks=tuned, seeds=2, control=control is not None)
    worker = Worker.this_process()
    scoring = store.create_scoring(how, candidate=candidate, student=student, worker=worker)
    store.add_scores(scoring, _of("teacher", {task: teachers[task] for task in figures}, chance))
    store.add_scores(scoring, _of("student", figures, chance))
    if control is not None:
        store.add_scores(scoring, _of("control", dict.fromkeys(tuned, control)))
    store.end(Job("scorings", scoring), "finished")
    return scoring


def _of(subject: Scored, figures: Mapping[str, float], chance: float | None = None) -> list[Score]:
    return [
        Score(
            subject,
            task,
            "spearman" if task == SIMILAR else "accuracy",
            seed,
            value + (0.01, -0.01)[seed],
            5e-5,
            chance=chance,
        )
        for task, value in figures.items()
        for seed in (0, 1)
    ]


def add_student(store: Store, candidate: int, how: DistilSpec, loss: float = 0.2) -> int:
    """Adds a finished student."""
    student = store.create_student(candidate, how, worker=Worker.this_process())
    store.update_student(student, loss=loss, step=4_000, steps=4_000, seconds=3_000)
    store.end(Job("students", student), "finished")
    return student


def kdnas_spec() -> RunSpec:
    """The quick search with KD-NAS's own objective."""
    return quick_spec().model_copy(update={"objective": ObjectiveSpec(recipe="kdnas")})


def fill_systems(path: Path) -> dict[str, int]:
    """Adds two runs of one teacher with scored candidates and students; returns some ids.

    Run 1 is a KD-NAS search, run 2 has the scaled shapes of two published students, by TinyBERT's recipe.
    All were scored on "packaged" and "sst2", one of them on "mrpc" too.
    """
    made, ids = _made_once()
    copy_store(made, path)
    return dict(ids)


@cache
def _made_once() -> tuple[Path, dict[str, int]]:
    path = path_for_copies()
    run = fill(path, spec=kdnas_spec())
    with opened(path) as store:
        first, second = [row for row in store.candidates(run) if row.state == "done"][:2]
        add_scoring(store, {"packaged": 0.72, "sst2": 0.80, SIMILAR: 0.61}, candidate=first.id, control=0.55)
        full = add_student(store, first.id, DistilSpec())
        add_scoring(
            store, {"packaged": 0.83, "sst2": 0.87, "mrpc": 0.81, SIMILAR: 0.74}, student=full, control=0.55
        )
        add_scoring(store, {"packaged": 0.75, "sst2": 0.82}, candidate=second.id)
        other = begin_run(store, tinybert_spec())
        for candidate in add_episode(store, other, 1, [TINYBERT4, DEEP]):
            judge(store, other, candidate)
        store.end_run(other, "finished")
        tiny, deep = store.candidates(other)
        student = add_student(store, tiny.id, DistilSpec())
        add_scoring(store, {"packaged": 0.80, "sst2": 0.85}, student=student, control=0.5)
        deeper = add_student(store, deep.id, DistilSpec())
        add_scoring(store, {"packaged": 0.87, "sst2": 0.90}, student=deeper)
    return path, {"candidate": first.id, "full": full, "tinybert4": student, "tinybert6": deeper}
