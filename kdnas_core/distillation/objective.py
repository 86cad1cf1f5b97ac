"""The objective of one student: its loss terms with their weights and stages."""

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
from kdnas_core.models.mapping import HIDDEN, PROBE, layer_map
from kdnas_core.models.mlm_head import MlmHead, TeacherHead
from kdnas_core.models.pooling import Mode
from kdnas_core.models.targets import Batch
from kdnas_core.spec import ObjectiveSpec, TermSpec, Yardstick

_PAIRS = {
    "attention": losses.attention_mse,
    "attention_kl": losses.attention_kl,
    "attention_transfer": losses.attention_cross_entropy,
    "value_relation": losses.attention_kl,
    "relations": losses.attention_kl,
}

Places = dict[tuple[int, int], float]
FINISHED_RATE = 0.1  # share of the learning rate of a layer after its turn

RIDGE = 1e-4  # of the mean square of the student's states; makes least squares solvable


class Objective(nn.Module):
    """Loss terms with their weights, in one stage or two.

    If the terms do not train the hidden states of all layers throughout, a probe is added: an untrained term
    on hidden states, fitted by least squares before it is evaluated.

    Attributes:
        terms: with the spec of each.
        first_stage: share of the steps for the first stage; 1 if there is only one stage.
        probe_judges: whether the loss of the reward is read through the probe, if there is one.
    """

    def __init__(
        self,
        terms: list[tuple[Term, TermSpec]],
        probe: StateTerm | None,
        first_stage: float,
        meter: Callable[[StateTerm | None], Meter | None] = lambda hidden: None,
        probe_judges: bool = True,
    ) -> None:
        super().__init__()
        self.terms = terms
        self.probe_judges = probe_judges
        self._meter = meter
        self._usual: dict[str, float] = {}  # a term's `count` in an average batch
        self._probe = (probe,)  # in a tuple, so that it is not in `parameters` and not trained
        stages = {spec.stage for _, spec in terms}
        self.first_stage = first_stage if len(stages) == 2 else 1.0
        self._stages = {stage: place for place, stage in enumerate(sorted(stages))}
        self._registered = nn.ModuleList(term for term, _ in terms)  # so that `parameters` finds them

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Objective:
        """Moves the probe along."""
        if self.probe is not None:
            self.probe._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def loss(self, outputs: Pass, batch: Batch, done: float) -> torch.Tensor:
        """Computes the training loss: the weighted sum of the current stage's terms.

        Args:
            outputs: the student's forward pass on `batch`.
            batch: the texts with the teacher's outputs.
            done: share of all steps taken, 0 to below 1.
        """
        share = self._share(done)
        parts = [
            _part(term(outputs, batch), spec, share) * self._size(term, batch)
            for term, spec in self.terms
            if self._stages[spec.stage] == self._stage(done)
        ]
        return torch.stack(parts).sum()

    def _size(self, term: Term, batch: Batch) -> float:
        """The term's count in a batch relative to an average batch."""
        return term.count(batch) / self._usual[term.name] if self._usual else 1.0

    def weigh_alike(self, batches: Sequence[Batch], batch_size: int) -> None:
        """Gives each token the same weight in batches of long and of short texts, as in an evaluation.

        Args:
            batches: a sample of the training texts.
            batch_size: of training, in texts.
        """
        texts = sum(len(batch.mask) for batch in batches)
        for term, _ in self.terms:
            count = max(1, sum(term.count(batch) for batch in batches))
            self._usual[term.name] = count / texts * batch_size

    def _share(self, done: float) -> float:
        """The share of the current stage that is done."""
        begin, end = (self.first_stage, 1.0) if self._stage(done) else (0.0, self.first_stage)
        return (done - begin) / (end - begin)

    def _stage(self, done: float) -> int:
        """0 for the first stage, 1 for the second."""
        return int(done >= self.first_stage and len(self._stages) == 2)

    @property
    def probe(self) -> StateTerm | None:
        """The probe, if any."""
        return self._probe[0]

    def meter(self) -> Meter | None:
        """Returns a new meter of the yardstick; None if that is the mean over layers."""
        return self._meter(self.hidden)

    @property
    def hidden(self) -> StateTerm | None:
        """The term on hidden states: the probe, else the trained term."""
        trained = (term for term, _ in self.terms if term.name == HIDDEN and isinstance(term, StateTerm))
        return self.probe or next(trained, None)

    def all_terms(self, with_probe: bool = True) -> list[Term]:
        """Returns the terms, and the probe if there is one."""
        return [*(term for term, _ in self.terms), *([self.probe] if self.probe and with_probe else [])]

    def fit(self, passes: Iterable[tuple[Pass, Batch]]) -> None:
        """Fits all projections to the student by least squares."""
        fit([term for term in self.all_terms() if isinstance(term, StateTerm)], passes)

    def fit_idle(self, passes: Iterable[tuple[Pass, Batch]], done: float, with_probe: bool = True) -> None:
        """Fits the projections that are not trained: the probe's, and those of a past first stage.

        Otherwise a term of the first stage would seem to get worse in the second, since its projections no
        longer follow the student. Trained projections are not changed, so an evaluation changes no training.
        """
        past = [term for term, spec in self.terms if self._stages[spec.stage] < self._stage(done)]
        idle = [*past, *([self.probe] if with_probe else [])]
        fit([term for term in idle if isinstance(term, StateTerm)], passes)

    def begins_second_stage(self, done: float, before: float) -> bool:
        """Returns whether the second stage begins between two shares of the steps."""
        return self._stage(done) > self._stage(before)

    def fit_second_stage(self, passes: Iterable[tuple[Pass, Batch]]) -> None:
        """Fits the projections of the second stage to the student after the first."""
        second = [term for term, spec in self.terms if self._stages[spec.stage] == 1]
        fit([term for term in second if isinstance(term, StateTerm)], passes)

    def rates(self, done: float) -> LayerRates:
        """Returns the rates of the student's layers; they differ only for progressive terms.

        As in MobileBERT's published code, the layer of the current turn has the full rate, layers before it a
        tenth, later layers and the embeddings 0.
        """
        share, stage = self._share(done), self._stage(done)
        progressive = [
            term for term, spec in self.terms if spec.progressive and self._stages[spec.stage] == stage
        ]
        if not progressive:
            return all_alike
        places = progressive[0].places
        turn = places[int(share * len(places))][0]
        if turn == 0:  # a static student has no other layer
            return all_alike
        return lambda layer: 0.0 if layer == 0 or layer > turn else 1.0 if layer == turn else FINISHED_RATE


