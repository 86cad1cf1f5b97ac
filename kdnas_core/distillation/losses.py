"""The loss functions, on real tokens only.

Losses on single tokens take (tokens, H) without padding. Losses on pairs of tokens (attention and relations)
take padded batches and a mask (B, n), and return a value per head.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from kdnas_core.data.tokens import NOT_HIDDEN
from kdnas_core.models.capture import dot_scores

FEWEST_COMPARED = 3  # texts whose similarities vary
LEAST_VARIANCE = 1e-3  # of cosine similarities; unrelated texts have about 1e-2


def normalised_mse(prediction: torch.Tensor, target: torch.Tensor, variance: float) -> torch.Tensor:
    """Computes the mean squared error in units of the target's variance: 1 for predicting the mean.

    Args:
        prediction: (tokens, H), real tokens only.
        target: (tokens, H), the teacher's.
        variance: of this teacher layer's output, averaged over H.

    Returns:
        A scalar.
    """
    return (prediction - target).square().mean() / variance


def vector_mse(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Computes the mean squared error of the vectors of a batch's texts, over the variance of the teacher's.

    Args:
        prediction: (B, H).
        target: (B, H), the teacher's.

    Returns:
        A scalar, 1 for predicting the batch's mean; 0 for fewer than three texts, whose variance says little.
    """
    if len(target) < FEWEST_COMPARED:
        return prediction.sum() * 0.0
    return normalised_mse(prediction, target, float(target.var(0, correction=0).mean().clamp(min=1e-9)))


