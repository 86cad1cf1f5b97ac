"""Each term of a real student and teacher against a reference in Python's own floats, token by token."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from kdnas_core.architecture import Architecture
from kdnas_core.data.tokens import NOT_HIDDEN
from kdnas_core.distillation.losses import similarity_error
from kdnas_core.distillation.objective import Objective, make_objective
from kdnas_core.distillation.plan import TeacherProfile, plan
from kdnas_core.distillation.terms import PairTerm, Pass, SimilarityTerm, StateTerm, Term, WordTerm
from kdnas_core.models.capture import capture
from kdnas_core.models.mapping import layer_map
from kdnas_core.models.pooling import Mode
from kdnas_core.models.student import new_student
from kdnas_core.models.targets import Batch, Kind, Targets, make_batch
from kdnas_core.models.teacher import Teacher
from kdnas_core.models.vocabulary import Vocabulary
from kdnas_core.spec import SOFTENED, WITHOUT_MAPPING, ObjectiveSpec
from tests.tiny import (
    everything_of,
    made_up_targets,
    made_up_words,
    objective_of,
    targets_of,
    teacher_of,
    whole_vocabulary,
)

Vector = list[float]
Text = list[Vector]  # of each position
States = list[Text]  # of each text

LAYERS = 3
TEXTS = 5
STATES = ("embedding", "hidden", "cosine", "patience", "feature_map", "vector", "vector_mse")
PAIRS = ("attention", "attention_kl", "attention_transfer", "value_relation", "relations")
WORDS = ("prediction", "prediction_kl", "masked_lm")
SIMILARITIES = ("similarity", "contrastive")
KINDS = (*STATES, *PAIRS, *WORDS, *SIMILARITIES)
# one kind for each treatment of padding; the real tokens of a kind are compared with its reference
PADDED = ("hidden", "vector", "attention", "attention_kl", "attention_transfer", "prediction", *SIMILARITIES)
WIDTHS = [24, 32]  # narrower than the teacher, and as wide


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.fixture(scope="module")
def targets(teacher: Teacher, texts: list[str]) -> Targets:
    return targets_of(teacher, [*texts[:3], "Short words.", texts[4]], 14, everything_of(teacher))


@pytest.fixture(scope="module")
def vocabulary(teacher: Teacher) -> Vocabulary:
    return whole_vocabulary(teacher)


@pytest.fixture
def batch(targets: Targets) -> Batch:
    batch = make_batch(targets, [4, 3, 0, 2, 1], pad=0)
    assert not batch.mask.bool().all()  # of unequal lengths, or else there is no padding
    assert (batch.labels != NOT_HIDDEN).sum() > 3
    return batch


def a_student(teacher: Teacher, width: int = 24) -> PreTrainedModel:
    return new_student(teacher, Architecture(LAYERS, width, 48, 4), seed=3)


def an_objective(kind: str, teacher: Teacher, vocabulary: Vocabulary, width: int = 24) -> Objective:
    term: dict[str, Any] = {"kind": kind}
    if kind not in WITHOUT_MAPPING:
        term["mapping"] = "uniform+last"
    if kind == "relations":
        term["relation_heads"] = 8
    if kind in SOFTENED:
        term["temperature"] = 0.2 if kind == "contrastive" else 2.5
    # masked-LM needs something of the teacher beside it
    listed = [term, *([{"kind": "hidden"}] if kind == "masked_lm" else [])]
    spec = ObjectiveSpec.model_validate({"recipe": "custom", "terms": listed})
    return objective_of(spec, Architecture(LAYERS, width, 48, 4), teacher, vocabulary)


def terms_of_kind(objective: Objective, kind: str) -> list[Term]:
    """The one term of the kind, or the three of relations."""
    terms = [term for term, spec in objective.terms if spec.kind == kind]
    assert len(terms) == (3 if kind == "relations" else 1)
    return terms


@contextmanager
def reading(student: PreTrainedModel) -> Iterator[Callable[[torch.Tensor, torch.Tensor], Pass]]:
    """A function that runs a student on token ids under a mask."""
    table = student.get_input_embeddings().weight
    assert isinstance(table, torch.Tensor)
    with capture(student) as captured:

        def read(ids: torch.Tensor, mask: torch.Tensor) -> Pass:
            output = student(input_ids=ids, attention_mask=mask, output_hidden_states=True)
            return Pass(output.hidden_states, captured, table)

        yield read


# The reference


def of_student(states: torch.Tensor, batch: Batch) -> States:
    lengths = batch.mask.sum(1).tolist()
    return [text[:length].double().tolist() for text, length in zip(states, lengths, strict=True)]


def of_teacher(batch: Batch, kind: Kind, layer: int) -> States:
    lengths = batch.mask.sum(1).tolist()
    return [text.double().tolist() for text in batch.teacher(kind, layer).split(lengths)]


def dot(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def linear(layer: nn.Linear, vector: Vector) -> Vector:
    weight, bias = layer.weight.double().tolist(), layer.bias.double().tolist()
    return [dot(row, vector) + shift for row, shift in zip(weight, bias, strict=True)]


def normed(vector: Vector, epsilon: float) -> Vector:
    mean = sum(vector) / len(vector)
    variance = sum((x - mean) ** 2 for x in vector) / len(vector)
    return [(x - mean) / math.sqrt(variance + epsilon) for x in vector]


def softmax(scores: Vector) -> Vector:
    top = max(scores)
    total = sum(math.exp(score - top) for score in scores)
    return [math.exp(score - top) / total for score in scores]


def mean_square(one: Vector, other: Vector) -> float:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) / len(one)


def cosine(one: Vector, other: Vector) -> float:
    return dot(one, other) / math.sqrt(dot(one, one) * dot(other, other))


def unit(vector: Vector) -> Vector:
    return [x / math.sqrt(dot(vector, vector)) for x in vector]


def moments(vector: Vector) -> tuple[float, float]:
    mean = sum(vector) / len(vector)
    return mean, sum((x - mean) ** 2 for x in vector) / len(vector)


def mobilebert(mine: Vector, theirs: Vector) -> float:
    (my_mean, my_variance), (their_mean, their_variance) = moments(mine), moments(theirs)
    shape = mean_square(normed(mine, 1e-5), normed(theirs, 1e-5))
    return 100 * shape + 5000 * (my_mean - their_mean) ** 2 + 5 * abs(my_variance - their_variance)


BY_TOKEN: dict[str, Callable[[Vector, Vector], float]] = {
    "embedding": mean_square,
    "hidden": mean_square,
    "cosine": lambda mine, theirs: 1 - cosine(mine, theirs),
    "patience": lambda mine, theirs: mean_square(unit(mine), unit(theirs)),
    "feature_map": mobilebert,
    "vector": lambda mine, theirs: 1 - cosine(mine, theirs),
    "vector_mse": mean_square,
}


def pooled_by_loops(text: Text, mode: Mode) -> Vector:
    """The vector of a text of real tokens."""
    if mode == "cls":
        return text[0]
    columns = list(zip(*text, strict=True))
    return [max(column) if mode == "max" else math.fsum(column) / len(text) for column in columns]


def states_by_loops(term: StateTerm, given: Pass, batch: Batch) -> list[float]:
    values = []
    for place, (layer, teacher_layer) in enumerate(term.places):
        role = [at for at, _ in term.places[:place]].count(layer)  # which of the layer's teacher layers
        found = []
        mine, theirs = of_student(given.hidden[layer], batch), of_teacher(batch, "hidden", teacher_layer)
        if term.kind in ("vector", "vector_mse"):
            mine, theirs = (
                [[pooled_by_loops(text, term.pooling)] for text in some] for some in (mine, theirs)
            )
        for my_text, their_text in zip(mine, theirs, strict=True):
            for position, (one, other) in enumerate(zip(my_text, their_text, strict=True)):
                if term.kind == "patience" and position:
                    continue
                if layer in term.projections:
                    one = linear(term.projections[layer], one)[role * 32 : (role + 1) * 32]
                found.append(BY_TOKEN[term.kind](one, other))
        value = sum(found) / len(found)
        if term.kind in ("hidden", "embedding"):
            value /= float(batch.variance[teacher_layer])
        if term.kind == "vector_mse":
            columns = zip(*(text[0] for text in theirs), strict=True)
            value /= math.fsum(moments(list(column))[1] for column in columns) / len(theirs[0][0])
        values.append(value)
    return values


def similarities_by_loops(
    term: SimilarityTerm, given: Pass, batch: Batch, kind: str = "similarity"
) -> list[float]:
    values = []
    for layer, teacher_layer in term.places:
        sides = of_student(given.hidden[layer], batch), of_teacher(batch, "hidden", teacher_layer)
        mine, theirs = ([pooled_by_loops(text, term.pooling) for text in side] for side in sides)
        if kind == "contrastive":
            values.append(nearest_by_loops(mine, theirs))
            continue
        pairs = [(one, other) for one in range(len(mine)) for other in range(one)]
        wanted = [cosine(theirs[one], theirs[other]) for one, other in pairs]
        given_them = [cosine(mine[one], mine[other]) for one, other in pairs]
        _, variance = moments(wanted)
        values.append(mean_square(given_them, wanted) / max(variance, 1e-3))
    return values


def nearest_by_loops(mine: Text, theirs: Text) -> float:
    """The mean over texts of KL from the teacher's distribution over the other texts to the student's."""
    found = []
    for one in range(len(mine)):
        others = [other for other in range(len(mine)) if other != one]
        p, q = (
            softmax([cosine(some[one], some[other]) / 0.2 for other in others]) for some in (theirs, mine)
        )
        found.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    return sum(found) / len(found)


def by_attention(kind: str, mine: Vector, theirs: Vector) -> float:
    """Computes the loss of one query from its scores for all keys."""
    p, q = softmax(theirs), softmax(mine)
    if kind == "attention_transfer":
        return -sum(a * math.log(b) for a, b in zip(p, q, strict=True))
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def pairs_by_loops(kind: str, term: PairTerm, given: Pass, batch: Batch) -> list[float]:
    captured = given.captured
    mine = {"query": captured.queries, "key": captured.keys, "value": captured.values}
    left, right = ("query", "key") if term.of == "attention" else (term.of, term.of)
    heads = 8 if kind == "relations" else 4
    values = []
    for layer, teacher_layer in term.places:
        sides = [
            (of_student(mine[left][layer - 1], batch), of_student(mine[right][layer - 1], batch)),
            (of_teacher(batch, left, teacher_layer), of_teacher(batch, right, teacher_layer)),  # type: ignore[arg-type]
        ]
        found = []
        for text in range(len(batch.mask)):
            for head in range(heads):
                for query in range(int(batch.mask[text].sum())):
                    rows = [scores_of(one[text], other[text], query, head, heads) for one, other in sides]
                    if kind == "attention":
                        found += [(a - b) ** 2 for a, b in zip(*rows, strict=True)]
                    else:
                        found.append(by_attention(kind, *rows))
        values.append(sum(found) / len(found))
    return values


def scores_of(queries: Text, keys: Text, query: int, head: int, heads: int) -> Vector:
    """Computes the scores of one query for each key, in one head."""
    size = len(queries[0]) // heads
    part = slice(head * size, (head + 1) * size)
    return [dot(queries[query][part], key[part]) / math.sqrt(size) for key in keys]


def logits_by_loops(head: Any, table: torch.Tensor, state: Vector) -> Vector:
    dense = [x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in linear(head.dense, state)]
    gain, shift = head.norm.weight.double().tolist(), head.norm.bias.double().tolist()
    seen = [x * a + b for x, a, b in zip(normed(dense, 1e-12), gain, shift, strict=True)]
    bias = head.bias.double().tolist()
    return [dot(row, seen) + b for row, b in zip(table.double().tolist(), bias, strict=True)]


def words_by_loops(
    kind: str, term: WordTerm, given: Pass, batch: Batch, teacher: Teacher, vocabulary: Vocabulary
) -> list[float]:
    mine = [state for text in of_student(given.hidden[-1], batch) for state in text]
    theirs = [state for text in of_teacher(batch, "hidden", 4) for state in text]
    words = made_up_words(teacher, vocabulary)
    found = []
    for place, label in enumerate(batch.labels.tolist()):
        if label == NOT_HIDDEN:
            continue
        scores = logits_by_loops(term.head, given.table, mine[place])
        if kind == "masked_lm":
            found.append(-math.log(softmax(scores)[label]))
            continue
        wanted = logits_by_loops(words.head, words.table, theirs[place])
        q, p = (softmax([score / 2.5 for score in some]) for some in (scores, wanted))
        entropy = sum(a * math.log(a) for a in p if a > 0)
        crossed = -sum(a * math.log(b) for a, b in zip(p, q, strict=True))
        found.append(crossed if kind == "prediction" else (crossed + entropy) * 2.5**2)
    return [sum(found) / len(found)]


def by_loops(
    kind: str, term: Term, given: Pass, batch: Batch, teacher: Teacher, vocabulary: Vocabulary
) -> list[float]:
    if isinstance(term, StateTerm):
        return states_by_loops(term, given, batch)
    if isinstance(term, PairTerm):
        return pairs_by_loops(kind, term, given, batch)
    if isinstance(term, SimilarityTerm):
        return similarities_by_loops(term, given, batch, kind)
    assert isinstance(term, WordTerm)
    return words_by_loops(kind, term, given, batch, teacher, vocabulary)


@pytest.mark.parametrize(
    ("kind", "width"), [*((kind, 24) for kind in KINDS), *((kind, 32) for kind in STATES)]
)
def test_a_term_is_the_loss_that_is_written_in_its_paper(
    kind: str, width: int, teacher: Teacher, batch: Batch, vocabulary: Vocabulary
) -> None:
    objective = an_objective(kind, teacher, vocabulary, width)
    with reading(a_student(teacher, width)) as read, torch.no_grad():
        given = read(batch.ids, batch.mask)
        for term in terms_of_kind(objective, kind):
            expected = by_loops(kind, term, given, batch, teacher, vocabulary)
            assert min(expected) > 1e-4
            assert term(given, batch).tolist() == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_the_three_relations_are_of_queries_of_keys_and_of_values(
    teacher: Teacher, vocabulary: Vocabulary
) -> None:
    terms = terms_of_kind(an_objective("relations", teacher, vocabulary), "relations")
    assert [term.name for term in terms] == ["relations-query", "relations-key", "relations-value"]
    for term, of in zip(terms, ("query", "key", "value"), strict=True):
        assert term.reads == {(of, teacher_layer) for _, teacher_layer in term.places}


@pytest.mark.parametrize("kind", KINDS)
def test_a_term_reads_of_the_teacher_what_the_plan_has_it_read(
    kind: str, teacher: Teacher, batch: Batch, vocabulary: Vocabulary
) -> None:
    objective = an_objective(kind, teacher, vocabulary)
    attention, values = {"query", "key"}, {"value"}
    expected = {"value_relation": values, "relations": attention | values}.get(kind, attention)
    read = set().union(*(term.reads for term in terms_of_kind(objective, kind)))
    assert {of for of, _ in read} == (expected if kind in PAIRS else set())


@pytest.mark.parametrize("kind", KINDS)
def test_a_term_gives_one_value_for_each_of_its_places(
    kind: str, teacher: Teacher, batch: Batch, vocabulary: Vocabulary
) -> None:
    # layer 1 of 3 learns layers 1 and 2 of 4, layer 2 layers 2 and 3, layer 3 twice the last
    layers = [(1, 1), (1, 2), (2, 2), (2, 3), (3, 4), (3, 4)]
    places = [(0, 0)] if kind == "embedding" else [(4, 5)] if kind in WORDS else layers
    with reading(a_student(teacher)) as read, torch.no_grad():
        given = read(batch.ids, batch.mask)
        for term in terms_of_kind(an_objective(kind, teacher, vocabulary), kind):
            assert term.places == places
            assert term(given, batch).shape == (len(places),)


MODES: tuple[Mode, ...] = ("mean", "cls", "max")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("width", WIDTHS)
def test_vectors_are_pooled_as_the_teachers_are(mode: Mode, width: int, targets: Targets) -> None:
    batch = make_batch(targets, [4, 3, 0, 2, 1], pad=0)
    torch.manual_seed(0)
    states = [torch.randn(*batch.ids.shape, width) for _ in range(3)]
    given = Pass(states, None, states[0])  # type: ignore[arg-type]
    mapping = [(), (2, 3), (4,)]
    vector = StateTerm("vector", "vector", mapping, (width, 32), "per_layer", mode)
    similarity = SimilarityTerm("similarity", mapping, similarity_error, mode)
    with torch.no_grad():
        values = vector(given, batch).tolist(), similarity(given, batch).tolist()
    assert values[0] == pytest.approx(states_by_loops(vector, given, batch), rel=1e-5)
    assert values[1] == pytest.approx(similarities_by_loops(similarity, given, batch), rel=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_the_mode_of_the_teacher_reaches_the_terms_of_vectors(
    mode: Mode, teacher: Teacher, vocabulary: Vocabulary
) -> None:
    spec = ObjectiveSpec(recipe="vectors")
    student = Architecture(LAYERS, 24, 48, 4)
    given = TeacherProfile(teacher.architecture, predicts_words=False, hides_words=False, pooling=mode)
    planned = plan(spec, student, given)
    table = (len(vocabulary.rows), 24)
    objective = make_objective(planned, spec, student, teacher.architecture, None, table, 0, given.pooling)
    hidden, vector, similarity = (term for term, _ in objective.terms)
    assert isinstance(hidden, StateTerm) and hidden.kind == "hidden"
    assert isinstance(vector, StateTerm) and vector.kind == "vector"
    assert isinstance(similarity, SimilarityTerm)
    assert (vector.pooling, similarity.pooling) == (mode, mode)


# Projections


@pytest.mark.parametrize("kind", STATES)
def test_states_go_through_a_projection_where_widths_differ_or_the_method_has_one(
    kind: str, teacher: Teacher, vocabulary: Vocabulary
) -> None:
    for width, always in ((24, True), (32, kind in ("hidden", "embedding"))):
        (term,) = terms_of_kind(an_objective(kind, teacher, vocabulary, width), kind)
        assert isinstance(term, StateTerm)
        assert (list(term.parameters()) != []) == always


def a_state_term(projection: Literal["per_layer", "shared"]) -> StateTerm:
    torch.manual_seed(0)
    return StateTerm("hidden", "hidden", [(), (3, 5), (3, 5), (), (6,)], (4, 6), projection)


def test_the_optimiser_is_given_every_projection_once() -> None:
    assert len(list(a_state_term("per_layer").parameters())) == 6  # a weight and a bias for each layer
    # layers of two teacher layers share one, and a layer of one has another
    assert len(list(a_state_term("shared").parameters())) == 4


def test_a_shared_projection_is_one_for_all_layers_and_others_are_each_layers_own() -> None:
    batch = make_batch(made_up_targets(0, [3, 7, 1], 6, 6), range(3), pad=0)
    state = torch.randn(3, 7, 4)
    given = Pass([state] * 5, None, state)  # type: ignore[arg-type]  # no attention is read
    # layers 1 and 2 learn the same teacher layers, so that equal states must give equal values
    shared = a_state_term("shared")(given, batch)
    assert torch.equal(shared[:2], shared[2:4])
    own = a_state_term("per_layer")(given, batch)
    assert not torch.equal(own[:2], own[2:4])


@pytest.mark.parametrize("projection", ["per_layer", "shared"])
@pytest.mark.parametrize("seed", range(2))
def test_hidden_states_of_any_depth_and_length_follow_the_written_method(
    projection: Literal["per_layer", "shared"], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    lengths, layers = rng.integers(1, 9, 5).tolist(), int(rng.integers(1, 7))
    batch = make_batch(made_up_targets(seed, lengths, 6, 32), range(5), pad=0)
    torch.manual_seed(seed)
    mapping = [(), *layer_map("uniform+last", layers, 6)]
    term = StateTerm("hidden", "hidden", mapping, (4, 32), projection)
    states = [torch.randn(*batch.ids.shape, 4) for _ in range(layers + 1)]
    given = Pass(states, None, states[0])  # type: ignore[arg-type]
    assert len(term.places) == 2 * layers
    assert term(given, batch).tolist() == pytest.approx(states_by_loops(term, given, batch), rel=1e-5)


def test_a_student_that_predicts_the_mean_scores_one(teacher: Teacher, texts: list[str]) -> None:
    targets = targets_of(teacher, texts[:40])
    term = StateTerm("hidden", "hidden", [(0,), (1, 3), (2, 4)], (7, 32), "per_layer")
    with torch.no_grad():
        for layer, linear in term.projections.items():
            linear.weight.zero_()
            means = [targets.outputs["hidden", of].astype(np.float64).mean(0) for of in term.layers[layer]]
            linear.bias.copy_(torch.from_numpy(np.concatenate(means)))
    batch = make_batch(targets, range(40), pad=0)
    states = [torch.randn(*batch.ids.shape, 7)] * 3
    values = term(Pass(states, None, states[0]), batch)  # type: ignore[arg-type]
    torch.testing.assert_close(values, torch.ones(5), atol=1e-3, rtol=0)


# Padding


@pytest.mark.parametrize("kind", [kind for kind in PADDED if kind not in SIMILARITIES])  # a text has none
def test_a_batch_is_the_mean_of_its_texts_each_by_what_it_counts(
    kind: str, teacher: Teacher, targets: Targets, batch: Batch, vocabulary: Vocabulary
) -> None:
    objective = an_objective(kind, teacher, vocabulary)
    with reading(a_student(teacher)) as read, torch.no_grad():
        for term in terms_of_kind(objective, kind):
            totals, count = torch.zeros(len(term.places)), 0
            for text in range(TEXTS):
                alone = make_batch(targets, [text], pad=0)
                totals += term(read(alone.ids, alone.mask), alone) * term.count(alone)
                count += term.count(alone)
            assert count == term.count(batch)
            together = term(read(batch.ids, batch.mask), batch)
            torch.testing.assert_close(together, totals / count, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", PADDED)
def test_neither_more_padding_nor_other_tokens_there_change_a_value(
    kind: str, teacher: Teacher, batch: Batch, vocabulary: Vocabulary
) -> None:
    objective = an_objective(kind, teacher, vocabulary)
    pad = nn.functional.pad
    ids = torch.where(batch.mask.bool(), batch.ids, 123)
    longer = Batch(
        pad(ids, (0, 8), value=77), pad(batch.mask, (0, 8)), batch.labels, batch.variance, batch.teacher
    )
    with reading(a_student(teacher)) as read, torch.no_grad():
        for term in terms_of_kind(objective, kind):
            expected = term(read(batch.ids, batch.mask), batch)
            torch.testing.assert_close(
                term(read(longer.ids, longer.mask), longer), expected, rtol=1e-5, atol=1e-6
            )


@pytest.mark.parametrize("kind", PADDED)
def test_whatever_a_student_makes_of_padding_changes_no_value(
    kind: str, teacher: Teacher, batch: Batch, vocabulary: Vocabulary
) -> None:
    def spoilt(states: torch.Tensor) -> torch.Tensor:
        return torch.where(batch.mask[..., None].bool(), states, 1e6)

    with reading(a_student(teacher)) as read, torch.no_grad():
        for term in terms_of_kind(an_objective(kind, teacher, vocabulary), kind):
            given = read(batch.ids, batch.mask)
            expected = term(given, batch)
            for kept in (given.captured.queries, given.captured.keys, given.captured.values):
                kept[:] = map(spoilt, kept)
            other = Pass([spoilt(state) for state in given.hidden], given.captured, given.table)
            assert torch.equal(term(other, batch), expected)


@pytest.mark.parametrize("kind", WORDS)
def test_a_batch_without_a_hidden_word_is_worth_nothing_and_counts_nothing(
    kind: str, teacher: Teacher, targets: Targets, vocabulary: Vocabulary
) -> None:
    batch = make_batch(targets, [3], pad=0)
    batch.labels.fill_(NOT_HIDDEN)
    student = a_student(teacher)
    with reading(student) as read:
        (term,) = terms_of_kind(an_objective(kind, teacher, vocabulary), kind)
        value = term(read(batch.ids, batch.mask), batch)
        assert (value.tolist(), term.count(batch)) == ([0.0], 0)
        value.sum().backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in student.parameters())


def test_counts_are_tokens_texts_queries_pairs_or_hidden_words(
    teacher: Teacher, batch: Batch, vocabulary: Vocabulary
) -> None:
    lengths = batch.mask.sum(1).tolist()
    tokens = sum(lengths)
    expected = dict.fromkeys(KINDS, tokens) | {
        **dict.fromkeys(("patience", "vector", "vector_mse", *SIMILARITIES), TEXTS),
        "attention": sum(length**2 for length in lengths),
        **dict.fromkeys(WORDS, int((batch.labels != NOT_HIDDEN).sum())),
    }
    for kind in KINDS:
        for term in terms_of_kind(an_objective(kind, teacher, vocabulary), kind):
            assert term.count(batch) == expected[kind], kind


# Gradients


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_student_and_what_is_learnt_with_it_but_never_the_teacher(
    kind: str, teacher: Teacher, batch: Batch, vocabulary: Vocabulary
) -> None:
    student, objective = a_student(teacher), an_objective(kind, teacher, vocabulary)
    with reading(student) as read:
        given = read(batch.ids, batch.mask)
        terms = terms_of_kind(objective, kind)
        torch.cat([term(given, batch) for term in terms]).sum().backward()
    words = student.get_input_embeddings().weight
    assert isinstance(words, nn.Parameter) and words.grad is not None
    assert words.grad.abs().sum() > 0
    for term in terms:
        for name, weight in term.named_parameters():
            assert weight.grad is not None and weight.grad.abs().sum() > 0, name
    assert all(weight.grad is None and not weight.requires_grad for weight in teacher.model.parameters())
    assert not any(batch.teacher("hidden", layer).requires_grad for layer in range(5))
    for term in terms:
        head = term._teacher if isinstance(term, WordTerm) else None
        if head is not None:
            assert not head.table.requires_grad
            assert all(weight.grad is None and not weight.requires_grad for weight in head.head.parameters())


def test_of_all_terms_together_nothing_of_the_student_is_left_without_a_gradient(
    teacher: Teacher, batch: Batch, vocabulary: Vocabulary
) -> None:
    student = a_student(teacher)
    with reading(student) as read:
        for kind in KINDS:
            for term in terms_of_kind(an_objective(kind, teacher, vocabulary), kind):
                term(read(batch.ids, batch.mask), batch).sum().backward()
    unmoved = {
        name
        for name, weight in student.named_parameters()
        if weight.grad is None or not weight.grad.abs().sum() > 0
    }
    assert {name for name in unmoved if "pooler" not in name} == set()  # no hidden state passes through it


def test_the_parameters_of_a_term_of_words_are_the_students_head_alone(
    teacher: Teacher, vocabulary: Vocabulary
) -> None:
    (term,) = terms_of_kind(an_objective("prediction", teacher, vocabulary), "prediction")
    names = {name for name, _ in term.named_parameters()}
    assert names == {
        "head.dense.weight",
        "head.dense.bias",
        "head.norm.weight",
        "head.norm.bias",
        "head.bias",
    }
