from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel

from kdnas_core.architecture import Architecture, LayerSource
from kdnas_core.data.tasks import Row, Task
from kdnas_core.distillation import beginning, trainer
from kdnas_core.distillation.forward import Forward
from kdnas_core.distillation.loop import Diverged
from kdnas_core.distillation.objective import Objective, Places
from kdnas_core.distillation.plan import TeacherProfile
from kdnas_core.distillation.terms import PairTerm, StateTerm, WordTerm
from kdnas_core.distillation.trainer import HeldOut, ProxySet
from kdnas_core.evaluation.proxy_task import proxy_of
from kdnas_core.hardware import core_lock
from kdnas_core.latency.bench import LatencyBench
from kdnas_core.latency.model import LatencyModel
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.models.mapping import HIDDEN, PROBE, YARDSTICK
from kdnas_core.models.student import new_student, start_student
from kdnas_core.models.teacher import Teacher
from kdnas_core.search import candidate as candidate_module
from kdnas_core.search import judge as module
from kdnas_core.search.candidate import Costs, Judgement, Listener, costs_of_budgets
from kdnas_core.search.judge import Judge
from kdnas_core.search.loop import REMEMBERED
from kdnas_core.search.reward import kdnas_reward
from kdnas_core.search.rungs import Cost, Peer
from kdnas_core.spec import parse_spec
from tests.sentences import is_one_sentence
from tests.tiny import (
    made_up_importance,
    made_up_words,
    reading_of,
    teacher_of,
    whole_proxy_set,
)

SMALL = Architecture(2, 16, 32, 2)
WITHIN, OVER = reading_of(5.0, 10.0), reading_of(5.1, 10.0)  # for a budget of twice the teacher's speed


class Stopped(Exception):
    pass


def words(student: PreTrainedModel) -> torch.Tensor:
    """A copy of its word embeddings."""
    return student.get_parameter("embeddings.word_embeddings.weight").detach().clone()


def is_locked() -> bool:
    """Whether something measures on the device, or computes on it."""
    try:
        with core_lock(0).acquire(timeout=0):
            return False
    except filelock.Timeout:
        return True


