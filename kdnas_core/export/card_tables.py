"""The tables of a model card, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kdnas_core.export.facts import Facts
from kdnas_core.measure.reading import LatencyReading
from kdnas_core.runs.rows import LayerLoss
from kdnas_core.runs.score_table import score_rows

NONE = "–"


def latency_table(searched: LatencyReading | None, again: Mapping[str, LatencyReading]) -> str:
    """What the search had measured, and what was measured again on the exported files."""
    rows = [("in the search", searched)] if searched is not None else []
    readings = [*rows, *(("this export", reading) for reading in again.values())]
    if not readings:
        return "Not measured."
    cells = [
        [
            when,
            reading.runtime,
            f"{reading.p50:.2f}",
            f"{reading.p95:.2f}",
            f"{reading.speedup:.1f}×",
            f"{reading.device}; {protocol_of(reading)}",
        ]
        for when, reading in readings
    ]
    heads = ["measured", "runtime", "p50, ms", "p95, ms", "against the teacher", "device and protocol"]
    return _table(heads, cells)


def protocol_of(reading: LatencyReading) -> str:
    """How a latency was measured, in words."""
    threads = "1 thread" if reading.threads == 1 else f"{reading.threads} threads"
    unclean = "" if reading.clean else "; the machine was busy, so it is an upper bound"
    return (
        f"{reading.dtype}, {threads}, batch {reading.batch_size}, {reading.sequence_length} tokens, "
        f"{len(reading.samples)} runs in turns with the teacher's{unclean}"
    )


def score_table(facts: Facts) -> str:
    """Of each task and metric the student's score, its teacher's, and the share retained, in per cent."""
    rows = score_rows(facts.scores)
    if not rows:
        return "Not scored."
    cells = [
        [row.task, row.metric, *map(_percent, (row.student, row.spread, row.teacher, row.retained))]
        for row in rows
    ]
    return _table(["task", "metric", "student", "spread", "teacher", "retained %"], cells)


def layer_table(losses: Sequence[LayerLoss]) -> str:
    """Which teacher layers each layer of the student learnt from, by which loss term."""
    if not losses:
        return "Not recorded."
    found: dict[tuple[str, int], list[int]] = {}
    for loss in losses:
        found.setdefault((loss.term, loss.layer), []).append(loss.teacher_layer)
    cells = [
        [term, str(layer), ", ".join(str(each) for each in sorted(set(of)))]
        for (term, layer), of in sorted(found.items())
    ]
    table = _table(["loss term", "student layer", "teacher layers"], cells)
    return f"{table}\n\nLayer 0 is the embedding; one past the last is the prediction layer."


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_cell(each) for each in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
