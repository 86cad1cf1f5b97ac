"""The scored models as systems, one row each; those of one teacher and one way of scoring compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal

from kdnas_core.architecture import PRESETS, Architecture
from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model.published import SYSTEMS, name_of, scaled
from kdnas_core.dashboard.read.live_students import SystemView
from kdnas_core.runs import score_table
from kdnas_core.runs.records import Score, Scored
from kdnas_core.runs.score_table import ZERO_SHOT

Kind = Literal["teacher", "student", "mini-KD", "no distillation"]

_SAME = 1e-3  # between scores of one model that differ only by rounding
_USUAL_ROWS = 100_000
LEAST_ABOVE_CHANCE = 0.05  # of a teacher, for what is retained above chance to mean something


@dataclass(frozen=True)
class Group:
    """What comparable systems share: the teacher and the way of scoring."""

    teacher: str
    source: str
    split: str
    rows: int
    train_language: str | None

    @property
    def title(self) -> str:
        """Its title, for example "all-MiniLM-L6-v2 · validation split"."""
        parts = [self.teacher, f"{self.split} split"]
        if self.rows != _USUAL_ROWS:
            parts.append(f"at most {self.rows:,} training rows")
        if self.train_language:
            parts.append(f"trained on {self.train_language}")
        return " · ".join(parts)


@dataclass(frozen=True)
class System:
    """A scored model; one row of the table.

    Attributes:
        kind: "mini-KD" is a candidate with the weights of its search.
        name: recipe and shape, or that of a published student.
        of: name of the candidate or student, as in "12" or "s3"; "" for a teacher or a control.
        architecture: its shape.
        parameters: their number.
        flops: for one sequence.
        speedup: over the teacher, measured.
        figures: one score for each task, the mean over its metrics, at most 1.
        chances: what naming the most frequent class scores on each task, where that is known.
    """

    kind: Kind
    name: str
    of: str
    architecture: Architecture
    parameters: int | None
    flops: int | None
    speedup: float | None
    figures: dict[str, float]
    chances: dict[str, float] = field(default_factory=dict)


def group_of(view: SystemView) -> Group:
    """Returns the group of a scoring."""
    how, run = view.scoring.spec, view.run
    teacher = run.teacher.name if run.teacher else run.spec.teacher
    return Group(teacher, run.spec.teacher, how.split, how.rows, how.train_language)


def groups(views: Sequence[SystemView]) -> dict[Group, list[SystemView]]:
    """Groups scorings that compare; the group of the newest scoring comes first."""
    found: dict[Group, list[SystemView]] = {}
    for view in reversed(views):
        found.setdefault(group_of(view), []).insert(0, view)
    return found


def systems_of(views: Sequence[SystemView]) -> list[System]:
    """Returns the systems of a group's scorings, oldest first: the teacher, the students, then the controls.

    If a system was scored on a task more than once, the newest score counts.
    """
    rows: dict[tuple[Kind, str], System] = {}
    chances: dict[str, float] = {}
    for view in views:
        chances |= score_table.chances_of(view.scores)
        for key, system in _rows(view):
            known = rows[key].figures if key in rows else {}
            rows[key] = replace(system, figures={**known, **system.figures})
    order: list[Kind] = ["teacher", "student", "mini-KD", "no distillation"]
    found = [replace(system, chances=chances) for system in rows.values()]
    return sorted(found, key=lambda system: order.index(system.kind))


def above_chance(systems: Sequence[System]) -> list[System]:
    """Returns systems with chance subtracted from their scores.

    Left out are tasks whose chance is not known, or of which the teacher is hardly above it. What retrieval
    and similarity score without training has none, and stays.
    """
    teacher = next((system for system in systems if system.kind == "teacher"), None)
    best = {} if teacher is None else teacher.figures
    chances = systems[0].chances if systems else {}
    known = {task: at for task, at in chances.items() if best.get(task, 1.0) - at > LEAST_ABOVE_CHANCE}
    return [
        replace(
            system,
            figures={
                task: score if task.endswith(ZERO_SHOT) else score - known[task]
                for task, score in system.figures.items()
                if task.endswith(ZERO_SHOT) or task in known
            },
        )
        for system in systems
    ]


def _rows(view: SystemView) -> Iterator[tuple[tuple[Kind, str], System]]:
    key = view.candidate.architecture.key
    for subject in ("teacher", "student", "control"):
        if not (figures := _figures(view, subject)):
            continue
        if subject == "teacher":
            yield ("teacher", ""), _teacher(view, figures)
        elif subject == "student":
            kind: Kind = "mini-KD" if view.student is None else "student"
            yield (kind, view.scoring.subject), _system(view, kind, name(view), view.scoring.subject, figures)
        else:  # a control depends only on the shape, not on the student
            shape = short_shape(view.candidate.architecture)
            yield ("no distillation", key), _system(view, "no distillation", shape, "", figures)


def _figures(view: SystemView, subject: Scored) -> dict[str, float]:
    return score_table.figures_of(view.scores, subject)


def _teacher(view: SystemView, figures: dict[str, float]) -> System:
    facts = view.run.teacher
    shape = view.candidate.architecture if facts is None else facts.architecture
    name = view.run.spec.teacher if facts is None else facts.name
    parameters = None if facts is None else facts.parameters
    flops = None if facts is None else facts.flops
    return System("teacher", name, "", shape, parameters, flops, 1.0, figures)


def _system(view: SystemView, kind: Kind, name: str, of: str, figures: dict[str, float]) -> System:
    row = view.candidate
    speedup = None if row.latency is None else row.latency.speedup
    return System(kind, name, of, row.architecture, row.parameters, row.flops, speedup, figures)


def name(view: SystemView) -> str:
    """Returns recipe and shape of a scored model, or its name if it is a published student."""
    objective = view.run.spec.objective
    recipe = (view.student.spec.recipe if view.student else None) or objective.recipe
    teacher = None if view.run.teacher is None else view.run.teacher.architecture
    words = wording.objective(objective) if recipe == objective.recipe else wording.recipe(recipe)
    found = _published(view.candidate.architecture, teacher, recipe)
    named = found or f"{words} {short_shape(view.candidate.architecture)}"
    task = view.student.spec.task if view.student else None
    return f"{named} for {wording.task(task)}" if task else named


def _published(shape: Architecture, teacher: Architecture | None, recipe: str | None) -> str | None:
    """The name of the published student with this shape and recipe; None if there is none."""
    for system in SYSTEMS:
        preset = PRESETS[system.preset]
        if system.recipe == recipe and shape in (preset, teacher and scaled(preset, teacher)):
            return name_of(system, shape)
    return None


def short_shape(shape: Architecture) -> str:
    """Formats layers, hidden size and FFN size, for example "3 × 192 × 768", or "static × 384"."""
    if shape.is_static:
        return f"static × {shape.hidden_size}"
    return f"{shape.layers} × {shape.hidden_size} × {shape.intermediate_size}"


def tasks_of(systems: Sequence[System]) -> list[str]:
    """Returns the tasks that any system was scored on with fine-tuning, in order of appearance."""
    return [task for task in _all_tasks(systems) if not task.endswith(ZERO_SHOT)]


def zero_shot_tasks_of(systems: Sequence[System]) -> list[str]:
    """Returns the tasks that any system was scored on without fine-tuning, by its vectors."""
    return [task for task in _all_tasks(systems) if task.endswith(ZERO_SHOT)]


def _all_tasks(systems: Sequence[System]) -> list[str]:
    return list(dict.fromkeys(task for system in systems for task in system.figures))


def shared_tasks(systems: Sequence[System]) -> list[str]:
    """Returns the tasks that all systems with fine-tuned scores have; only averages over these compare."""
    tuned = [system for system in systems if tasks_of([system])]
    return [task for task in tasks_of(systems) if all(task in system.figures for system in tuned)]


def scored_on(systems: Sequence[System], tasks: Sequence[str]) -> list[System]:
    """Returns the systems that were scored on all of these tasks."""
    return [system for system in systems if set(tasks) <= system.figures.keys()]


def average(system: System, tasks: Sequence[str]) -> float | None:
    """Returns a system's mean score over tasks; None unless it has them all."""
    has_all = tasks and set(tasks) <= system.figures.keys()
    return fmean(system.figures[task] for task in tasks) if has_all else None


def retained(system: System, systems: Sequence[System], tasks: Sequence[str]) -> float | None:
    """Returns a system's average as a share of the average of the teacher among the systems."""
    teacher = next((row for row in systems if row.kind == "teacher"), None)
    whole = None if teacher is None else average(teacher, tasks)
    return score_table.retained(average(system, tasks), whole)


def disagreements(views: Sequence[SystemView]) -> list[str]:
    """Returns the tasks on which the teacher has different scores: the task or its rows must differ."""
    seen: dict[tuple[str, str, int], list[float]] = {}
    for score in _of_teacher(views):
        seen.setdefault((score.task, score.metric, score.seed), []).append(score.value)
    found = [task for (task, _, _), values in seen.items() if max(values) - min(values) > _SAME]
    return list(dict.fromkeys(found))


def _of_teacher(views: Sequence[SystemView]) -> Iterator[Score]:
    return (score for view in views for score in view.scores if score.subject == "teacher")
