"""Each loss against a reference in Python's own floats, which are float64: loops, and `math` for scalars."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from kdnas_core.data.tokens import NOT_HIDDEN
from kdnas_core.distillation.losses import (
    attention_cross_entropy,
    attention_kl,
    attention_mse,
    contrastive_kl,
    cosine_distance,
    distribution_kl,
    feature_map,
    masked_lm,
    normalised_distance,
    normalised_mse,
    relation_scores,
    similarity_error,
    soft_cross_entropy,
)
from kdnas_core.errors import BadInput
from kdnas_core.models.capture import check_relation_heads, dot_scores
from kdnas_core.models.pooling import Mode
from kdnas_core.models.targets import pooled
from tests.sentences import is_one_sentence

Rows = list[list[float]]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
MaskedLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

SEEDS = range(8)


def random_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sizes(random: torch.Generator, *limits: int) -> list[int]:
    """As many whole numbers, from 1 to each limit."""
    return [int(torch.randint(1, limit + 1, (), generator=random)) for limit in limits]


def close(value: float) -> Any:
    return pytest.approx(value, rel=1e-5, abs=1e-5)


# Losses of single tokens


def by_loops(prediction: torch.Tensor, target: torch.Tensor, variance: float) -> float:
    total, count = 0.0, 0
    for mine, theirs in zip(prediction.tolist(), target.tolist(), strict=True):
        for one, other in zip(mine, theirs, strict=True):
            total += (one - other) ** 2
            count += 1
    return total / count / variance


@pytest.mark.parametrize("seed", range(8))
def test_the_loss_is_the_mean_squared_error_over_the_variance(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    tokens, width = (int(torch.randint(1, 12, (), generator=random)) for _ in range(2))
    prediction, target = (torch.randn(tokens, width, generator=random) for _ in range(2))
    loss = normalised_mse(prediction, target, variance=0.3 + seed)
    assert loss.item() == pytest.approx(by_loops(prediction, target, 0.3 + seed), rel=1e-5)


def test_predicting_the_mean_scores_one_however_large_the_target() -> None:
    for scale in (1e-3, 1.0, 1e3):
        target = 5 + scale * torch.randn(
            500, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        mean = target.mean(0).expand_as(target)
        variance = target.var(0, correction=0).mean().item()
        assert normalised_mse(mean, target, variance).item() == pytest.approx(1)


def test_predicting_the_target_scores_zero() -> None:
    target = torch.randn(5, 3)
    assert normalised_mse(target.clone(), target, 0.7).item() == 0


def mean_over_tokens(mine: Rows, theirs: Rows, of_one: Callable[[list[float], list[float]], float]) -> float:
    total = 0.0
    for one, other in zip(mine, theirs, strict=True):
        total += of_one(one, other)
    return total / len(mine)


def length_of(vector: list[float]) -> float:
    return math.sqrt(sum(x * x for x in vector))


def cosine_by_loops(one: list[float], other: list[float]) -> float:
    dot = 0.0
    for x, y in zip(one, other, strict=True):
        dot += x * y
    return 1 - dot / (length_of(one) * length_of(other))


def normalised_by_loops(one: list[float], other: list[float]) -> float:
    total, mine, theirs = 0.0, length_of(one), length_of(other)
    for x, y in zip(one, other, strict=True):
        total += (x / mine - y / theirs) ** 2
    return total / len(one)


def softmax_by_loops(logits: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp((x - max(logits)) / temperature) for x in logits]
    return [power / sum(powers) for power in powers]


def cross_entropy_by_loops(one: list[float], other: list[float], temperature: float = 1.0) -> float:
    total = 0.0
    shares = zip(softmax_by_loops(one, temperature), softmax_by_loops(other, temperature), strict=True)
    for given, wanted in shares:
        total -= wanted * math.log(given)
    return total


def kl_by_loops(one: list[float], other: list[float], temperature: float = 1.0) -> float:
    total = 0.0
    shares = zip(softmax_by_loops(one, temperature), softmax_by_loops(other, temperature), strict=True)
    for given, wanted in shares:
        total += wanted * math.log(wanted / given)
    return total


def moments_by_loops(vector: list[float]) -> tuple[float, float]:
    mean = sum(vector) / len(vector)
    return mean, sum((x - mean) ** 2 for x in vector) / len(vector)


def feature_map_by_loops(one: list[float], other: list[float]) -> float:
    (mine, my_variance), (theirs, their_variance) = moments_by_loops(one), moments_by_loops(other)
    shape = 0.0
    for x, y in zip(one, other, strict=True):
        normal = (x - mine) / math.sqrt(my_variance + 1e-5)
        wanted = (y - theirs) / math.sqrt(their_variance + 1e-5)
        shape += (normal - wanted) ** 2 / len(one)
    return 100 * shape + 5000 * (mine - theirs) ** 2 + 5 * abs(my_variance - their_variance)


TEMPERATURE = 2.5
TOKEN_LOSSES: dict[str, tuple[Loss, Callable[[list[float], list[float]], float]]] = {
    "hidden": (
        lambda mine, theirs: normalised_mse(mine, theirs, 1.0),
        lambda one, other: sum((x - y) ** 2 for x, y in zip(one, other, strict=True)) / len(one),
    ),
    "cosine": (cosine_distance, cosine_by_loops),
    "normalised": (normalised_distance, normalised_by_loops),
    "soft cross-entropy": (
        lambda mine, theirs: soft_cross_entropy(mine, theirs, TEMPERATURE),
        lambda one, other: cross_entropy_by_loops(one, other, TEMPERATURE),
    ),
    "distribution": (
        lambda mine, theirs: distribution_kl(mine, theirs, TEMPERATURE),
        lambda one, other: kl_by_loops(one, other, TEMPERATURE) * TEMPERATURE * TEMPERATURE,
    ),
    "feature map": (feature_map, feature_map_by_loops),
}


@pytest.mark.parametrize("name", TOKEN_LOSSES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_loss_of_tokens_is_the_mean_over_real_ones_whatever_the_padding(name: str, seed: int) -> None:
    loss, of_one = TOKEN_LOSSES[name]
    random = random_of(seed)
    examples, longest, width = sizes(random, 4, 6, 12)
    lengths = sizes(random, *[longest] * examples)
    mine, theirs = (1 + 2 * torch.randn(examples, longest, width, generator=random) for _ in range(2))
    my_rows: Rows = []
    their_rows: Rows = []
    for example, length in enumerate(lengths):
        for token in range(length):
            my_rows.append(mine[example, token].tolist())
            their_rows.append(theirs[example, token].tolist())
    expected = close(mean_over_tokens(my_rows, their_rows, of_one))

    real = mask_of(lengths, longest).bool()
    assert loss(mine[real], theirs[real]).item() == expected
    mine[~real], theirs[~real] = 1e30, -1e30
    assert loss(mine[real], theirs[real]).item() == expected


@pytest.mark.parametrize("name", TOKEN_LOSSES)
@pytest.mark.parametrize("seed", range(3))
def test_gradients_of_a_loss_of_tokens_are_finite_and_the_students_alone(name: str, seed: int) -> None:
    random = random_of(seed)
    theirs = torch.randn(5, 7, generator=random)
    mine = torch.randn(5, 7, generator=random)
    mine[0] = 0  # without direction
    mine.requires_grad_()
    TOKEN_LOSSES[name][0](mine, theirs).backward()
    assert mine.grad is not None and mine.grad.isfinite().all() and mine.grad[1:].any(dim=1).all()
    assert theirs.grad is None


@pytest.mark.parametrize("name", [name for name in TOKEN_LOSSES if name != "soft cross-entropy"])
def test_a_student_that_says_what_the_teacher_says_loses_nothing(name: str) -> None:
    target = 3 * torch.randn(6, 9, generator=random_of(0), dtype=torch.float64)
    assert TOKEN_LOSSES[name][0](target.clone(), target).item() == pytest.approx(0, abs=1e-12)


def test_soft_cross_entropy_is_least_at_the_teachers_own_logits_where_it_is_their_entropy() -> None:
    random = random_of(1)
    teacher = torch.randn(4, 6, generator=random, dtype=torch.float64)
    entropy = 0.0
    for row in teacher.tolist():
        for share in softmax_by_loops(row):
            entropy -= share * math.log(share) / 4
    assert soft_cross_entropy(teacher, teacher, 1.0).item() == pytest.approx(entropy)
    for _ in range(5):
        other = teacher + torch.randn(4, 6, generator=random, dtype=torch.float64)
        assert soft_cross_entropy(other, teacher, 1.0).item() > entropy


def test_soft_cross_entropy_with_a_certain_teacher_is_that_with_a_label() -> None:
    student = torch.randn(1, 5, generator=random_of(2))
    certain = torch.tensor([[0.0, 0.0, 200.0, 0.0, 0.0]])
    assert soft_cross_entropy(student, certain, 1.0).item() == close(
        -math.log(softmax_by_loops(student[0].tolist())[2])
    )


def test_a_high_temperature_makes_all_classes_alike_and_leaves_the_gradients_size() -> None:
    student, teacher = (torch.randn(3, 8, generator=random_of(seed), dtype=torch.float64) for seed in (3, 4))
    assert soft_cross_entropy(student, teacher, 1e6).item() == pytest.approx(math.log(8), rel=1e-5)
    norms = []
    for temperature in (50.0, 500.0):
        mine = student.clone().requires_grad_()
        distribution_kl(mine, teacher, temperature).backward()
        assert mine.grad is not None
        norms.append(mine.grad.norm().item())
    assert norms[0] == pytest.approx(norms[1], rel=0.05)


def test_cosine_and_normalised_distance_see_direction_only() -> None:
    target = torch.randn(4, 6, generator=random_of(5), dtype=torch.float64)
    assert cosine_distance(7 * target, target).item() == pytest.approx(0, abs=1e-12)
    assert cosine_distance(-3 * target, target).item() == pytest.approx(2)
    assert normalised_distance(7 * target, target).item() == pytest.approx(0, abs=1e-12)
    assert normalised_distance(-3 * target, target).item() == pytest.approx(4 / 6)
    east, north = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    assert cosine_distance(east, north).item() == pytest.approx(1)
    assert normalised_distance(east, north).item() == pytest.approx(1)


def test_the_feature_map_weighs_shape_mean_and_variance_as_published() -> None:
    target = torch.randn(10, 400, generator=random_of(6), dtype=torch.float64)
    target = (target - target.mean(1, keepdim=True)) / target.std(1, correction=0, keepdim=True)
    assert feature_map(target + 0.1, target).item() == pytest.approx(5000 * 0.1**2, rel=1e-5)
    assert feature_map(2 * target, target).item() == pytest.approx(5 * 3, rel=1e-5)
    assert feature_map(-target, target).item() == pytest.approx(100 * 4, rel=1e-4)


# Vectors of texts

MODES: tuple[Mode, ...] = ("mean", "cls", "max")


def pooled_by_loops(text: Rows, mode: Mode) -> list[float]:
    if mode == "cls":
        return text[0]
    vector = []
    for position in range(len(text[0])):
        values = [state[position] for state in text]
        vector.append(max(values) if mode == "max" else math.fsum(values) / len(values))
    return vector


def similarity_by_loops(mine: Rows, theirs: Rows) -> float:
    given, wanted = [], []
    for one in range(len(mine)):
        for other in range(one):
            given.append(1 - cosine_by_loops(mine[one], mine[other]))
            wanted.append(1 - cosine_by_loops(theirs[one], theirs[other]))
    _, variance = moments_by_loops(wanted)
    error = math.fsum((x - y) ** 2 for x, y in zip(given, wanted, strict=True)) / len(given)
    return error / max(variance, 1e-3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_vector_of_a_text_is_made_of_its_own_real_tokens(mode: Mode, seed: int) -> None:
    random = random_of(seed)
    texts, longest, width = sizes(random, 5, 7, 9)
    lengths = sizes(random, *[longest] * texts)
    states = torch.randn(texts, longest, width, generator=random)
    mask = mask_of(lengths, longest)
    states[~mask.bool()] = 1e30
    expected = [
        pooled_by_loops(states[text, :length].double().tolist(), mode) for text, length in enumerate(lengths)
    ]
    found = pooled(states[mask.bool()], mask.sum(1), mode)
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_a_vector_reach_the_tokens_that_it_is_made_of(mode: Mode) -> None:
    tokens = torch.randn(5, 4, generator=random_of(0), requires_grad=True)
    pooled(tokens, torch.tensor([2, 3]), mode).sum().backward()
    assert tokens.grad is not None
    expected = torch.zeros(5, 4)
    for begin, end in ((0, 2), (2, 5)):
        if mode == "mean":
            expected[begin:end] = 1 / (end - begin)
        elif mode == "cls":
            expected[begin] = 1
        else:
            expected[begin + tokens[begin:end].argmax(0), torch.arange(4)] = 1
    torch.testing.assert_close(tokens.grad, expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_error_of_similarities_is_over_all_pairs_of_texts_whatever_the_widths(seed: int) -> None:
    random = random_of(seed)
    texts = 3 + sizes(random, 6)[0]
    mine = torch.randn(texts, *sizes(random, 9), generator=random)
    theirs = 0.5 + torch.randn(texts, *sizes(random, 9), generator=random)
    expected = similarity_by_loops(mine.double().tolist(), theirs.double().tolist())
    assert similarity_error(mine.double(), theirs.double()).item() == pytest.approx(expected, rel=1e-9)
    assert similarity_error(mine, theirs).item() == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_texts_of_a_student_that_are_alike_to_each_other_at_the_teachers_mean_score_one() -> None:
    theirs = torch.randn(8, 20, generator=random_of(0), dtype=torch.float64)
    unit = theirs / theirs.norm(dim=1, keepdim=True)
    pairs = (unit @ unit.T)[*torch.triu_indices(8, 8, offset=1)]
    alike = float(pairs.mean())
    # of 8 vectors of one cosine, as the root of their Gram matrix
    gram = torch.full((8, 8), alike, dtype=torch.float64).fill_diagonal_(1.0)
    assert similarity_error(torch.linalg.cholesky(gram), theirs).item() == pytest.approx(1)


def test_similarities_see_neither_length_nor_a_turn_of_vectors() -> None:
    random = random_of(1)
    theirs = torch.randn(6, 5, generator=random, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=random, dtype=torch.float64))
    lengths = 0.1 + torch.rand(6, 1, generator=random, dtype=torch.float64)
    assert similarity_error(lengths * theirs @ turn, theirs).item() == pytest.approx(0, abs=1e-12)
    assert similarity_error(torch.randn(6, 5, generator=random, dtype=torch.float64), theirs).item() > 0.1


def test_texts_that_are_all_alike_to_the_teacher_leave_the_error_finite() -> None:
    random = random_of(2)
    theirs = torch.randn(1, 6, generator=random).expand(5, 6)
    mine = torch.randn(5, 6, generator=random).requires_grad_()
    loss = similarity_error(mine, theirs)
    loss.backward()
    assert loss.isfinite() and mine.grad is not None and mine.grad.isfinite().all()


@pytest.mark.parametrize("loss_of", [similarity_error, partial(contrastive_kl, temperature=0.1)])
@pytest.mark.parametrize("texts", [1, 2])
def test_of_one_or_two_texts_there_is_no_error_of_similarities(
    texts: int, loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> None:
    mine = torch.randn(texts, 4, generator=random_of(0)).requires_grad_()
    loss = loss_of(mine, torch.randn(texts, 6, generator=random_of(1)))
    loss.backward()
    assert loss.item() == 0
    assert mine.grad is not None and not mine.grad.any()


def test_the_contrastive_loss_is_least_for_a_student_with_the_teachers_neighbours() -> None:
    random = random_of(3)
    theirs = torch.randn(6, 5, generator=random, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=random, dtype=torch.float64))
    assert contrastive_kl(3 * theirs @ turn, theirs, 0.05).item() == pytest.approx(0, abs=1e-12)
    swapped = theirs[[1, 0, 2, 3, 4, 5]]
    assert contrastive_kl(swapped, theirs, 0.05).item() > 0.1


# Masked language modelling


@pytest.mark.parametrize("seed", SEEDS)
def test_masked_lm_is_the_mean_over_hidden_words_whatever_the_other_tokens(seed: int) -> None:
    random = random_of(seed)
    tokens, words = sizes(random, 12, 9)
    logits = 2 * torch.randn(tokens, words, generator=random)
    labels = torch.randint(0, words, (tokens,), generator=random)
    labels[torch.rand(tokens, generator=random) < 0.5] = NOT_HIDDEN
    labels[0] = 0
    total, count = 0.0, 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        if label != NOT_HIDDEN:
            total -= math.log(softmax_by_loops(row)[label])
            count += 1
    assert masked_lm(logits, labels).item() == close(total / count)

    logits[labels == NOT_HIDDEN] = 1e30
    padded = torch.cat([logits, torch.full((3, words), -1e30)])
    padded_labels = torch.cat([labels, torch.full((3,), NOT_HIDDEN)])
    assert masked_lm(padded, padded_labels).item() == close(total / count)


@pytest.mark.parametrize("label", [0, NOT_HIDDEN])
def test_masked_lm_has_finite_gradients_of_hidden_words_alone_also_where_there_is_none(label: int) -> None:
    logits = torch.randn(4, 5, generator=random_of(0)).requires_grad_()
    loss = masked_lm(logits, torch.tensor([NOT_HIDDEN, label, NOT_HIDDEN, NOT_HIDDEN]))
    loss.backward()
    assert (loss.item() == 0) == (label == NOT_HIDDEN)
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert logits.grad.any(dim=1).tolist() == [False, label != NOT_HIDDEN, False, False]


# Losses of pairs of tokens


def mask_of(lengths: list[int], longest: int) -> torch.Tensor:
    mask = torch.zeros(len(lengths), longest, dtype=torch.long)
    for example, length in enumerate(lengths):
        mask[example, :length] = 1
    return mask


def real_tokens(mask: torch.Tensor) -> list[list[int]]:
    return [[token for token, real in enumerate(row) if real] for row in mask.tolist()]


def error_over_keys(one: list[float], other: list[float]) -> float:
    total = 0.0
    for x, y in zip(one, other, strict=True):
        total += (x - y) ** 2
    return total


def by_head(
    mine: Any, theirs: Any, mask: torch.Tensor, of_query: Callable[[list[float], list[float]], float]
) -> tuple[list[float], int, int]:
    """Of (B, heads, n, n) lists: the sum over real queries by head, the count of queries and of pairs."""
    tokens = real_tokens(mask)
    sums = []
    for head in range(len(mine[0])):
        total = 0.0
        for example, real in enumerate(tokens):
            for query in real:
                one = [mine[example][head][query][key] for key in real]
                other = [theirs[example][head][query][key] for key in real]
                total += of_query(one, other)
        sums.append(total)
    return sums, sum(len(real) for real in tokens), sum(len(real) ** 2 for real in tokens)


def attention_mse_by_loops(mine: Any, theirs: Any, mask: torch.Tensor) -> list[float]:
    sums, _, pairs = by_head(mine, theirs, mask, error_over_keys)
    return [total / pairs for total in sums]


def attention_kl_by_loops(mine: Any, theirs: Any, mask: torch.Tensor) -> list[float]:
    sums, queries, _ = by_head(mine, theirs, mask, kl_by_loops)
    return [total / queries for total in sums]


def attention_cross_entropy_by_loops(mine: Any, theirs: Any, mask: torch.Tensor) -> list[float]:
    sums, queries, _ = by_head(mine, theirs, mask, cross_entropy_by_loops)
    return [total / queries for total in sums]


PAIR_LOSSES: dict[str, tuple[MaskedLoss, Callable[[Any, Any, torch.Tensor], list[float]]]] = {
    "mse": (attention_mse, attention_mse_by_loops),
    "kl": (attention_kl, attention_kl_by_loops),
    "cross-entropy": (attention_cross_entropy, attention_cross_entropy_by_loops),
}
GARBAGE = [7.0, 1e30, -1e30, math.inf, -math.inf, math.nan]


def attention_case(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores of a student and a teacher, and a mask with gaps: padding need not be on the right."""
    random = random_of(seed)
    examples, heads, longest = sizes(random, 4, 4, 7)
    mine, theirs = (2 * torch.randn(examples, heads, longest, longest, generator=random) for _ in range(2))
    mask = mask_of(sizes(random, *[longest] * examples), longest)
    return mine, theirs, mask[:, torch.randperm(longest, generator=random)]


