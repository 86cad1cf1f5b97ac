"""What can be done with a candidate or student: a full distillation, a scoring, a sweep, an export."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    field_validator,
)

from kdnas_core.spec.base import Strict, parsed
from kdnas_core.spec.latency import USUAL_RUNTIMES, Runtime
from kdnas_core.spec.objective import Recipe, Use
from kdnas_core.spec.run import Device


class DistilSpec(Strict):
    """The full distillation of a candidate, on the whole corpus, or of a student for a task.

    Attributes:
        recipe: in the place of that of the candidate's run.
        pairs: the share of the texts that become pairs of segments, in the place of that of the run.
        corpus: in the place of that of the candidate's run.
        epochs: how often the texts are read; for a task, its rows with their variants.
        sentences: the most texts of the corpus.
        sequence_length: at which texts are cut, in tokens.
        cut: whether texts are cut into pieces of many lengths up to `sequence_length`, or only long ones,
            into chunks as long as that. Left out: pieces for students that are for their vectors, else
            chunks.
        batch_size: texts.
        learning_rate: the highest.
        seed: of the order of the texts and of random weights.
        task: for a task-specific student (TinyBERT's second stage): the task, as `evaluate` takes it.
        augment: whether a task's rows get variants (TinyBERT, arXiv 1909.10351, algorithm 1).
        copies: the most variants of a row.
        glove: a file of word vectors for words of several pieces, in GloVe's text format.
        device: where it is computed.
    """

    recipe: Recipe | None = None
    pairs: float | None = Field(default=None, ge=0, le=1)
    corpus: str | None = Field(default=None, min_length=1)
    epochs: float = Field(default=3.0, gt=0, le=1_000)
    sentences: int = Field(default=1_000_000, ge=48, le=1_000_000)
    sequence_length: int = Field(default=128, ge=8, le=512)
    cut: Literal["pieces", "chunks"] | None = None
    batch_size: int = Field(default=32, ge=1, le=1_024)
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    task: str | None = Field(default=None, min_length=1)
    augment: bool = True
    copies: int = Field(default=20, ge=1, le=100)
    glove: str | None = Field(default=None, min_length=1)
    device: Device = "auto"

    def cuts_pieces(self, use: Use | None) -> bool:
        """Whether texts are cut into pieces of many lengths: as chosen, else as is usual for that use."""
        return use == "vectors" if self.cut is None else self.cut == "pieces"


class ScoreSpec(Strict):
    """The scoring of a model and its teacher on tasks.

    Attributes:
        tasks: `packaged`, folders, or `hub:NAME[:CONFIG]`; of retrieval `packaged-retrieval`, or folders.
        seeds: how many models are fine-tuned on each task.
        rows: the most rows of a training split.
        split: which is scored.
        train_language: of tasks in several languages.
        control: also the same student with random weights: trained on the task alone, without distillation.
        pairs: how the two sentences of a pair are read: together, as one text, or apart, each by itself, and
            their vectors compared. Left out: apart where the teacher is made for sentence vectors, which are
            served that way, else together.
        device: where it is computed.
    """

    tasks: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    seeds: int = Field(default=3, ge=1, le=20)
    rows: int = Field(default=100_000, ge=16, le=10_000_000)
    split: str = Field(default="validation", min_length=1)
    train_language: str | None = Field(default=None, min_length=1)
    control: bool = False
    pairs: Literal["together", "apart"] | None = None
    device: Device = "auto"


class SweepSpec(Strict):
    """In what ways a student's latency is measured beyond that of its run.

    Each runtime at each batch size with the run's own sequence length, and at each length with its own batch
    size.
    """

    runtimes: Annotated[list[Runtime], Field(min_length=1)] = Field(default=list(USUAL_RUNTIMES))
    batch_sizes: list[Annotated[int, Field(ge=1, le=256)]] = Field(default=[1, 2, 4, 8, 16, 32])
    sequence_lengths: list[Annotated[int, Field(ge=8, le=512)]] = Field(default=[16, 32, 64, 128, 256, 512])

    @field_validator("*")
    @classmethod
    def _without_repeats(cls, choices: list[Any]) -> list[Any]:
        return list(dict.fromkeys(choices))


Format = Literal["hf", "onnx", "zip"]


class ExportSpec(Strict):
    """The export of a candidate or a student.

    Attributes:
        folder: that is made.
        formats: what is written; `hf`, the folder that all else lies in, is always written.
    """

    folder: str = Field(min_length=1)
    formats: list[Format] = Field(default=["hf"])


def parse_distil(fields: dict[str, Any]) -> DistilSpec:
    """The settings of a full distillation with these fields; raises as `parse_spec`."""
    return parsed(DistilSpec, fields)


def parse_stored_distil(text: str) -> DistilSpec:
    """The settings of a student in a store; what its version did not know is as it was then."""
    how = DistilSpec.model_validate_json(text)
    return how if "cut" in how.model_fields_set else how.model_copy(update={"cut": "chunks"})


def parse_score(fields: dict[str, Any]) -> ScoreSpec:
    """The settings of a scoring with these fields; raises as `parse_spec`."""
    return parsed(ScoreSpec, fields)


def parse_sweep(fields: dict[str, Any]) -> SweepSpec:
    """The settings of a sweep of latencies with these fields; raises as `parse_spec`."""
    return parsed(SweepSpec, fields)
