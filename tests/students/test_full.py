from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from kdnas_core.architecture import Architecture, static_student
from kdnas_core.data.splits import proxy_texts
from kdnas_core.data.tokens import Passage
from kdnas_core.distillation import loop
from kdnas_core.distillation.objective import Places
from kdnas_core.errors import BadInput
from kdnas_core.files import cache_folder
from kdnas_core.hardware import device_lock
from kdnas_core.models import teacher_outputs
from kdnas_core.models.cut import POSITIONS
from kdnas_core.models.student import new_student, save
from kdnas_core.models.targets import tokenised
from kdnas_core.models.teacher import load_teacher
from kdnas_core.models.teacher_outputs import OnlineTargets
from kdnas_core.spec import DistilSpec, ObjectiveSpec, ProxySpec, RunSpec, parse_spec
from kdnas_core.students import full as module
from kdnas_core.students.full import (
    CHECKPOINT,
    FullListener,
    FullResult,
    check_full,
    distil_fully,
    objective_of,
    training_of,
)
from tests.sentences import is_one_sentence
from tests.tiny_fields import tiny_fields
from tests.tiny_runs import files_in, own_machine

SMALL = Architecture(2, 16, 32, 4)
TEXTS = 320
HOW = DistilSpec(epochs=2, sentences=TEXTS, sequence_length=24, batch_size=8, learning_rate=5e-3)


class Killed(BaseException):
    """Ends the process as a signal does; no code may catch it."""


class Asked(Exception):
    """Ends the work as a user's pause does."""


