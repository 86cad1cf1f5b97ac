"""RunSpec: all that a user chooses for a run, validated, with a JSON round trip."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
)

from kdnas_core.architecture import Architecture
from kdnas_core.errors import BadInput
from kdnas_core.spec.base import Strict, parsed
from kdnas_core.spec.latency import LatencySpec
from kdnas_core.spec.objective import USUAL_PAIRS, ObjectiveSpec
from kdnas_core.spec.space import KDNAS_SPACE, SpaceSpec

Device = Literal["auto", "cpu", "cuda", "mps"]
Controller = Literal["surrogate", "lstm", "random", "optuna-tpe", "optuna-nsga2", "optuna-gp"]


class ProxySpec(Strict):
    """The proxy set and the mini-KD that judges a candidate on it.

    `pairs` is the share of the training texts that become pairs of segments; left out, what is usual for the
    use of the students.
    """

    sentences: int = Field(default=4_000, ge=32, le=1_000_000)
    held_out: int = Field(default=400, ge=16, le=100_000)
    sequence_length: int = Field(default=64, ge=8, le=512)
    steps: int = Field(default=200, ge=1, le=1_000_000)
    batch_size: int = Field(default=32, ge=1, le=1_024)
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    accumulation: int = Field(default=1, ge=1, le=1_024)  # passes whose gradients make one step's
    language_temperature: float = Field(default=3.0, ge=1, le=1_000)  # 1: languages as large as their corpora
    pairs: float | None = Field(default=None, ge=0, le=1)


# the training of a supernet: its steps, the shapes in each, and the texts that each of these reads
SUPERNET_STEPS, SUPERNET_SHAPES, SUPERNET_BATCH = 400, 2, 32
MOST_EPISODES = 1_000
METHOD = 5  # increased when the same spec gives a candidate another loss than before


class RewardSpec(Strict):
    """Constants of the KD-NAS reward, `(1 - L) * (lat_S / (beta * lat_T)) ** alpha`.

    In the mode "accuracy" (its first version, task-specific) the score on the run's tasks stands in the place
    of 1 - L.
    """

    mode: Literal["kdnas", "accuracy"] = "kdnas"
    alpha: float = Field(default=-0.06, le=0, ge=-10)
    beta: float = Field(default=0.6, gt=0, le=1)


class SearchSpec(Strict):
    """How candidates are proposed, and how many.

    `prune` stops a mini-KD once its candidate would hardly be picked (`search/rungs.py`); a run with tasks
    stops none. `until` ends a search before its last episode once no gain is expected of another (`Outlook`),
    though not before it has had `least_episodes`. `warm_start` lets a surrogate learn from searches in the
    same store whose losses compare: of the same teacher, text, objective, proxy set, tasks and protocol.
    `remember` makes use of results of mini-KD that earlier searches on this machine had in the same way.
    `slots` is how many candidates are judged side by side, measured if it is `auto`; it changes no loss but
    by rounding. `static` adds a static student to the first episode (`static_student`), beside which one sees
    what layers are worth; left out: where the teacher's sentence vectors are means of its states.
    """

    controller: Controller = "surrogate"
    episodes: int = Field(default=15, ge=1, le=MOST_EPISODES)
    candidates: int = Field(default=20, ge=1, le=1_000)
    until: Literal["episodes", "no_gain"] = "episodes"
    least_episodes: int = Field(default=1, ge=1)
    warm_start: bool = False
    pool: int = Field(default=150, ge=1, le=100_000)
    epsilon_start: float = Field(default=1.0, ge=0, le=1)
    epsilon_decay: float = Field(default=0.05, ge=0, le=1)
    epsilon_floor: float = Field(default=0.05, ge=0, le=1)
    reward: RewardSpec = RewardSpec()
    keep_weights: Literal["all", "frontier"] = "frontier"
    prune: bool = True
    remember: bool = True
    slots: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    static: bool | None = None

    @property
    def most_candidates(self) -> int:
        """The most that a search proposes, its static student included."""
        return self.episodes * self.candidates + bool(self.static)


class RunSpec(Strict):
    """All that a user chooses for a run.

    `space` may be given as the word "kdnas" for the published space, "teacher" (the default) for one
    derived from the teacher's own shape when the run is prepared, or the name of a published student.
    `device` is where teacher outputs and mini-KD are computed; what `auto` chose is in the stored spec.
    Latency is measured where `latency.runtime` says.
    `tasks` are downstream tasks: each candidate is fine-tuned for some seconds on a part of their training
    splits and scored on another, and the scores take the place of the loss on the frontier.
    """

    name: str = Field(default="search", min_length=1, max_length=100)
    seed: int = Field(default=0, ge=0, lt=2**32)
    teacher: str = Field(default="packaged", min_length=1)
    corpus: str = Field(default="packaged", min_length=1)
    space: SpaceSpec = SpaceSpec()
    latency: LatencySpec = LatencySpec(budget_speedup=2.0)
    objective: ObjectiveSpec = ObjectiveSpec()
    proxy: ProxySpec = ProxySpec()
    search: SearchSpec = SearchSpec()
    tasks: list[Annotated[str, Field(min_length=1)]] = Field(default=[], validate_default=True)
    device: Device = "auto"

    @property
    def prunes(self) -> bool:
        """Whether candidates are stopped at rungs; of two, a loss does not tell which scores higher."""
        return self.search.prune and not self.tasks

    def filled_for(self, makes_vectors: bool) -> RunSpec:
        """This spec with the objective, and what follows from it, as it is usual; see `ObjectiveSpec`."""
        objective = self.objective.filled_for(makes_vectors)
        assert objective.use is not None
        pairs = USUAL_PAIRS[objective.use] if self.proxy.pairs is None else self.proxy.pairs
        proxy = self.proxy.model_copy(update={"pairs": pairs})
        return self.model_copy(update={"objective": objective, "proxy": proxy})

    def filled_from(self, teacher: Architecture) -> RunSpec:
        """This spec with each knob of its space that was left out derived from the teacher's shape."""
        space = self.space.filled_from(teacher, self.objective.compares_heads)
        return self.model_copy(update={"space": space})

    def with_static(self, can_be: bool) -> RunSpec:
        """This spec with `search.static` set: as chosen, else as the teacher allows.

        Raises:
            BadInput: it is chosen, and the teacher allows none.
        """
        if self.search.static and not can_be:
            raise BadInput(
                "A static student needs a teacher whose sentence vectors are means of its last states, to be "
                "judged by them, and a loss on states; set search.static=false."
            )
        chosen = can_be if self.search.static is None else self.search.static
        return self.model_copy(update={"search": self.search.model_copy(update={"static": chosen})})

    def judged_by_layers(self) -> RunSpec:
        """This spec as the first versions understood it, which knew no other yardstick."""
        first = {"yardstick": "layers", "recipe": self.objective.recipe or "kdnas"}
        return self.model_copy(update={"objective": self.objective.model_copy(update=first)})

    @field_validator("space", mode="before")
    @classmethod
    def _named_space(cls, given: Any) -> Any:
        return (
            {"kdnas": KDNAS_SPACE, "teacher": SpaceSpec()}.get(given) or SpaceSpec(presets=[given])
            if isinstance(given, str)
            else given
        )

    @field_validator("tasks")
    @classmethod
    def _tasks_for_accuracy(cls, tasks: list[str], given: ValidationInfo) -> list[str]:
        search = given.data.get("search")  # lacks where that is refused itself
        if search is not None and search.reward.mode == "accuracy" and not tasks:
            raise ValueError("the reward 'accuracy' needs a task, name one, such as [\"packaged\"]")
        return tasks

    def to_json(self) -> str:
        """The spec as JSON; `parse_spec` reads it back to an equal spec."""
        return self.model_dump_json(indent=2)


