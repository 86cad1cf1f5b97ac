from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from kdnas_core.data import packaged_task
from kdnas_core.data.corpus import Text, read_texts
from kdnas_core.data.harvest import Paragraph
from kdnas_core.data.splits import LEAST_LEARNT, NearDuplicates, SplitTexts, full_texts, proxy_texts
from kdnas_core.errors import BadInput
from kdnas_core.spec import ProxySpec
from tests.sentences import is_one_sentence

PROXY = ProxySpec(sentences=120, held_out=24, sequence_length=32)


@pytest.fixture
def tokenizer(tiny_teacher: Path) -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny_teacher)
    return found


def made_up(count: int, words: int = 9, seed: int = 0) -> list[str]:
    """Returns texts that share no sequence of words."""
    rng = random.Random(seed)
    return [" ".join(f"{rng.randrange(10**6)}" for _ in range(words)) for _ in range(count)]


def written(path: Path, texts: Sequence[str]) -> str:
    path.write_text("\n".join(texts), encoding="utf-8")
    return str(path)


def read(corpus: str, tokenizer: PreTrainedTokenizerBase, proxy: ProxySpec = PROXY) -> SplitTexts:
    return proxy_texts(corpus, Path("no-cache"), proxy, tokenizer, lambda words: None)


def read_in_full(corpus: str, tokenizer: PreTrainedTokenizerBase, length: int = 32) -> SplitTexts:
    return full_texts(corpus, Path("no-cache"), PROXY, 10_000, length, tokenizer, lambda words: None)


def plain(texts: Sequence[Text]) -> list[str]:
    return [text.text for text in texts]


def test_near_repeats_of_held_out_texts_are_not_learnt(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    texts = made_up(100)
    near = [f"{text} and so on" for text in texts]
    found = read_in_full(written(tmp_path / "corpus.txt", texts + near), tokenizer)
    assert len(found.held_out) == 24
    repeats = NearDuplicates(plain(found.held_out))
    assert not [text for text in plain(found.learnt) if text in repeats]
    twins = {text.split()[0] for text in plain(found.held_out)}
    assert len(found.learnt) == 200 - 2 * len(twins)


@pytest.mark.parametrize("of_many_lengths", [False, True])
def test_no_part_of_a_long_text_repeats_a_held_out_text_either(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, of_many_lengths: bool
) -> None:
    short = [f"{text}." for text in made_up(100, words=8)]
    long = [" ".join([one, *made_up(6, words=8, seed=number)]) for number, one in enumerate(short)]
    corpus = written(tmp_path / "corpus.txt", short + long)
    length = 64 if of_many_lengths else 24
    found = full_texts(
        corpus, Path("no-cache"), PROXY, 10_000, length, tokenizer, lambda words: None, of_many_lengths
    )
    repeats = NearDuplicates(plain(found.held_out))
    parts = [text for text in plain(found.learnt) if text not in short and text not in long]
    assert len(parts) > 100
    assert not [text for text in parts if text in repeats]


def test_texts_of_a_task_that_nearly_repeat_a_scored_row_are_not_learnt(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    train, scored, folder = made_up(100), made_up(10, seed=1), tmp_path / "mine"
    folder.mkdir()
    rows = {"train": [*train, *(f"{text} and so on" for text in scored)], "validation": scored}
    for split, texts in rows.items():
        lines = [json.dumps({"sentence": text, "label": 0}) for text in texts]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    found = read_in_full(f"task:{folder} + {written(tmp_path / 'more.txt', made_up(50, seed=2))}", tokenizer)
    repeats = NearDuplicates(scored)
    assert not [text for text in plain(found.learnt) if text in repeats]
    assert {text.language for text in found.learnt} == {"mine", "more"}
    assert len(found.learnt) == 150 - len([text for text in found.held_out if text.text not in repeats])


def test_a_full_distillation_is_judged_by_the_held_out_texts_of_its_run(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    written(folder / "en.txt", made_up(600, words=6, seed=1))
    written(folder / "sw.txt", made_up(90, words=6, seed=2))
    run, full = read(str(folder), tokenizer), read_in_full(str(folder), tokenizer)
    assert full.held_out == run.held_out
    assert {text.language for text in full.held_out} == {"en", "sw"}
    assert not set(plain(full.held_out)) & set(plain(full.learnt))
    assert len(full.learnt) == 690 - 24


@pytest.mark.parametrize("sentences", [40, 10_000])
def test_a_corpus_of_one_part_is_read_once_for_both(
    sentences: int, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    corpus, said = written(tmp_path / "corpus.txt", made_up(300, words=6)), list[int]()

    def spied(source: str, cache: Path, seed: int, limit: int, *rest: Any) -> list[Text]:
        said.append(limit)
        return read_texts(source, cache, seed, limit, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdnas_core.data.splits.read_texts", spied)
        full = full_texts(corpus, Path("no-cache"), PROXY, sentences, 32, tokenizer, lambda words: None)
    assert len(said) == 1
    run = read(corpus, tokenizer)
    assert full.held_out == run.held_out
    assert full.learnt[:40] == run.learnt[:40]
    assert len(full.learnt) == min(sentences, 300 - len(run.held_out))


def test_long_texts_are_learnt_in_chunks_and_no_more_than_were_asked_for(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    corpus = written(tmp_path / "corpus.txt", made_up(100, words=60))
    run, full = read(corpus, tokenizer), read_in_full(corpus, tokenizer)
    assert len(run.held_out) == 100 // LEAST_LEARNT
    assert all(len(text.split()) == 60 for text in plain(run.held_out))
    assert len(run.learnt) == 120
    assert len(full.learnt) > 2 * (100 - 20)
    assert max(len(tokenizer(text)["input_ids"]) for text in plain(full.learnt)) <= 32


def test_of_a_small_corpus_no_more_than_a_fifth_is_held_out(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    found = read(written(tmp_path / "corpus.txt", made_up(60)), tokenizer)
    assert (len(found.held_out), len(found.learnt)) == (12, 48)


@pytest.mark.parametrize("lines", [made_up(47), [f"the same long text once again, {n}" for n in range(60)]])
def test_a_corpus_without_enough_different_texts_is_refused(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, lines: list[str]
) -> None:
    with pytest.raises(BadInput) as refusal:
        read(written(tmp_path / "corpus.txt", lines), tokenizer)
    assert is_one_sentence(str(refusal.value))
    assert "at least 48" in str(refusal.value)


def test_the_paragraphs_that_the_packaged_task_scores_on_are_not_learnt(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    paragraphs = [
        Paragraph(text, "numpy", f"numpy.module{number % 40}") for number, text in enumerate(made_up(400))
    ]
    monkeypatch.setattr("kdnas_core.data.corpus.harvest", lambda cache, progress: paragraphs)
    monkeypatch.setattr(packaged_task, "harvest", lambda cache, progress: paragraphs)
    judged = set(packaged_task.judged_paragraphs(Path("no-cache")))
    assert len(judged) > 100
    found = read_in_full("packaged", tokenizer)
    assert not judged & set(plain(found.learnt))
    assert len(found.learnt) == len({text for text in plain(found.learnt)}) > 100