@dataclass
class Told:
    """Records the calls of a listener; ends the distillation at a step."""

    stop_at: int | None = None
    error: type[BaseException] = Asked
    said: list[str] = field(default_factory=list)
    steps_in_all: list[int] = field(default_factory=list)
    notes: list[Sequence[str]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    held_out: list[tuple[int, dict[str, Places]]] = field(default_factory=list)

    def step(self, taken: int) -> None:
        self.steps.append(taken)
        if taken == self.stop_at:
            raise self.error

    @property
    def listener(self) -> FullListener:
        return FullListener(
            waiting=lambda: None,
            say=self.said.append,
            begun=self.steps_in_all.append,
            noted=self.notes.append,
            step=self.step,
            held_out=lambda taken, terms: self.held_out.append((taken, terms)),
        )


@pytest.fixture(scope="module", autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with own_machine(tmp_path_factory.mktemp("machine")):
        yield


@pytest.fixture
def spec(tiny_spec: dict[str, Any]) -> RunSpec:
    return parse_spec({**tiny_spec, "proxy": {**tiny_spec["proxy"], "held_out": 80}})


def distilled(spec: RunSpec, folder: Path, told: Told | None = None, **how: Any) -> FullResult:
    settings = HOW.model_copy(update=how)
    return distil_fully(spec, settings, SMALL, folder, (told or Told()).listener)


@dataclass(frozen=True)
class Whole:
    """A distillation of two epochs, judged by the last layer."""

    told: Told
    result: FullResult
    folder: Path


@pytest.fixture(scope="module")
def whole(tiny_teacher: Path, corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    fields = tiny_fields(tiny_teacher, corpus_file) | {"objective": {"yardstick": "last_layer"}}
    told, folder = Told(), tmp_path_factory.mktemp("whole") / "student"
    spec = parse_spec({**fields, "proxy": {**fields["proxy"], "held_out": 80}})
    return Whole(told, distilled(spec, folder, told), folder)


def test_the_whole_corpus_is_read_as_often_as_there_are_epochs(whole: Whole) -> None:
    assert whole.told.steps_in_all == [2 * TEXTS // 8]
    assert whole.told.steps == list(range(1, 81))
    assert "tokenising 320 texts" in whole.told.said


def test_a_student_learns_and_is_left_as_stock_transformers_loads_it(whole: Whole) -> None:
    told, result = whole.told, whole.result
    first, last = (list(told.held_out[index][1]["hidden"].values()) for index in (0, -1))
    assert sum(last) < 0.9 * sum(first)
    terms = told.held_out[-1][1]
    assert result.loss == pytest.approx(terms["hidden"][2, 4], rel=1e-5)  # of the last states
    assert terms["yardstick"] == {(2, 4): result.loss}
    assert result.loss_se is not None and 0 < result.loss_se < result.loss
    model = AutoModel.from_pretrained(whole.folder)
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (2, 16)
    assert AutoTokenizer.from_pretrained(whole.folder)("a word")["input_ids"]


def test_by_the_first_yardstick_the_loss_is_a_mean_over_layers(spec: RunSpec, tmp_path: Path) -> None:
    told = Told()
    result = distilled(spec.judged_by_layers(), tmp_path / "student", told, epochs=0.2)
    last = told.held_out[-1][1]
    assert last.keys() == {"hidden"}
    places = last["hidden"]
    mean = ((places[1, 2] + places[1, 3]) / 2 + places[2, 4]) / 2  # not over places
    assert result.loss == pytest.approx(mean)
    assert result.loss_se is None


def test_a_student_remembers_what_it_was_cut_from_but_for_a_random_one(spec: RunSpec, tmp_path: Path) -> None:
    cut = distilled(spec, tmp_path / "cut", epochs=0.1)
    assert len(cut.cut_from) == 2
    assert all(source.heads == (1, 2, 3, 4) for source in cut.cut_from)  # as many as the teacher has
    assert cut.cut_from[-1].layer == 4
    random = spec.model_copy(update={"objective": ObjectiveSpec(start="random")})
    assert distilled(random, tmp_path / "random", epochs=0.1).cut_from == ()


@pytest.mark.parametrize(("asked", "pairs"), [(None, 0.5), (0.0, 0.0)])
def test_so_many_texts_are_made_into_pairs_as_asked_or_usual_and_none_of_the_held_out(
    asked: float | None, pairs: float, spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[list[Passage]] = []
    learnt: list[list[Passage]] = []

    def stored(teacher: Any, texts: Any, *rest: Any) -> Any:
        judged.append(list(texts))
        return teacher_outputs.teacher_targets(teacher, texts, *rest)

    def tokens(teacher: Any, texts: Any, *rest: Any) -> Any:
        learnt.append(list(texts))
        return tokenised(teacher, texts, *rest)

    monkeypatch.setattr(module, "teacher_targets", stored)
    monkeypatch.setattr(module, "tokenised", tokens)
    distilled(spec, tmp_path / "student", pairs=asked, epochs=0.1)
    assert all(isinstance(text, str) for text in judged[0])
    share = sum(isinstance(text, tuple) for text in learnt[0]) / TEXTS
    assert share == pytest.approx(pairs, abs=0.1)
    assert (share in (0, 1)) == (pairs in (0, 1))


def test_nothing_but_the_student_is_left_on_the_disk(whole: Whole) -> None:
    names = set(files_in(whole.folder))
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not any("checkpoint" in name or "unfinished" in name for name in names)


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "error"), [(3, Killed), (37, Killed), (79, Killed), (37, Asked)])
def test_a_distillation_that_was_ended_goes_on_to_the_same_student(
    moment: int, error: type[BaseException], spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_STEPS", 5)
    expected = distilled(spec, tmp_path / "whole")
    with pytest.raises(error):
        distilled(spec, tmp_path / "ended", Told(stop_at=moment, error=error))
    told = Told()
    result = distilled(spec, tmp_path / "ended", told)
    kept = moment if error is Asked else moment // 5 * 5  # a pause loses nothing
    assert told.steps[0] == kept + 1
    assert result.loss == pytest.approx(expected.loss, abs=1e-4)
    whole, ended = (AutoModel.from_pretrained(tmp_path / name).state_dict() for name in ("whole", "ended"))
    for name, weight in whole.items():
        torch.testing.assert_close(weight, ended[name], atol=1e-5, rtol=0)


def test_an_unfinished_distillation_keeps_one_checkpoint_and_no_more(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_STEPS", 2)
    with pytest.raises(Killed):
        distilled(spec, tmp_path / "student", Told(stop_at=21, error=Killed))
    assert [path.name for path in (tmp_path / "student").iterdir()] == [CHECKPOINT]


def test_the_teacher_reads_each_text_once_for_all_epochs_and_for_students_of_the_same_layers(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    compute = OnlineTargets._computed

    def spied(texts: OnlineTargets, slices: Sequence[slice]) -> Any:
        read.append(len(slices))
        return compute(texts, slices)

    monkeypatch.setattr(OnlineTargets, "_computed", spied)
    distilled(spec, tmp_path / "first", sentences=96)
    assert read == [8] * 12
    how = HOW.model_copy(update={"sentences": 96, "seed": 1})
    distil_fully(spec, how, Architecture(2, 24, 32, 4), tmp_path / "second", Told().listener)
    assert sum(read) == 96


def test_a_student_goes_on_from_the_weights_of_another(
    whole: Whole, tiny_teacher: Path, corpus_file: Path, tmp_path: Path
) -> None:
    fields = tiny_fields(tiny_teacher, corpus_file) | {"objective": {"yardstick": "last_layer"}}
    spec = parse_spec({**fields, "proxy": {**fields["proxy"], "held_out": 80}})
    how, told = HOW.model_copy(update={"epochs": 0.1, "learning_rate": 1e-9}), Told()
    distil_fully(spec, how, SMALL, tmp_path / "next", told.listener, whole.folder)
    before, after = (
        AutoModel.from_pretrained(folder).state_dict() for folder in (whole.folder, tmp_path / "next")
    )
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    # its first evaluation is near the last of the other, but for the projection, which is fitted anew
    first, anew = (each.held_out[0][1]["yardstick"][2, 4] for each in (told, whole.told))
    assert first < (anew + whole.result.loss) / 2


def test_a_static_student_that_goes_on_keeps_what_it_has_frozen(tiny_teacher: Path, tmp_path: Path) -> None:
    teacher = load_teacher(str(tiny_teacher))
    shape = static_student(teacher.architecture.hidden_size)
    first = new_student(teacher, shape, seed=0)
    save(first, teacher.tokenizer, tmp_path / "first")
    again = module._going_on(teacher, shape, tmp_path / "first", seed=1)
    assert not dict(again.named_parameters())[POSITIONS].requires_grad
    before = first.state_dict()
    assert all(torch.equal(before[name], value) for name, value in again.state_dict().items())


def test_its_loss_is_on_the_texts_that_judge_the_candidates_of_its_run(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[str], int]] = []
    stored = teacher_outputs.teacher_targets

    def spied(teacher: Any, texts: Any, length: int, *rest: Any) -> Any:
        seen.append((list(texts), length))
        return stored(teacher, texts, length, *rest)

    monkeypatch.setattr(module, "teacher_targets", spied)
    distilled(spec, tmp_path / "student", epochs=0.1, sequence_length=24)
    tokenizer = AutoTokenizer.from_pretrained(spec.teacher)
    texts = proxy_texts(spec.corpus, cache_folder(), spec.proxy, tokenizer, lambda said: None)
    # at the run's length too, not at that of the full distillation
    assert seen[0] == ([text.text for text in texts.held_out], spec.proxy.sequence_length)
    assert seen[1][1] == 24


def test_other_processes_get_the_device_on_the_way(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdnas_core.hardware.TURN_S", 0.0)
    monkeypatch.setattr("kdnas_core.hardware.PAUSE_S", 0.0)
    held: list[bool] = []
    monkeypatch.setattr(
        "kdnas_core.hardware.time.sleep", lambda seconds: held.append(device_lock().is_locked)
    )
    distilled(spec, tmp_path / "student", epochs=0.2)
    assert len(held) >= 8


@pytest.mark.parametrize("recipe", ["tinybert", "minilmv2"])
def test_another_recipe_than_the_runs_can_be_chosen(recipe: Any, spec: RunSpec, tmp_path: Path) -> None:
    told = Told()
    result = distilled(spec, tmp_path / "student", told, recipe=recipe, epochs=0.2)
    assert result.loss > 0
    assert "hidden" in told.held_out[-1][1] or "hidden_probe" in told.held_out[-1][1]
    assert bool(told.notes[0]) == (recipe != "minilmv2")  # no masked-LM head to learn predictions from


def test_a_full_distillation_may_take_more_steps_than_a_mini_kd() -> None:
    steps = 40 * 1_000_000 // 32
    assert training_of(32, 1e-3, steps).steps == steps
    with pytest.raises(ValueError):
        ProxySpec(steps=steps)


def test_another_recipe_brings_its_own_mapping_and_keeps_the_runs_start() -> None:
    spec = RunSpec(objective=ObjectiveSpec(mapping="last", start="random", start_layers="top"))
    spec = spec.filled_for(makes_vectors=True)
    assert objective_of(spec, DistilSpec()) == spec.objective
    assert objective_of(spec, DistilSpec(recipe="tinybert")) == ObjectiveSpec(
        use="vectors", yardstick="vectors", recipe="tinybert", start="random"
    )


@pytest.mark.parametrize(
    "how",
    [
        {"sequence_length": 500},
        {"corpus": "/nowhere.txt"},
        {"recipe": "pd"},
    ],
)
def test_what_cannot_be_distilled_is_refused_in_one_sentence(how: dict[str, Any], spec: RunSpec) -> None:
    with pytest.raises(BadInput) as refusal:
        check_full(spec, HOW.model_copy(update=how), SMALL)
    assert is_one_sentence(str(refusal.value))


def test_what_can_be_distilled_is_not_refused(spec: RunSpec) -> None:
    check_full(spec, HOW, SMALL)
