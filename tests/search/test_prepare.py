from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, RobertaConfig, RobertaModel

from kdnas_core.architecture import Architecture
from kdnas_core.data.tokens import NOT_HIDDEN, Passage
from kdnas_core.distillation import needs, supernet
from kdnas_core.errors import BadInput
from kdnas_core.latency import bench
from kdnas_core.latency.bench import LatencyBench
from kdnas_core.latency.protocol import TimedRun, Timing
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.models.teacher import load_teacher
from kdnas_core.search import prepare as module
from kdnas_core.search.prepare import make_judge, prepare
from kdnas_core.spec import USUAL_RUNTIMES, parse_spec
from tests import tiny  # noqa: F401  (one thread for things this small)
from tests.sentences import is_one_sentence

pytestmark = pytest.mark.usefixtures("stand_in_bench", "fresh_cache")


@pytest.fixture
def stand_in_bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Replaces the bench: a millisecond for each layer and 16 of width; also sets a separate device lock."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def runner(model: Any, protocol: object) -> TimedRun:
        return lambda: (model.config.num_hidden_layers * model.config.hidden_size / 16, True)

    def timed(runners: Sequence[Any], warmup: int, runs: int) -> list[Timing]:
        return [Timing((float(run()[0]),), 0, clean=True) for run in runners]

    monkeypatch.setattr(bench, "runner", runner)
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
    fields["proxy"] |= {"sequence_length": 128}
    said: list[str] = []
    prepared = prepare(parse_spec(fields), said.append)
    assert prepared.teacher.architecture.key == "4x32-f64-h4-gelu"
    assert prepared.teacher_latency.p50 == 8
    assert prepared.spec.space.layers == [1, 2]
    assert prepared.spec.space.hidden_size == [8, 16, 24, 32]
    assert prepared.space.hidden_size == (8, 16, 24, 32)
    assert len(prepared.texts.held_out) == 40
    assert 195 <= len(prepared.texts.learnt) <= 200  # less what nearly repeats a held-out text
    corpus = "\n".join(texts)
    assert all(text.text in corpus for text in (*prepared.texts.held_out, *prepared.texts.learnt))
    assert any("teacher" in words for words in said)
    assert any("corpus" in words for words in said)
    assert parse_spec(prepared.spec.model_dump()) == prepared.spec


def test_the_proxy_set_is_the_same_for_every_seed(fields: dict[str, Any]) -> None:
    first = prepare(parse_spec({**fields, "seed": 1}), silent)
    assert prepare(parse_spec({**fields, "seed": 2}), silent).texts == first.texts


def test_held_out_texts_are_never_trained_on_and_those_of_one_file_are_of_one_language(
    fields: dict[str, Any],
) -> None:
    prepared = prepare(parse_spec(fields), silent)
    said: list[str] = []
    judge = make_judge(prepared, said.append)
    assert (len(judge.data.held_out), len(judge.data.train)) == (40, 200)

    def token_rows(targets: Any) -> set[tuple[int, ...]]:
        return {tuple(ids.tolist()) for ids in np.split(targets.ids, targets.offsets[1:-1])}

    # cut at 32 tokens, two texts can be alike; by far the most are not
    assert len(token_rows(judge.data.held_out) & token_rows(judge.data.train)) <= 2
    assert max(judge.data.train.lengths) == 32
    assert any("held-out" in words for words in said)
    assert any("100%" in words for words in said)
    assert set(judge.data.languages) == {"corpus"}  # of one file


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


