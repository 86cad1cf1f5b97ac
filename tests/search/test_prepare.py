from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import RobertaConfig, RobertaModel

from kdnas_core.errors import BadInput
from kdnas_core.measure import bench
from kdnas_core.measure.latency import RunOnce, Timing
from kdnas_core.search import prepare as module
from kdnas_core.search.prepare import MOST_HELD_OUT, make_judge, prepare
from kdnas_core.spec import parse_spec
from tests import tiny  # noqa: F401  (one thread for things this small)
from tests.sentences import is_one_sentence

pytestmark = pytest.mark.usefixtures("stand_in_bench", "fresh_cache")


@pytest.fixture
def stand_in_bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A millisecond for each layer and 16 of width; and a device lock of this test alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def runner(model: Any, protocol: object) -> RunOnce:
        return lambda: model.config.num_hidden_layers * model.config.hidden_size / 16

    def timed(runners: Sequence[Any], warmup: int, runs: int) -> list[Timing]:
        return [Timing((float(run()),), 0, clean=True) for run in runners]

    monkeypatch.setattr(bench, "onnx_runner", runner)
    monkeypatch.setattr(bench, "time_in_turns", timed)
    monkeypatch.setattr(module, "autocast_dtype", lambda: None)


@pytest.fixture
def fields(tiny_spec: dict[str, Any]) -> dict[str, Any]:
    return tiny_spec


def silent(words: str) -> None:
    pass


def refusal(fields: dict[str, Any]) -> str:
    with pytest.raises(BadInput) as caught:
        prepare(parse_spec(fields), silent)
    assert is_one_sentence(str(caught.value)), caught.value
    return str(caught.value)


def test_what_can_be_searched_is_loaded_measured_and_filled_in(
    fields: dict[str, Any], texts: list[str]
) -> None:
    fields["space"] = {"layers": [1, 2]}
    said: list[str] = []
    prepared = prepare(parse_spec(fields), said.append)
    assert prepared.teacher.architecture.key == "4x32-f64-h4-gelu"
    assert prepared.teacher_latency.p50 == 8
    assert prepared.spec.space.layers == [1, 2]
    assert prepared.spec.space.hidden_size == [8, 16, 24, 32]
    assert prepared.space.hidden_size == (8, 16, 24, 32)
    assert len(prepared.texts) == 240
    assert set(prepared.texts) <= set(texts)
    assert any("teacher" in words for words in said)
    assert any("corpus" in words for words in said)
    assert parse_spec(prepared.spec.model_dump()) == prepared.spec


def test_the_proxy_set_is_the_same_for_every_seed(fields: dict[str, Any]) -> None:
    first = prepare(parse_spec({**fields, "seed": 1}), silent)
    assert prepare(parse_spec({**fields, "seed": 2}), silent).texts == first.texts


def test_held_out_texts_are_never_trained_on(fields: dict[str, Any]) -> None:
    prepared = prepare(parse_spec(fields), silent)
    said: list[str] = []
    judge = make_judge(prepared, said.append)
    assert (len(judge.held_out), len(judge.train)) == (40, 200)

    def token_rows(targets: Any) -> set[tuple[int, ...]]:
        return {tuple(ids.tolist()) for ids in np.split(targets.ids, targets.offsets[1:-1])}

    # cut at 32 tokens, two texts can be alike; by far the most are not
    assert len(token_rows(judge.held_out) & token_rows(judge.train)) <= 2
    assert max(judge.train.lengths) == 32
    assert any("held-out" in words for words in said)
    assert any("100%" in words for words in said)


