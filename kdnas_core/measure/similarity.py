"""How well distances between sentence vectors follow what people say: a score of a model left as it is."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from huggingface_hub import HfApi, try_to_load_from_cache
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdnas_core.distillation.sources import teacher_folder
from kdnas_core.measure.linear_probe import sentence_vectors
from kdnas_core.measure.metrics import score
from kdnas_core.measure.tasks import Row, Task

logger = logging.getLogger(__name__)

_MODULES = "modules.json"  # what sentence-transformers writes beside a model that is made for vectors
_SECONDS = 4.0  # to wait for the hub


def can_compare(task: Task) -> bool:
    """Whether its rows are pairs with a score each, which similarities can be held against."""
    return task.is_pair and task.is_regression


def is_embedding_teacher(source: str) -> bool:
    """Whether a teacher is made for sentence vectors: it comes with the modules.json of such models.

    Args:
        source: `packaged`, a local folder, or a hub id; of a hub that does not answer, none is.

    Raises:
        BadInput: it is neither.
    """
    folder = teacher_folder(source)
    if folder is not None:
        return (folder / _MODULES).is_file()
    return isinstance(try_to_load_from_cache(source, _MODULES), str) or _is_at_hub(source)


def _is_at_hub(source: str) -> bool:
    try:
        files = HfApi().model_info(source, timeout=_SECONDS).siblings
    except Exception:  # whatever it is, a score less is no reason to end here
        logger.debug(f"{source} could not be asked for {_MODULES}", exc_info=True)
        return False
    return any(file.rfilename == _MODULES for file in files or ())


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
