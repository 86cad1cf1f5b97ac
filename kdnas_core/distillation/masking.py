"""Which words are hidden for masked-LM: teacher and student see the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from kdnas_core.errors import BadInput

NOT_HIDDEN = -100  # label of a token that is not to be guessed; what transformers and torch use too
SHARE = 0.15  # of all words (BERT, arXiv 1810.04805, section 3.1)
MASKED, REPLACED = 0.8, 0.1  # of those; the rest stays as it is

Ids = NDArray[np.int64]


def hide_words(ids: Ids, tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> tuple[Ids, Ids]:
    """Hides 15% of the tokens as BERT does: 80% become the mask token, 10% another token of the texts.

    Another token of these texts rather than of the vocabulary, so that no word comes in that they lack.

    Args:
        ids: (tokens,), special tokens included; those are never hidden.
        tokenizer: with a mask token.
        seed: decides which.

    Returns:
        ids with words hidden, and labels: the word at each hidden place, NOT_HIDDEN elsewhere.

    Raises:
        BadInput: the tokenizer has no mask token, or knows no word of the texts.
    """
    check_mask_token(tokenizer)
    rng = np.random.default_rng(seed)
    words = np.flatnonzero(~np.isin(ids, tokenizer.all_special_ids))
    if not len(words):
        raise BadInput(
            "The teacher's tokenizer knows no word of these texts, so that none can be hidden; name a corpus "
            "in a language of the teacher's."
        )
    chosen = rng.permutation(words)[: max(1, round(SHARE * len(words)))]
    labels = np.full_like(ids, NOT_HIDDEN)
    labels[chosen] = ids[chosen]
    fate = rng.random(len(chosen))
    hidden = ids.copy()
    hidden[chosen[fate < MASKED]] = tokenizer.mask_token_id
    replaced = chosen[(fate >= MASKED) & (fate < MASKED + REPLACED)]
    hidden[replaced] = rng.choice(ids[words], len(replaced))
    return hidden, labels


def check_mask_token(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that cannot hide a word.

    Raises:
        BadInput: it has no mask token.
    """
    if tokenizer.mask_token_id is None:
        raise BadInput(
            "The teacher's tokenizer has no mask token, which masked-LM and prediction losses need; "
            "choose a recipe without them, such as 'kdnas' or 'minilmv2'."
        )