def test_of_a_small_corpus_no_more_than_a_fifth_is_held_out(fields: dict[str, Any]) -> None:
    fields["proxy"] |= {"sentences": 60, "held_out": 40}
    judge = make_judge(prepare(parse_spec(fields), silent), silent)
    assert (len(judge.held_out), len(judge.train)) == (100 // MOST_HELD_OUT, 80)


@pytest.mark.parametrize("budget", [{"budget_ms": 0.99}, {"budget_speedup": 8.1}])
def test_a_budget_below_every_student_is_refused_with_both_times(
    fields: dict[str, Any], budget: dict[str, float]
) -> None:
    fields["latency"] = {**budget, "sequence_length": 16}
    message = refusal(fields)
    assert "below every student" in message
    assert "0.99 ms" in message or "0.988 ms" in message
    assert "1 ms" in message


@pytest.mark.parametrize("budget", [{"budget_ms": 1.0}, {"budget_speedup": 8.0}])
def test_a_budget_that_the_smallest_student_meets_is_taken(
    fields: dict[str, Any], budget: dict[str, float]
) -> None:
    fields["latency"] = {**budget, "sequence_length": 16}
    prepare(parse_spec(fields), silent)


def test_heads_that_divide_no_width_are_refused(fields: dict[str, Any]) -> None:
    fields["space"]["attention_heads"] = [4, 5]
    assert "5 attention heads divide none" in refusal(fields)


def test_a_mapping_beyond_the_teachers_depth_is_refused(fields: dict[str, Any]) -> None:
    fields["space"]["layers"] = [1, 5]
    fields["objective"] = {"mapping": "bottom"}
    assert "needs a teacher layer 5, but the teacher has 4" in refusal(fields)


@pytest.mark.parametrize(
    "knob", ["layers", "hidden_size", "intermediate_size", "attention_heads", "hidden_act"]
)
def test_an_empty_knob_is_refused_by_its_name(fields: dict[str, Any], knob: str) -> None:
    fields["space"][knob] = []
    assert f"'space.{knob}'" in refusal(fields)


def test_a_tiny_corpus_is_refused_with_its_size(
    fields: dict[str, Any], texts: list[str], tmp_path: Path
) -> None:
    corpus = tmp_path / "tiny.txt"
    corpus.write_text("\n".join([*texts[:47], *texts[:47]]))  # twice the same is no more
    fields["corpus"] = str(corpus)
    assert "only 47 different texts" in refusal(fields)
    corpus.write_text("\n".join(texts[:48]))
    prepare(parse_spec(fields), silent)


@pytest.mark.parametrize("field", ["proxy", "latency"])
def test_a_sequence_longer_than_the_teacher_reads_is_refused_by_the_field(
    fields: dict[str, Any], field: str
) -> None:
    fields[field]["sequence_length"] = 129
    message = refusal(fields)
    assert f"'{field}.sequence_length' is 129" in message
    assert "at most 128 tokens" in message
    fields[field]["sequence_length"] = 128
    prepare(parse_spec(fields), silent)


def test_a_sequence_longer_than_the_positions_of_a_roberta_is_refused(
    fields: dict[str, Any], tiny_teacher: Path, tmp_path: Path
) -> None:
    # The first positions of this family are those of the padding, so that of 64 only 62 are left for tokens.
    folder = shutil.copytree(tiny_teacher, tmp_path / "roberta")
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=600,
        num_hidden_layers=2,
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        type_vocab_size=1,
        pad_token_id=1,
    )
    RobertaModel(config).save_pretrained(folder)
    fields |= {"teacher": str(folder), "proxy": fields["proxy"] | {"sequence_length": 64}}
    assert "'proxy.sequence_length' is 64" in refusal(fields)


@pytest.mark.parametrize("field", ["teacher", "corpus"])
def test_a_teacher_or_corpus_that_is_not_there_is_refused_before_anything_is_loaded(
    fields: dict[str, Any], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load_teacher", None)
    fields[field] = "/no/such/place.txt"
    assert "/no/such/place.txt" in refusal(fields)


def test_nothing_is_kept_of_a_spec_that_was_refused_before_measuring(
    fields: dict[str, Any], fresh_cache: Path
) -> None:
    fields["space"]["attention_heads"] = [5]
    refusal(fields)
    assert not fresh_cache.exists()
