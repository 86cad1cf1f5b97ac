"""Extending a search: the spec with which it goes on, with all that it knows."""

from __future__ import annotations

from typing import Any

from kdnas_core.errors import BadInput
from kdnas_core.runs.jobs import ACTIVE
from kdnas_core.runs.records import Run
from kdnas_core.search.reward import budgets_ms
from kdnas_core.spec import RunSpec, parse_spec, with_settings

# fields that may change; by all others candidates are judged, which could not be compared then
FREE = {
    "latency": {"budget_ms", "budget_speedup"},
    "search": {"episodes", "controller", "until", "warm_start", "slots", "prune", "keep_weights"},
}


def extended(run: Run, episodes: int, settings: list[str]) -> RunSpec:
    """Returns the spec of a run that goes on.

    Args:
        run: not active.
        episodes: to add to those that it has begun.
        settings: as `path.to.field=value`, of the space, the budgets, or how candidates are proposed.

    Raises:
        BadInput: the run is active, or a setting would make candidates that cannot be compared.
    """
    check_can_go_on(run)
    before = run.spec.model_dump(exclude_none=True)
    spec = parse_spec(with_settings(before, settings))
    after = spec.model_dump(exclude_none=True)
    for name in before.keys() | after.keys():
        _check(name, before.get(name), after.get(name), run)
    search = spec.search.model_copy(update={"episodes": run.episode + episodes})
    return spec.model_copy(update={"search": search})


def check_can_go_on(run: Run) -> None:
    """Refuses a run that is queued or running.

    Raises:
        BadInput: it is.
    """
    if run.state in ACTIVE:
        raise BadInput(f"Run {run.id} is {run.state}; pause it, or wait for its end, to extend it.")


def allows_more(run: Run, spec: RunSpec) -> bool:
    """Returns whether a spec's largest budget is larger than that of the run."""
    if run.teacher is None:
        return False
    teacher_ms = run.teacher.latency.p50
    return max(budgets_ms(spec.latency, teacher_ms)) > max(budgets_ms(run.spec.latency, teacher_ms))


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
    if changed:
        raise BadInput(
            f"A search that goes on cannot change {sorted(changed)[0]}, since its candidates could not be "
            "compared; start a new search."
        )


def _differing(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
