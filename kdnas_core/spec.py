"""RunSpec: all that a user chooses for a run, validated, with a JSON round trip."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from kdnas_core.architecture import PRESETS, Architecture
from kdnas_core.errors import BadInput

Activation = Literal["gelu", "relu", "silu"]
Knob = Annotated[list[Annotated[int, Field(ge=1, le=16_384)]], Field(min_length=1)]


Model = TypeVar("Model", bound=BaseModel)


class _Strict(BaseModel):
    """Unknown fields are refused: a misspelt one must never be silently the default."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SpaceSpec(_Strict):
    """The choices for each knob of an architecture; a knob left out is derived from the teacher.

    Or `presets`: published students by name, and no knob.
    """

    layers: Annotated[list[Annotated[int, Field(ge=1, le=48)]], Field(min_length=1)] | None = None
    hidden_size: Knob | None = None
    intermediate_size: Knob | None = None
    attention_heads: Knob | None = None
    hidden_act: Annotated[list[Activation], Field(min_length=1)] | None = None
    embedding_size: Knob | None = None  # left out: embeddings are as wide as the hidden states
    presets: Annotated[list[str], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _presets_alone(self) -> SpaceSpec:
        unknown = [name for name in self.presets or () if name not in PRESETS]
        if unknown:
            choices = ", ".join(PRESETS)
            raise ValueError(f"there is no published student or space {unknown[0]!r}, choose of {choices}")
        if self.presets and len(self.model_dump(exclude_none=True)) > 1:
            raise ValueError("presets are whole students, give them or choices for the knobs")
        return self

    @field_validator("*")
    @classmethod
    def _sorted_without_repeats(cls, choices: list[Any] | None) -> list[Any] | None:
        return None if choices is None else sorted(set(choices))

    def filled_from(self, teacher: Architecture) -> SpaceSpec:
        """This space with each knob that was left out derived from the teacher's own shape.

        Depths are a sixth to all of the teacher's, widths quarters, feed-forward widths a quarter, half
        and all, heads all, half and a quarter; the activation is the teacher's. Presets stay as they are.
        """
        if self.presets:
            return self
        heads = [teacher.attention_heads // part for part in (1, 2, 4) if teacher.attention_heads % part == 0]
        derived = SpaceSpec(
            layers=[max(1, teacher.layers * part // 12) for part in (2, 4, 6, 8, 12)],
            hidden_size=[
                width
                for width in (teacher.hidden_size * part // 4 for part in (1, 2, 3, 4))
                if any(width % count == 0 for count in heads)
            ],
            intermediate_size=[max(1, teacher.intermediate_size // part) for part in (4, 2, 1)],
            attention_heads=heads,
            hidden_act=[act for act in get_args(Activation) if act == teacher.hidden_act] or ["gelu"],
        )
        return derived.model_copy(update=self.model_dump(exclude_none=True))


# The search space of KD-NAS (arXiv 2303.09639): 1,200 points, 80 distinct shapes.
KDNAS_SPACE = SpaceSpec(
    layers=[3, 4, 6, 10, 12],
    hidden_size=[384, 768],
    intermediate_size=[384, 512, 576, 768, 1024, 1536, 2048, 3072],
    attention_heads=[2, 3, 4, 6, 12],
    hidden_act=["gelu", "relu", "silu"],
)


Runtime = Literal["onnxruntime", "onnxruntime-int8", "torch", "torch-cuda"]
USUAL_RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "onnxruntime-int8", "torch")  # those of every machine


class LatencySpec(_Strict):
    """The latency budget and the protocol that measures against it.

    `runtime` is where the model is to run: ONNX Runtime in float32 or with 8-bit weights, or torch, eager, on
    the processor or on a CUDA device. The budget is for that runtime, for students and teacher alike.
    """

    budget_ms: float | None = Field(default=None, gt=0)
    budget_speedup: float | None = Field(default=None, gt=0)
    runtime: Runtime = "onnxruntime"
    threads: int = Field(default=1, ge=1, le=64)
    batch_size: int = Field(default=1, ge=1, le=256)
    sequence_length: int = Field(default=128, ge=8, le=512)
    warmup: int = Field(default=20, ge=20, le=1_000)
    runs: int = Field(default=100, ge=100, le=10_000)

    @model_validator(mode="before")
    @classmethod
    def _one_budget(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        budgets = [given.get("budget_ms"), given.get("budget_speedup")]
        if all(budget is None for budget in budgets):
            return {**given, "budget_speedup": 2.0}
        if all(budget is not None for budget in budgets):
            raise ValueError("set budget_ms or budget_speedup, not both")
        return given


Mapping = Literal["uniform+last", "uniform", "last", "top", "bottom", "skip", "final"]
# by a rule, or a teacher layer for each student layer
Layers = Mapping | Annotated[list[Annotated[int, Field(ge=0, le=48)] | None], Field(min_length=1)]
StartLayers = (
    Literal["uniform", "last", "top", "bottom"]
    | Annotated[list[Annotated[int, Field(ge=1, le=48)]], Field(min_length=1)]
)
TermKind = Literal[
    "embedding",
    "hidden",
    "cosine",
    "patience",
    "feature_map",
    "vector",
    "similarity",
    "attention",
    "attention_kl",
    "attention_transfer",
    "value_relation",
    "relations",
    "prediction",
    "prediction_kl",
    "masked_lm",
]
Recipe = Literal[
    "vectors",
    "kdnas",
    "tinybert",
    "distilbert",
    "pkd",
    "pd",
    "minilm",
    "minilmv2",
    "mobilebert",
    "custom",
]
Use = Literal["vectors", "fine_tuning"]
Yardstick = Literal["vectors", "last_layer", "layers"]


USUAL_RELATION_HEADS = 12
LOGITS: tuple[TermKind, ...] = ("prediction", "prediction_kl")
WORDS: tuple[TermKind, ...] = (*LOGITS, "masked_lm")
WITHOUT_MAPPING: tuple[TermKind, ...] = ("embedding", *WORDS)  # they have one place each


class TermSpec(_Strict):
    """One loss term of an objective composed freely.

    Attributes:
        kind: which loss.
        weight: its factor in the sum of all terms.
        mapping: which teacher layers each student layer learns from; for terms of layers only. Left out:
            that of the objective.
        temperature: divides the logits; for `prediction` and `prediction_kl` only.
        relation_heads: into which queries, keys and values are cut anew; for `relations` only.
        stage: in which of the two stages it is trained.
        progressive: whether its layers are trained one after another, each for an equal share of the stage.
    """

    kind: TermKind
    weight: float = Field(default=1.0, gt=0, le=1e6)
    mapping: Layers | None = None
    temperature: float = Field(default=1.0, gt=0, le=100)
    relation_heads: int = Field(default=USUAL_RELATION_HEADS, ge=1, le=1_024)
    stage: Literal[1, 2] = 1
    progressive: bool = False

    @model_validator(mode="after")
    def _only_what_the_kind_uses(self) -> TermSpec:
        unused = {
            "temperature": self.temperature != 1 and self.kind not in LOGITS,
            "relation_heads": self.relation_heads != USUAL_RELATION_HEADS and self.kind != "relations",
            "mapping": self.mapping is not None and self.kind in WITHOUT_MAPPING,
        }
        if names := [name for name, is_unused in unused.items() if is_unused]:
            raise ValueError(f"a term of the kind {self.kind!r} has no {names[0]}, leave that out")
        return self


class ObjectiveSpec(_Strict):
    """What a student is for, what it learns, and where it starts.

    Attributes:
        use: what students are for: their sentence vectors, or to be fine-tuned on tasks. Left out: vectors
            where the teacher is made for them, else fine-tuning. Yardstick, recipe and the share of pairs
            follow from it where they are left out.
        yardstick: what all students of a run are compared by on held-out text: the agreement of their
            sentence vectors with the teacher's, the error of their last hidden states, or the mean error of
            their hidden states over layers, by which the first versions judged all.
        recipe: an objective by name, or "custom" for one's own `terms`.
        mapping: which teacher layers each student layer learns from, where it is not to be the recipe's own.
        projection: one for each layer, or one shared by all.
        start: weights cut out of the teacher, copied where the shapes agree, or random ones.
        start_layers: the teacher layer that each student layer is cut from; left out, the recipe's own.
        head: whose masked-LM head predicts words: the teacher's own, or, where it has none, one trained for
            it on the proxy set.
        first_stage: share of the steps for the first stage, where there are two.
        terms: of a "custom" objective.
    """

    use: Use | None = None
    yardstick: Yardstick | None = None
    recipe: Recipe | None = None
    mapping: Layers | None = None
    projection: Literal["per_layer", "shared"] = "per_layer"
    start: Literal["teacher", "random"] = "teacher"
    start_layers: StartLayers | None = None
    head: Literal["teacher", "trained"] = "teacher"
    first_stage: float = Field(default=0.5, gt=0, lt=1)
    terms: list[TermSpec] = []

    def filled_for(self, makes_vectors: bool) -> ObjectiveSpec:
        """This objective with what was left out as it is usual.

        Args:
            makes_vectors: whether the teacher is made for sentence vectors.
        """
        use = self.use or ("vectors" if makes_vectors else "fine_tuning")
        yardstick, recipe = USUAL_OBJECTIVES[use]
        return self.model_copy(
            update={
                "use": use,
                "yardstick": self.yardstick or yardstick,
                "recipe": self.recipe or recipe,
            }
        )

    @model_validator(mode="after")
    def _terms_where_custom(self) -> ObjectiveSpec:
        if self.recipe == "custom" and not self.terms:
            raise ValueError("a custom objective needs terms, list at least one")
        if self.recipe != "custom" and self.terms:
            raise ValueError("terms belong to the recipe 'custom', set that or leave the list empty")
        return self


# by benchmarks.yardstick: what ranks students as their scores do
USUAL_OBJECTIVES: dict[Use, tuple[Yardstick, Recipe]] = {
    "vectors": ("vectors", "vectors"),
    "fine_tuning": ("layers", "kdnas"),  # of those tried nothing ranks fine-tuned scores better so far
}
USUAL_PAIRS: dict[Use, float] = {"vectors": 0.0, "fine_tuning": 0.5}


class ProxySpec(_Strict):
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


class RewardSpec(_Strict):
    """Constants of the KD-NAS reward, `(1 - L) * (lat_S / (beta * lat_T)) ** alpha`.

    In the mode "accuracy" (its first version, task-specific) the score on the run's tasks stands in the place
    of 1 - L.
    """

    mode: Literal["kdnas", "accuracy"] = "kdnas"
    alpha: float = Field(default=-0.06, le=0, ge=-10)
    beta: float = Field(default=0.6, gt=0, le=1)


class SearchSpec(_Strict):
    """How candidates are proposed, and how many."""

    controller: Literal["lstm", "random"] = "lstm"
    episodes: int = Field(default=15, ge=1, le=1_000)
    candidates: int = Field(default=20, ge=1, le=1_000)
    pool: int = Field(default=150, ge=1, le=100_000)
    epsilon_start: float = Field(default=1.0, ge=0, le=1)
    epsilon_decay: float = Field(default=0.05, ge=0, le=1)
    epsilon_floor: float = Field(default=0.05, ge=0, le=1)
    reward: RewardSpec = RewardSpec()
    keep_weights: Literal["all", "frontier"] = "frontier"


class DistilSpec(_Strict):
    """The full distillation of a candidate, on the whole corpus, or of a student for a task.

    Attributes:
        recipe: in the place of that of the candidate's run.
        pairs: the share of the texts that become pairs of segments, in the place of that of the run.
        corpus: in the place of that of the candidate's run.
        epochs: how often the texts are read; for a task, its rows with their variants.
        sentences: the most texts of the corpus.
        sequence_length: at which texts are cut, in tokens.
        batch_size: texts.
        learning_rate: the highest.
        seed: of the order of the texts and of random weights.
        task: for a task-specific student (TinyBERT's second stage): the task, as `evaluate` takes it.
        augment: whether a task's rows get variants (TinyBERT, arXiv 1909.10351, algorithm 1).
        copies: the most variants of a row.
        glove: a file of word vectors for words of several pieces, in GloVe's text format.
    """

    recipe: Recipe | None = None
    pairs: float | None = Field(default=None, ge=0, le=1)
    corpus: str | None = Field(default=None, min_length=1)
    epochs: float = Field(default=3.0, gt=0, le=1_000)
    sentences: int = Field(default=1_000_000, ge=48, le=1_000_000)
    sequence_length: int = Field(default=128, ge=8, le=512)
    batch_size: int = Field(default=32, ge=1, le=1_024)
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    task: str | None = Field(default=None, min_length=1)
    augment: bool = True
    copies: int = Field(default=20, ge=1, le=100)
    glove: str | None = Field(default=None, min_length=1)


class ScoreSpec(_Strict):
    """The scoring of a model and its teacher on tasks.

    Attributes:
        tasks: `packaged`, folders, or `hub:NAME[:CONFIG]`.
        seeds: how many models are fine-tuned on each task.
        rows: the most rows of a training split.
        split: which is scored.
        train_language: of tasks in several languages.
        control: also the same student with random weights: trained on the task alone, without distillation.
        pairs: how the two sentences of a pair are read: together, as one text, or apart, each by itself, and
            their vectors compared. Left out: apart where the teacher is made for sentence vectors, which are
            served that way, else together.
    """

    tasks: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    seeds: int = Field(default=3, ge=1, le=20)
    rows: int = Field(default=100_000, ge=16, le=10_000_000)
    split: str = Field(default="validation", min_length=1)
    train_language: str | None = Field(default=None, min_length=1)
    control: bool = False
    pairs: Literal["together", "apart"] | None = None


class SweepSpec(_Strict):
    """In what ways a student's latency is measured beyond that of its run.

    Each runtime at each batch size with the run's own sequence length, and at each length with its own batch
    size.
    """

    runtimes: Annotated[list[Runtime], Field(min_length=1)] = list(USUAL_RUNTIMES)
    batch_sizes: list[Annotated[int, Field(ge=1, le=256)]] = [1, 2, 4, 8, 16, 32]
    sequence_lengths: list[Annotated[int, Field(ge=8, le=512)]] = [16, 32, 64, 128, 256, 512]

    @field_validator("*")
    @classmethod
    def _without_repeats(cls, choices: list[Any]) -> list[Any]:
        return list(dict.fromkeys(choices))


class RunSpec(_Strict):
    """All that a user chooses for a run.

    `space` may be given as the word "kdnas" for the published space, "teacher" (the default) for one
    derived from the teacher's own shape when the run is prepared, or the name of a published student.
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

    def filled_for(self, makes_vectors: bool) -> RunSpec:
        """This spec with the objective, and what follows from it, as it is usual; see `ObjectiveSpec`."""
        objective = self.objective.filled_for(makes_vectors)
        assert objective.use is not None
        pairs = USUAL_PAIRS[objective.use] if self.proxy.pairs is None else self.proxy.pairs
        proxy = self.proxy.model_copy(update={"pairs": pairs})
        return self.model_copy(update={"objective": objective, "proxy": proxy})

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
    return _parsed(RunSpec, fields)


def parse_distil(fields: dict[str, Any]) -> DistilSpec:
    """The settings of a full distillation with these fields; raises as `parse_spec`."""
    return _parsed(DistilSpec, fields)


def parse_score(fields: dict[str, Any]) -> ScoreSpec:
    """The settings of a scoring with these fields; raises as `parse_spec`."""
    return _parsed(ScoreSpec, fields)


def parse_sweep(fields: dict[str, Any]) -> SweepSpec:
    """The settings of a sweep of latencies with these fields; raises as `parse_spec`."""
    return _parsed(SweepSpec, fields)


def _parsed(kind: type[Model], fields: dict[str, Any]) -> Model:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise BadInput(_sentence(error)) from None


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


def quick_spec(seed: int = 0) -> RunSpec:
    """The search that runs on a first start: minutes on two cores, real in every part."""
    return RunSpec(
        name="quick",
        seed=seed,
        latency=LatencySpec(budget_speedup=2.0),
        proxy=ProxySpec(sentences=1_500, held_out=160, sequence_length=48, steps=40, batch_size=24),
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


def _sentence(error: ValidationError) -> str:
    first = max(
        error.errors(), key=lambda found: len(found["loc"])
    )  # of a union the branch that got furthest
    # "latency.budget_ms", without the names that pydantic adds for branches of a union
    field = ".".join(str(part) for part in first["loc"] if "[" not in str(part))
    if first["type"] == "extra_forbidden":
        return f"'{field}' is not a field of a spec; check its spelling or leave it out."
    if first["type"] == "missing":
        return f"'{field}' is missing; add it."
    if first["type"] == "value_error":
        return f"'{field}': {first['ctx']['error']}."
    return f"'{field}' cannot be {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}."
