"""How well distances between sentence vectors follow what people say: a score of a model left as it is."""

from __future__ import annotations

from collections.abc import Sequence

from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdnas_core.measure.linear_probe import sentence_vectors
from kdnas_core.measure.metrics import score
from kdnas_core.measure.tasks import Row, Task


def can_compare(task: Task) -> bool:
    """Whether its rows are pairs with a score each, which similarities can be held against."""
    return task.is_pair and task.is_regression


def similarity_score(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], sequence_length: int
) -> float:
    """Spearman's correlation of the cosine of mean vectors with the scores that people gave; -1 to 1.

    Nothing is learnt: it is what the model's vectors are worth as they are. 0 where it is not defined.

    Args:
        model: an encoder, not changed.
        tokenizer: its own.
        rows: pairs with scores, higher for what is more alike.
        sequence_length: at which sentences are cut, in tokens.

    Raises:
        ValueError: a row is no pair.
    """
    seconds = [row.second for row in rows if row.second is not None]
    if len(seconds) < len(rows):
        raise ValueError("Rows to compare are pairs.")
    one = sentence_vectors(model, tokenizer, [row.first for row in rows], sequence_length)
    other = sentence_vectors(model, tokenizer, seconds, sequence_length)
    return score("spearman", [row.label for row in rows], cosine_similarity(one, other).tolist())
