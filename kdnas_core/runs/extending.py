"""Extending a search: the spec with which it goes on, with all that it knows."""

from __future__ import annotations

from typing import Any

from kdnas_core.errors import BadInput
from kdnas_core.latency.model import FAR_OVER
from kdnas_core.runs.jobs import ACTIVE
from kdnas_core.runs.records import Candidate, Run
from kdnas_core.search.reward import budget_ms, within_budget
from kdnas_core.spec import METHOD, RunSpec, parse_spec, with_settings

# fields that may change; what others decide, candidates were judged or proposed by
FREE = {
    "latency": {"budget_ms", "budget_speedup"},
    "search": {"controller", "until", "warm_start", "slots", "prune", "remember", "keep_weights"},
}


def extended(run: Run, episodes: int, settings: list[str]) -> RunSpec:
    """Returns the spec of a run that goes on.

    Args:
        run: not active.
        episodes: to add to those that it was to have, or if it has ended, to those that it has had.
        settings: as `path.to.field=value`, of the space, the budgets, or how candidates are proposed.

    Raises:
        BadInput: the run is active, was judged by another version, or a setting cannot change.
    """
    check_can_go_on(run)
    before = run.spec.model_dump(exclude_none=True)
    after = parse_spec(with_settings(before, settings)).model_dump(exclude_none=True)
    for name in before.keys() | after.keys():
        _check(name, before.get(name), after.get(name), run)
    had = run.episode if run.state == "finished" else run.spec.search.episodes
    # it may have ended since no gain was expected, and is to go on all the same
    counts = {"episodes": had + episodes, "least_episodes": run.episode + 1}
    return parse_spec({**after, "search": {**after["search"], **counts}})


def check_can_go_on(run: Run) -> None:
    """Refuses a run that is queued or running, or whose losses do not compare with those of this version.

    Raises:
        BadInput: it is.
    """
    if run.state in ACTIVE:
        raise BadInput(f"Run {run.id} is {run.state}; pause it, or wait for its end, to extend it.")
    if run.method != METHOD:
        raise BadInput(
            f"Run {run.id} was judged elsewhere, or by another version of the product, whose losses do not "
            "compare with those of this one; start a new search."
        )


def is_within_now(candidate: Candidate, spec: RunSpec, teacher_ms: float) -> bool:
    """Returns whether a candidate that was over budget may be within that of a spec.

    Args:
        candidate: over the budget of its run so far.
        spec: with which its run goes on.
        teacher_ms: the teacher's latency in the run.
    """
    if candidate.latency is not None:
        return within_budget(candidate.latency, spec.latency, teacher_ms)
    limit = FAR_OVER * budget_ms(spec.latency, teacher_ms)
    return candidate.estimated_ms is not None and candidate.estimated_ms <= limit


def _check(name: str, before: Any, after: Any, run: Run) -> None:
    if before == after or name == "name":
        return
    if name == "space":
        if run.spec.objective.start == "supernet":
            raise BadInput(
                f"The students of run {run.id} are cut out of a supernet of its space, which cannot change; "
                "start a new search."
            )
        return
    changed = {name}
    if isinstance(before, dict) and isinstance(after, dict):
        changed = {f"{name}.{key}" for key in _differing(before, after) - FREE.get(name, set())}
    if "search.episodes" in changed:
        raise BadInput("Give the number of episodes to add with --episodes, not with --set search.episodes.")
    if changed:
        raise BadInput(f"A search that goes on cannot change {sorted(changed)[0]}; start a new search.")


def _differing(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
