"""The objective of one student: its loss terms, their weights and when each of them is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import nn

from kdnas_core.architecture import Architecture
from kdnas_core.distillation import losses
from kdnas_core.distillation.loop import LayerRates, all_alike
from kdnas_core.distillation.plan import RELATED, Plan, PlannedTerm
from kdnas_core.distillation.recipes import terms_of
from kdnas_core.distillation.terms import PairTerm, Pass, SimilarityTerm, StateTerm, Term, WordTerm
from kdnas_core.distillation.yardstick import LastLayerMeter, Meter, VectorsMeter
from kdnas_core.models.mapping import layer_map
from kdnas_core.models.mlm_head import MlmHead, TeacherHead
from kdnas_core.models.pooling import Mode
from kdnas_core.models.targets import Batch
from kdnas_core.spec import ObjectiveSpec, TermSpec, Yardstick

HIDDEN, PROBE, YARDSTICK = "hidden", "hidden_probe", "yardstick"
_PAIRS = {
    "attention": losses.attention_mse,
    "attention_kl": losses.attention_kl,
    "attention_transfer": losses.attention_cross_entropy,
    "value_relation": losses.attention_kl,
    "relations": losses.attention_kl,
}

Places = dict[tuple[int, int], float]
FINISHED_RATE = 0.1  # of a layer whose turn is past

RIDGE = 1e-4  # of the mean square of the student's states: keeps the least squares solvable


class Objective(nn.Module):
    """Loss terms with their weights, in one stage or two.

    Where hidden states are not learnt from the first step to the last, a term is added that is never trained:
    a probe, fitted by least squares, that says what the student holds of its teacher's hidden states.

    Attributes:
        terms: with the spec of each.
        first_stage: share of the steps for the first stage; 1 where there is one stage only.
    """

    def __init__(
        self,
        terms: list[tuple[Term, TermSpec]],
        probe: StateTerm | None,
        first_stage: float,
        meter: Callable[[StateTerm | None], Meter | None] = lambda hidden: None,
    ) -> None:
        super().__init__()
        self.terms = terms
        self._meter = meter
        self._usual: dict[str, float] = {}  # how many things a term is a mean over in a batch of usual size
        self._probe = (probe,)  # in a tuple, so that `parameters` does not find it: it is never trained
        stages = {spec.stage for _, spec in terms}
        self.first_stage = first_stage if len(stages) == 2 else 1.0
        self._stages = {stage: place for place, stage in enumerate(sorted(stages))}
        self._registered = nn.ModuleList(term for term, _ in terms)  # so that `parameters` finds them

    def loss(self, given: Pass, batch: Batch, done: float) -> torch.Tensor:
        """What is trained: the weighted sum of the terms of the stage that training is in.

        Args:
            given: a forward pass of the student on `batch`.
            batch: what it read.
            done: share of all steps that were taken, 0 to below 1.
        """
        share = self._share(done)
        parts = [
            _part(term(given, batch), spec, share) * self._size(term, batch)
            for term, spec in self.terms
            if self._stages[spec.stage] == self._stage(done)
        ]
        return torch.stack(parts).sum()

    def _size(self, term: Term, batch: Batch) -> float:
        """How much of this term a batch holds, against a usual one."""
        return term.count(batch) / self._usual[term.name] if self._usual else 1.0

    def weigh_alike(self, batches: Sequence[Batch], batch_size: int) -> None:
        """Lets a token weigh alike in a batch of long texts and in one of short ones, as in an evaluation.

        Args:
            batches: of texts as they are usual.
            batch_size: of those that will be learnt, in texts.
        """
        texts = sum(len(batch.mask) for batch in batches)
        for term, _ in self.terms:
            count = max(1, sum(term.count(batch) for batch in batches))
            self._usual[term.name] = count / texts * batch_size

    def _share(self, done: float) -> float:
        """How much of the stage that training is in has passed."""
        begin, end = (self.first_stage, 1.0) if self._stage(done) else (0.0, self.first_stage)
        return (done - begin) / (end - begin)

    def _stage(self, done: float) -> int:
        """0 for the first stage, 1 for the second."""
        return int(done >= self.first_stage and len(self._stages) == 2)

    @property
    def probe(self) -> StateTerm | None:
        """The added term, if any."""
        return self._probe[0]

    def meter(self) -> Meter | None:
        """A new meter of what students are judged by; None where that is the mean over layers."""
        return self._meter(self.hidden)

    @property
    def hidden(self) -> StateTerm | None:
        """The term that says what the student holds of hidden states: the probe, else the term trained."""
        trained = (term for term, _ in self.terms if term.name == HIDDEN and isinstance(term, StateTerm))
        return self.probe or next(trained, None)

    def all_terms(self) -> list[Term]:
        """The terms and the probe: all that is evaluated."""
        return [*(term for term, _ in self.terms), *([self.probe] if self.probe else [])]

    def fit(self, passes: Iterable[tuple[Pass, Batch]]) -> None:
        """Fits all projections to the student as it is, by least squares."""
        fit([term for term in self.all_terms() if isinstance(term, StateTerm)], passes)

    def fit_idle(self, passes: Iterable[tuple[Pass, Batch]], done: float) -> None:
        """Fits the projections that are trained no more: the probe's, and those of the first stage once past.

        Else a term of the first stage would seem to be unlearnt in the second, when its projections no longer
        follow the student. Nothing that is still to be trained is touched: looking changes no training.
        """
        past = [term for term, spec in self.terms if self._stages[spec.stage] < self._stage(done)]
        fit([term for term in [*past, self.probe] if isinstance(term, StateTerm)], passes)

    def begins_second_stage(self, done: float, before: float) -> bool:
        """Whether the second stage begins between two shares of the steps."""
        return self._stage(done) > self._stage(before)

    def fit_second_stage(self, passes: Iterable[tuple[Pass, Batch]]) -> None:
        """Fits the projections of the second stage to the student as the first has left it."""
        second = [term for term, spec in self.terms if self._stages[spec.stage] == 1]
        fit([term for term in second if isinstance(term, StateTerm)], passes)

    def rates(self, done: float) -> LayerRates:
        """How fast the student's layers learn now: all alike, but where a progressive term has its turn.

        Then as in MobileBERT's published code: the layer whose turn it is at the full rate, those before it
        at a tenth, those to come and the embeddings not at all.
        """
        share, stage = self._share(done), self._stage(done)
        progressive = [
            term for term, spec in self.terms if spec.progressive and self._stages[spec.stage] == stage
        ]
        if not progressive:
            return all_alike
        places = progressive[0].places
        turn = places[int(share * len(places))][0]
        return lambda layer: 0.0 if layer == 0 or layer > turn else 1.0 if layer == turn else FINISHED_RATE


def _part(values: torch.Tensor, spec: TermSpec, share: float) -> torch.Tensor:
    """A term's part of the loss: the mean of its places, or if it is progressive the one whose turn it is."""
    return spec.weight * (values[int(share * len(values))] if spec.progressive else values.mean())


