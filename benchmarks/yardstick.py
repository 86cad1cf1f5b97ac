"""Which yardstick ranks students as their final scores do, and how soon in a training?

Run it with `python -m benchmarks.yardstick TASKS`, a folder with the local tasks sst2, trec, stsb and mrpc.
Each shape is trained twice from one start: by a mini-KD of 200 steps, in which all yardsticks are read at
steps 0, 40 and 200, and for four times as long, after which it is scored on tasks. Shapes stand in groups of
equal latency (at most 1.15 between fastest and slowest), in which depth and width differ. Each row is
appended to a CSV as it is done, so that the benchmark can be ended and go on; `--part 1/2` and `--part 2/2`,
with a file each, share the work between two processes. `--summary FILE ...` only reads CSVs.

`--teacher masked_lm` asks the same of students of a small BERT that is first trained to guess hidden words:
of those that are for fine-tuning, taught by what is usual for that use, in groups of equal FLOPs.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.rows import append, fine_tuned_score, read, texts_of
from benchmarks.small_teachers import masked_lm
from kdnas_core.architecture import Architecture
from kdnas_core.data.tasks import Task, read_task
from kdnas_core.data.tokens import Passage, with_pairs
from kdnas_core.distillation.beginning import begin
from kdnas_core.distillation.plan import TeacherProfile
from kdnas_core.distillation.precision import autocast_dtype
from kdnas_core.distillation.trainer import HeldOut, ProxySet, Watcher, distil
from kdnas_core.distillation.yardstick import vectors_error
from kdnas_core.evaluation.fine_tuning import FineTuning
from kdnas_core.evaluation.zero_shot import probe_accuracy, similarity_score
from kdnas_core.files import cache_folder
from kdnas_core.latency.bench import LatencyBench
from kdnas_core.models.importance import Importance, importance_of
from kdnas_core.models.mapping import mean_over_layers
from kdnas_core.models.student import new_student, parameters
from kdnas_core.models.targets import Targets, make_batch, pooled
from kdnas_core.models.teacher import Teacher, load_teacher
from kdnas_core.models.teacher_outputs import teacher_targets
from kdnas_core.models.vocabulary import Vocabulary
from kdnas_core.search.ranking import ranked
from kdnas_core.spec import LatencySpec, ObjectiveSpec, ProxySpec, RunSpec

# (layers, hidden size, FFN width), 32 wide heads; by latency on the machine of the committed results
GROUPS = (
    ((1, 320, 768), (2, 192, 384), (3, 128, 512), (6, 96, 192)),
    ((1, 384, 768), (2, 256, 512), (3, 192, 384), (6, 128, 256)),
    ((2, 224, 512), (2, 256, 256), (3, 160, 512), (4, 128, 512)),
    ((3, 288, 256), (4, 224, 256), (6, 128, 512), (6, 160, 192)),
    ((2, 320, 1024), (2, 384, 384), (4, 192, 768), (6, 160, 384)),
    ((1, 288, 192), (2, 160, 256), (2, 160, 384), (4, 96, 256)),
)
# of the small masked language model; by FLOPs, since of students that small a clock tells layers only
SMALL_GROUPS = (
    ((1, 128, 256), (2, 96, 160), (3, 64, 224), (4, 64, 128)),
    ((1, 96, 384), (2, 64, 288), (3, 64, 128), (1, 128, 160)),
    ((1, 96, 160), (2, 64, 128), (4, 32, 160), (3, 32, 256)),
    ((2, 128, 384), (3, 96, 352), (4, 96, 224), (3, 128, 160)),
    ((1, 64, 256), (2, 32, 288), (4, 32, 96), (1, 96, 48)),
    ((2, 128, 128), (4, 64, 224), (3, 96, 160), (2, 96, 288)),
)
HEAD = 32
PROXY = ProxySpec(sentences=6_000, held_out=400, steps=200, learning_rate=1e-3)
LONGER = 4  # times the mini-KD's steps, before final scores
LOOKS = (0, 40, 200)
RATE = 4e-4
FINE_TUNING = FineTuning(rows=4_000, epochs=3, sequence_length=64, examples=12_000, dropout=0.0)
PROBE_ROWS = 3_000
BUDGETS = (3, 5, 7)
SEED = 0
MASKED_LM_STEPS = 1_500
YARDSTICKS = ("mean_nmse", "last_nmse", "cka", "plain_cka", "similarities", "pairs_cka")
USES = {
    "vectors": ("stsb_zero_shot", "probe_trec", "probe_sst2"),
    "fine_tuning": ("sst2", "trec", "stsb_together", "mrpc_together"),
}
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Material:
    """What all shapes share."""

    teacher: Teacher
    data: ProxySet
    pairs: Targets
    importance: Importance
    tasks: dict[str, Task]
    objective: ObjectiveSpec
    groups: tuple[tuple[tuple[int, int, int], ...], ...]

    @property
    def makes_vectors(self) -> bool:
        """Whether students are scored by their vectors, too."""
        return self.objective.use == "vectors"


def main() -> None:
    """Measures what the CSV lacks, and prints how each yardstick ranks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", type=Path, nargs="?")
    parser.add_argument("--teacher", choices=("packaged", "masked_lm"), default="packaged")
    parser.add_argument("--corpus", default="packaged")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--summary", type=Path, nargs="+")
    given = parser.parse_args()
    out = given.out or RESULTS / f"yardstick{'' if given.teacher == 'packaged' else '_masked_lm'}.csv"
    if given.summary is None:
        _measure(given.teacher, given.tasks, given.corpus, out, given.part)
    _print(read(*(given.summary or [out])))


