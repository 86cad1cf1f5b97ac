"""How well what a search knows of its candidates ranks their students' final scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kdnas_core.data.tasks import ZERO_SHOT
from kdnas_core.runs.losses import losses_by_step
from kdnas_core.runs.names import Source, latest_scores
from kdnas_core.runs.records import Candidate, Score, Student
from kdnas_core.runs.score_table import average_error, averages
from kdnas_core.runs.store import Store
from kdnas_core.search.ranking import Ranking, pairs_of_equal_latency, ranked

FEWEST = 3  # students that have an order worth a look


@dataclass(frozen=True)
class Proxies:
    """Rankings of the students of a run that were distilled in full and scored.

    Attributes:
        tasks: on which all of them were scored; their mean is the score.
        students: the newest scored one of each candidate, as in "s3".
        rankings: by the name of the measure: "step N" is the yardstick after so many steps of mini-KD, "full"
            after full distillation, if all are by one recipe; then "flops" and "parameters".
    """

    tasks: tuple[str, ...]
    students: tuple[str, ...]
    rankings: dict[str, Ranking]

    def to_dict(self) -> dict[str, Any]:
        """Returns the object of the command line's `--json`."""
        rows = [{"measure": name, **asdict(each)} for name, each in self.rankings.items()]
        return {"tasks": list(self.tasks), "students": list(self.students), "measures": rows}


@dataclass(frozen=True)
class Scored:
    """A student distilled in full, with its candidate, the candidate's losses by steps, and its scores."""

    student: Student
    candidate: Candidate
    losses: Mapping[int, float]
    scores: Sequence[Score]


def read_scored(store: Store, run: int) -> list[Scored]:
    """Returns the newest scored student of each candidate that was judged to the end, by ascending latency.

    Students for one task, and those that went on with other text, are left out.
    """
    found: dict[int, Scored] = {}
    for student in sorted(store.students(run), key=lambda row: row.id):
        if student.spec.task is not None or student.parent is not None or student.state != "finished":
            continue
        candidate = store.candidate(student.candidate)
        scores = latest_scores(store, Source(candidate, student))
        if scores and candidate.state == "done" and candidate.latency is not None:
            losses = losses_by_step(store.layer_losses(candidate.id))
            found[candidate.id] = Scored(student, candidate, losses, scores)
    return sorted(found.values(), key=lambda each: each.candidate.point[0])


def proxies_of(found: Sequence[Scored]) -> Proxies | None:
    """Ranks scored students by each measure that all of them have; None if they are too few to be ranked.

    Compared are those that were scored on the task that most of them share.

    Args:
        found: of one run, so that their losses compare.
    """
    counts = Counter(task for each in found for task in _tasks(each))
    if not counts:
        return None
    shared = min(counts, key=lambda task: (-counts[task], task))
    found = [each for each in found if shared in _tasks(each)]
    tasks = sorted(set.intersection(*map(_tasks, found)))
    if len(found) < FEWEST:
        return None
    counted = [[score for score in each.scores if score.task in tasks] for each in found]
    scores = [averages(some).student or 0.0 for some in counted]
    pairs = pairs_of_equal_latency([each.candidate.point[0] for each in found])
    noise = [average_error(some) for some in counted]
    return Proxies(
        tuple(tasks),
        tuple(each.student.name for each in found),
        {name: ranked(values, scores, noise, pairs) for name, values in _measures(found).items()},
    )


def _tasks(found: Scored) -> set[str]:
    return {
        score.task
        for score in found.scores
        if score.subject == "student" and not score.task.endswith(ZERO_SHOT)
    }


def _measures(found: Sequence[Scored]) -> dict[str, list[float]]:
    """Errors, of which less is better; more operations and parameters are taken for better."""
    steps = sorted(set.intersection(*(set(each.losses) for each in found)))
    measures = {f"step {step}": [each.losses[step] for each in found] for step in steps}
    full = [each.student.loss for each in found]
    known = [loss for loss in full if loss is not None]
    if len(known) == len(full) and len({each.student.spec.recipe for each in found}) == 1:
        measures["full"] = known
    measures["flops"] = [-float(each.candidate.flops or 0) for each in found]
    measures["parameters"] = [-float(each.candidate.parameters or 0) for each in found]
    return measures
