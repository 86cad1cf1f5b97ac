"""The journal of a scoring: each score is in the store the moment it is known."""

from __future__ import annotations

from collections.abc import Callable

from kdnas_core.measure.scoring import TaskScore
from kdnas_core.runs.progress import Progress, Told
from kdnas_core.runs.rows import Score, Scored, Scoring
from kdnas_core.runs.sources import Source, source_named, weights_of
from kdnas_core.runs.store import Store
from kdnas_core.search.scores import ScoreListener, check_scoring, score_models
from kdnas_core.spec import ScoreSpec


def check_evaluation(store: Store, source: Source, how: ScoreSpec) -> None:
    """Refuses what could not be scored for what lies outside the store: teacher and tasks.

    Raises:
        BadInput: says why.
    """
    check_scoring(store.run(source.candidate.run).spec, how)


def score(store: Store, scoring: Scoring, check: Callable[[], None], told: Told) -> None:
    """Scores a candidate or a student beside its teacher; what was scored before is remembered.

    Args:
        store: open for writing, in this thread.
        scoring: claimed.
        check: called often; raises to end the work.
        told: called at each step.

    Raises:
        BadInput: it cannot be scored.
    """
    progress = Progress(store, scoring.job, store.update_scoring, check, told)

    def scored(subject: Scored, found: TaskScore) -> None:
        check()
        store.add_scores(scoring.id, scores_of(subject, found))

    listener = ScoreListener(progress.waiting, progress.say, progress.step, scored)
    weights = weights_of(store, source_named(store, scoring.subject))
    score_models(store.run(scoring.run).spec, scoring.spec, weights, listener)


def scores_of(subject: Scored, found: TaskScore) -> list[Score]:
    """What a subject scores on a task, as rows."""
    return [
        Score(subject, found.task, metric, seed, value, found.rate)
        for seed, values in enumerate(found.seeds)
        for metric, value in values.items()
    ]
