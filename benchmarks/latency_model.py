"""How well does the latency model estimate a shape that it has not seen?

Run it with `python -m benchmarks.latency_model [--runtime R] [--shapes N]`. It measures random shapes of
the packaged teacher's own space by the protocol, beside that teacher, and remembers them: run again, it only
fits.
"""

from __future__ import annotations

import argparse
import json
import random
from typing import get_args

import numpy as np

from kdnas_core.architecture import Architecture
from kdnas_core.latency.bench import LatencyBench
from kdnas_core.latency.model import MeasuredLatency, fitted, without_drift
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.models.student import new_student
from kdnas_core.models.teacher import Teacher, load_teacher
from kdnas_core.search.space import SearchSpace
from kdnas_core.spec import LatencySpec, Runtime, SpaceSpec

SIZES = (8, 12, 16, 24)  # readings that a model is fitted on, beside all of them
DRAWS = 20  # of that many readings, to be judged on the rest


def main() -> None:
    """Prints each shape with its time and estimate, then the errors as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runtime", choices=get_args(Runtime), default="onnxruntime")
    parser.add_argument("--shapes", type=int, default=32)
    asked = parser.parse_args()
    teacher = load_teacher("packaged")
    space = SearchSpace.from_spec(SpaceSpec(), teacher.architecture)
    shapes = space.sample(random.Random(0), asked.shapes, ())
    protocol = LatencySpec(budget_speedup=2, runtime=asked.runtime)
    readings = _measured(teacher, shapes, protocol)
    known = without_drift(("packaged", shape, reading) for shape, reading in readings)
    _print_table(known)
    unclean = sum(not reading.clean for _, reading in readings)
    print(json.dumps({"runtime": asked.runtime, "shapes": len(known), "unclean": unclean, **_errors(known)}))


def _measured(
    teacher: Teacher, shapes: list[Architecture], protocol: LatencySpec
) -> list[tuple[Architecture, LatencyReading]]:
    bench = LatencyBench(teacher, protocol)
    readings = []
    for number, shape in enumerate(shapes, 1):
        reading = bench.remembered(shape) or bench.student_latency(shape, new_student(teacher, shape, 0))
        print(f"{number}/{len(shapes)}  {shape.key:<26}{reading.p50:8.3f} ms", flush=True)
        readings.append((shape, reading))
    return readings


def _print_table(known: list[MeasuredLatency]) -> None:
    print(f"\n{'shape':<26}{'measured':>12}{'estimate':>12}{'error':>8}")
    for at in known:
        model = fitted([other for other in known if other is not at])
        estimate = model.estimate(at.architecture, at.batch_size, at.sequence_length) if model else np.nan
        print(f"{at.architecture.key:<26}{at.ms:>9.3f} ms{estimate:>9.3f} ms{estimate / at.ms - 1:>+8.1%}")


def _errors(known: list[MeasuredLatency]) -> dict[str, object]:
    model = fitted(known)
    proportion = _percentiles(_errors_of_proportion(known))
    by_readings = {size: _percentiles(_errors_by(known, size)) for size in SIZES if size < len(known)}
    left_out = None if model is None else {"median": model.median_error, "p90": model.p90_error}
    return {"left_out": left_out, "flops": proportion, "by_readings": by_readings}


def _errors_by(known: list[MeasuredLatency], size: int) -> list[float]:
    """Of models fitted on `size` random shapes, on all others."""
    errors = []
    for draw in range(DRAWS):
        shuffled = random.Random(draw).sample(known, len(known))
        model = fitted(shuffled[:size])
        assert model is not None
        errors += [
            abs(model.estimate(at.architecture, at.batch_size, at.sequence_length) / at.ms - 1)
            for at in shuffled[size:]
        ]
    return errors


def _errors_of_proportion(known: list[MeasuredLatency]) -> list[float]:
    """Of milliseconds in plain proportion to multiply-adds, each shape left out of its own fit."""
    share = np.array([at.architecture.flops(at.sequence_length) / at.ms for at in known])
    errors = []
    for index in range(len(share)):
        others = np.delete(share, index)
        factor = others.sum() / (others @ others)  # least squares of factor * share - 1
        errors.append(abs(float(factor * share[index]) - 1))
    return errors


def _percentiles(errors: list[float]) -> dict[str, float]:
    return {"median": float(np.percentile(errors, 50)), "p90": float(np.percentile(errors, 90))}


if __name__ == "__main__":
    main()