def parse_spec(fields: dict[str, Any]) -> RunSpec:
    """The spec with these fields, the rest at their defaults.

    Raises:
        BadInput: a field is unknown or its value is not allowed; names the field.
    """
    return parsed(RunSpec, fields)


def parse_spec_json(text: str) -> RunSpec:
    """The spec written in a JSON text.

    Raises:
        BadInput: the text is not a JSON object, or not a valid spec.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"The spec is not JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise BadInput("The spec must be a JSON object of the fields of a RunSpec.")
    return parse_spec(fields)


@lru_cache(maxsize=1_024)  # pages read the same specs again and again
def parse_stored_spec(text: str) -> RunSpec:
    """The spec of a run in a store; what its version did not know is as it was then.

    Raises:
        BadInput: it is damaged.
    """
    spec = parse_spec_json(text)
    if "device" not in spec.model_fields_set:  # before there was a choice
        search = spec.search.model_copy(update={"prune": False})
        spec = spec.model_copy(update={"device": "cpu", "search": search})
    if "static" not in spec.search.model_fields_set:  # before there were static students
        spec = spec.model_copy(update={"search": spec.search.model_copy(update={"static": False})})
    return spec


def quick_spec(seed: int = 0) -> RunSpec:
    """The search that runs on a first start: minutes on two cores, real in every part.

    It has as many texts as its steps read.
    """
    return RunSpec(
        name="quick",
        seed=seed,
        latency=LatencySpec(budget_speedup=2.0),
        proxy=ProxySpec(sentences=960, held_out=160, sequence_length=48, steps=40, batch_size=24),
        search=SearchSpec(episodes=4, candidates=4, epsilon_decay=0.25, keep_weights="all"),
    )


def with_settings(fields: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """A copy of spec fields with `path.to.field=value` settings applied in order.

    A value is read as JSON where it is JSON, else as text: `seed=7`, `space.layers=[2,3]`, `name=mine`.

    Raises:
        BadInput: a setting has no '=' or its path runs through a value that has no fields.
    """
    fields = json.loads(json.dumps(fields))
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals or not path.strip():
            raise BadInput(f"'{setting}' is not a setting; write path.to.field=value.")
        _set(fields, path.strip().split("."), _json_or_text(value), setting)
    return fields


def _set(fields: dict[str, Any], path: list[str], value: Any, setting: str) -> None:
    *parents, name = path
    for parent in parents:
        if fields.get(parent) is None:
            fields[parent] = {}
        fields = fields[parent]
        if not isinstance(fields, dict):
            raise BadInput(f"'{setting}' cannot be set: '{parent}' has no fields.")
    if name in ("budget_ms", "budget_speedup"):  # setting one budget replaces the other
        fields.pop("budget_ms", None)
        fields.pop("budget_speedup", None)
    fields[name] = value


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