def padded_pairs(mask: torch.Tensor, heads: int) -> torch.Tensor:
    padded = mask == 0
    pairs = padded[:, None, :, None] | padded[:, None, None, :]
    return pairs.expand(-1, heads, -1, -1)


@pytest.mark.parametrize("name", PAIR_LOSSES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_loss_of_pairs_is_a_mean_over_real_tokens_for_each_head(name: str, seed: int) -> None:
    loss, reference = PAIR_LOSSES[name]
    mine, theirs, mask = attention_case(seed)
    expected = close_to_all(reference(mine.tolist(), theirs.tolist(), mask))
    assert loss(mine, theirs, mask).tolist() == expected
    assert loss(mine, theirs, mask.bool()).tolist() == expected


def close_to_all(values: list[float]) -> list[Any]:
    return [close(value) for value in values]


@pytest.mark.parametrize("name", PAIR_LOSSES)
@pytest.mark.parametrize("garbage", GARBAGE)
def test_what_stands_in_padding_never_changes_a_value_or_a_gradient(name: str, garbage: float) -> None:
    loss, _ = PAIR_LOSSES[name]
    for seed in SEEDS:
        mine, theirs, mask = attention_case(seed)
        padded = padded_pairs(mask, mine.shape[1])
        results = []
        for filling in (0.0, garbage):
            student = mine.masked_fill(padded, filling).requires_grad_()
            value = loss(student, theirs.masked_fill(padded, -filling), mask)
            value.sum().backward()
            assert student.grad is not None
            results.append((value.detach(), student.grad))
        (value, gradient), (value_of_garbage, gradient_of_garbage) = results
        assert torch.equal(value, value_of_garbage)
        assert torch.equal(gradient, gradient_of_garbage)
        assert gradient.isfinite().all() and not gradient[padded].any()


@pytest.mark.parametrize("name", PAIR_LOSSES)
@pytest.mark.parametrize("seed", SEEDS)
def test_more_padding_or_an_example_of_nothing_else_never_changes_a_value(name: str, seed: int) -> None:
    loss, _ = PAIR_LOSSES[name]
    mine, theirs, mask = attention_case(seed)
    examples, heads, longest = mine.shape[:3]
    wider = torch.zeros(examples + 1, longest + 3, dtype=torch.long)
    wider[:examples, :longest] = mask
    shape = (examples + 1, heads, longest + 3, longest + 3)
    student, teacher = torch.full(shape, 1e30), torch.full(shape, -1e30)
    student[:examples, :, :longest, :longest] = mine
    teacher[:examples, :, :longest, :longest] = theirs
    student.requires_grad_()
    value = loss(student, teacher, wider)
    torch.testing.assert_close(value.detach(), loss(mine, theirs, mask), rtol=1e-6, atol=1e-7)
    value.sum().backward()
    assert student.grad is not None and student.grad.isfinite().all()
    assert not student.grad[padded_pairs(wider, heads)].any()


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_gradients_of_a_loss_of_pairs_are_the_students_alone(name: str) -> None:
    random = random_of(0)
    mine, theirs = (torch.randn(2, 3, 4, 4, generator=random) for _ in range(2))
    mine.requires_grad_()
    mask = mask_of([4, 2], 4)
    PAIR_LOSSES[name][0](mine, theirs, mask).sum().backward()
    assert theirs.grad is None
    assert mine.grad is not None
    assert mine.grad[~padded_pairs(mask, 3)].all()


@pytest.mark.parametrize("name", ["mse", "kl"])
def test_attention_like_the_teachers_loses_nothing(name: str) -> None:
    for seed in SEEDS:
        scores, _, mask = attention_case(seed)
        assert PAIR_LOSSES[name][0](scores.clone(), scores, mask).tolist() == [0.0] * scores.shape[1]


def test_a_constant_added_to_a_querys_scores_is_seen_by_the_squared_error_alone() -> None:
    mine, theirs, mask = (tensor.double() for tensor in attention_case(3))
    shifted = mine + torch.randn(*mine.shape[:3], 1, generator=random_of(9), dtype=torch.float64)
    for loss in (attention_kl, attention_cross_entropy):
        torch.testing.assert_close(loss(shifted, theirs, mask), loss(mine, theirs, mask))
    assert not torch.allclose(attention_mse(shifted, theirs, mask), attention_mse(mine, theirs, mask))


def test_the_cross_entropy_of_attention_is_its_kl_and_the_teachers_entropy() -> None:
    for seed in SEEDS:
        mine, theirs, mask = (tensor.double() for tensor in attention_case(seed))
        entropy = attention_cross_entropy(theirs, theirs, mask)
        expected = attention_kl(mine, theirs, mask) + entropy
        torch.testing.assert_close(attention_cross_entropy(mine, theirs, mask), expected)


# Relations


def scores_by_loops(queries: torch.Tensor, keys: torch.Tensor, heads: int) -> Any:
    """(B, heads, n, n) as lists."""
    width = queries.shape[-1] // heads
    result = []
    for some, others in zip(queries.tolist(), keys.tolist(), strict=True):
        of_example = []
        for head in range(heads):
            rows = []
            for query in some:
                row = []
                for key in others:
                    dot = 0.0
                    for column in range(head * width, (head + 1) * width):
                        dot += query[column] * key[column]
                    row.append(dot / math.sqrt(width))
                rows.append(row)
            of_example.append(rows)
        result.append(of_example)
    return result


@pytest.mark.parametrize("seed", SEEDS)
def test_scores_are_dot_products_within_a_head_over_the_root_of_its_width(seed: int) -> None:
    random = random_of(seed)
    examples, longest, heads, width = sizes(random, 3, 5, 4, 6)
    queries, keys = (torch.randn(examples, longest, heads * width, generator=random) for _ in range(2))
    for scores, expected in (
        (dot_scores(queries, keys, heads), scores_by_loops(queries, keys, heads)),
        (relation_scores(queries, heads), scores_by_loops(queries, queries, heads)),
    ):
        assert scores.shape == (examples, heads, longest, longest)
        wanted = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(scores.double(), wanted, rtol=1e-5, atol=1e-5)


def test_relations_are_symmetric_and_not_those_of_other_heads() -> None:
    states = torch.randn(2, 5, 12, generator=random_of(0))
    for heads in (1, 2, 3, 4, 6, 12):
        scores = relation_scores(states, heads)
        torch.testing.assert_close(scores, scores.mT)
    changed = states.clone()
    changed[..., :6] += 1
    before, after = relation_scores(states, 2), relation_scores(changed, 2)
    assert not torch.allclose(before[:, 0], after[:, 0])
    assert torch.equal(before[:, 1], after[:, 1])


@pytest.mark.parametrize("garbage", [3.0, 1e10, 1e30])
@pytest.mark.parametrize("seed", range(4))
def test_relations_of_a_student_and_a_teacher_of_other_widths_compare_whatever_the_padding(
    seed: int, garbage: float
) -> None:
    random = random_of(seed)
    mask = mask_of([5, 2, 3], 5)
    mine = torch.randn(3, 5, 12, generator=random)
    theirs = torch.randn(3, 5, 24, generator=random)
    expected = attention_kl_by_loops(scores_by_loops(mine, mine, 6), scores_by_loops(theirs, theirs, 6), mask)
    signs = torch.randn(3, 5, 24, generator=random).sign()
    theirs[mask == 0] = garbage * signs[mask == 0]
    mine[mask == 0] = garbage * signs[mask == 0][:, :12]
    mine.requires_grad_()

    value = attention_kl(relation_scores(mine, 6), relation_scores(theirs, 6), mask)
    value.sum().backward()

    assert value.tolist() == close_to_all(expected)
    assert theirs.grad is None
    assert mine.grad is not None and mine.grad.isfinite().all()
    assert not mine.grad[mask == 0].any() and mine.grad[mask == 1].any(dim=1).all()


@pytest.mark.parametrize(("width", "heads"), [(384, 5), (12, 24), (7, 2), (12, 0), (12, -3)])
def test_heads_that_a_width_does_not_divide_into_are_refused_in_one_sentence(width: int, heads: int) -> None:
    states = torch.zeros(1, 2, width)
    for act in (
        lambda: check_relation_heads(width, heads),
        lambda: relation_scores(states, heads),
        lambda: dot_scores(states, states, heads),
    ):
        with pytest.raises(BadInput) as caught:
            act()
        assert is_one_sentence(str(caught.value))
        assert f"width of {width}" in str(caught.value) and f"{heads} heads" in str(caught.value)


def test_heads_that_a_width_divides_into_are_not_refused() -> None:
    for width, heads in ((768, 48), (384, 48), (384, 12), (12, 12), (7, 1)):
        check_relation_heads(width, heads)