def cosine_distance(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Computes the mean over tokens of one minus the cosine of (tokens, H) (DistilBERT, 1910.01108)."""
    return (1 - F.cosine_similarity(prediction, target, dim=-1)).mean()


def similarity_error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Computes the squared error of the cosine similarities of text pairs, over the teacher's variance.

    It is 1 for a student that gives all pairs the teacher's mean. It needs no projection, since the vectors
    may have different widths (a normalised form of similarity-preserving distillation, arXiv 1907.09682).

    Args:
        student: (B, H_S) vectors of texts.
        teacher: (B, H_T).

    Returns:
        A scalar; 0 for fewer than three texts, whose similarities have no variance.
    """
    if len(student) < FEWEST_COMPARED:
        return student.sum() * 0.0
    pairs = torch.triu_indices(len(student), len(student), offset=1, device=student.device)
    prediction, target = (_cosines(vectors, pairs) for vectors in (student, teacher))
    # clamped: the variance is near 0 if all texts of a batch are similar
    return (prediction - target).square().mean() / target.var(correction=0).clamp(min=LEAST_VARIANCE)


def contrastive_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Computes KL(teacher || student) of which other text of the batch a text is most similar to.

    The distribution over the other texts is a softmax of cosines: in-batch negatives with the teacher's
    scores as soft labels (SEED, arXiv 2101.04731, without its queue of earlier texts).

    Args:
        student: (B, H_S) vectors of texts.
        teacher: (B, H_T).
        temperature: divides the cosines.

    Returns:
        A scalar, a mean over texts; 0 for fewer than three.
    """
    if len(student) < FEWEST_COMPARED:
        return student.sum() * 0.0
    others = ~torch.eye(len(student), dtype=torch.bool, device=student.device)
    units = (F.normalize(vectors, dim=-1) for vectors in (student, teacher))
    prediction, target = (
        ((unit @ unit.T)[others].view(len(unit), -1) / temperature).log_softmax(-1) for unit in units
    )
    return (target.exp() * (target - prediction)).sum(-1).mean()


def _cosines(vectors: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """(pairs,) cosine similarities of (B, H) vectors at (2, pairs) indices."""
    unit = F.normalize(vectors, dim=-1)
    return (unit @ unit.T)[pairs[0], pairs[1]]


def normalised_distance(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Computes the mean squared error of (examples, H), scaled to length 1 (BERT-PKD, 1908.09355, eq. 7).

    It is a mean over H too, as in the published code, whose weights of 10 to 1,000 fit a loss that small.
    """
    return (F.normalize(prediction, dim=-1) - F.normalize(target, dim=-1)).square().mean()


def soft_cross_entropy(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Computes the cross-entropy with the teacher's distribution (TinyBERT, 1909.10351, eq. 10).

    Summed over classes, mean over examples.

    Args:
        student: (examples, classes) logits.
        teacher: (examples, classes) logits.
        temperature: divides both.
    """
    target = F.softmax(teacher / temperature, dim=-1)
    return -(target * F.log_softmax(student / temperature, dim=-1)).sum(-1).mean()


def distribution_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Computes KL(teacher || student) times the temperature squared (DistilBERT, 1910.01108).

    Summed over classes, mean over examples; arguments as for `soft_cross_entropy`. The factor keeps the
    gradient's size.
    """
    target = F.log_softmax(teacher / temperature, dim=-1)
    prediction = F.log_softmax(student / temperature, dim=-1)
    return (target.exp() * (target - prediction)).sum(-1).mean() * temperature**2


def masked_lm(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Computes the mean cross-entropy at masked words; 0 if no word is masked (BERT, 1810.04805).

    Args:
        logits: (tokens, vocabulary), the student's.
        labels: (tokens,), the original word of each masked token, NOT_HIDDEN elsewhere.
    """
    total = F.cross_entropy(logits, labels, ignore_index=NOT_HIDDEN, reduction="sum")
    return total / (labels != NOT_HIDDEN).sum().clamp(min=1)  # a small batch may have none


def attention_mse(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Computes the squared error of pre-softmax scores, mean over pairs of real tokens (TinyBERT, eq. 7).

    Args:
        student: (B, heads, n, n) scores, before any mask is added.
        teacher: the same of the teacher.
        mask: (B, n), 1 for real tokens.

    Returns:
        (heads,).
    """
    real = mask.bool()
    pairs = real[:, None, :, None] & real[:, None, None, :]
    # filled instead of multiplied by 0: squared scores of padding can be infinite
    errors = (student - teacher).masked_fill(~pairs, 0.0).square()
    return errors.sum((0, 2, 3)) / pairs.sum()


def attention_kl(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Computes KL(teacher || student) of attention, mean over real queries (MiniLM, 2002.10957, eq. 3).

    Arguments and result as for `attention_mse`; a constant added to all of a query's scores changes nothing.
    With `relation_scores` it is MiniLM's value relation, or one relation of MiniLMv2 (2012.15828).
    """
    target, prediction = _log_attention(teacher, mask), _log_attention(student, mask)
    return _mean_over_queries(target.exp() * (target - prediction), mask)


def attention_cross_entropy(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Computes the cross-entropy of attention, mean over real queries (MobileBERT, 2004.02984).

    Arguments and result as for `attention_mse`.
    """
    return _mean_over_queries(-_log_attention(teacher, mask).exp() * _log_attention(student, mask), mask)


def _log_attention(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Logarithm of attention over real keys; 0 at padded keys, so that they add nothing to a sum."""
    padded = ~mask.bool()
    keys = padded[:, None, None, :]
    hidden = scores.masked_fill(keys, -math.inf)
    # padded queries attend evenly, so that nothing is infinite, even in an example without tokens
    hidden = hidden.masked_fill(padded[:, None, :, None], 0.0)
    return F.log_softmax(hidden, dim=-1).masked_fill(keys, 0.0)


def _mean_over_queries(terms: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B, heads, n, n) -> (heads,): summed over keys, mean over real queries."""
    queries = mask.bool()[:, None, :]
    return (terms.sum(-1) * queries).sum((0, 2)) / queries.sum()


def relation_scores(states: torch.Tensor, heads: int) -> torch.Tensor:
    """Computes X X^T / sqrt(d_r) of (B, n, H), split into relation heads -> (B, heads, n, n).

    MiniLMv2 (2012.15828, section 3.1) relates queries, keys or values with themselves. The number of relation
    heads is free, so teacher and student may differ in heads and width.

    Raises:
        BadInput: `heads` does not divide H.
    """
    return dot_scores(states, states, heads)


def feature_map(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Computes MobileBERT's feature-map transfer of (tokens, H), weighted as in its code (2004.02984).

    It is 100 * MSE of layer-normalised features + 5000 * squared difference of a token's means over H
    + 5 * absolute difference of its variances over H, each a mean over tokens.
    """
    width = prediction.shape[-1:]
    shape = F.mse_loss(F.layer_norm(prediction, width), F.layer_norm(target, width))
    mean = (prediction.mean(-1) - target.mean(-1)).square().mean()
    variance = (prediction.var(-1, correction=0) - target.var(-1, correction=0)).abs().mean()
    return 100 * shape + 5000 * mean + 5 * variance
