from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from transformers import AutoModel, BertConfig, BertModel

from kdnas_core.architecture import Architecture
from kdnas_core.data.retrieval import read_retrieval
from kdnas_core.data.tasks import APART, Row, read_task
from kdnas_core.errors import BadInput
from kdnas_core.evaluation import scoring
from kdnas_core.evaluation.classifier import new_classifier
from kdnas_core.evaluation.fine_tuning import FineTuning, fine_tuned
from kdnas_core.evaluation.retrieval import retrieval_scores
from kdnas_core.evaluation.scoring import TaskScore
from kdnas_core.models.student import new_student, save
from kdnas_core.models.teacher import Teacher, most_tokens
from kdnas_core.spec import RunSpec, ScoreSpec, parse_spec
from kdnas_core.students import scores as module
from kdnas_core.students import task_teacher
from kdnas_core.students.scores import ZERO_SHOT, ScoreListener, Subject, check_scoring, score_models
from kdnas_core.students.task_file import write_task
from tests.data.test_retrieval import written as written_for_retrieval
from tests.evaluation.test_classifier import count_rows, word_rows
from tests.sentences import is_one_sentence
from tests.tiny import teacher_of
from tests.tiny_runs import own_machine

SMALL = Architecture(2, 16, 32, 4)


class Ended(BaseException):
    """Ends the process as a signal does; no code may catch it."""


@dataclass
class Told:
    """Records the calls of a listener; ends the scoring at an activity, or after a number of scores."""

    end_at: str | None = None
    end_after: int | None = None
    order: list[str] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)
    scores: list[tuple[Subject, TaskScore]] = field(default_factory=list)

    def say(self, said: str) -> None:
        self.order.append(said)
        if self.end_at is not None and said.startswith(self.end_at):
            raise Ended

    def scored(self, subject: Subject, score: TaskScore) -> None:
        self.order.append(f"{subject} scored on {score.task}")
        self.scores.append((subject, score))
        if len(self.scores) == self.end_after:
            raise Ended

    @property
    def names(self) -> list[tuple[Subject, str]]:
        return [(subject, score.task) for subject, score in self.scores]

    @property
    def listener(self) -> ScoreListener:
        return ScoreListener(lambda: None, self.say, lambda *given: self.steps.append(given), self.scored)


@pytest.fixture(autouse=True)
def machine(tmp_path: Path) -> Iterator[None]:
    with own_machine(tmp_path / "machine"):
        yield


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes fine-tuning take two steps."""
    monkeypatch.setattr(task_teacher, "FineTuning", partial(FineTuning, rates=(1e-3, 2e-3), epochs=1))


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The width of each model that is fine-tuned for a score."""
    widths: list[int] = []

    def counted(encoder: Any, *rest: Any) -> Any:
        widths.append(encoder.config.hidden_size)
        return fine_tuned(encoder, *rest)

    monkeypatch.setattr(scoring, "fine_tuned", counted)
    return widths


@pytest.fixture
def spec(tiny_spec: dict[str, Any]) -> RunSpec:
    return parse_spec(tiny_spec)


@pytest.fixture
def student(tiny_teacher: Path, tmp_path: Path) -> Path:
    return student_of(teacher_of(tiny_teacher), tmp_path / "student")


def student_of(teacher: Teacher, folder: Path, seed: int = 1) -> Path:
    save(new_student(teacher, SMALL, seed), teacher.tokenizer, folder)
    return folder


