"""kdnas.json: the record of a student when it was exported."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json

from kdnas_core.architecture import Architecture, LayerSource
from kdnas_core.errors import BadInput
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.package.opened import MANIFEST, MOST_TEXT_BYTES, SPEC, Package, opened_package, shown
from kdnas_core.runs.records import Score, TeacherFacts
from kdnas_core.spec import DistilSpec, RunSpec, parse_spec_json

FORMAT = 1
LARGEST = 2**62  # fits the store's 64-bit integers
MOST_SAMPLES = 100_000

Text = Annotated[str, Field(max_length=2_000)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Seconds = Annotated[float, Field(ge=0)]
# a name that pages and figures show unescaped: it has no characters of Markdown or HTML
PLAIN = r"[^<>\[\]`*$\\\x00-\x1f]{1,300}"
ByLanguage = dict[Annotated[str, Field(pattern=f"^{PLAIN}$")], float]


def _check_plain(*names: str) -> None:
    for name in names:
        if not re.fullmatch(PLAIN, name):
            raise ValueError(f"the name {shown(name)} is too long or has signs that no name has")


def _sized(architecture: Architecture) -> Architecture:
    knobs = architecture.to_dict()
    if architecture.is_static:
        del knobs["layers"]
    if not all(1 <= value <= 2**16 for value in knobs.values() if isinstance(value, int)):
        raise ValueError("a size of the architecture is out of bounds")
    _check_plain(architecture.hidden_act)
    return architecture


def _timed(reading: LatencyReading) -> LatencyReading:
    times = (reading.p50, reading.p95, reading.teacher_p50, *reading.samples)
    if not reading.samples or len(reading.samples) > MOST_SAMPLES or min(times) <= 0:
        raise ValueError("a latency must be a positive time of at least one run")
    _check_plain(reading.device, reading.runtime, reading.dtype)
    return reading


def _of_a_teacher(facts: TeacherFacts) -> TeacherFacts:
    _sized(facts.architecture)
    _timed(facts.latency)
    if not (0 <= facts.parameters <= LARGEST and 0 <= facts.flops <= LARGEST and len(facts.name) <= 1_000):
        raise ValueError("the teacher's figures are out of bounds")
    return facts


def _of_a_model(score: Score) -> Score:
    if not 0 <= score.seed < 20 or not 0 < len(score.task) <= 1_000 or len(score.metric) > 100:
        raise ValueError("a score is of no task, or of no seed")
    if score.error is not None and not 0 <= score.error < math.inf:
        raise ValueError("a score has no standard error of that size")
    return score


def _of_a_layer(source: LayerSource) -> LayerSource:
    if not 1 <= source.layer <= 1_000 or len(source.heads) > 1_000 or min(source.heads, default=1) < 1:
        raise ValueError("a layer was cut from none of a teacher's")
    return source


Cut = Annotated[list[Annotated[LayerSource, AfterValidator(_of_a_layer)]], Field(max_length=1_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Origin(_Strict):
    """The ids of its candidate and, if any, its student in the original store."""

    candidate: Count
    student: Count | None


class Judged(_Strict):
    """The candidate's results in its search."""

    parameters: Count | None
    flops: Count | None
    latency: Annotated[LatencyReading, AfterValidator(_timed)] | None
    loss: float | None
    reward: float | None
    scores: dict[Annotated[str, Field(max_length=1_000)], float]
    seconds: Seconds
    notes: list[Text]
    languages: ByLanguage
    loss_se: float | None = None  # earlier versions wrote neither this nor cut_from
    cut_from: Cut = []
    # of a pruned candidate alone
    rung: Count | None = None
    steps: Count = 0
    estimated_ms: Annotated[float, Field(gt=0)] | None = None


class Distilled(_Strict):
    """The student's distillation and its results."""

    spec: DistilSpec
    loss: float | None
    notes: list[Text]
    languages: ByLanguage
    loss_se: float | None = None
    cut_from: Cut = []
    seconds: Seconds
    step: Count
    steps: Count


class Manifest(_Strict):
    """kdnas.json in format 1. `checks` are those of the export; an import does not rely on them."""

    format: Literal[1]
    source: Origin
    spec: RunSpec
    teacher: Annotated[TeacherFacts, AfterValidator(_of_a_teacher)] | None
    architecture: Annotated[Architecture, AfterValidator(_sized)]
    candidate: Judged
    student: Distilled | None
    scores: Annotated[list[Annotated[Score, AfterValidator(_of_a_model)]], Field(max_length=100_000)]
    checks: dict[str, Any]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Manifest:
        if (self.student is None) != (self.source.student is None):
            raise ValueError("it does not say whether it is of a candidate or of a student")
        if self.student is None and self.candidate.loss is None:
            raise ValueError("the candidate was never judged")
        return self


def manifest_of(package: Package) -> Manifest:
    """Reads and validates kdnas.json of an export.

    Raises:
        BadInput: it is missing, from a newer version, or invalid.
    """
    if MANIFEST not in package.files:
        raise BadInput(
            f"{package.title} has no {MANIFEST}, so nothing is known of how it was made; "
            "import a zip or a folder that the export of KD-NAS Studio made."
        )
    written = package.read(MANIFEST)
    try:
        fields = from_json(written)
        _check_format(fields, package.title)
        return Manifest.model_validate_json(written)
    except ValidationError as error:
        raise BadInput(_sentence(error, package.title)) from None
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(
            f"The file {MANIFEST} in {package.title} is not JSON; export the student anew."
        ) from None


def _check_format(fields: Any, title: str) -> None:
    number = fields.get("format") if isinstance(fields, dict) else None
    if type(number) is int and number > FORMAT:
        raise BadInput(
            f"{title} was exported by a newer version of KD-NAS Studio, in format {number}; this one reads "
            f"format {FORMAT}, so update it."
        )


def _sentence(error: ValidationError, title: str) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    reason = str(first.get("ctx", {}).get("error", first["msg"])).rstrip(".")
    where = f", {shown(field)}" if field else ""
    return f"The file {MANIFEST} in {title} cannot be used{where}: {reason}; export the student anew."


@dataclass(frozen=True)
class Found:
    """The content of a file.

    Attributes:
        spec: of the search.
        manifest: of the student; None if the file has only a search.
    """

    spec: RunSpec
    manifest: Manifest | None


def look(file: BinaryIO, title: str) -> Found:
    """Reads what a file contains, without its weights.

    Args:
        file: a RunSpec as JSON if `title` ends in .json, else a zip.
        title: the file's name.

    Raises:
        BadInput: it is neither a search nor an export.
    """
    file.seek(0)
    if title.lower().endswith(".json"):
        return Found(_spec(file.read(MOST_TEXT_BYTES), title), None)
    with opened_package(file, title) as package:
        if MANIFEST not in package.files and SPEC in package.files:
            return Found(_spec(package.read(SPEC), title), None)
        manifest = manifest_of(package)
        return Found(manifest.spec, manifest)


def _spec(written: bytes, title: str) -> RunSpec:
    try:
        return parse_spec_json(written.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise BadInput(f"{title} is not the JSON of a search, since it is not UTF-8.") from None
    except BadInput as error:
        raise BadInput(f"{title} is not the JSON of a search. {error}") from None
