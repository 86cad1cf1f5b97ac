"""Splits a corpus into training texts and held-out texts without near-duplicates between them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from kdnas_core.data.corpus import PACKAGED, Text, parts_of, read_texts
from kdnas_core.data.packaged_task import judged_paragraphs
from kdnas_core.data.task_text import judged_texts
from kdnas_core.data.tokens import Passage, in_chunks, with_pairs
from kdnas_core.errors import BadInput
from kdnas_core.spec import ProxySpec

WORDS_IN_A_ROW = 5
SHARED = 0.5  # of the word sequences of the shorter of two texts

# a word each; scripts without spaces between words by the character
_WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]|[^\W\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]+")

FEWEST_TEXTS = 48
LEAST_LEARNT = 5  # a small corpus holds out at most one text in five
PROXY_SEED = 0  # the same for every run, so that the losses of two runs can be compared


class NearDuplicates:
    """The texts that nearly repeat one of the given texts: `text in NearDuplicates(others)`.

    Two texts are near-duplicates if they share at least half of the shorter one's sequences of five words,
    case and punctuation aside. Texts of fewer than five words are compared as wholes. (N-gram overlap, as
    GPT-3's authors clean their tests: arXiv 2005.14165, appendix C.)
    """

    def __init__(self, others: Iterable[str]) -> None:
        self.holders: dict[tuple[str, ...], list[int]] = {}  # word sequence -> the others that hold it
        self.sizes: list[int] = []
        for other in others:
            sequences = _sequences(other)
            for sequence in sequences:
                self.holders.setdefault(sequence, []).append(len(self.sizes))
            self.sizes.append(len(sequences))

    def __contains__(self, text: str) -> bool:
        sequences = _sequences(text)
        shared = Counter(other for each in sequences for other in self.holders.get(each, ()))
        return any(
            count >= SHARED * min(len(sequences), self.sizes[other]) for other, count in shared.items()
        )


def _sequences(text: str) -> set[tuple[str, ...]]:
    """All sequences of five words; a shorter text gives one of all its words, one without words none."""
    words = _WORD.findall(text.lower())
    return set(zip(*(words[start:] for start in range(min(WORDS_IN_A_ROW, len(words)))), strict=False))


@dataclass(frozen=True)
class SplitTexts:
    """The texts of a corpus.

    Attributes:
        held_out: the texts for evaluation.
        learnt: the texts for training, long ones in chunks; none nearly repeats a held-out text.
    """

    held_out: list[Text]
    learnt: list[Text]

    def passages(self, pairs: float) -> list[Passage]:
        """Returns the training texts, a share of them made into pairs of segments."""
        return with_pairs([text.text for text in self.learnt], pairs, PROXY_SEED)


def proxy_texts(
    corpus: str,
    cache: Path,
    proxy: ProxySpec,
    tokenizer: PreTrainedTokenizerBase,
    progress: Callable[[str], None],
) -> SplitTexts:
    """Reads and splits the texts of a run.

    Args:
        corpus: whatever `corpus.check_corpus` takes.
        cache: folder for the packaged corpus.
        proxy: how many texts, how long, and how languages are mixed.
        tokenizer: the teacher's.
        progress: called with a sentence on what is being read.

    Raises:
        BadInput: the corpus cannot be read, or is too small.
    """
    texts = _read(corpus, cache, proxy, proxy.sentences + proxy.held_out, progress)
    held_out = _held_out(texts, proxy)
    return _split(corpus, cache, held_out, texts, proxy.sentences, proxy.sequence_length, tokenizer)


def full_texts(
    corpus: str,
    cache: Path,
    proxy: ProxySpec,
    sentences: int,
    sequence_length: int,
    tokenizer: PreTrainedTokenizerBase,
    progress: Callable[[str], None],
    of_many_lengths: bool = False,
) -> SplitTexts:
    """Reads and splits the texts of a full distillation; the held-out texts are those of the run.

    They are read as the run reads them, since the mixture of languages depends on the number of texts.

    Args:
        corpus, cache, tokenizer, progress: as for `proxy_texts`.
        proxy: of the run.
        sentences: the most training texts; each chunk of a long text counts.
        sequence_length: of a chunk, in tokens.
        of_many_lengths: whether texts are cut into pieces of many lengths, up to that.

    Raises:
        BadInput: the corpus cannot be read, or is too small.
    """
    run_texts, wanted = proxy.sentences + proxy.held_out, sentences + proxy.held_out
    if len(parts_of(corpus)) == 1:  # a shorter reading is the beginning of a longer one
        texts = _read(corpus, cache, proxy, max(run_texts, wanted), progress)
        held_out, texts = _held_out(texts[:run_texts], proxy), texts[:wanted]
    else:
        held_out = _held_out(_read(corpus, cache, proxy, run_texts, progress), proxy)
        texts = _read(corpus, cache, proxy, wanted, progress)
    return _split(corpus, cache, held_out, texts, sentences, sequence_length, tokenizer, of_many_lengths)


def _read(
    corpus: str, cache: Path, proxy: ProxySpec, limit: int, progress: Callable[[str], None]
) -> list[Text]:
    texts = read_texts(corpus, cache, PROXY_SEED, limit, proxy.language_temperature, progress)
    check_texts(corpus, texts)
    return texts


def _held_out(texts: Sequence[Text], proxy: ProxySpec) -> list[Text]:
    return list(texts[: min(proxy.held_out, len(texts) // LEAST_LEARNT)])


def _split(
    corpus: str,
    cache: Path,
    held_out: list[Text],
    texts: Sequence[Text],
    sentences: int,
    sequence_length: int,
    tokenizer: PreTrainedTokenizerBase,
    of_many_lengths: bool = False,
) -> SplitTexts:
    apart = [text.text for text in held_out]
    for part in parts_of(corpus):  # students are scored on these
        if part.source == PACKAGED:
            apart += judged_paragraphs(cache)
        elif part.task is not None:
            apart += judged_texts(part.task, cache)
    repeats = NearDuplicates(apart)
    learnt = [text for text in texts if text.text not in repeats][:sentences]
    check_texts(corpus, [*held_out, *learnt])
    chunks = in_chunks([text.text for text in learnt], tokenizer, sequence_length, of_many_lengths)
    pieces = [
        Text(one, text.language)
        for text, its_chunks in zip(learnt, chunks, strict=True)
        for one in its_chunks
        if len(its_chunks) == 1 or one not in repeats  # a part can repeat what the whole does not
    ]
    return SplitTexts(held_out, pieces[:sentences])


def check_texts(corpus: str, texts: Sequence[Text]) -> None:
    """Refuses a corpus that is too small; near-duplicates do not count.

    Raises:
        BadInput: it has fewer than `FEWEST_TEXTS` texts.
    """
    if len(texts) < FEWEST_TEXTS:
        raise BadInput(
            f"The corpus {corpus} has only {len(texts)} different texts; a proxy set needs at least "
            f"{FEWEST_TEXTS}."
        )
