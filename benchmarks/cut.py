"""What does a student keep of its teacher by how it was cut: by norm, or by what heads and neurons do?

Run it with `python -m benchmarks.cut TASKS`, a folder with the local tasks stsb, mrpc, qnli, rte, cola, sst2
and trec. Two shapes, cut both ways, taught on single texts and on texts of which half are pairs, for equal
numbers of tokens, then fine-tuned on each task with pairs read together. Each row is appended to a CSV as it
is done; `--part 1/2` and `--part 2/2`, with a file each, share the work between two processes, and
`--summary FILE ...` only reads CSVs.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean, stdev

import torch

from benchmarks.rows import append, fine_tuned_score, read, texts_of
from kdnas_core.architecture import Architecture
from kdnas_core.data.tasks import read_task
from kdnas_core.data.tokens import with_pairs
from kdnas_core.distillation.beginning import begin
from kdnas_core.distillation.plan import TeacherProfile
from kdnas_core.distillation.precision import autocast_dtype
from kdnas_core.distillation.trainer import ProxySet, Watcher, distil
from kdnas_core.evaluation.fine_tuning import FineTuning
from kdnas_core.evaluation.zero_shot import similarity_score
from kdnas_core.files import cache_folder
from kdnas_core.models.families import canonical
from kdnas_core.models.importance import Importance, importance_of
from kdnas_core.models.teacher import Teacher, load_teacher
from kdnas_core.models.teacher_outputs import teacher_targets
from kdnas_core.spec import ObjectiveSpec, ProxySpec

SHAPES = (Architecture(3, 192, 256, 4), Architecture(2, 384, 384, 6))
SHARES = (0.0, 0.5)
CUTS = ("by norm", "by use")
TASKS = ("stsb", "mrpc", "qnli", "rte", "cola", "sst2", "trec")
TOKENS = 360_000
PROXY = ProxySpec(sentences=6_000, held_out=400, learning_rate=1e-3)
FINE_TUNING = FineTuning(rows=4_000, epochs=3, sequence_length=64, examples=12_000, dropout=0.0)
RATE = 3e-4
OUT = Path(__file__).parent / "results" / "cut.csv"


@dataclass(frozen=True)
class Material:
    """What all students share."""

    teacher: Teacher
    sets: dict[float, ProxySet]
    cuts: dict[str, Importance]


def main() -> None:
    """Measures what the CSV lacks, and prints means over seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", type=Path, nargs="?")
    parser.add_argument("--corpus", default="packaged")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--summary", type=Path, nargs="+")
    given = parser.parse_args()
    if given.summary is None:
        _measure(given.tasks, given.corpus, given.seeds, given.out, given.part)
    _print(read(*(given.summary or [given.out])))


def _measure(tasks: Path, corpus: str, seeds: int, out: Path, part: str) -> None:
    which, of = map(int, part.split("/"))
    material = _material(corpus)
    for seed, shape, cut, share in list(product(range(seeds), SHAPES, CUTS, SHARES))[which - 1 :: of]:
        row: dict[str, object] = {"shape": shape.key, "cut": cut, "pairs": share, "seed": seed}
        if any(all(done[name] == str(value) for name, value in row.items()) for done in read(out)):
            continue
        began = time.perf_counter()
        append(out, row | _scores(shape, cut, share, seed, material, tasks, began))
        print(row, f"{time.perf_counter() - began:.0f} s", flush=True)


def _material(corpus: str) -> Material:
    teacher, cache = load_teacher("packaged"), cache_folder()
    held_out, learnt = texts_of(corpus, PROXY, teacher)
    sets = {}
    for share in SHARES:
        train, judged = (
            teacher_targets(teacher, passages, PROXY.sequence_length, autocast_dtype(), cache)
            for passages in (with_pairs(learnt, share, 0), held_out)
        )
        sets[share] = ProxySet.of(train, judged, teacher.model.config)
    used = importance_of(teacher, learnt, "mean", cache)
    return Material(teacher, sets, {"by norm": by_norm(teacher, used), "by use": used})


def by_norm(teacher: Teacher, like: Importance) -> Importance:
    """Importance as the norm of what a head or neuron reads times that of what it writes, and of no skill.

    Args:
        teacher: whose weights.
        like: of the same shape.
    """
    weights = canonical(teacher.model.state_dict(), teacher.model.config.model_type)
    heads, neurons = torch.zeros_like(like.heads), torch.zeros_like(like.neurons)
    for layer in range(teacher.layers):
        of = f"encoder.layer.{layer}"
        value = weights[f"{of}.attention.self.value.weight"].unflatten(0, (heads.shape[1], -1))
        output = weights[f"{of}.attention.output.dense.weight"].T.unflatten(0, (heads.shape[1], -1))
        heads[layer] = (output.mT @ value).flatten(1).norm(dim=1)
        reads = weights[f"{of}.intermediate.dense.weight"].norm(dim=1)
        neurons[layer] = reads * weights[f"{of}.output.dense.weight"].norm(dim=0)
    return replace(like, heads=heads, neurons=neurons, same_word=torch.zeros_like(heads))


def _scores(
    shape: Architecture, cut: str, share: float, seed: int, material: Material, tasks: Path, began: float
) -> dict[str, object]:
    teacher, data = material.teacher, material.sets[share]
    objective = ObjectiveSpec().filled_for(makes_vectors=True)
    given = TeacherProfile(teacher.architecture, predicts_words=False, hides_words=True)
    begun = begin(teacher, shape, objective, given, data, None, seed, material.cuts[cut])
    tokens = len(data.train.ids) / len(data.train) * PROXY.batch_size
    proxy = PROXY.model_copy(update={"steps": round(TOKENS / tokens)})
    watcher = Watcher(step=lambda step: None, held_out=lambda found: None)
    result = distil(begun.student, begun.objective, data, proxy, seed, autocast_dtype(), watcher, looks=1)
    zero_shot = similarity_score(
        begun.student, teacher.tokenizer, read_task(str(tasks / "stsb"), cache_folder()).splits["test"], 64
    )
    found: dict[str, object] = {
        "from": " ".join(str(source.layer) for source in begun.sources),
        "agreement": round(100 * (1 - result.loss), 2),
        "stsb_zero_shot": round(100 * zero_shot, 2),
        "distil_seconds": round(time.perf_counter() - began),
    }
    for name in TASKS:
        task = read_task(str(tasks / name), cache_folder())
        found[name] = fine_tuned_score(begun.student, teacher.tokenizer, task, FINE_TUNING, RATE, seed)
    return found


def _print(rows: list[dict[str, str]]) -> None:
    columns = ["agreement", "stsb_zero_shot", *TASKS]
    print(f"{'student':<22}{'cut':<10}{'pairs':<7}{'seeds':<7}" + "".join(f"{name:>15}" for name in columns))
    summary = []
    for shape, cut, share in dict.fromkeys((row["shape"], row["cut"], row["pairs"]) for row in rows):
        those = [row for row in rows if (row["shape"], row["cut"], row["pairs"]) == (shape, cut, share)]
        means = {name: fmean(float(row[name]) for row in those) for name in columns}
        spread = {
            name: stdev(float(row[name]) for row in those) if len(those) > 1 else 0.0 for name in columns
        }
        cells = "".join(f"{means[name]:>9.1f} ± {spread[name]:<3.1f}" for name in columns)
        print(f"{shape:<22}{cut:<10}{share:<7}{len(those):<7}{cells}")
        summary.append(
            {"shape": shape, "cut": cut, "pairs": share, "seeds": len(those), "mean": means, "spread": spread}
        )
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