def test_the_smallest_student_is_measured_only_where_its_flops_leave_a_doubt(
    fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    measure = LatencyBench.student_latency

    def spied(bench: LatencyBench, shape: Architecture, *rest: Any) -> LatencyReading:
        measured.append(shape.key)
        return measure(bench, shape, *rest)

    monkeypatch.setattr(LatencyBench, "student_latency", spied)
    teacher, smallest = (Architecture(*shape).flops(16) for shape in ((4, 32, 64, 4), (1, 16, 32, 2)))
    for slack in (0.9, 1.1):  # the teacher takes 8 ms
        budget = slack * 10 * 8 * smallest / teacher
        prepare(parse_spec({**fields, "latency": {"budget_ms": budget, "sequence_length": 16}}), silent)
        assert measured == ["1x16-f32-h2-gelu"]


def test_heads_that_divide_no_width_are_refused(fields: dict[str, Any]) -> None:
    fields["space"]["attention_heads"] = [4, 5]
    assert "5 attention heads divide none" in refusal(fields)


# What is usual


@pytest.mark.parametrize(
    ("makes_vectors", "recipe", "yardstick", "pairs"),
    [(True, "vectors", "vectors", 0.0), (False, "kdnas", "layers", 0.5)],
)
def test_what_was_left_out_is_filled_in_by_what_the_teacher_is_made_for(
    makes_vectors: bool,
    recipe: str,
    yardstick: str,
    pairs: float,
    fields: dict[str, Any],
    tiny_teacher: Path,
    tmp_path: Path,
) -> None:
    folder = shutil.copytree(tiny_teacher, tmp_path / "teacher")
    if makes_vectors:
        (folder / "modules.json").write_text("[]")
    prepared = prepare(parse_spec({**fields, "teacher": str(folder)}), silent)
    spec = prepared.spec
    assert (spec.objective.recipe, spec.objective.yardstick, spec.proxy.pairs) == (recipe, yardstick, pairs)
    assert spec.objective.use == ("vectors" if makes_vectors else "fine_tuning")
    assert spec.search.static is makes_vectors
    assert [shape.is_static for shape in prepared.beside] == [True] * makes_vectors
    types = make_judge(prepared, silent).data.train.types
    assert (types is None) == makes_vectors


@pytest.mark.parametrize(
    "fields_of_it",
    [
        {"objective": {"recipe": "minilm"}, "space": {"attention_heads": [4]}},  # of attention alone
        {"objective": {"yardstick": "layers"}},
        {"search": {"static": False}},
    ],
)
def test_no_static_student_is_judged_where_it_could_not_learn_or_be_compared_or_is_not_wanted(
    fields_of_it: dict[str, Any], fields: dict[str, Any], tiny_teacher: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_teacher, tmp_path / "teacher")
    (folder / "modules.json").write_text("[]")
    for name, value in fields_of_it.items():
        fields[name] = {**fields.get(name, {}), **value}
    prepared = prepare(parse_spec({**fields, "teacher": str(folder)}), silent)
    assert prepared.beside == ()
    assert prepared.spec.search.static is False


def test_a_static_student_that_is_asked_for_is_refused_where_the_teacher_makes_no_vectors(
    fields: dict[str, Any],
) -> None:
    fields["search"] = {**fields.get("search", {}), "static": True}
    assert "search.static=false" in refusal(fields)


def test_the_spec_names_the_device_that_auto_chose(
    fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert prepare(parse_spec(fields), silent).spec.device == "cpu"
    assert "cuda device" in refusal({**fields, "device": "cuda"})


def test_what_was_given_stays_whatever_the_teacher_is_made_for(fields: dict[str, Any]) -> None:
    fields["objective"] = {"use": "vectors", "recipe": "minilmv2", "yardstick": "layers"}
    fields["proxy"] |= {"pairs": 0.25}
    spec = prepare(parse_spec(fields), silent).spec
    assert spec.objective == parse_spec(fields).objective
    assert spec.proxy.pairs == 0.25


def test_a_supernet_is_trained_where_students_are_cut_out_of_one_and_said_so(
    fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supernet, "SUPERNET_STEPS", 2)
    said: list[str] = []
    assert make_judge(prepare(parse_spec(fields), silent), said.append).shared is None
    assert not any("supernet" in words for words in said)
    fields["objective"] = {"start": "supernet"}
    judge = make_judge(prepare(parse_spec(fields), silent), said.append)
    assert judge.shared is not None
    assert judge.shared.keys() == judge.bench.teacher.model.state_dict().keys()
    assert sum("supernet" in words for words in said) == 2


@pytest.mark.parametrize("start", ["teacher", "random"])
def test_what_heads_do_is_measured_only_where_students_are_cut_out_of_the_teacher(
    fields: dict[str, Any], start: str
) -> None:
    fields["objective"] = {"start": start}
    said: list[str] = []
    importance = make_judge(prepare(parse_spec(fields), silent), said.append).importance
    assert (importance is not None) == (start == "teacher")
    assert any("each head" in words for words in said) == (start == "teacher")


def test_no_held_out_text_is_in_a_pair_that_is_learnt(fields: dict[str, Any]) -> None:
    fields["proxy"] |= {"pairs": 1.0}
    prepared = prepare(parse_spec(fields), silent)
    data = make_judge(prepared, silent).data
    assert data.held_out.types is None
    passages = prepared.texts.passages(1.0)
    assert all(isinstance(passage, tuple) for passage in passages)
    for text in prepared.texts.held_out:
        assert not any(text.text in passage for passage in passages)


# What the students could learn


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails on any measurement or computation."""
    monkeypatch.setattr(module, "LatencyBench", None)
    monkeypatch.setattr(module, "teacher_targets", None)


SAME_HEADS = {"layers": [2, 3], "hidden_size": [16, 24], "intermediate_size": [32], "attention_heads": [4]}

REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"mapping": "bottom"}, {"layers": [1, 5]}, "needs a teacher layer 5, but the teacher has 4"),
    ({"mapping": [2, 4]}, {"layers": [2, 3]}, "2 teacher layers does not fit a student of 3"),
    ({"mapping": [2, 5]}, {"layers": [2]}, "Teacher layer 5 is named, but the teacher has layers 0 to 4"),
    ({"mapping": [None, None]}, {"layers": [2]}, "names no teacher layer"),
    ({"recipe": "pkd"}, {"layers": [1, 2]}, "'skip' leaves out the last layer"),
    ({"recipe": "minilm", "mapping": [0, 4]}, {"layers": [2]}, "layer 0, the embedding"),
    ({"start_layers": [1, 2]}, {"layers": [2, 3]}, "2 teacher layers does not fit"),
    ({"start": "supernet", "start_layers": [1, 2]}, {"layers": [2, 3]}, "2 teacher layers does not fit"),
    ({"start_layers": [1, 5]}, {"layers": [2]}, "layer 5 is named, but the teacher has"),
    ({"start_layers": "bottom"}, {"layers": [5]}, "needs a teacher layer 5"),
    ({"recipe": "minilm"}, {"attention_heads": [2, 4]}, "2 attention heads, the teacher 4"),
    ({"recipe": "pd"}, {}, "no masked-LM head"),
    ({"recipe": "custom", "terms": [{"kind": "masked_lm"}]}, {}, "nothing that the student"),
    (
        {"recipe": "custom", "terms": [{"kind": "relations", "relation_heads": 16}]},
        {"hidden_size": [16, 24]},
        "16 relation heads do not divide the student's width of 24",
    ),
]


@pytest.mark.parametrize(("objective", "space", "reason"), REFUSED)
def test_what_a_student_of_the_space_could_not_learn_is_refused_before_anything_is_measured(
    fields: dict[str, Any], unmeasured: None, objective: dict[str, Any], space: dict[str, Any], reason: str
) -> None:
    fields["space"] = SAME_HEADS | space
    fields["objective"] = objective
    assert reason in refusal(fields)


def test_a_mobilebert_is_refused_where_students_are_cut_out_of_a_supernet(
    fields: dict[str, Any], unmeasured: None
) -> None:
    fields["space"] = {"presets": ["mobilebert"]}
    fields["objective"] = {"start": "supernet"}
    assert "MobileBERT cannot be cut out of a supernet" in refusal(fields)


@pytest.mark.parametrize("recipe", ["kdnas", "tinybert", "minilmv2"])
def test_a_recipe_that_fits_every_student_of_the_space_is_taken_though_terms_are_left_out(
    fields: dict[str, Any], recipe: str
) -> None:
    fields["space"], fields["objective"] = SAME_HEADS, {"recipe": recipe}
    prepared = prepare(parse_spec(fields), silent)
    assert len(prepared.plans) == 4  # two depths and two widths
    without_head = {note for plan in prepared.plans for note in plan.notes}
    assert all("no masked-LM head" in note and is_one_sentence(note) for note in without_head)
    assert bool(without_head) == (recipe == "tinybert")


def test_other_heads_cost_a_student_a_term_and_nothing_else(fields: dict[str, Any]) -> None:
    fields["objective"] = {"recipe": "tinybert"}
    prepared = prepare(parse_spec(fields), silent)
    kinds = {frozenset(term.name for term in plan.terms) for plan in prepared.plans}
    assert kinds == {frozenset({"embedding", "hidden"}), frozenset({"embedding", "hidden", "attention"})}


def test_without_a_mask_token_words_are_left_out_and_pd_is_refused(
    fields: dict[str, Any], tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_mask(source: str) -> Any:
        teacher = load_teacher(source)
        teacher.tokenizer.mask_token = None
        return teacher

    monkeypatch.setattr(module, "load_teacher", without_mask)
    fields["objective"] = {"recipe": "pd", "head": "trained"}
    assert "no mask token" in refusal(fields)
    fields["objective"] = {"recipe": "distilbert", "head": "trained"}
    prepared = prepare(parse_spec(fields), silent)
    assert {term.name for plan in prepared.plans for term in plan.terms} == {"cosine"}
    judge = make_judge(prepared, silent)
    assert (judge.data.train.labels == NOT_HIDDEN).all()
    assert judge.words is None


# Languages


@pytest.fixture
def two_languages(texts: list[str], tmp_path: Path) -> str:
    """A corpus of 300 texts in one language and 60 in another."""
    folder = tmp_path / "languages"
    folder.mkdir()
    (folder / "en.txt").write_text("\n".join(texts[:300]))
    (folder / "sw.txt").write_text("\n".join(texts[300:360]))
    return str(folder)


def test_the_language_of_each_held_out_text_is_known_to_the_judge(
    fields: dict[str, Any], two_languages: str, texts: list[str]
) -> None:
    fields["corpus"] = two_languages
    fields["proxy"] |= {"sentences": 100, "held_out": 20, "sequence_length": 128}
    prepared = prepare(parse_spec(fields), silent)
    data = make_judge(prepared, silent).data
    assert list(data.languages) == [text.language for text in prepared.texts.held_out]
    assert set(data.languages) == {"en", "sw"}
    read = [*prepared.texts.held_out, *prepared.texts.learnt]
    assert all(text.language == ("en" if text.text in texts[:300] else "sw") for text in read)
    assert len(data.held_out) == 20


def test_the_temperature_decides_how_much_of_a_small_language_is_read(
    fields: dict[str, Any], two_languages: str
) -> None:
    fields["corpus"] = two_languages
    shares = []
    for temperature in (1, 3, 1_000):
        fields["proxy"] |= {"sentences": 100, "held_out": 20, "sequence_length": 128}
        fields["proxy"] |= {"language_temperature": temperature}
        read = prepare(parse_spec(fields), silent).texts
        languages = [text.language for text in (*read.held_out, *read.learnt)]
        shares.append(languages.count("sw"))
    assert shares[0] == 20  # a sixth, as in the corpus
    assert shares[0] < shares[1] < shares[2] == 60


# What is computed of the teacher


def test_of_the_teacher_no_more_is_computed_than_some_student_reads(fields: dict[str, Any]) -> None:
    hidden = {("hidden", layer) for layer in range(5)}
    fields["space"] = SAME_HEADS | {"layers": [2]}
    expected = {
        "kdnas": set(),
        "minilm": {("query", 4), ("key", 4), ("value", 4)},
        "tinybert": {("query", 2), ("key", 2), ("query", 4), ("key", 4)},
    }
    for recipe, more in expected.items():
        fields["objective"] = {"recipe": recipe}
        judge = make_judge(prepare(parse_spec(fields), silent), silent)
        assert judge.data.train.outputs.keys() == judge.data.held_out.outputs.keys() == hidden | more
        assert (judge.data.train.labels == NOT_HIDDEN).all()  # no head, so that no word is to be guessed
        assert judge.words is None


def test_texts_are_in_the_numbers_of_the_words_in_use(fields: dict[str, Any]) -> None:
    prepared = prepare(parse_spec(fields), silent)
    data = make_judge(prepared, silent).data
    tokenizer = prepared.teacher.tokenizer
    judged: list[Passage] = [text.text for text in prepared.texts.held_out]
    learnt = prepared.texts.passages(0.5)  # as usual for students that will be fine-tuned
    for targets, of in ((data.held_out, judged), (data.train, learnt)):
        ids = tokenizer(of, truncation=True, max_length=32)["input_ids"]
        assert data.vocabulary.rows[targets.ids].tolist() == [token for text in ids for token in text]
    assert len(data.vocabulary.rows) < len(tokenizer)


def test_a_masked_lm_head_is_trained_for_a_teacher_that_has_none_where_it_is_wanted(
    fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "TRAIN_STEPS", 2)
    fields["objective"] = {"recipe": "pd", "head": "trained"}
    said: list[str] = []
    judge = make_judge(prepare(parse_spec(fields), silent), said.append)
    assert any("masked-LM head" in words for words in said)
    assert judge.words is not None
    assert len(judge.words.table) == len(judge.data.vocabulary.rows)
    assert judge.profile.predicts_words
    for targets in (judge.data.train, judge.data.held_out):
        hidden = targets.labels != NOT_HIDDEN
        assert hidden.mean() == pytest.approx(0.15, abs=0.03)
        assert targets.labels[hidden].max() < len(judge.data.vocabulary.rows)


@pytest.fixture
def with_head(tiny_teacher: Path, tmp_path: Path) -> Path:
    """The folder of a teacher that can predict words."""
    folder = tmp_path / "with-head"
    shutil.copytree(tiny_teacher, folder)
    torch.manual_seed(0)
    config = BertConfig.from_pretrained(tiny_teacher)
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


def test_the_teachers_own_head_is_used_on_the_words_in_use(
    fields: dict[str, Any], with_head: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "trained_head", None)
    fields |= {"teacher": str(with_head), "objective": {"recipe": "pd"}}
    prepared = prepare(parse_spec(fields), silent)
    judge = make_judge(prepared, silent)
    assert prepared.words is not None and judge.words is not None
    states = torch.randn(3, 32)
    expected = prepared.words.logits(states)[:, judge.data.vocabulary.rows]
    torch.testing.assert_close(judge.words.logits(states), expected)


def test_a_head_that_no_term_needs_is_not_read(
    fields: dict[str, Any], with_head: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "teacher_head", None)
    fields |= {"teacher": str(with_head), "objective": {"recipe": "minilmv2"}}
    assert make_judge(prepare(parse_spec(fields), silent), silent).words is None


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


def test_cuda_is_refused_before_anything_else_where_there_is_none(
    fields: dict[str, Any], fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(module, "load_teacher", None)
    fields["latency"] = {"budget_ms": 5.0, "runtime": "torch-cuda"}
    assert "'torch-cuda'" in refusal(fields)
    assert not fresh_cache.exists()


def test_the_teacher_is_measured_in_the_runtime_of_the_budget(fields: dict[str, Any]) -> None:
    fields["latency"] = {**fields["latency"], "runtime": USUAL_RUNTIMES[-1]}
    spec = parse_spec(fields)
    assert spec.latency.runtime != parse_spec({}).latency.runtime
    assert prepare(spec, silent).teacher_latency.runtime == USUAL_RUNTIMES[-1]


def test_nothing_is_kept_of_a_spec_that_was_refused_before_measuring(
    fields: dict[str, Any], fresh_cache: Path
) -> None:
    fields["space"]["attention_heads"] = [5]
    refusal(fields)
    assert not fresh_cache.exists()
