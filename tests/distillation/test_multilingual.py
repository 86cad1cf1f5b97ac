from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from transformers import (
    AutoTokenizer,
    XLMRobertaModel,
    XLMRobertaTokenizer,
)

from kdnas_core.architecture import Architecture
from kdnas_core.data.corpus import check_corpus, read_texts
from kdnas_core.models.student import new_student
from kdnas_core.models.teacher import Teacher, load_teacher
from tests.tiny_fields import tiny_fields
from tests.tiny_runs import called, own_machine, searched
from tests.tiny_xlmr import (
    LANGUAGES,
    LONGEST,
    SHARED,
    made_up_texts,
    multilingual_texts,
    tiny_xlmr,
    write_corpora,
)

PRETRAINING_STEPS = 450  # about a minute
HUB_ID = "someone/tiny-xlmr"


@pytest.fixture(scope="module")
def texts() -> dict[str, list[str]]:
    return made_up_texts()


@pytest.fixture(scope="module")
def folder(texts: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_xlmr(tmp_path_factory.mktemp("xlmr"), texts, steps=0)


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Teacher:
    return load_teacher(str(folder))


# The teacher


def test_a_folder_with_an_xlm_r_is_loaded_as_what_it_is(teacher: Teacher) -> None:
    assert type(teacher.model) is XLMRobertaModel
    assert type(teacher.tokenizer) is XLMRobertaTokenizer
    assert teacher.architecture == Architecture(4, 64, 128, 4, "gelu")


def test_the_same_teacher_is_loaded_by_a_hub_id(
    folder: Path, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as the hub's own cache keeps what it has downloaded
    snapshots = tmp_path / f"models--{HUB_ID.replace('/', '--')}"
    (snapshots / "refs").mkdir(parents=True)
    (snapshots / "refs" / "main").write_text("abc")
    (snapshots / "snapshots").mkdir()
    (snapshots / "snapshots" / "abc").symlink_to(folder)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    loaded = load_teacher(HUB_ID)

    assert loaded.fingerprint == teacher.fingerprint
    assert loaded.tokenizer.get_vocab() == teacher.tokenizer.get_vocab()


def test_special_tokens_stand_where_xlm_r_has_them(teacher: Teacher) -> None:
    tokenizer, config = teacher.tokenizer, teacher.model.config
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]

    assert tokenizer.convert_tokens_to_ids(names) == [0, 1, 2, 3, len(tokenizer) - 1]
    assert tokenizer.all_special_ids == [0, 2, 3, 1, len(tokenizer) - 1]
    assert (config.bos_token_id, config.pad_token_id, config.eos_token_id) == (0, 1, 2)
    assert config.vocab_size == len(tokenizer)


def test_every_language_is_tokenised_without_unknowns(teacher: Teacher, texts: dict[str, list[str]]) -> None:
    assert len(texts) >= 5
    for language, of_language in texts.items():
        encoded = teacher.tokenizer(of_language)["input_ids"]
        assert not any(teacher.tokenizer.unk_token_id in ids for ids in encoded), language
        assert all(ids[0] == 0 and ids[-1] == 2 for ids in encoded)
        for text, ids in zip(of_language, encoded, strict=True):
            assert teacher.tokenizer.decode(ids, skip_special_tokens=True) == text


def test_what_no_language_has_is_unknown(teacher: Teacher) -> None:
    assert teacher.tokenizer.unk_token_id in teacher.tokenizer("ქართული")["input_ids"]


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real texts are not on this machine")
def test_real_languages_are_tokenised_without_unknowns(tmp_path: Path) -> None:
    texts = multilingual_texts()
    tokenizer = AutoTokenizer.from_pretrained(tiny_xlmr(tmp_path, texts, steps=0))

    assert set(texts) == set(LANGUAGES)
    for language, of_language in texts.items():
        ids = tokenizer(of_language, truncation=True)["input_ids"]
        assert not any(tokenizer.unk_token_id in of_text for of_text in ids), language


def test_a_tokenizer_saved_and_loaded_again_gives_the_same_ids(
    teacher: Teacher, texts: dict[str, list[str]], tmp_path: Path
) -> None:
    teacher.tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    some = [text for of_language in texts.values() for text in of_language[::5]]
    # padding, pairs, and characters that normalising would change
    some += ["  two  spaces ", "ﬁne ｗｉｄｅ …", "<mask> and </s>", ""]

    assert type(again) is type(teacher.tokenizer)
    assert again(some)["input_ids"] == teacher.tokenizer(some)["input_ids"]
    assert again(some[:9], some[9:18])["input_ids"] == teacher.tokenizer(some[:9], some[9:18])["input_ids"]
    assert again.model_max_length == teacher.tokenizer.model_max_length == LONGEST


# Its students


@pytest.mark.parametrize("architecture", [Architecture(2, 32, 48, 2), Architecture(4, 64, 128, 4)])
def test_a_student_reads_a_padded_text_as_it_reads_it_alone(
    architecture: Architecture, teacher: Teacher, texts: dict[str, list[str]]
) -> None:
    student = new_student(teacher, architecture, seed=0)
    some = [of_language[7 * number] for number, of_language in enumerate(texts.values())]
    padded = teacher.tokenizer(some, padding=True, return_tensors="pt")
    assert (padded["attention_mask"] == 0).any()

    with torch.inference_mode():
        together = student(**padded).last_hidden_state
        for row, text in enumerate(some):
            alone = student(**teacher.tokenizer(text, return_tensors="pt")).last_hidden_state
            torch.testing.assert_close(together[row : row + 1, : alone.shape[1]], alone, atol=1e-5, rtol=0)


def test_a_student_keeps_the_padding_token_and_counts_positions_behind_it(teacher: Teacher) -> None:
    student = new_student(teacher, Architecture(1, 16, 32, 2), seed=0)
    embeddings: Any = student.embeddings
    ids = torch.tensor([[0, 9, 2, 1, 1]])

    assert student.config.pad_token_id == embeddings.word_embeddings.padding_idx == 1
    assert embeddings.position_embeddings.num_embeddings == LONGEST + 2
    positions = embeddings.create_position_ids_from_input_ids(ids, embeddings.padding_idx)
    assert positions.tolist() == [[2, 3, 4, 1, 1]]


def test_a_student_reads_a_text_of_the_greatest_length(teacher: Teacher) -> None:
    student = new_student(teacher, Architecture(1, 16, 32, 2), seed=0)
    inputs = teacher.tokenizer("a " * 1_000, truncation=True, return_tensors="pt")

    assert inputs["input_ids"].shape == (1, LONGEST)
    with torch.inference_mode():
        assert student(**inputs).last_hidden_state.isfinite().all()


# Its corpus


def test_the_languages_that_were_written_are_the_languages_that_are_read(
    texts: dict[str, list[str]], tmp_path: Path
) -> None:
    source = str(write_corpora(tmp_path / "corpus", texts))
    check_corpus(source)
    found = read_texts(source, tmp_path, 0, 120, 1 / 0.3)

    assert {text.language for text in found} == set(texts)
    assert all(text.text in texts[text.language] for text in found)


# A whole search


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_machine(tmp_path_factory.mktemp("machine")):
        yield


@pytest.mark.slow
def test_a_search_with_a_multilingual_teacher_and_corpus_finishes_its_candidates(
    tmp_path: Path, machine: None
) -> None:
    texts = multilingual_texts()
    folder = tiny_xlmr(tmp_path / "teacher", texts, PRETRAINING_STEPS)
    corpus = write_corpora(tmp_path / "corpus", texts)
    spec = tiny_fields(folder, corpus) | {
        "latency": {"budget_ms": 1_000.0, "sequence_length": 16, "runtime": "torch"},
        "search": {"episodes": 1, "candidates": 3, "keep_weights": "all"},
    }
    summary, store = searched(tmp_path, spec)

    assert (summary["state"], summary["candidates"], summary["failed"]) == ("finished", 3, 0)
    candidates = called("show", summary["run"], "--db", store)["candidates"]
    assert [candidate["state"] for candidate in candidates] == ["done"] * 3
    assert all(0 < candidate["loss"] < 1 for candidate in candidates)
    for candidate in candidates:
        assert set(candidate["languages"]) <= set(texts)
        assert len(candidate["languages"]) > 1
        losses = candidate["languages"].values()
        assert min(losses) <= candidate["loss"] <= max(losses)