def _measure(teacher: str, tasks: Path, corpus: str, out: Path, part: str) -> None:
    which, of = map(int, part.split("/"))
    material = _material(teacher, tasks, corpus)
    bench = LatencyBench(material.teacher, LatencySpec(budget_speedup=2.0)) if teacher == "packaged" else None
    shapes = [(group, _shape(*each)) for group, those in enumerate(material.groups, 1) for each in those]
    for group, shape in shapes[which - 1 :: of]:
        if any(row["shape"] == shape.key for row in read(out)):
            continue
        row: dict[str, object] = {
            "shape": shape.key,
            "group": group,
            "flops": shape.flops(128),
            "parameters": parameters(new_student(material.teacher, shape, SEED)),
        }
        if bench is not None:
            reading = bench.student_latency(shape, new_student(material.teacher, shape, SEED))
            row["latency_ms"] = round(reading.p50, 3)
            row["percent_of_teacher"] = round(100 / reading.speedup, 2)
        began = time.perf_counter()
        row |= _mini_kd(shape, material) | _final(shape, material)
        row["seconds"] = round(time.perf_counter() - began)
        append(out, row)
        print({name: row[name] for name in ("shape", "cka@end", "stsb_together", "seconds")}, flush=True)


def _shape(layers: int, hidden: int, intermediate: int) -> Architecture:
    return Architecture(layers, hidden, intermediate, hidden // HEAD)


def _material(name: str, folder: Path, corpus: str) -> Material:
    cache = cache_folder()
    packaged = name == "packaged"
    teacher, usual = load_teacher("packaged"), RunSpec().filled_for(makes_vectors=packaged)
    held_out, learnt = texts_of(corpus, PROXY, teacher)
    if not packaged:
        teacher = masked_lm(teacher, learnt, MASKED_LM_STEPS, SEED)

    def outputs(passages: Sequence[Passage]) -> Targets:
        return teacher_targets(teacher, passages, PROXY.sequence_length, autocast_dtype(), cache)

    config = teacher.model.config
    passages = with_pairs(learnt, usual.proxy.pairs or 0.0, SEED)
    sets = [outputs(passages), outputs(held_out), outputs(with_pairs(held_out, 1.0, SEED))]
    vocabulary = Vocabulary.used(sets, config.vocab_size, config.pad_token_id or 0)
    train, judged, pairs = map(vocabulary.renumbered, sets)
    return Material(
        teacher,
        ProxySet(train, judged, vocabulary),
        pairs,
        importance_of(teacher, learnt, "mean", cache),
        {name: read_task(str(folder / name), cache) for name in ("sst2", "trec", "stsb", "mrpc")},
        usual.objective,
        GROUPS if packaged else SMALL_GROUPS,
    )


def _trained(
    shape: Architecture,
    material: Material,
    steps: int,
    looks: int,
    told: Callable[[PreTrainedModel, HeldOut], None],
) -> PreTrainedModel:
    teacher = material.teacher
    given = TeacherProfile(teacher.architecture, predicts_words=False, hides_words=True)
    begun = begin(teacher, shape, material.objective, given, material.data, None, SEED, material.importance)
    watcher = Watcher(step=lambda step: None, held_out=lambda found: told(begun.student, found))
    proxy = PROXY.model_copy(update={"steps": steps})
    distil(begun.student, begun.objective, material.data, proxy, SEED, autocast_dtype(), watcher, looks=looks)
    return begun.student


def _mini_kd(shape: Architecture, material: Material) -> dict[str, float]:
    found: dict[str, float] = {}

    def told(student: PreTrainedModel, result: HeldOut) -> None:
        if result.step in LOOKS:
            values = _yardsticks(student, result, material)
            found.update({f"{name}@{result.step}": value for name, value in values.items()})
            if result.standard_error is not None:
                found["cka_se"] = round(result.standard_error, 5)

    _trained(shape, material, PROXY.steps, PROXY.steps // 40, told)
    return found


def _yardsticks(student: PreTrainedModel, result: HeldOut, material: Material) -> dict[str, float]:
    """All that could be judged by, each an error: small where the student is good."""
    places = result.terms["hidden_probe" if "hidden_probe" in result.terms else "hidden"]
    vectors = _vectors(student, material.data.held_out)
    of_pairs = _vectors(student, material.pairs)
    values = {
        "mean_nmse": mean_over_layers(places),
        "last_nmse": places[max(places)],
        "cka": vectors_error(*vectors)(np.arange(len(vectors[0]))),
        "plain_cka": 1 - _plain_cka(*vectors),
        "similarities": 1 - _similarities(*vectors),
        "pairs_cka": vectors_error(*of_pairs)(np.arange(len(of_pairs[0]))),
    }
    return {name: round(value, 5) for name, value in values.items()}


@torch.no_grad()
def _vectors(student: PreTrainedModel, texts: Targets) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean vectors of student and teacher."""
    last, parts = len(texts.variance) - 1, []
    for start in range(0, len(texts), PROXY.batch_size):
        some = range(start, min(start + PROXY.batch_size, len(texts)))
        batch = make_batch(texts, some, student.config.pad_token_id or 0)
        types = {} if batch.types is None else {"token_type_ids": batch.types}
        states = student(input_ids=batch.ids, attention_mask=batch.mask, **types).last_hidden_state
        lengths = batch.mask.sum(1)
        parts.append(
            [
                pooled(tokens, lengths, "mean")
                for tokens in (batch.real(states), batch.teacher("hidden", last))
            ]
        )
    student_vectors, teacher_vectors = (torch.cat(column) for column in zip(*parts, strict=True))
    return student_vectors, teacher_vectors


def _plain_cka(student: torch.Tensor, teacher: torch.Tensor) -> float:
    x, y = (vectors - vectors.mean(0) for vectors in (student, teacher))
    return float((x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm()))


def _similarities(student: torch.Tensor, teacher: torch.Tensor) -> float:
    """Pearson's correlation of the cosines of all pairs of texts."""
    above = np.triu_indices(len(student), 1)
    one, other = (
        (unit @ unit.T).numpy()[above]
        for unit in (torch.nn.functional.normalize(vectors, dim=-1) for vectors in (student, teacher))
    )
    return float(np.corrcoef(one, other)[0, 1])


def _final(shape: Architecture, material: Material) -> dict[str, float]:
    """Scores after the longer training, in per cent, each with its standard error over rows."""
    found: dict[str, float] = {}

    def told(student: PreTrainedModel, result: HeldOut) -> None:
        if result.step:
            values = _yardsticks(student, result, material)
            found.update({f"{name}@end": value for name, value in values.items()})

    student = _trained(shape, material, LONGER * PROXY.steps, 1, told)
    tokenizer, tasks = material.teacher.tokenizer, material.tasks
    if material.makes_vectors:
        found |= scores_of_vectors(student, tokenizer, tasks)
    for name in ("sst2", "trec", "stsb", "mrpc"):
        score = name if name in ("sst2", "trec") else f"{name}_together"
        found[score] = fine_tuned_score(student, tokenizer, tasks[name], FINE_TUNING, RATE, SEED)
    return found


def scores_of_vectors(
    student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tasks: dict[str, Task]
) -> dict[str, float]:
    """Of students whose vectors are used as they are, in per cent."""
    length, rows = FINE_TUNING.sequence_length, tasks["stsb"].splits["test"]
    found = {"stsb_zero_shot": similarity_score(student, tokenizer, rows, length)}
    for name in ("trec", "sst2"):
        splits = tasks[name].splits
        parts = [[(row.first, int(row.label)) for row in splits[split]] for split in ("train", "test")]
        found[f"probe_{name}"] = probe_accuracy(student, tokenizer, parts[0][:PROBE_ROWS], parts[1], length)
    return {name: round(100 * value, 2) for name, value in found.items()}


# rows of each test split, for the standard error of a score
ROWS = {"stsb_zero_shot": 1379, "probe_trec": 500, "probe_sst2": 1821, "sst2": 1821, "trec": 500}
ROWS |= {"stsb_together": 1379, "mrpc_together": 1725}


def standard_error(score: str, value: float) -> float:
    """Over the rows of the test split, in per cent: binomial, or (1 - r^2) / sqrt(n) of a correlation."""
    share = value / 100
    spread = 1 - share**2 if score.startswith("stsb") else math.sqrt(max(share * (1 - share), 0.0))
    return 100 * spread / math.sqrt(ROWS[score])


def _print(rows: list[dict[str, str]]) -> None:
    summary: dict[str, object] = {"shapes": len(rows)}
    for use, scores in USES.items():
        if not set(scores) <= set(rows[0]):
            continue
        final = [fmean(float(row[name]) for name in scores) for row in rows]
        noise = [
            math.sqrt(sum(standard_error(name, float(row[name])) ** 2 for name in scores)) / len(scores)
            for row in rows
        ]
        print(f"\n{use}: {', '.join(scores)}; {len(rows)} shapes")
        print(f"{'yardstick':<20}{'Spearman':>10}{'pairs of equal latency':>26}")
        found = {}
        columns = [name for name in rows[0] if name.split("@")[0] in YARDSTICKS and "@" in name]
        for column in ["flops", "parameters", *columns]:
            sign = 1 if "@" in column else -1  # yardsticks are errors, sizes are not
            values = [sign * float(row[column]) for row in rows]
            found[column] = ranks(values, final, noise, [row["group"] for row in rows])
            right, of = found[column]["right"], found[column]["pairs"]
            print(f"{column:<20}{found[column]['spearman']:>10.2f}{f'{right} of {of}':>20}")
        summary[use] = found
    if "percent_of_teacher" in rows[0]:
        summary["picks"] = _picks(rows)
    print(json.dumps(summary))


def _picks(rows: list[dict[str, str]]) -> list[dict[str, object]]:
    """Under each budget the best of these shapes, by the first version's loss and by agreement."""
    uses = "".join(f"{use:>13}" for use in USES)
    print(f"\n{'budget':<8}{'picked by':<16}{'student':<24}{'speed-up':>9}{'STS-B':>8}{uses}")
    picks: list[dict[str, object]] = []
    for budget in BUDGETS:
        within = [row for row in rows if float(row["percent_of_teacher"]) <= 100 / budget]
        for column in ("mean_nmse@200", "cka@200") if within else ():
            best = min(within, key=lambda row: float(row[column]))
            means = {use: fmean(float(best[name]) for name in scores) for use, scores in USES.items()}
            speedup, zero_shot = 100 / float(best["percent_of_teacher"]), float(best["stsb_zero_shot"])
            cells = "".join(f"{mean:>13.1f}" for mean in means.values())
            print(f"1/{budget:<6}{column:<16}{best['shape']:<24}{speedup:>9.2f}{zero_shot:>8.1f}{cells}")
            picks.append({"budget": budget, "by": column, "shape": best["shape"], "scores": means})
    return picks


def ranks(
    errors: Sequence[float], scores: Sequence[float], noise: Sequence[float], groups: Sequence[str]
) -> dict[str, float]:
    """Spearman over all, and pairs of one group ranked right, of those that differ by more than noise."""
    pairs = [pair for pair in combinations(range(len(scores)), 2) if groups[pair[0]] == groups[pair[1]]]
    found = ranked(errors, scores, noise, pairs)
    return {"spearman": round(found.spearman or 0.0, 3), "right": found.right, "pairs": found.pairs}


if __name__ == "__main__":
    main()
