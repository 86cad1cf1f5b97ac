"""Which recipe teaches a small student most in the same steps on the same text?

Run it with `python -m benchmarks.recipes`. Every recipe has the same student shape, start, text, batches and
learning rate. Judged by what none of them trains: held-out hidden states through a fresh least-squares probe,
attention of the last layer, and accuracy of a linear classifier on the packaged task.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from typing import get_args

from transformers import PreTrainedModel

from benchmarks.rows import texts_of
from kdnas_core.architecture import Architecture
from kdnas_core.data.packaged_task import packaged_task
from kdnas_core.distillation.needs import trained_head
from kdnas_core.distillation.objective import Objective, make_objective
from kdnas_core.distillation.plan import RELATED, TeacherProfile, plan
from kdnas_core.distillation.precision import autocast_dtype
from kdnas_core.distillation.recipes import start_layers
from kdnas_core.distillation.trainer import ProxySet, Watcher, distil, judged_by
from kdnas_core.evaluation.zero_shot import probe_accuracy
from kdnas_core.files import cache_folder
from kdnas_core.hardware import exclusive
from kdnas_core.models.importance import Importance, importance_of
from kdnas_core.models.mapping import mean_over_layers
from kdnas_core.models.mlm_head import TeacherHead
from kdnas_core.models.student import start_student
from kdnas_core.models.targets import Output
from kdnas_core.models.teacher import Teacher, load_teacher
from kdnas_core.models.teacher_outputs import NeededOutputs, teacher_targets
from kdnas_core.spec import ObjectiveSpec, ProxySpec, Recipe, TermSpec

SHAPE = Architecture(3, 192, 768, 12)
TASK_LENGTH = 48  # tokens of a paragraph of the packaged task
# what all are judged by: hidden states of every layer, and attention of the last
JUDGE = ObjectiveSpec(
    recipe="custom",
    terms=[TermSpec(kind="hidden", mapping="uniform+last"), TermSpec(kind="attention_kl", mapping="final")],
)


@dataclass(frozen=True)
class Material:
    """What all recipes share: words are hidden in one of the two sets, for the recipes that need it."""

    teacher: Teacher
    plain: ProxySet
    hidden_words: ProxySet
    words: TeacherHead
    importance: Importance


@dataclass(frozen=True)
class Row:
    """One student: held-out figures after training, medians over seeds."""

    student: str
    hidden_nmse: float
    attention_kl: float
    accuracy: float
    seconds: float


def main() -> None:
    """Prints the table, best accuracy first, and the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--start", choices=["teacher", "random"], default="teacher")
    given = parser.parse_args()
    proxy = ProxySpec(steps=given.steps, learning_rate=given.learning_rate, sequence_length=64, batch_size=32)
    autocast_dtype()  # measured now, under the same lock, unless it is remembered
    with exclusive():
        material = _material(proxy)
        rows = [_row("teacher", [(material.teacher.model, 0.0)], material)]
        rows += [
            _row("not trained", [(_student(ObjectiveSpec(start=given.start), material, 0), 0.0)], material)
        ]
        for recipe in get_args(Recipe)[:-1]:
            spec = ObjectiveSpec(recipe=recipe, start=given.start, head="trained")
            rows.append(
                _row(recipe, [_trained(spec, material, proxy, seed) for seed in range(given.seeds)], material)
            )
    rows.sort(key=lambda row: -row.accuracy)
    _print(rows)
    summary = {**vars(given), "shape": SHAPE.key, "rows": [asdict(row) for row in rows]}
    print(
        json.dumps({**summary, "best_recipe": next(row.student for row in rows if row.student != "teacher")})
    )


def _material(proxy: ProxySpec) -> Material:
    teacher = load_teacher("packaged")
    held_out, learnt = texts_of("packaged", proxy, teacher)
    outputs: list[Output] = [(kind, layer) for kind in RELATED for layer in range(1, teacher.layers + 1)]
    sets = {}
    for hidden_words in (False, True):
        train, judged = (
            teacher_targets(
                teacher,
                part,
                proxy.sequence_length,
                autocast_dtype(),
                cache_folder(),
                wanted=NeededOutputs(outputs, hidden_words),
            )
            for part in (learnt, held_out)
        )
        sets[hidden_words] = ProxySet.of(train, judged, teacher.model.config)
    words = trained_head(teacher, sets[True].train, sets[True].vocabulary, seed=0)
    importance = importance_of(teacher, learnt, "mean", cache_folder())
    return Material(teacher, sets[False], sets[True], words, importance)


def _student(spec: ObjectiveSpec, material: Material, seed: int) -> PreTrainedModel:
    sources = start_layers(spec, SHAPE.layers, material.teacher.layers)
    kept = material.importance if spec.start == "teacher" else None
    return start_student(material.teacher, SHAPE, material.plain.train, seed, kept, sources)[0]


def _trained(
    spec: ObjectiveSpec, material: Material, proxy: ProxySpec, seed: int
) -> tuple[PreTrainedModel, float]:
    began = time.perf_counter()
    student = _student(spec, material, seed)
    planned = plan(
        spec, SHAPE, TeacherProfile(material.teacher.architecture, predicts_words=True, hides_words=True)
    )
    data = material.hidden_words if planned.hides_words else material.plain
    objective = _objective(spec, material, data)
    watcher = Watcher(step=lambda step: None, held_out=lambda result: None)
    distil(student, objective, data, proxy, seed, autocast_dtype(), watcher)
    return student, time.perf_counter() - began


def _objective(
    spec: ObjectiveSpec, material: Material, data: ProxySet, shape: Architecture = SHAPE
) -> Objective:
    teacher = material.teacher.architecture
    planned = plan(spec, shape, TeacherProfile(teacher, predicts_words=True, hides_words=True))
    table = (len(data.vocabulary.rows), shape.hidden_size)
    return make_objective(planned, spec, shape, teacher, material.words, table, seed=0)


def _row(name: str, students: list[tuple[PreTrainedModel, float]], material: Material) -> Row:
    """Judges students of one kind in the same way, whatever they were trained by."""
    measured = [_judged(student, material) for student, _ in students]
    hidden, attention, accuracy = (statistics.median(column) for column in zip(*measured, strict=True))
    row = Row(name, hidden, attention, accuracy, statistics.median(seconds for _, seconds in students))
    print(f"{name}: done in {row.seconds:.0f} s", flush=True)
    return row


def _judged(student: PreTrainedModel, material: Material) -> tuple[float, float, float]:
    shape = SHAPE if student is not material.teacher.model else material.teacher.architecture
    objective = _objective(JUDGE, material, material.plain, shape)
    result = judged_by(student, objective, material.plain, autocast_dtype())
    task = packaged_task(cache_folder())
    rows = {split: [(each.sentence, each.label) for each in task[split]] for split in task}
    accuracy = probe_accuracy(student, material.teacher.tokenizer, rows["train"], rows["test"], TASK_LENGTH)
    return result.loss, mean_over_layers(result.terms["attention_kl"]), accuracy


def _print(rows: list[Row]) -> None:
    print(f"{'student':<14}{'hidden NMSE':>12}{'attention KL':>14}{'accuracy':>10}{'seconds':>9}")
    for row in rows:
        print(
            f"{row.student:<14}{row.hidden_nmse:>12.3f}{row.attention_kl:>14.3f}{row.accuracy:>10.3f}{row.seconds:>9.0f}"
        )


if __name__ == "__main__":
    main()
