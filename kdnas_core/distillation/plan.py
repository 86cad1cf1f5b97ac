"""Plans the loss terms that a student can learn by, from shapes alone, and says why others are left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kdnas_core.architecture import Architecture
from kdnas_core.distillation.recipes import relation_heads, terms_of
from kdnas_core.errors import BadInput
from kdnas_core.models.mapping import layer_map
from kdnas_core.models.pooling import Mode
from kdnas_core.spec import LOGITS, SAME_HEADS, WORDS, ObjectiveSpec, TermKind, TermSpec

if TYPE_CHECKING:  # pages plan without torch
    from kdnas_core.models.targets import Kind, Output


PAIRS: tuple[TermKind, ...] = (*SAME_HEADS, "relations")
_HIDDEN: tuple[Kind, ...] = ("hidden",)
RELATED: tuple[Literal["query", "key", "value"], ...] = ("query", "key", "value")
# of the teacher; the other kinds read hidden states
_READS: dict[TermKind, tuple[Kind, ...]] = {
    "attention": ("query", "key"),
    "attention_kl": ("query", "key"),
    "attention_transfer": ("query", "key"),
    "value_relation": ("value",),
    "relations": RELATED,
}


@dataclass(frozen=True)
class TeacherProfile:
    """The facts of a teacher that decide the loss terms.

    Attributes:
        architecture: its shape.
        predicts_words: whether it has a masked-LM head, its own or a trained one.
        hides_words: whether its tokenizer has a mask token.
        pooling: of its sentence vectors.
    """

    architecture: Architecture
    predicts_words: bool
    hides_words: bool
    pooling: Mode = "mean"


@dataclass(frozen=True)
class PlannedTerm:
    """A term with the teacher layers of each student layer.

    Attributes:
        name: its kind, with a number from the second of a kind on.
        spec: from the recipe or the user.
        layers: teacher layers of the student's layers 0 (the embedding) to M + 1 (the prediction layer).
    """

    name: str
    spec: TermSpec
    layers: list[tuple[int, ...]]


@dataclass(frozen=True)
class Plan:
    """The terms of one student, and a sentence for each term that is left out."""

    terms: list[PlannedTerm]
    notes: list[str]

    @property
    def hides_words(self) -> bool:
        """Whether teacher and student read masked texts."""
        return any(term.spec.kind in WORDS for term in self.terms)

    @property
    def projections(self) -> set[Output]:
        """The needed queries, keys and values of the teacher, by kind and layer."""
        return {output for output in self.reads if output[0] != "hidden"}

    @property
    def reads(self) -> set[Output]:
        """The needed outputs of the teacher, by kind and layer; predictions are made of the last states."""
        return {
            (kind, layer - 1 if term.spec.kind in WORDS else layer)
            for term in self.terms
            for kind in _READS.get(term.spec.kind, _HIDDEN)
            for layers in term.layers
            for layer in layers
        }


def plan(objective: ObjectiveSpec, student: Architecture, teacher: TeacherProfile) -> Plan:
    """Plans the terms that a student can learn by.

    Raises:
        BadInput: a mapping does not fit, or no term is left that compares student and teacher.
    """
    terms: list[PlannedTerm] = []
    hindered: dict[_Hindrance, list[str]] = {}
    counts: dict[str, int] = {}
    for spec in terms_of(objective, student, teacher.architecture):
        counts[spec.kind] = count = counts.get(spec.kind, 0) + 1  # of all terms, so that names are unique
        name = spec.kind if count == 1 else f"{spec.kind}-{count}"
        if hindrance := _hindrance(spec, student, teacher):
            hindered.setdefault(hindrance, []).append(name)
            continue
        terms.append(PlannedTerm(name, spec, _layers(spec, student, teacher.architecture)))
    if all(term.spec.kind == "masked_lm" for term in terms):
        raise BadInput(_nothing_left(objective, student, hindered))
    notes = [
        f"The {kind} loss is left out: {hindrance.reason}; to have it, {hindrance.remedy}."
        for hindrance, kinds in hindered.items()
        for kind in kinds
    ]
    return Plan(terms, notes)


@dataclass(frozen=True)
class _Hindrance:
    """The reason why a term cannot be used, and a remedy."""

    reason: str
    remedy: str


def _nothing_left(
    objective: ObjectiveSpec, student: Architecture, hindered: dict[_Hindrance, list[str]]
) -> str:
    what = f"The recipe '{objective.recipe}' has nothing that the student {student.key} could learn"
    if not hindered:
        return f"{what} from its teacher; add a term that compares the two."
    reasons = "; ".join(f"no {' or '.join(kinds)}, since {why.reason}" for why, kinds in hindered.items())
    remedies = " and ".join(hindrance.remedy for hindrance in hindered)
    return f"{what} ({reasons}): {remedies}, or choose another recipe."


def _hindrance(spec: TermSpec, student: Architecture, teacher: TeacherProfile) -> _Hindrance | None:
    if spec.kind in (*PAIRS, *WORDS) and student.is_static:
        lacks = "attention" if spec.kind in PAIRS else "context of a hidden word"
        return _Hindrance(f"a static student has no {lacks}", "set search.static=false")
    heads, teacher_heads = student.attention_heads, teacher.architecture.attention_heads
    if spec.kind in SAME_HEADS and heads != teacher_heads:
        reason = f"the student has {heads} attention heads, the teacher {teacher_heads}"
        return _Hindrance(reason, f"set space.attention_heads=[{teacher_heads}]")
    if spec.kind == "relations":
        return _undivided(spec.relation_heads, student, teacher.architecture)
    if spec.kind in WORDS and not teacher.hides_words:
        reason = "the teacher's tokenizer has no mask token"
        return _Hindrance(reason, "name a teacher whose tokenizer has one")
    if spec.kind in LOGITS and not teacher.predicts_words:
        reason = "the teacher has no masked-LM head"
        return _Hindrance(reason, "set objective.head=trained, which trains one for it")
    return None


def _undivided(heads: int, student: Architecture, teacher: Architecture) -> _Hindrance | None:
    """The hindrance if the relation heads do not divide a width; else None."""
    widths = {"student": student.bottleneck_size or student.hidden_size, "teacher": teacher.hidden_size}
    for whose, width in widths.items():
        if width % heads:
            reason = f"{heads} relation heads do not divide the {whose}'s width of {width}"
            return _Hindrance(reason, f"set relation_heads={relation_heads(student, teacher)}")
    return None


def _layers(spec: TermSpec, student: Architecture, teacher: Architecture) -> list[tuple[int, ...]]:
    m, n = student.layers, teacher.layers
    if spec.kind in WORDS:
        return [*[()] * (m + 1), (n + 1,)]
    if spec.kind == "embedding":
        return [(0,), *[()] * (m + 1)]
    if student.is_static:  # its embeddings are its last states
        return [(n,), ()]
    layers = [(), *layer_map(spec.mapping or "uniform", m, n), ()]
    if spec.kind in PAIRS and (0,) in layers:
        raise BadInput(
            f"The mapping of the {spec.kind} loss names layer 0, the embedding, which has no attention; "
            f"name layers 1 to {n}."
        )
    return layers
