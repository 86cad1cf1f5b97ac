"""Static students: models without layers, in which each word has one vector and a text has their mean.

A stock encoder with no layers is such a model: a table of words and a layer norm. It starts from what the
teacher returns for each word alone, as Model2Vec does (https://github.com/MinishLab/model2vec), with frequent
words weighed down (SIF, Arora et al., ICLR 2017, "A simple but tough-to-beat baseline for sentence
embeddings", equation 3).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from kdnas_core.hardware import compute_device, moved
from kdnas_core.models.cut import NORM, POSITIONS, SEGMENTS, WORDS
from kdnas_core.models.families import FAMILIES
from kdnas_core.models.heads import Weights
from kdnas_core.models.teacher import Teacher

FREQUENT = 1e-3  # a of SIF: a word with this share of all words has half the weight of a rare one
SPREAD = 0.05  # of the words' table: about that of BERT's
BATCH = 256  # words
RIDGE = 1e-4  # of the mean square of the teacher's word embeddings; makes least squares solvable


def can_be_static(teacher: Teacher) -> bool:
    """Returns whether a teacher's family, without layers, is a table of words and a layer norm."""
    config = teacher.model.config
    factorised = getattr(config, "embedding_size", config.hidden_size) != config.hidden_size
    return config.model_type in FAMILIES and not factorised


def freeze_places(student: PreTrainedModel) -> None:
    """Sets the vectors of positions and segments to 0 and keeps them there: a word's vector is the same."""
    for name, parameter in student.named_parameters():
        if name in (POSITIONS, SEGMENTS):
            parameter.data.zero_()
            parameter.requires_grad_(False)


def static_start(
    teacher: Teacher, student: PreTrainedModel, words: NDArray[np.int64], counts: NDArray[np.int64]
) -> Weights:
    """Returns the starting weights of a static student as wide as its teacher.

    The teacher reads the given words. The vector of any other word is a linear map of its embedding, fitted
    on these by least squares. Special tokens have the vector 0.

    Args:
        teacher: whose sentence vectors are means of its last hidden states.
        student: without layers; for its shapes.
        words: (used,) ids of words in use, special tokens among them or not.
        counts: (used,) how often the texts hold each.
    """
    special = np.isin(words, teacher.tokenizer.all_special_ids)
    words, counts = words[~special], counts[~special]
    outputs = _read_alone(teacher, words)
    vectors = _mapped(_table(teacher), outputs, words)
    vectors[words] = outputs
    vectors -= outputs.mean(0)
    shares = torch.from_numpy(counts / max(1, counts.sum())).double()
    vectors[words] *= (FREQUENT / (FREQUENT + shares))[:, None]
    vectors[teacher.tokenizer.all_special_ids] = 0.0
    epsilon = next(norm.eps for norm in student.modules() if isinstance(norm, torch.nn.LayerNorm))
    return through_norm(vectors, epsilon)


def _table(teacher: Teacher) -> torch.Tensor:
    table = teacher.model.get_input_embeddings().weight
    assert isinstance(table, torch.Tensor)
    return table.detach().double()


def _read_alone(teacher: Teacher, words: NDArray[np.int64]) -> torch.Tensor:
    """(used, H) last hidden states of single words, between the special tokens of a text."""
    before, after = _around(teacher)
    ids = torch.from_numpy(words)
    parts = []
    with moved(teacher.model), torch.inference_mode():
        for some in ids.split(BATCH):
            sides = [torch.tensor(side, dtype=torch.int64).expand(len(some), -1) for side in (before, after)]
            texts = torch.cat([sides[0], some[:, None], sides[1]], dim=1).to(compute_device())
            states = teacher.model(input_ids=texts, attention_mask=torch.ones_like(texts)).last_hidden_state
            parts.append(states[:, len(before)].double().cpu())
    return torch.cat(parts)


def _around(teacher: Teacher) -> tuple[list[int], list[int]]:
    """The special tokens before and after a text: one each in all families, or none."""
    ids = teacher.tokenizer("")["input_ids"]
    middle = (len(ids) + 1) // 2
    return ids[:middle], ids[middle:]


def _mapped(table: torch.Tensor, outputs: torch.Tensor, words: NDArray[np.int64]) -> torch.Tensor:
    """(V, H) outputs of all words, as a linear map of their embeddings fitted on some makes them."""
    columns = torch.cat([table, torch.ones(len(table), 1, dtype=table.dtype)], dim=1)
    known = columns[words]
    gram = known.T @ known
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return columns @ torch.linalg.solve(gram + ridge, known.T @ outputs)


def through_norm(vectors: torch.Tensor, epsilon: float) -> Weights:
    """Weights whose layer norm returns the given vectors, but for the two dimensions that vary least.

    The norm makes all words equally long. Two dimensions give each word the same mean and variance in the
    table, and have the scale 0 behind the norm, so that lengths, and with them weights, are kept exactly.
    """
    width = vectors.shape[1]
    order = vectors.var(0).argsort()
    spare, kept = order[:2], order[2:]
    factor = SPREAD / vectors[:, kept].std()
    table = torch.zeros_like(vectors)
    table[:, kept] = factor * vectors[:, kept]
    # a and b of each word: a + b = -s and a² + b² = r, which needs 2 r >= s²
    s, squares = table.sum(1), table.square().sum(1)
    variance = 1.01 * ((squares + s.square() / 2) / width).max()
    r = width * variance - squares
    apart = (2 * r - s.square()).sqrt()
    table[:, spare[0]], table[:, spare[1]] = (apart - s) / 2, (-apart - s) / 2
    scale = torch.zeros(width, dtype=vectors.dtype)
    scale[kept] = (variance + epsilon).sqrt() / factor
    weights = {WORDS: table, f"{NORM}.weight": scale, f"{NORM}.bias": torch.zeros_like(scale)}
    return {name: tensor.float() for name, tensor in weights.items()}
