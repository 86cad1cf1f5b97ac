from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from kdnas_core.architecture import Architecture
from kdnas_core.distillation import trainer
from kdnas_core.distillation.student import new_student
from kdnas_core.distillation.teacher import Teacher
from kdnas_core.distillation.trainer import HeldOut, Watcher
from kdnas_core.measure.bench import LatencyBench
from kdnas_core.measure.device import device_lock
from kdnas_core.measure.reading import LatencyReading
from kdnas_core.search import judge as module
from kdnas_core.search.judge import Judge, Judgement, Listener, Measured, by_layers
from kdnas_core.spec import parse_spec
from tests.tiny import reading_of, targets_of, teacher_of

SMALL = Architecture(2, 16, 32, 2)
WITHIN, OVER = reading_of(5.0, 10.0), reading_of(5.1, 10.0)  # for a budget of twice the teacher's speed


class Stopped(Exception):
    pass


def words(student: PreTrainedModel) -> torch.Tensor:
    """A copy of its word embeddings."""
    return student.get_parameter("embeddings.word_embeddings.weight").detach().clone()


def is_locked() -> bool:
    """Whether something holds the device."""
    try:
        with device_lock().acquire(timeout=0):
            return False
    except filelock.Timeout:
        return True


@dataclass
class Told:
    """Remembers what a listener is told; ends the judgement at a step."""

    measured: list[Measured] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    held_out: list[tuple[int, dict[tuple[int, int], float]]] = field(default_factory=list)
    locked: list[bool] = field(default_factory=list)
    stop_at: int | None = None

    def step(self, taken: int) -> None:
        self.steps.append(taken)
        self.locked.append(is_locked())
        if taken == self.stop_at:
            raise Stopped

    @property
    def listener(self) -> Listener:
        def held_out(taken: int, losses: dict[tuple[int, int], float]) -> None:
            self.held_out.append((taken, losses))

        return Listener(lambda: None, self.measured.append, self.step, held_out)


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
    """One whose bench reads a latency within the budget."""
    spec = parse_spec({**tiny_spec, "latency": {"budget_speedup": 2, "sequence_length": 16}})
    set_latency(monkeypatch, WITHIN)
    train, held_out = targets_of(teacher, texts[:64], 24), targets_of(teacher, texts[100:116], 24)
    return Judge(
        spec, LatencyBench(teacher, spec.latency), WITHIN.teacher_p50, train, held_out, autocast=None
    )


def set_latency(monkeypatch: pytest.MonkeyPatch, latency: LatencyReading) -> None:
    monkeypatch.setattr(
        LatencyBench, "student_latency", lambda bench, architecture, student, waiting: latency
    )


def forbid_distillation(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object, **named: object) -> None:
        raise AssertionError("an over-budget candidate was distilled")

    for name in ("distil", "start_student", "HiddenStateObjective"):
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
    vetoing = Judge(spec, judge.bench, latency.teacher_p50, judge.train, judge.held_out, None)
    told = Told()
    assert vetoing.judge(SMALL, tmp_path / "files", told.listener) == Judgement("over_budget", None, None)
    assert [measured.latency for measured in told.measured] == [latency]
    assert (told.steps, told.held_out) == ([], [])
    assert [path.name for path in (tmp_path / "files").iterdir()] == ["config.json"]


def test_a_candidate_just_within_the_budget_is_distilled(judge: Judge, tmp_path: Path) -> None:
    told = Told()
    assert judge.judge(SMALL, tmp_path / "files", told.listener).state == "done"
    assert told.steps == list(range(1, judge.spec.proxy.steps + 1))


def test_its_costs_are_told_before_the_first_step(judge: Judge, teacher: Teacher, tmp_path: Path) -> None:
    told = Told(stop_at=1)
    with pytest.raises(Stopped):
        judge.judge(SMALL, tmp_path / "files", told.listener)
    weights = sum(weight.numel() for weight in new_student(teacher, SMALL, 0).parameters())
    assert told.measured == [Measured(weights, SMALL.flops(16), WITHIN)]


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


def test_losses_are_told_by_student_and_teacher_layer_counted_from_one(judge: Judge, tmp_path: Path) -> None:
    told = Told()
    judge.judge(SMALL, tmp_path / "files", told.listener)
    assert [step for step, _ in told.held_out] == [0, 2, 4, 6, 8, 10, 12]
    # layer 1 of 2 learns teacher layers 2 (uniform) and 3 (last) of 4, layer 2 the last
    assert all(set(losses) == {(1, 2), (1, 3), (2, 4)} for _, losses in told.held_out)


def test_the_loss_is_the_mean_over_layers_and_the_reward_follows_the_formula(
    judge: Judge, tmp_path: Path
) -> None:
    told = Told()
    judgement = judge.judge(SMALL, tmp_path / "files", told.listener)
    last = told.held_out[-1][1]
    assert judgement.loss == pytest.approx(((last[1, 2] + last[1, 3]) / 2 + last[2, 4]) / 2)
    assert judgement.loss is not None
    assert judgement.reward == pytest.approx((1 - judgement.loss) * (5 / (0.6 * 10)) ** -0.06)


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


@pytest.mark.parametrize("mapping", ["uniform", "last", "uniform+last"])
@pytest.mark.parametrize("projection", ["per_layer", "shared"])
def test_every_choice_of_the_objective_reaches_the_training(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mapping: str, projection: str
) -> None:
    seen: list[Any] = []

    def stand_in(student: Any, objective: Any, *arguments: Any) -> HeldOut:
        seen.append(objective)
        return HeldOut(0, [[0.5]])

    monkeypatch.setattr(module, "distil", stand_in)
    fields = {**judge.spec.model_dump(), "objective": {"mapping": mapping, "projection": projection}}
    fields["latency"] = {"budget_speedup": 2}
    Judge(parse_spec(fields), judge.bench, judge.teacher_ms, judge.train, judge.held_out, None).judge(
        SMALL, tmp_path / "files", Told().listener
    )
    expected = {"uniform": [(2,), (4,)], "last": [(3,), (4,)], "uniform+last": [(2, 3), (4, 4)]}
    assert seen[0].layers == expected[mapping]
    assert len(seen[0].projections) == (2 if projection == "per_layer" else 1)


def test_the_start_is_the_one_that_was_chosen(
    judge: Judge, teacher: Teacher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    starts: list[torch.Tensor] = []

    def stand_in(
        student: Any,
        objective: Any,
        train: Any,
        held_out: Any,
        proxy: Any,
        seed: int,
        autocast: Any,
        watcher: Watcher,
    ) -> HeldOut:
        starts.append(words(student))
        return HeldOut(0, [[0.5]])

    monkeypatch.setattr(module, "distil", stand_in)
    for start in ("teacher", "random"):
        fields = {**judge.spec.model_dump(), "objective": {"start": start}, "latency": {"budget_speedup": 2}}
        Judge(parse_spec(fields), judge.bench, judge.teacher_ms, judge.train, judge.held_out, None).judge(
            SMALL, tmp_path / start, Told().listener
        )
    random = words(new_student(teacher, SMALL, judge.spec.seed))
    assert not torch.equal(starts[0], random)
    assert torch.equal(starts[1], random)


def test_two_roles_of_one_teacher_layer_are_one_entry() -> None:
    assert by_layers([(1, 3), (4, 4)], [[0.1, 0.2], [0.3, 0.3]]) == {(1, 1): 0.1, (1, 3): 0.2, (2, 4): 0.3}
