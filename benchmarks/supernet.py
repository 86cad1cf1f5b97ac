"""How well does a supernet rank students that were never trained, and what does it cost?

Run it with `python -m benchmarks.supernet`. It trains a supernet of a space with the shapes of
`benchmarks/results/yardstick.csv`, cuts these out of it, and judges them without a step. The truth is what
that CSV says of their own trainings: the agreement of vectors after a mini-KD of 200 steps and after four
times as many, and zero-shot STS-B. Beside it stand cheaper measures of the CSV: the plain cut, a look at step
40, FLOPs and parameters.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from statistics import fmean

from benchmarks.rows import read, texts_of
from benchmarks.yardstick import PROXY, RESULTS, ranks
from kdnas_core.architecture import Architecture
from kdnas_core.distillation.beginning import begin
from kdnas_core.distillation.plan import TeacherProfile
from kdnas_core.distillation.precision import autocast_dtype
from kdnas_core.distillation.supernet import supernet_of
from kdnas_core.distillation.trainer import ProxySet, judged_by
from kdnas_core.files import cache_folder
from kdnas_core.models.importance import importance_of
from kdnas_core.models.teacher import load_teacher
from kdnas_core.models.teacher_outputs import teacher_targets
from kdnas_core.search.space import SearchSpace
from kdnas_core.spec import RunSpec

SPACE = SearchSpace(
    layers=(1, 2, 3, 4, 5, 6),
    hidden_size=tuple(range(96, 385, 32)),
    intermediate_size=tuple(range(128, 1_537, 64)),
    attention_heads=tuple(range(2, 13)),
    hidden_act=("gelu",),
)
TRUTHS = {"cka@200": -1, "cka@end": -1, "stsb_zero_shot": 1}  # and whether more is better


def main() -> None:
    """Prints how each measure ranks, and JSON last."""
    teacher, objective = load_teacher("packaged"), RunSpec().filled_for(makes_vectors=True).objective
    held_out, learnt = texts_of("packaged", PROXY, teacher)
    cache, autocast = cache_folder(), autocast_dtype()
    train, judged = (
        teacher_targets(teacher, texts, PROXY.sequence_length, autocast, cache)
        for texts in (learnt, held_out)
    )
    data = ProxySet.of(train, judged, teacher.model.config)
    importance = importance_of(teacher, learnt, "mean", cache)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as empty:
        shared = supernet_of(
            teacher,
            data,
            importance,
            "mean",
            SPACE,
            dict.fromkeys(SPACE.depths),
            autocast,
            Path(empty),
            lambda step: None,
        )
    training_s = time.perf_counter() - began
    profile = TeacherProfile(teacher.architecture, predicts_words=False, hides_words=True)
    rows = read(RESULTS / "yardstick.csv")
    found: list[float] = []
    began = time.perf_counter()
    for row in rows:
        start = begin(
            teacher, _shape(row["shape"]), objective, profile, data, None, 0, importance, shared=shared
        )
        found.append(judged_by(start.student, start.objective, data, autocast).loss)
    seconds = (time.perf_counter() - began) / len(rows)
    measures = {"supernet, no step": found}
    measures |= {name: [float(row[name]) for row in rows] for name in ("cka@0", "cka@40", "cka@200")}
    measures |= {name: [-float(row[name]) for row in rows] for name in ("flops", "parameters")}
    print(f"supernet: {training_s:.0f} s; then {seconds:.2f} s a shape; mean error {fmean(found):.3f}")
    print(f"{'measure':<20}" + "".join(f"{truth:>24}" for truth in TRUTHS))
    summary: dict[str, object] = {"training_s": training_s, "seconds_a_shape": seconds}
    for measure, errors in measures.items():
        result = {
            truth: ranks(
                errors,
                [sign * float(row[truth]) for row in rows],
                [0.0] * len(rows),
                [row["group"] for row in rows],
            )
            for truth, sign in TRUTHS.items()
        }
        cells = (f"{each['spearman']:.2f}, {each['right']} of {each['pairs']}" for each in result.values())
        print(f"{measure:<20}" + "".join(f"{cell:>24}" for cell in cells))
        summary[measure] = result
    print(json.dumps(summary))


def _shape(key: str) -> Architecture:
    """Of a key such as 2x192-f384-h6-gelu."""
    layers, hidden, intermediate, heads, act = key.replace("x", "-").split("-")
    return Architecture(int(layers), int(hidden), int(intermediate[1:]), int(heads[1:]), act)


if __name__ == "__main__":
    main()