def make_objective(
    planned: Plan,
    spec: ObjectiveSpec,
    student: Architecture,
    teacher: Architecture,
    words: TeacherHead | None,
    table: tuple[int, int],
    seed: int,
    pooling: Mode = "mean",
) -> Objective:
    """Builds what was planned.

    Args:
        planned: for this student.
        spec: what the user chose.
        student: its shape.
        teacher: its shape.
        words: the teacher's masked-LM head on the words in use, if the plan needs it.
        table: how many words are in use, and the width of the student's embedding of them.
        seed: of the projections' random weights, until they are fitted.
        pooling: how a text's vector is made of its last hidden states.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        widths = (student.hidden_size, teacher.hidden_size)
        head = MlmHead(student.hidden_size, table[1], table[0], "gelu", eps=1e-12)
        make = partial(
            _terms,
            spec=spec,
            widths=widths,
            heads=teacher.attention_heads,
            words=words,
            head=head,
            pooling=pooling,
        )
        terms = [(term, each.spec) for each in planned.terms for term in make(each)]
        probe = None
        if not _learns_hidden_states_throughout(spec, student, teacher):
            layers = [(), *layer_map("uniform+last", student.layers, teacher.layers)]
            probe = StateTerm(PROBE, "hidden", layers, widths, "per_layer")
    return Objective(terms, probe, spec.first_stage, partial(_meter, spec.yardstick, pooling, teacher.layers))


def _meter(
    yardstick: Yardstick | None, pooling: Mode, teacher_layers: int, hidden: StateTerm | None
) -> Meter | None:
    if yardstick == "vectors":
        return VectorsMeter(pooling, teacher_layers)
    return LastLayerMeter(hidden) if yardstick == "last_layer" and hidden is not None else None


def _learns_hidden_states_throughout(
    objective: ObjectiveSpec, student: Architecture, teacher: Architecture
) -> bool:
    """Those of every layer, from the first step to the last; as was asked for, not as is left of it.

    So all students of a run are judged alike, whatever terms some of them cannot learn by.
    """
    terms = terms_of(objective, student, teacher)
    first = next((term for term in terms if term.kind == HIDDEN), None)
    if first is None or first.progressive or len({term.stage for term in terms}) > 1:
        return False
    layers = layer_map(first.mapping or "uniform", student.layers, teacher.layers)
    if objective.yardstick == "last_layer" and teacher.layers not in layers[-1]:
        return False  # it would be judged by another teacher layer than the last
    return all(layers)


def _terms(
    planned: PlannedTerm,
    spec: ObjectiveSpec,
    widths: tuple[int, int],
    heads: int,
    words: TeacherHead | None,
    head: MlmHead,
    pooling: Mode,
) -> list[Term]:
    """One term, or three for relations."""
    name, layers, kind = planned.name, planned.layers, planned.spec.kind
    match kind:
        case "embedding" | "hidden" | "cosine" | "patience" | "feature_map":
            return [StateTerm(name, kind, layers, widths, spec.projection)]
        case "vector":
            return [StateTerm(name, kind, layers, widths, spec.projection, pooling)]
        case "similarity":
            return [SimilarityTerm(name, layers, pooling)]
        case "attention" | "attention_kl" | "attention_transfer":
            return [PairTerm(name, layers, _PAIRS[kind], "attention", heads)]
        case "value_relation":
            return [PairTerm(name, layers, _PAIRS[kind], "value", heads)]
        case "relations":
            cut = planned.spec.relation_heads
            return [
                PairTerm(name.replace(kind, f"{kind}-{of}"), layers, _PAIRS[kind], of, cut) for of in RELATED
            ]
        case "prediction" | "prediction_kl" | "masked_lm":
            place = (len(layers) - 1, layers[-1][0])
            teacher_words = None if kind == "masked_lm" else words
            return [WordTerm(name, kind, place, head, teacher_words, planned.spec.temperature)]


@torch.no_grad()
def fit(terms: Sequence[StateTerm], passes: Iterable[tuple[Pass, Batch]]) -> None:
    """Sets all projections of these terms to the least-squares solution for the student as it is.

    Args:
        terms: some of which may have no projections.
        passes: of the student, with their batches; not begun where no term has any.
    """
    if not any(term.projections for term in terms):
        return
    sums: dict[nn.Linear, _Sums] = {}
    for given, batch in passes:
        for term in terms:
            for layer, projection in term.projections.items():
                seen = term.picked(batch.real(given.hidden[layer]), batch)
                wanted = [term.picked(batch.teacher("hidden", t), batch) for t in term.layers[layer]]
                if projection not in sums:
                    sums[projection] = _Sums(projection)
                sums[projection].add(seen, torch.cat(wanted, dim=1))
    for projection, total in sums.items():
        total.solve(projection)


class _Sums:
    """X^T X and X^T Y over all tokens, X with a column of ones for the bias."""

    def __init__(self, projection: nn.Linear) -> None:
        size = projection.in_features + 1
        self.gram = torch.zeros(size, size, dtype=torch.float64)
        self.cross = torch.zeros(size, projection.out_features, dtype=torch.float64)

    def add(self, seen: torch.Tensor, wanted: torch.Tensor) -> None:
        """Takes in (tokens, H_S) states and what is wanted of them (tokens, H_T)."""
        columns = torch.cat([seen.double(), torch.ones(len(seen), 1, dtype=torch.float64)], dim=1)
        self.gram += columns.T @ columns
        self.cross += columns.T @ wanted.double()

    def solve(self, projection: nn.Linear) -> None:
        """Writes the solution into the projection."""
        ridge = RIDGE * self.gram.diagonal().mean()
        # one at a time: the batched solve fails on some builds of MKL
        weights = torch.linalg.solve(self.gram + ridge * torch.eye(len(self.gram)), self.cross).float()
        projection.weight.copy_(weights[:-1].T)
        projection.bias.copy_(weights[-1])