def written(folder: Path, rows: Sequence[Row], others: Sequence[Row], **more: Sequence[Row]) -> str:
    """A task as a folder of tables."""
    folder.mkdir()
    for split, some in {"train": rows, "validation": others, **more}.items():
        lines = []
        for row in some:
            texts = {"sentence": row.first}
            if row.second is not None:
                texts = {"sentence1": row.first, "sentence2": row.second}
            label = row.label if row.label % 1 else int(row.label)
            lines.append(json.dumps({**texts, "label": label}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return str(folder)


@pytest.fixture
def words(tmp_path: Path) -> str:
    return written(tmp_path / "words", word_rows(40), word_rows(20, seed=1))


@pytest.fixture
def counts(tmp_path: Path) -> str:
    return written(tmp_path / "counts", count_rows(40), count_rows(20, seed=1), test=count_rows(15, seed=2))


def scored(spec: RunSpec, student: Path, told: Told | None = None, **how: Any) -> Told:
    told = told or Told()
    score_models(spec, ScoreSpec(**{"seeds": 1, **how}), student, told.listener)
    return told


def test_teacher_and_student_are_scored_on_each_task_in_turn(
    spec: RunSpec, student: Path, words: str, counts: str
) -> None:
    told = scored(spec, student, tasks=[words, counts])
    assert told.names == [
        ("teacher", "words"),
        ("student", "words"),
        ("teacher", "counts"),
        ("student", "counts"),
    ]
    assert told.order[0] == "reading the tasks"
    assert told.order[1:7] == [
        "teacher: words: choosing a learning rate",
        "teacher: words: fine-tuning, seed 0",
        "teacher scored on words",
        "student: words: choosing a learning rate",
        "student: words: fine-tuning, seed 0",
        "student scored on words",
    ]
    assert told.steps[:6] == [(1, 4), (2, 4), (3, 4), (4, 4), (1, 2), (2, 2)]


def test_each_score_is_of_so_many_seeds_and_rows(
    spec: RunSpec, student: Path, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[int] = []

    def counted(encoder: Any, training_set: Any, *rest: Any) -> Any:
        learnt.append(len(training_set.rows))
        return fine_tuned(encoder, training_set, *rest)

    monkeypatch.setattr(scoring, "fine_tuned", counted)
    told = scored(spec, student, tasks=[words], seeds=2, rows=24)
    assert learnt == [24] * 4
    assert [len(score.seeds) for _, score in told.scores] == [2, 2]
    assert all(score.rate in (1e-3, 2e-3) for _, score in told.scores)


def test_the_teacher_is_fine_tuned_with_its_own_dropout_and_smaller_models_with_none(
    spec: RunSpec, student: Path, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[tuple[int, set[float]]] = []

    def spied(encoder: Any, *rest: Any) -> Any:
        model = fine_tuned(encoder, *rest)
        shares = {each.p for each in model.modules() if isinstance(each, torch.nn.Dropout)}
        rates.append((encoder.config.hidden_size, shares))
        return model

    monkeypatch.setattr(scoring, "fine_tuned", spied)
    scored(spec, student, tasks=[words], control=True)
    assert rates == [(32, {0.1}), (16, {0.0}), (16, {0.0})]


def test_the_split_that_is_asked_for_is_scored(spec: RunSpec, student: Path, counts: str) -> None:
    folder = Path(counts)
    validation, test = (
        scored(spec, student, tasks=[counts], split=split) for split in ("validation", "test")
    )
    for told, split in ((validation, "validation"), (test, "test")):
        assert read_task(counts, folder, split=split).scored == (split,)
        assert told.scores[0][1].seeds[0].keys() == {"spearman", "pearson"}
    assert validation.scores[0][1] != test.scores[0][1]


def test_the_teacher_is_scored_once_whatever_student_it_is_beside(
    spec: RunSpec, student: Path, words: str, tiny_teacher: Path, tmp_path: Path, trainings: list[int]
) -> None:
    first = scored(spec, student, tasks=[words])
    assert trainings == [32, 16]
    other = student_of(teacher_of(tiny_teacher), tmp_path / "other", seed=2)
    second = scored(spec, other, tasks=[words])
    assert trainings == [32, 16, 16]
    assert second.scores[0] == first.scores[0]
    assert scored(spec, student, tasks=[words]).scores == first.scores
    assert trainings == [32, 16, 16]


def test_the_control_is_the_same_shape_that_has_learnt_nothing(
    spec: RunSpec, student: Path, words: str, trainings: list[int]
) -> None:
    told = scored(spec, student, tasks=[words], control=True)
    assert told.names == [("teacher", "words"), ("student", "words"), ("control", "words")]
    assert trainings == [32, 16, 16]
    again = scored(spec, student, tasks=[words], control=True)
    assert again.scores == told.scores
    assert trainings == [32, 16, 16]
    models = dict(
        module._models(teacher_of(Path(spec.teacher)), student, ScoreSpec(tasks=["x"], control=True))
    )
    own, control = (models[subject] for subject in ("student", "control"))
    assert own.fingerprint != control.fingerprint
    assert own.encoder.config.to_dict() == control.encoder.config.to_dict()
    loaded = AutoModel.from_pretrained(student).state_dict()
    weights = own.encoder.state_dict(), control.encoder.state_dict()
    matrices = [name for name, weight in loaded.items() if weight.dim() > 1]
    assert all(torch.equal(weights[0][name], weight) for name, weight in loaded.items())
    assert not any(torch.equal(weights[1][name], loaded[name]) for name in matrices)


def test_a_student_that_lacks_a_pooler_is_remembered_too(
    spec: RunSpec, tiny_teacher: Path, words: str, tmp_path: Path, trainings: list[int]
) -> None:
    teacher = teacher_of(tiny_teacher)
    whole = new_student(teacher, SMALL, seed=1)
    assert isinstance(whole.config, BertConfig)
    bare = BertModel(whole.config, add_pooling_layer=False)
    save(bare, teacher.tokenizer, tmp_path / "bare")
    first = scored(spec, tmp_path / "bare", tasks=[words])
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert scored(spec, tmp_path / "bare", tasks=[words]).scores == first.scores
    assert trainings == [32, 16]
    assert torch.equal(torch.get_rng_state(), state)


# Without any training


@pytest.fixture
def of_vectors(tiny_teacher: Path, tmp_path: Path, tiny_spec: dict[str, Any]) -> RunSpec:
    """A run of a teacher that is made for sentence vectors."""
    folder = tmp_path / "vectors"
    shutil.copytree(tiny_teacher, folder)
    (folder / "modules.json").write_text("[]")
    return parse_spec({**tiny_spec, "teacher": str(folder)})


def test_an_embedding_teacher_and_its_student_are_compared_by_their_vectors_too(
    of_vectors: RunSpec, student: Path, words: str, counts: str, tiny_teacher: Path
) -> None:
    told = scored(of_vectors, student, tasks=[words, counts], control=True)
    assert told.names[3:] == [
        ("teacher", f"counts{APART}"),
        ("teacher", f"counts{ZERO_SHOT}"),
        ("student", f"counts{APART}"),
        ("student", f"counts{ZERO_SHOT}"),
        ("control", f"counts{APART}"),
    ]
    assert [subject for subject, _ in told.names[:3]] == ["teacher", "student", "control"]
    assert "student: counts, similarity" in told.order
    by_vectors = {(subject, score.task): score for subject, score in told.scores}
    models: list[tuple[Subject, Any]] = [
        ("teacher", teacher_of(tiny_teacher).model),
        ("student", AutoModel.from_pretrained(student)),
    ]
    for subject, encoder in models:
        score = by_vectors[subject, f"counts{ZERO_SHOT}"]
        assert (score.rate, score.metrics) == (None, ["spearman"])
        rows = count_rows(15, seed=2)  # of the test split, where there is one
        angles = [cosine(encoder, teacher_of(tiny_teacher), row) for row in rows]
        expected = spearmanr(angles, [row.label for row in rows]).statistic
        assert score.figure == pytest.approx(expected, abs=1e-6)


def mean(states: torch.Tensor) -> torch.Tensor:
    return states.mean(0)


def first(states: torch.Tensor) -> torch.Tensor:
    return states[0]


def cosine(
    encoder: Any, teacher: Teacher, row: Row, pool: Callable[[torch.Tensor], torch.Tensor] = mean
) -> float:
    vectors = []
    for sentence in (row.first, row.second):
        with torch.no_grad():
            states = encoder(**teacher.tokenizer(sentence, return_tensors="pt")).last_hidden_state
        vectors.append(pool(states[0].double()))
    return float(vectors[0] @ vectors[1] / vectors[0].norm() / vectors[1].norm())


def test_pairs_are_read_together_or_apart_where_that_is_asked_for_whatever_the_teacher(
    of_vectors: RunSpec, spec: RunSpec, student: Path, counts: str
) -> None:
    together = scored(of_vectors, student, tasks=[counts], pairs="together").names
    assert [name for name in together if not name[1].endswith(ZERO_SHOT)] == [
        ("teacher", "counts"),
        ("student", "counts"),
    ]
    assert scored(spec, student, tasks=[counts], pairs="apart").names == [
        ("teacher", f"counts{APART}"),
        ("student", f"counts{APART}"),
    ]


def test_beside_a_student_made_for_a_task_of_pairs_all_read_them_as_it_does(
    of_vectors: RunSpec, tiny_teacher: Path, tmp_path: Path, counts: str
) -> None:
    task, folder = read_task(counts, tmp_path), tmp_path / "own"
    encoder = new_student(teacher_of(tiny_teacher), SMALL, 1)
    save(new_classifier(encoder, task, seed=0), teacher_of(tiny_teacher).tokenizer, folder)
    write_task(folder, counts, task.fingerprint)
    names = scored(of_vectors, folder, tasks=[counts], control=True).names
    assert [name for name in names if not name[1].endswith(ZERO_SHOT)] == [
        ("teacher", "counts"),
        ("student", "counts"),
        ("control", "counts"),
    ]


def test_vectors_are_pooled_as_the_teachers_are(
    of_vectors: RunSpec, student: Path, texts: list[str], tmp_path: Path
) -> None:
    folder = Path(of_vectors.teacher)
    modules = [{"type": "models.Transformer", "path": ""}, {"type": "models.Pooling", "path": "1_Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    rows = [Row(texts[i][:60], texts[i + 60][:60], (7 * i % 60) / 12 + 0.01) for i in range(60)]
    told = scored(of_vectors, student, tasks=[written(tmp_path / "pairs", rows, rows)])
    figures = {subject: score.figure for subject, score in told.scores if score.task.endswith(ZERO_SHOT)}
    teacher, labels = teacher_of(folder), [row.label for row in rows]
    of_first, of_mean = (
        spearmanr([cosine(teacher.model, teacher, row, pool) for row in rows], labels).statistic
        for pool in (first, mean)
    )
    assert abs(of_first - of_mean) > 1e-5  # ranks of 60 rows differ by 5e-5 or not at all
    assert figures["teacher"] == pytest.approx(of_first, abs=1e-6)


def test_what_vectors_retrieve_is_scored_without_training_and_remembered(
    of_vectors: RunSpec, student: Path, tmp_path: Path, trainings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written_for_retrieval(tmp_path / "capitals")
    (folder / "qrels" / "test.tsv").write_text("q1\td1\t2\nq2\td2\t1\n")
    told = scored(of_vectors, student, tasks=[str(folder)], control=True)
    assert told.names == [("teacher", f"capitals{ZERO_SHOT}"), ("student", f"capitals{ZERO_SHOT}")]
    assert trainings == []
    assert told.steps == [(5, 5), (5, 5)]
    task = read_retrieval(str(folder), tmp_path)
    teacher = teacher_of(Path(of_vectors.teacher))
    expected = retrieval_scores(teacher.model, teacher.tokenizer, task, most_tokens(teacher))
    [values] = told.scores[0][1].seeds
    assert (told.scores[0][1].rate, values) == (None, {f"{name}, test": x for name, x in expected.items()})
    assert 0.5 < expected["ndcg@10"] <= 1.0
    monkeypatch.setattr(module, "retrieved", None)
    assert scored(of_vectors, student, tasks=[str(folder)]).scores == told.scores


def test_what_one_query_retrieves_has_a_score_and_no_error(
    of_vectors: RunSpec, student: Path, tmp_path: Path
) -> None:
    folder = written_for_retrieval(tmp_path / "capitals")
    (folder / "qrels" / "test.tsv").write_text("q1\td1\t2\n")
    [(_, score), _] = scored(of_vectors, student, tasks=[str(folder)]).scores
    assert score.errors == ()
    assert 0 <= score.seeds[0]["ndcg@10, test"] <= 1


def test_a_teacher_of_another_kind_is_not_compared_by_vectors(
    spec: RunSpec, student: Path, counts: str
) -> None:
    assert scored(spec, student, tasks=[counts]).names == [("teacher", "counts"), ("student", "counts")]


# Where it was ended


@pytest.mark.parametrize(
    ("told", "left"),
    [
        (Told(end_at="teacher: words: choosing"), [32, 16]),
        (Told(end_at="student: words: fine-tuning"), [16]),
        (Told(end_after=2), []),
    ],
)
def test_a_scoring_that_was_ended_goes_on(
    told: Told, left: list[int], spec: RunSpec, student: Path, words: str, trainings: list[int]
) -> None:
    with pytest.raises(Ended):
        scored(spec, student, told, tasks=[words])
    trainings.clear()
    again = scored(spec, student, tasks=[words])
    assert trainings == left
    assert again.names == [("teacher", "words"), ("student", "words")]


# What is refused


@pytest.mark.parametrize("fields", [{"teacher": "/nowhere/at/all"}, {}])
def test_what_cannot_be_scored_is_refused_in_one_sentence(
    fields: dict[str, str], spec: RunSpec, words: str
) -> None:
    how = ScoreSpec(tasks=[words] if fields else [words, "/nowhere/at/all"])
    with pytest.raises(BadInput) as refusal:
        check_scoring(spec.model_copy(update=fields), how)
    assert is_one_sentence(str(refusal.value))


def test_a_teacher_of_another_kind_retrieves_nothing(spec: RunSpec, tmp_path: Path) -> None:
    folder = str(written_for_retrieval(tmp_path / "capitals"))
    with pytest.raises(BadInput, match="not made for the sentence vectors") as refusal:
        check_scoring(spec, ScoreSpec(tasks=[folder]))
    assert is_one_sentence(str(refusal.value))


def test_a_split_that_a_task_has_not_is_refused(spec: RunSpec, words: str) -> None:
    with pytest.raises(BadInput) as refusal:
        check_scoring(spec, ScoreSpec(tasks=[words], split="test"))
    assert is_one_sentence(str(refusal.value))
    check_scoring(spec, ScoreSpec(tasks=[words]))