def _part(values: torch.Tensor, spec: TermSpec, share: float) -> torch.Tensor:
    """A term's part of the loss: the mean of its values, or the current turn's if it is progressive."""
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
    """Makes the objective of a plan.

    Args:
        planned: the plan of the student.
        spec: the objective's spec.
        student: its shape.
        teacher: its shape.
        words: the teacher's masked-LM head on the words in use, if the plan needs it.
        table: number of words in use, and width of the student's word embedding.
        seed: of the projections' random weights, until they are fitted.
        pooling: of the sentence vectors.
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
            if student.is_static:
                layers = [(teacher.layers,)]
            probe = StateTerm(PROBE, "hidden", layers, widths, "per_layer")
    meter = partial(_meter, spec.yardstick, pooling, teacher.layers)
    return Objective(terms, probe, spec.first_stage, meter, probe_judges=spec.yardstick != "vectors")


def _meter(
    yardstick: Yardstick | None, pooling: Mode, teacher_layers: int, hidden: StateTerm | None
) -> Meter | None:
    if yardstick == "vectors":
        return VectorsMeter(pooling, teacher_layers)
    return LastLayerMeter(hidden) if yardstick == "last_layer" and hidden is not None else None


def _learns_hidden_states_throughout(
    objective: ObjectiveSpec, student: Architecture, teacher: Architecture
) -> bool:
    """Whether the objective trains the hidden states of every layer, from the first step to the last.

    Terms that a student cannot learn by count too, so that all students of a run are judged alike.
    """
    terms = terms_of(objective, student, teacher)
    first = next((term for term in terms if term.kind == HIDDEN), None)
    if first is None or first.progressive or len({term.stage for term in terms}) > 1:
        return False
    if student.is_static:
        return True
    layers = layer_map(first.mapping or "uniform", student.layers, teacher.layers)
    if objective.yardstick == "last_layer" and teacher.layers not in layers[-1]:
        return False  # it would be evaluated on another teacher layer than the last
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
    """Makes one term, or three for relations."""
    name, layers, kind = planned.name, planned.layers, planned.spec.kind
    match kind:
        case "embedding" | "hidden" | "cosine" | "patience" | "feature_map":
            return [StateTerm(name, kind, layers, widths, spec.projection)]
        case "vector" | "vector_mse":
            return [StateTerm(name, kind, layers, widths, spec.projection, pooling)]
        case "similarity":
            return [SimilarityTerm(name, layers, losses.similarity_error, pooling)]
        case "contrastive":
            soft = partial(losses.contrastive_kl, temperature=planned.spec.temperature)
            return [SimilarityTerm(name, layers, soft, pooling)]
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
    """Sets all projections of these terms to the least-squares solution for the student.

    Args:
        terms: with or without projections.
        passes: of the student, with their batches; not read if no term has a projection.
    """
    if not any(term.projections for term in terms):
        return
    sums: dict[nn.Linear, _Sums] = {}
    for outputs, batch in passes:
        for term in terms:
            for layer, projection in term.projections.items():
                states = term.picked(batch.real(outputs.hidden[layer]), batch)
                targets = [term.picked(batch.teacher("hidden", t), batch) for t in term.layers[layer]]
                if projection not in sums:
                    sums[projection] = _Sums(projection)
                sums[projection].add(states, torch.cat(targets, dim=1))
    for projection, total in sums.items():
        total.solve(projection)


class _Sums:
    """X^T X and X^T Y over all tokens, X with a column of ones for the bias.

    Summed in float64 on the processor, since not all devices have it; the products of a batch are in float32,
    whose rounding is far below the ridge.
    """

    def __init__(self, projection: nn.Linear) -> None:
        size = projection.in_features + 1
        self.gram = torch.zeros(size, size, dtype=torch.float64)
        self.cross = torch.zeros(size, projection.out_features, dtype=torch.float64)

    def add(self, states: torch.Tensor, targets: torch.Tensor) -> None:
        """Adds (tokens, H_S) states and their (tokens, H_T) targets."""
        columns = torch.cat([states, torch.ones(len(states), 1, device=states.device)], dim=1)
        self.gram += (columns.T @ columns).cpu()
        self.cross += (columns.T @ targets).cpu()

    def solve(self, projection: nn.Linear) -> None:
        """Writes the solution into the projection."""
        ridge = RIDGE * self.gram.diagonal().mean()
        # one at a time: the batched solve fails on some builds of MKL
        weights = torch.linalg.solve(self.gram + ridge * torch.eye(len(self.gram)), self.cross).float()
        projection.weight.copy_(weights[:-1].T)
        projection.bias.copy_(weights[-1])