@dataclass
class Told:
    """Records the calls of a listener; ends the judgement at a step."""

    costs: list[Costs] = field(default_factory=list)
    notes: list[Sequence[str]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    held_out: list[tuple[int, dict[str, Places]]] = field(default_factory=list)
    locked: list[bool] = field(default_factory=list)
    stop_at: int | None = None

    def step(self, taken: int) -> None:
        self.steps.append(taken)
        self.locked.append(is_locked())
        if taken == self.stop_at:
            raise Stopped

    @property
    def listener(self) -> Listener:
        def held_out(taken: int, terms: dict[str, Places]) -> None:
            self.held_out.append((taken, terms))

        return Listener(lambda: None, self.costs.append, self.notes.append, self.step, held_out)


@pytest.fixture(autouse=True)
def own_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device lock of this test alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.fixture
def judge(
    teacher: Teacher, texts: list[str], tiny_spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Judge:
    """A judge whose bench measures a latency within the budget."""
    latency = {"budget_speedup": 2, "sequence_length": 16}
    proxy = {**tiny_spec["proxy"], "steps": 6}
    spec = parse_spec({**tiny_spec, "latency": latency, "proxy": proxy}).judged_by_layers()
    set_latency(monkeypatch, WITHIN)
    monkeypatch.setattr(candidate_module, "model_here", lambda protocol: None)
    data = whole_proxy_set(teacher, texts[:64], texts[100:116])
    return Judge(
        spec,
        LatencyBench(teacher, spec.latency),
        teacher_ms=WITHIN.teacher_p50,
        profile=TeacherProfile(teacher.architecture, predicts_words=True, hides_words=True),
        data=data,
        words=made_up_words(teacher, data.vocabulary),
        autocast=None,
        importance=made_up_importance(teacher),
    )


def with_objective(judge: Judge, **fields: Any) -> Judge:
    """Returns the same judge for another objective; its default yardstick is the mean over layers."""
    objective = {"recipe": "kdnas", "yardstick": "layers"} | fields
    spec = judge.spec.model_dump() | {"objective": objective, "latency": {"budget_speedup": 2}}
    return dataclasses.replace(judge, spec=parse_spec(spec))


def set_latency(monkeypatch: pytest.MonkeyPatch, latency: LatencyReading) -> None:
    monkeypatch.setattr(
        LatencyBench,
        "student_latency",
        lambda bench, architecture, student, alone: latency,
    )


class Model:
    """A latency model of the machine of `WITHIN`: the teacher takes 10 ms, every student a given time."""

    may_skip = LatencyModel.may_skip  # the real rule, of its own error

    def __init__(self, student_ms: float, p90_error: float = 0.1, teacher_ms: float = 10.0) -> None:
        self.student_ms, self.p90_error, self.teacher_ms = student_ms, p90_error, teacher_ms

    def estimate(self, architecture: Architecture, batch_size: int, sequence_length: int) -> float:
        assert (batch_size, sequence_length) == (1, 16)
        return self.teacher_ms if architecture.layers == 4 else self.student_ms


def forbid_distillation(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object, **named: object) -> None:
        raise AssertionError("an over-budget candidate was distilled")

    for name in ("distil", "begin"):
        monkeypatch.setattr(module, name, never)


@pytest.mark.parametrize(
    ("budget", "latency"),
    [
        ({"budget_speedup": 2.0}, OVER),
        ({"budget_ms": 5.0}, OVER),
        ({"budget_ms": 4.0}, reading_of(5.0, 1_000.0)),  # however slow the teacher is
    ],
)
def test_a_candidate_over_budget_is_never_distilled(
    judge: Judge,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    budget: dict[str, float],
    latency: LatencyReading,
) -> None:
    set_latency(monkeypatch, latency)
    forbid_distillation(monkeypatch)
    spec = parse_spec({**judge.spec.model_dump(), "latency": budget})
    vetoing = dataclasses.replace(judge, spec=spec, teacher_ms=latency.teacher_p50)
    told = Told()
    assert vetoing.judge(SMALL, tmp_path / "files", told.listener) == Judgement("over_budget", None, None)
    assert [costs.latency for costs in told.costs] == [latency]
    assert (told.notes, told.steps, told.held_out) == ([], [], [])
    assert [path.name for path in (tmp_path / "files").iterdir()] == ["config.json"]


# The budget of all of these is 5 ms: a speed-up of 2 over a teacher of 10 ms, or as it stands

AS_IT_STANDS = {"budget_ms": 5.0, "sequence_length": 16}
AS_SPEEDUP = {"budget_speedup": 2.0, "sequence_length": 16}


def foreseen(judge: Judge, monkeypatch: pytest.MonkeyPatch, model: Model | None, **budget: float) -> Judge:
    """Returns the same judge with a latency model; a student that is measured is over budget."""
    set_latency(monkeypatch, OVER)
    monkeypatch.setattr(candidate_module, "model_here", lambda protocol: model)
    forbid_distillation(monkeypatch)
    spec = judge.spec.model_dump() | {"latency": budget or AS_SPEEDUP}
    return dataclasses.replace(judge, spec=parse_spec(spec))


@pytest.mark.parametrize("budget", [AS_IT_STANDS, AS_SPEEDUP])
def test_a_candidate_foreseen_far_over_budget_is_neither_built_nor_measured(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, budget: dict[str, float]
) -> None:
    vetoing = foreseen(judge, monkeypatch, Model(7.6), **budget)
    monkeypatch.setattr(module, "new_student", None)
    monkeypatch.setattr(LatencyBench, "student_latency", None)
    told = Told()
    judgement = vetoing.judge(SMALL, tmp_path / "files", told.listener)
    assert judgement == Judgement("over_budget", None, None, estimated_ms=7.6)
    assert (told.costs, told.notes, told.steps) == ([], [], [])
    config = AutoConfig.from_pretrained(tmp_path / "files")
    assert (config.num_hidden_layers, config.hidden_size) == (2, 16)


@pytest.mark.parametrize(
    ("model", "budget"),
    [
        (None, AS_SPEEDUP),
        (Model(7.4), AS_SPEEDUP),
        (Model(7.4), AS_IT_STANDS),
        (Model(4.1), AS_SPEEDUP),
        (Model(100.0, p90_error=0.26), AS_SPEEDUP),
        (Model(7.6, teacher_ms=10.3), AS_SPEEDUP),  # near the edge as a share of the teacher's
        (Model(100.0, teacher_ms=200.0), AS_IT_STANDS),  # the model is wrong about the teacher at this batch
    ],
)
def test_a_candidate_is_measured_near_the_budget_and_where_no_good_model_says_otherwise(
    judge: Judge,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    model: Model | None,
    budget: dict[str, float],
) -> None:
    told = Told()
    measuring = foreseen(judge, monkeypatch, model, **budget)
    judgement = measuring.judge(SMALL, tmp_path / "files", told.listener)
    assert judgement == Judgement("over_budget", None, None)
    assert [costs.latency for costs in told.costs] == [OVER]


def test_a_candidate_near_the_edge_for_the_teacher_of_this_run_is_measured(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = Told()
    measuring = dataclasses.replace(foreseen(judge, monkeypatch, Model(7.6)), teacher_ms=10.3)
    measuring.judge(SMALL, tmp_path / "files", told.listener)
    assert len(told.costs) == 1


def test_what_is_remembered_is_not_estimated(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = Told()
    monkeypatch.setattr(LatencyBench, "remembered", lambda bench, architecture: OVER)
    foreseen(judge, monkeypatch, Model(100.0)).judge(SMALL, tmp_path / "files", told.listener)
    assert [costs.latency for costs in told.costs] == [OVER]


def test_students_named_one_by_one_are_measured(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measuring = foreseen(judge, monkeypatch, Model(100.0))
    spec = parse_spec(measuring.spec.model_dump() | {"space": "bert-tiny"})
    told = Told()
    dataclasses.replace(measuring, spec=spec).judge(SMALL, tmp_path / "files", told.listener)
    assert [costs.latency for costs in told.costs] == [OVER]


def test_a_candidate_just_within_the_budget_is_distilled(judge: Judge, tmp_path: Path) -> None:
    told = Told()
    assert judge.judge(SMALL, tmp_path / "files", told.listener).state == "done"
    assert told.steps == list(range(1, judge.spec.proxy.steps + 1))


def test_its_costs_are_told_before_the_first_step(judge: Judge, teacher: Teacher, tmp_path: Path) -> None:
    told = Told(stop_at=1)
    with pytest.raises(Stopped):
        judge.judge(SMALL, tmp_path / "files", told.listener)
    weights = sum(weight.numel() for weight in new_student(teacher, SMALL, 0).parameters())
    assert told.costs == [Costs(weights, SMALL.flops(16), WITHIN)]


def test_a_judged_student_is_loaded_by_stock_transformers_with_its_tokenizer(
    judge: Judge, teacher: Teacher, texts: list[str], tmp_path: Path
) -> None:
    judge.judge(SMALL, tmp_path / "files", Told().listener)
    student = AutoModel.from_pretrained(tmp_path / "files")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "files")
    assert tokenizer(texts[:5])["input_ids"] == teacher.tokenizer(texts[:5])["input_ids"]
    config = student.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (2, 16, 2)
    with torch.no_grad():
        states = student(**tokenizer(texts[0], return_tensors="pt")).last_hidden_state
    assert states.isfinite().all()
    assert not any(path.suffix in (".bin", ".pt", ".pkl") for path in (tmp_path / "files").iterdir())


def test_the_weights_kept_are_those_that_were_learned(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    learned: list[dict[str, torch.Tensor]] = []

    def remember(student: Any, *arguments: Any) -> HeldOut:
        result = trainer.distil(student, *arguments)
        learned.append({name: weight.clone() for name, weight in student.state_dict().items()})
        return result

    monkeypatch.setattr(module, "distil", remember)
    judge.judge(SMALL, tmp_path / "files", Told().listener)
    kept = AutoModel.from_pretrained(tmp_path / "files").state_dict()
    assert all(torch.equal(weight, learned[0][name]) for name, weight in kept.items())


def test_losses_are_told_by_term_and_student_and_teacher_layer_counted_from_one(
    judge: Judge, tmp_path: Path
) -> None:
    told = Told()
    judge.judge(SMALL, tmp_path / "files", told.listener)
    assert [step for step, _ in told.held_out] == [0, 1, 2, 3, 4, 5, 6]
    # layer 1 of 2 learns teacher layers 2 (uniform) and 3 (last) of 4, layer 2 the last
    places = {(1, 2), (1, 3), (2, 4)}
    assert all(
        {name: set(of) for name, of in terms.items()} == {HIDDEN: places} for _, terms in told.held_out
    )


def test_the_loss_is_the_mean_over_layers_and_the_reward_follows_the_formula(
    judge: Judge, tmp_path: Path
) -> None:
    told = Told()
    judgement = judge.judge(SMALL, tmp_path / "files", told.listener)
    last = told.held_out[-1][1][HIDDEN]
    assert judgement.loss == pytest.approx(((last[1, 2] + last[1, 3]) / 2 + last[2, 4]) / 2)
    assert judgement.loss is not None
    assert judgement.reward == pytest.approx((1 - judgement.loss) * (5 / (0.6 * 10)) ** -0.06)
    assert judgement.languages == {}


@pytest.mark.parametrize("recipe", ["kdnas", "distilbert"])
def test_by_the_last_layer_the_loss_is_the_error_of_its_states_with_its_standard_error(
    recipe: str, judge: Judge, tmp_path: Path
) -> None:
    told = Told()
    choosing = with_objective(judge, recipe=recipe, yardstick="last_layer")
    judgement = choosing.judge(SMALL, tmp_path / "files", told.listener)
    last = told.held_out[-1][1]
    states = last[HIDDEN if recipe == "kdnas" else PROBE]
    assert judgement.loss == pytest.approx(states[2, 4], rel=1e-5)
    assert all(set(terms[YARDSTICK]) == {(2, 4)} for _, terms in told.held_out)
    assert judgement.loss_se is not None and 0 < judgement.loss_se < judgement.loss  # type: ignore[operator]


def test_by_the_vectors_the_loss_is_that_of_no_term(judge: Judge, tmp_path: Path) -> None:
    told = Told()
    choosing = with_objective(judge, recipe="vectors", yardstick="vectors")
    judgement = choosing.judge(SMALL, tmp_path / "files", told.listener)
    last = told.held_out[-1][1]
    assert last.keys() == {"hidden", "vector", "similarity", PROBE, YARDSTICK}
    assert last[YARDSTICK] == {(2, 4): judgement.loss}
    assert judgement.loss is not None and 0 < judgement.loss < 1
    assert judgement.loss_se is not None and 0 < judgement.loss_se < 1


def test_the_mean_over_layers_has_no_standard_error(judge: Judge, tmp_path: Path) -> None:
    assert judge.judge(SMALL, tmp_path / "files", Told().listener).loss_se is None


def test_a_judgement_says_what_the_student_was_cut_from(judge: Judge, tmp_path: Path) -> None:
    cut = judge.judge(SMALL, tmp_path / "cut", Told().listener)
    assert judge.importance is not None
    best = [effects.topk(2).indices.sort().values + 1 for effects in judge.importance.heads]
    assert cut.cut_from == tuple(LayerSource(layer, tuple(best[layer - 1].tolist())) for layer in (2, 4))
    random = with_objective(judge, start="random").judge(SMALL, tmp_path / "random", Told().listener)
    assert random.cut_from == ()


def test_of_another_recipe_the_loss_is_still_that_of_hidden_states(judge: Judge, tmp_path: Path) -> None:
    told = Told()
    judgement = with_objective(judge, recipe="distilbert").judge(SMALL, tmp_path / "files", told.listener)
    last = told.held_out[-1][1]
    assert last.keys() == {"prediction_kl", "masked_lm", "cosine", PROBE}
    probe = last[PROBE]
    assert judgement.loss == pytest.approx(((probe[1, 2] + probe[1, 3]) / 2 + probe[2, 4]) / 2)
    assert set(last["prediction_kl"]) == set(last["masked_lm"]) == {(3, 5)}
    assert set(last["cosine"]) == {(2, 4)}


def test_a_term_that_does_not_fit_is_told_of_before_the_first_step(judge: Judge, tmp_path: Path) -> None:
    told = Told(stop_at=1)
    with pytest.raises(Stopped):  # two heads, but the teacher has four
        with_objective(judge, recipe="tinybert").judge(SMALL, tmp_path / "files", told.listener)
    ((note,),) = told.notes
    assert is_one_sentence(note)
    assert "The attention loss is left out" in note
    assert {"attention", "attention_kl"}.isdisjoint(told.held_out[0][1])


def test_where_every_term_fits_there_is_no_note(judge: Judge, tmp_path: Path) -> None:
    told = Told(stop_at=1)
    with pytest.raises(Stopped):
        with_objective(judge, recipe="tinybert").judge(
            Architecture(2, 16, 32, 4), tmp_path / "files", told.listener
        )
    assert [list(notes) for notes in told.notes] == [[]]
    assert set(told.held_out[0][1]) == {"embedding", "attention", "hidden", "prediction", PROBE}


def test_the_losses_of_languages_are_part_of_the_judgement(judge: Judge, tmp_path: Path) -> None:
    data = dataclasses.replace(judge.data, languages=["en", "sw"] * 8)
    judgement = dataclasses.replace(judge, data=data).judge(SMALL, tmp_path / "files", Told().listener)
    assert set(judgement.languages) == {"en", "sw"}
    assert judgement.loss is not None
    assert min(judgement.languages.values()) < judgement.loss < max(judgement.languages.values())


def test_the_same_candidate_gets_the_same_losses(judge: Judge, tmp_path: Path) -> None:
    told = [Told(), Told()]
    for number, each in enumerate(told):
        torch.manual_seed(number)
        judge.judge(SMALL, tmp_path / str(number), each.listener)
    assert told[0].held_out == told[1].held_out


def test_nothing_else_of_ours_runs_on_the_device_meanwhile(judge: Judge, tmp_path: Path) -> None:
    told = Told()
    judge.judge(SMALL, tmp_path / "files", told.listener)
    assert all(told.locked)
    assert not is_locked()


def test_a_judgement_ended_by_its_listener_leaves_the_device_free_and_no_weights(
    judge: Judge, tmp_path: Path
) -> None:
    told = Told(stop_at=3)
    with pytest.raises(Stopped):
        judge.judge(SMALL, tmp_path / "files", told.listener)
    assert told.steps == [1, 2, 3]
    assert not is_locked()
    assert not (tmp_path / "files" / "model.safetensors").exists()


@dataclass
class StandIn:
    """Replaces mini-KD; records the students to distil."""

    students: list[PreTrainedModel] = field(default_factory=list)
    objectives: list[Objective] = field(default_factory=list)
    data: list[ProxySet] = field(default_factory=list)

    def __call__(
        self, student: PreTrainedModel, objective: Objective, data: ProxySet, *others: object
    ) -> HeldOut:
        self.students.append(student)
        self.objectives.append(objective)
        self.data.append(data)
        return HeldOut(0, {HIDDEN: {(1, 1): 0.5}})


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn()
    monkeypatch.setattr(module, "distil", made)
    return made


@pytest.mark.parametrize(
    ("mapping", "projection"),
    [("uniform", "shared"), ("last", "per_layer"), ("uniform+last", "shared"), ([4, 1], "per_layer")],
)
def test_every_choice_of_the_objective_reaches_the_training(
    judge: Judge, stand_in: StandIn, tmp_path: Path, mapping: Any, projection: str
) -> None:
    choosing = with_objective(judge, mapping=mapping, projection=projection)
    choosing.judge(SMALL, tmp_path / "files", Told().listener)
    expected = {"uniform": [(2,), (4,)], "last": [(3,), (4,)], "uniform+last": [(2, 3), (4, 4)]}
    ((term, _),) = stand_in.objectives[0].terms
    assert isinstance(term, StateTerm)
    listed = [(4,), (1,)] if isinstance(mapping, list) else expected[mapping]
    assert [term.layers[layer] for layer in (1, 2)] == listed
    assert len(set(term.projections.values())) == (2 if projection == "per_layer" else 1)
    assert stand_in.data == [judge.data]


def test_the_terms_of_a_recipe_reach_the_training_with_the_teachers_head(
    judge: Judge, stand_in: StandIn, tmp_path: Path
) -> None:
    architecture = Architecture(2, 16, 32, 4)
    choosing = with_objective(judge, recipe="mobilebert", first_stage=0.7)
    choosing.judge(architecture, tmp_path / "files", Told().listener)
    (objective,) = stand_in.objectives
    terms = [term for term, _ in objective.terms]
    assert [type(term) for term in terms] == [StateTerm, PairTerm, WordTerm, WordTerm]
    assert objective.first_stage == 0.7
    words_of = terms[2]
    assert isinstance(words_of, WordTerm) and words_of._teacher is judge.words
    head = words_of.head
    # of the width of this student's embedding, and with a score for each word in use
    assert (head.dense.out_features, len(head.bias)) == (16, len(judge.data.vocabulary.rows))


def test_the_start_is_the_one_that_was_chosen(
    judge: Judge, teacher: Teacher, stand_in: StandIn, tmp_path: Path
) -> None:
    shared = {name: 2 * weight for name, weight in teacher.model.state_dict().items()}
    for start in ("teacher", "random", "supernet"):
        chosen = dataclasses.replace(
            with_objective(judge, start=start), shared=shared if start == "supernet" else None
        )
        chosen.judge(SMALL, tmp_path / start, Told().listener)
    random = words(new_student(teacher, SMALL, judge.spec.seed))
    cut, at_random, of_supernet = map(words, stand_in.students)
    assert not torch.equal(cut, random)
    assert torch.equal(at_random, random)
    assert torch.equal(of_supernet, 2 * cut)


def test_the_layers_that_a_student_starts_from_are_those_that_were_chosen(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, stand_in: StandIn, tmp_path: Path
) -> None:
    sources: list[list[int]] = []

    def spied(*arguments: Any) -> tuple[PreTrainedModel, tuple[LayerSource, ...]]:
        student, cut_from = start_student(*arguments)
        sources.append([source.layer for source in cut_from])
        return student, cut_from

    monkeypatch.setattr(beginning, "start_student", spied)
    fields: list[dict[str, Any]] = [{}, {"recipe": "pkd"}, {"start_layers": [4, 2]}]
    for number, objective in enumerate(fields):
        with_objective(judge, **objective).judge(SMALL, tmp_path / str(number), Told().listener)
    assert sources == [[2, 4], [1, 2], [4, 2]]


# Tasks


def with_task(judge: Judge, mode: str) -> Judge:
    """Returns the same judge for a task whose class depends on one word."""
    rows = [
        Row(f"the {('list', 'class')[index % 2]} number {index}", None, index % 2) for index in range(200)
    ]
    task = Task("words", ("0", "1"), {"train": rows}, ("validation",))
    spec = judge.spec.model_dump() | {"latency": {"budget_speedup": 2}, "tasks": ["words"]}
    spec["search"] = {**spec["search"], "reward": {"mode": mode}}
    proxy = proxy_of(task, judge.bench.teacher.tokenizer, 16)
    return dataclasses.replace(judge, spec=parse_spec(spec), tasks=[proxy])


@pytest.mark.parametrize("mode", ["kdnas", "accuracy"])
def test_a_candidate_is_scored_on_the_proxies_of_the_tasks(
    mode: str, judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "proxy_score", lambda *arguments: 0.75)
    judgement = with_task(judge, mode).judge(SMALL, tmp_path / "files", Told().listener)
    assert judgement.scores == {"words (proxy)": 0.75}
    assert judgement.loss is not None
    kept = 0.75 if mode == "accuracy" else 1 - judgement.loss
    assert judgement.reward == pytest.approx(kept * (5.0 / (0.6 * 10.0)) ** -0.06)


def test_scoring_a_candidate_changes_no_weight_of_it(judge: Judge, tmp_path: Path) -> None:
    scored, plain = tmp_path / "scored", tmp_path / "plain"
    judgement = with_task(judge, "accuracy").judge(SMALL, scored, Told().listener)
    judge.judge(SMALL, plain, Told().listener)
    assert 0 <= judgement.scores["words (proxy)"] <= 1
    assert (scored / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()


def test_scoring_a_candidate_can_be_ended(judge: Judge, tmp_path: Path) -> None:
    def waiting() -> None:
        if (tmp_path / "files" / "model.safetensors").is_file():
            raise Stopped

    listener = dataclasses.replace(Told().listener, waiting=waiting)
    with pytest.raises(Stopped):
        with_task(judge, "accuracy").judge(SMALL, tmp_path / "files", listener)


# Rungs


def peers(*losses: dict[int, float], ms: float = 1.0) -> Callable[[], list[Peer]]:
    """Peers that were all trained to the end, and whose loss fell alike from each rung on."""
    return lambda: [Peer(Cost(ms, ms / 10), at, at[6]) for at in losses]


# after each of the six steps
GOOD = {step: 0.01 * (7 - step) for step in range(7)}
BAD = {step: 10.0 - step for step in range(7)}
LATE = {step: 1.0 for step in range(6)} | {6: 0.005}


def test_a_candidate_that_will_hardly_be_picked_is_stopped_at_its_rung(judge: Judge, tmp_path: Path) -> None:
    told = Told()
    judgement = judge.judge(SMALL, tmp_path / "files", told.listener, peers(GOOD, GOOD, GOOD, GOOD))
    assert (judgement.state, judgement.rung) == ("pruned", 1)
    assert [step for step, _ in told.held_out] == [0, 1]
    assert judgement.loss == HeldOut(1, told.held_out[-1][1]).loss
    # as large a share is left as of the others: 0.01 of 0.06
    expected = kdnas_reward(judgement.loss / 6, 5.0, 10.0, judge.spec.search.reward)
    assert judgement.reward == pytest.approx(expected)
    assert [path.name for path in (tmp_path / "files").iterdir()] == ["config.json"]


def test_with_several_budgets_a_slower_one_within_the_same_stops_a_candidate(
    judge: Judge, tmp_path: Path
) -> None:
    others = peers(GOOD, GOOD, GOOD, GOOD, ms=5.1)  # it takes 5 ms
    for budgets, state in (([1.5, 4.0], "pruned"), ([1.98, 4.0], "done")):  # 6.7 and 5.05 ms
        spec = parse_spec(judge.spec.model_dump() | {"latency": {"budget_speedup": budgets}})
        several = dataclasses.replace(judge, spec=spec)
        folder = tmp_path / state
        assert several.judge(SMALL, folder, Told().listener, others).state == state


def test_budgets_are_costs_by_both_readings(judge: Judge) -> None:
    def costs(latency: dict[str, Any]) -> list[Cost]:
        return costs_of_budgets(parse_spec(judge.spec.model_dump() | {"latency": latency}), 10.0)

    assert costs({"budget_speedup": [2.0, 4.0]}) == [Cost(5.0, 0.5), Cost(2.5, 0.25)]
    assert costs({"budget_ms": [3.0, 6.0]}) == [Cost(6.0, math.inf), Cost(3.0, math.inf)]


def test_out_of_a_supernet_a_candidate_is_stopped_before_its_first_step(judge: Judge, tmp_path: Path) -> None:
    told, shared = Told(), dict(judge.bench.teacher.model.state_dict())
    of_supernet = dataclasses.replace(with_objective(judge, start="supernet"), shared=shared)
    judgement = of_supernet.judge(SMALL, tmp_path / "files", told.listener, peers(GOOD, GOOD, GOOD, GOOD))
    assert (judgement.state, judgement.rung) == ("pruned", 0)
    assert told.steps == []


@pytest.mark.parametrize(
    "others",
    [
        peers(GOOD, GOOD, GOOD),  # too few to predict by
        peers(BAD, BAD, BAD, BAD),
        peers(GOOD, GOOD, GOOD, GOOD, ms=5.1),  # slower than it
        peers(GOOD, GOOD, BAD, LATE),  # of two that were bad, one was the best in the end
        peers(),
    ],
)
def test_a_candidate_that_may_be_on_the_frontier_is_trained_to_the_end(
    judge: Judge, tmp_path: Path, others: Callable[[], list[Peer]]
) -> None:
    told = Told()
    assert judge.judge(SMALL, tmp_path / "files", told.listener, others).state == "done"
    assert told.steps == [1, 2, 3, 4, 5, 6]


def test_a_search_that_is_not_to_prune_trains_all_to_the_end(judge: Judge, tmp_path: Path) -> None:
    fields = judge.spec.model_dump()
    fields["search"]["prune"] = False
    whole = dataclasses.replace(judge, spec=parse_spec(fields))
    assert whole.judge(SMALL, tmp_path / "files", Told().listener, peers(*[GOOD] * 4)).state == "done"


def test_a_candidate_with_tasks_is_not_stopped_by_its_loss(judge: Judge, tmp_path: Path) -> None:
    with_tasks = with_task(judge, "kdnas")
    assert with_tasks.judge(SMALL, tmp_path / "files", Told().listener, peers(*[GOOD] * 4)).state == "done"


def well_within(judge: Judge, monkeypatch: pytest.MonkeyPatch, latency: LatencyReading) -> list[bool]:
    """A latency of 1 ms is estimated for all; returns whether the device was held at each measurement."""
    held: list[bool] = []

    def measured(*arguments: object) -> LatencyReading:
        held.append(is_locked())
        return latency

    monkeypatch.setattr(candidate_module, "model_here", lambda protocol: Model(1.0))
    monkeypatch.setattr(LatencyBench, "student_latency", measured)
    return held


class PeersLater:
    """Peers that are known after some more questions."""

    def __init__(self, others: Callable[[], list[Peer]], questions: int) -> None:
        self.others, self.left = others, questions

    def __call__(self) -> list[Peer] | None:
        self.left -= 1
        return None if self.left >= 0 else self.others()


@pytest.mark.parametrize("questions", [3, 100])  # known before the last step, and after it
def test_a_rung_is_decided_as_it_would_have_been_when_its_peers_are_known_later(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, questions: int
) -> None:
    monkeypatch.setattr(candidate_module, "POLL_S", 0.001)
    at_once, later = Told(), Told()
    others = peers(*[GOOD] * 4)
    expected = judge.judge(SMALL, tmp_path / "files", at_once.listener, others)
    found = judge.judge(SMALL, tmp_path / "later", later.listener, PeersLater(others, questions))
    assert found == expected
    assert found.state == "pruned"
    assert later.steps[: len(at_once.steps)] == at_once.steps
    assert len(later.steps) > len(at_once.steps)  # it went on meanwhile


def test_a_candidate_that_diverges_after_a_rung_that_stops_it_is_pruned(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidate_module, "POLL_S", 0.001)

    def diverges(taken: int) -> None:
        if taken == 4:
            raise Diverged("the loss was nan at step 4")

    listener = dataclasses.replace(Told().listener, step=diverges)
    later = PeersLater(peers(*[GOOD] * 4), 100)
    assert judge.judge(SMALL, tmp_path / "files", listener, later).state == "pruned"
    with pytest.raises(Diverged):  # no rung stops it
        judge.judge(SMALL, tmp_path / "again", listener, PeersLater(peers(*[BAD] * 4), 100))


def test_a_late_veto_names_the_rung_at_which_it_would_have_been(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(candidate_module, "POLL_S", 0.001)
    well_within(judge, monkeypatch, OVER)
    at_once = judge.judge(SMALL, tmp_path / "files", Told().listener)
    later = judge.judge(SMALL, tmp_path / "later", Told().listener, PeersLater(peers(), 100))
    assert later == at_once
    assert (later.state, later.rung) == ("over_budget", 1)


def test_a_candidate_is_not_measured_while_its_first_rung_is_open(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(candidate_module, "POLL_S", 0.001)
    held, told = well_within(judge, monkeypatch, WITHIN), Told()
    later = PeersLater(peers(*[GOOD] * 4, ms=0.9), 100)
    assert judge.judge(SMALL, tmp_path / "files", told.listener, later).state == "pruned"
    assert held == []


def test_the_latency_of_a_candidate_well_within_the_budget_is_measured_at_its_first_rung(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held, told = well_within(judge, monkeypatch, WITHIN), Told()
    judgement = judge.judge(SMALL, tmp_path / "files", told.listener)
    assert held == [True]
    assert [(costs.latency, costs.estimated_ms) for costs in told.costs] == [(None, 1.0), (WITHIN, 1.0)]
    assert judgement == dataclasses.replace(judgement, state="done", estimated_ms=None, rung=None)


def test_a_candidate_that_is_stopped_at_its_first_rung_is_not_measured(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held, told = well_within(judge, monkeypatch, WITHIN), Told()
    judgement = judge.judge(SMALL, tmp_path / "files", told.listener, peers(*[GOOD] * 4, ms=0.9))
    assert (judgement.state, held) == ("pruned", [])
    assert [(costs.latency, costs.estimated_ms) for costs in told.costs] == [(None, 1.0)]
    # by the estimate, of a teacher of 10 ms
    likely = (judgement.loss or 0) / 6
    assert judgement.reward == pytest.approx(kdnas_reward(likely, 1.0, 10.0, judge.spec.search.reward))


def test_a_candidate_is_not_stopped_by_one_that_it_may_be_faster_than(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held = well_within(judge, monkeypatch, reading_of(0.95))
    # estimated at 1 ms, and a tenth off at the 90th percentile
    others = peers(*[GOOD] * 4, ms=0.97)
    assert judge.judge(SMALL, tmp_path / "files", Told().listener, others).state == "done"
    assert held == [True]


def test_a_candidate_whose_reading_is_unclean_is_not_stopped_by_it(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_latency(monkeypatch, dataclasses.replace(WITHIN, clean=False))
    assert judge.judge(SMALL, tmp_path / "files", Told().listener, peers(*[GOOD] * 4)).state == "done"


def test_nothing_is_within_the_budget_by_its_estimate(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    well_within(judge, monkeypatch, OVER)
    told = Told()
    judgement = judge.judge(SMALL, tmp_path / "files", told.listener)
    assert judgement == Judgement("over_budget", None, None, rung=1)
    assert [step for step, _ in told.held_out] == [0, 1]
    assert [path.name for path in (tmp_path / "files").iterdir()] == ["config.json"]


def test_a_search_that_does_not_prune_measures_before_it_trains(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held = well_within(judge, monkeypatch, OVER)
    fields = judge.spec.model_dump()
    fields["search"]["prune"] = False
    told = Told()
    dataclasses.replace(judge, spec=parse_spec(fields)).judge(SMALL, tmp_path / "files", told.listener)
    assert (held, told.steps) == ([True], [])


# A busy machine


def test_an_unclean_reading_over_the_budget_is_repeated_before_it_is_believed(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    busy = dataclasses.replace(OVER, clean=False)
    readings = iter([busy, dataclasses.replace(busy, p50=7.0), WITHIN])
    monkeypatch.setattr(LatencyBench, "student_latency", lambda *given: next(readings))
    monkeypatch.setattr(candidate_module, "BUSY_S", (0.0, 0.0))
    told = Told()
    assert judge.judge(SMALL, tmp_path / "files", told.listener).state == "done"
    assert [costs.latency for costs in told.costs] == [WITHIN]


def test_the_least_of_several_unclean_readings_counts(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    busy = [dataclasses.replace(OVER, p50=ms, clean=False) for ms in (9.0, 6.0, 7.0)]
    readings = iter(busy)
    monkeypatch.setattr(LatencyBench, "student_latency", lambda *given: next(readings))
    monkeypatch.setattr(candidate_module, "BUSY_S", (0.0, 0.0))
    told = Told()
    assert judge.judge(SMALL, tmp_path / "files", told.listener).state == "over_budget"
    assert [costs.latency for costs in told.costs] == [busy[1]]


def test_who_waits_for_a_quieter_machine_can_be_stopped(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_latency(monkeypatch, dataclasses.replace(OVER, clean=False))

    def waiting() -> None:
        raise Stopped

    listener = dataclasses.replace(Told().listener, waiting=waiting)
    with pytest.raises(Stopped):
        judge.judge(SMALL, tmp_path / "files", listener)


# What was trained before


def remembering(judge: Judge, **spec: Any) -> Judge:
    """Returns the same judge, which remembers; with other fields of its spec."""
    fields = judge.spec.model_dump()
    fields["search"]["remember"] = True
    return dataclasses.replace(judge, spec=parse_spec(fields | spec))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = AutoModel.from_pretrained(folder).state_dict()
    return state


@pytest.mark.usefixtures("fresh_cache")
def test_a_mini_kd_that_was_done_before_takes_no_step_and_ends_the_same(judge: Judge, tmp_path: Path) -> None:
    told, again = Told(), Told()
    first = remembering(judge).judge(SMALL, tmp_path / "first", told.listener)
    # of another search: with another name, and another budget that it is within too
    other = remembering(judge, name="other", latency={"budget_speedup": 1, "sequence_length": 16})
    assert other.judge(SMALL, tmp_path / "again", again.listener) == first
    assert (told.steps, again.steps) == ([1, 2, 3, 4, 5, 6], [])
    assert again.held_out == told.held_out
    assert again.notes == [[*told.notes[0], REMEMBERED]]
    assert is_one_sentence(REMEMBERED)
    own, recalled = weights(tmp_path / "first"), weights(tmp_path / "again")
    assert own.keys() == recalled.keys()
    assert all(torch.equal(own[name], recalled[name]) for name in own)
    names = [{path.name for path in (tmp_path / name).iterdir()} for name in ("first", "again")]
    assert names[0] == names[1]


@pytest.mark.usefixtures("fresh_cache")
def test_a_search_that_is_not_to_remember_trains_again(judge: Judge, tmp_path: Path) -> None:
    remembering(judge).judge(SMALL, tmp_path / "first", Told().listener)
    told = Told()
    judge.judge(SMALL, tmp_path / "again", told.listener)
    assert told.steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"proxy": {"steps": 7}},
        {"objective": {"yardstick": "layers", "recipe": "kdnas", "mapping": "last"}},
        {"shape": Architecture(2, 16, 32, 4)},
        {"autocast": torch.bfloat16},
        {"importance": None},
        {"shared": {"a": torch.ones(1)}},
        {"words": None},
        {"threads": 77},
        {"method": 0},
        {"data": slice(1, None)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_whatever_a_loss_depends_on_is_part_of_the_question(
    judge: Judge, other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, shape, changed = judge._question(SMALL), SMALL, judge
    [(what, value)] = other.items()
    if what == "shape":
        shape = value
    elif what == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: value)
    elif what == "method":
        monkeypatch.setattr(module, "METHOD", value)
    elif what == "data":
        held_out = judge.data.held_out
        fewer = dataclasses.replace(held_out, offsets=held_out.offsets[value])
        changed = dataclasses.replace(judge, data=dataclasses.replace(judge.data, held_out=fewer))
    elif what in ("autocast", "importance", "words", "shared"):
        changed = dataclasses.replace(judge, **{what: value})
    else:
        changed = remembering(judge, **{what: value})
    assert changed._question(shape) != before
    assert judge._question(SMALL).keys() == before.keys()


def test_the_question_does_not_depend_on_the_order_of_a_supernets_weights(judge: Judge) -> None:
    shared = dict(judge.bench.teacher.model.state_dict())
    turned = dict(reversed(shared.items()))
    one, other = (dataclasses.replace(judge, shared=weights) for weights in (shared, turned))
    assert one._question(SMALL) == other._question(SMALL)


@pytest.mark.usefixtures("fresh_cache")
def test_what_was_stopped_at_a_rung_is_stopped_again_without_a_step(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    others, told, again = peers(*[GOOD] * 4), Told(), Told()
    first = remembering(judge).judge(SMALL, tmp_path / "first", told.listener, others)
    forbid_distillation(monkeypatch)
    assert remembering(judge).judge(SMALL, tmp_path / "again", again.listener, others) == first
    assert again.held_out == told.held_out
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["config.json"]


@pytest.mark.usefixtures("fresh_cache")
def test_what_was_stopped_at_a_rung_is_trained_where_nothing_stops_it_and_remembered_then(
    judge: Judge, tmp_path: Path
) -> None:
    remembering(judge).judge(SMALL, tmp_path / "first", Told().listener, peers(*[GOOD] * 4))
    for steps in ([1, 2, 3, 4, 5, 6], []):
        told = Told()
        assert remembering(judge).judge(SMALL, tmp_path / f"{len(steps)}", told.listener).state == "done"
        assert told.steps == steps
        assert (told.notes[-1][-1:] == [REMEMBERED]) == (not steps)


@pytest.mark.usefixtures("fresh_cache")
def test_a_remembered_whole_result_is_judged_at_rungs_as_if_it_were_trained(
    judge: Judge, tmp_path: Path
) -> None:
    remembering(judge).judge(SMALL, tmp_path / "first", Told().listener)
    told = Told()
    judgement = remembering(judge).judge(SMALL, tmp_path / "again", told.listener, peers(*[GOOD] * 4))
    assert (judgement.state, judgement.rung, told.steps) == ("pruned", 1, [])
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["config.json"]


@pytest.mark.usefixtures("fresh_cache")
def test_a_mini_kd_whose_batches_were_split_is_not_remembered(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = Forward.__call__

    def forward(self: Any, batch: Any) -> Any:
        if torch.is_grad_enabled() and len(batch.ids) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, batch)

    told = Told()
    with monkeypatch.context() as patch:
        patch.setattr(Forward, "__call__", forward)
        remembering(judge).judge(SMALL, tmp_path / "first", told.listener)
    assert "split into parts of 4 texts" in told.notes[-1][-1]
    again = Told()
    remembering(judge).judge(SMALL, tmp_path / "again", again.listener)
    assert again.steps == [1, 2, 3, 4, 5, 6]
