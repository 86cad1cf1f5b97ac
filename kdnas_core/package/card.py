"""The model card: a student's architecture, origin, latency, scores, and how to load it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from huggingface_hub import ModelCardData

from kdnas_core.architecture import Architecture
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.package.checks import Checks, loss_by_int8
from kdnas_core.package.facts import NOT_STATED, Facts, Origin, data_fingerprint, origin_of
from kdnas_core.package.snippets import snippets
from kdnas_core.runs.records import LayerLoss
from kdnas_core.runs.score_table import score_rows

NONE = "–"


def card(facts: Facts, checks: Checks, folder: Path) -> str:
    """Returns the text of README.md, with the front matter that hubs read.

    Args:
        facts: of the student.
        checks: of its export.
        folder: of the export; its files determine how it can be loaded.
    """
    origin = origin_of(facts.run.spec.teacher)
    loading = [f"{title}:\n\n```python\n{code}```" for title, code in snippets(folder)]
    parts = [
        f"---\n{_front_matter(facts, origin, folder)}\n---\n\n# {_title(facts)}",
        _what(facts, checks),
        "## Use\n\n" + "\n\n".join(loading),
        "## Teacher\n\n" + _teacher(facts, origin),
        "## Latency\n\n" + latency_table(facts.candidate.latency, checks.latencies),
        "## Scores\n\n" + score_table(facts),
        "## How it was made\n\n" + _making(facts),
        "## Layer mapping\n\n" + layer_table(facts.layers),
        "## Checks\n\n" + _checks(checks),
        _notes(facts, checks),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(facts: Facts, origin: Origin, folder: Path) -> str:
    vectors = (folder / "modules.json").is_file()
    pipeline = "sentence-similarity" if vectors else "feature-extraction"
    return ModelCardData(
        license=origin.licence if origin.licence != NOT_STATED else "unknown",
        base_model=origin.base,
        language=list(origin.languages) or None,
        library_name="sentence-transformers" if vectors else "transformers",
        pipeline_tag="text-classification" if facts.task is not None else pipeline,
        tags=["knowledge-distillation", "kd-nas", *(["onnx"] if (folder / "onnx").is_dir() else [])],
    ).to_yaml(line_break="\n")


def _title(facts: Facts) -> str:
    return f"{facts.source.title} of {_plain(facts.run.spec.name)}"


def _what(facts: Facts, checks: Checks) -> str:
    shape = facts.candidate.architecture
    what = "A student encoder" if facts.task is None else f"A student for the task `{_plain(facts.task)}`"
    return (
        f"{what}, found for a latency budget by a search of short knowledge distillations (KD-NAS) and "
        f"distilled from its teacher: {_sizes(shape)}; {checks.parameters:,} parameters."
    )


def _sizes(shape: Architecture) -> str:
    if shape.is_static:
        return f"no layers, one vector of {shape.hidden_size} a word, whatever stands around it"
    embedding = "" if shape.embedding_size is None else f", embedding size {shape.embedding_size}"
    return (
        f"{shape.layers} layers, hidden size {shape.hidden_size}{embedding}, feed-forward size "
        f"{shape.intermediate_size}, {shape.attention_heads} attention heads, {shape.hidden_act}"
    )


def _teacher(facts: Facts, origin: Origin) -> str:
    teacher = facts.run.teacher
    named = origin.base or facts.run.spec.teacher
    lines = [f"- Teacher: `{_plain(named)}`", f"- Licence of the teacher: {_plain(origin.licence)}"]
    if teacher is not None:
        shape = teacher.architecture
        lines.append(
            f"- Its architecture: {shape.layers} layers, hidden size {shape.hidden_size}, "
            f"{shape.attention_heads} attention heads, {teacher.parameters:,} parameters"
        )
    return "\n".join(lines)


def _making(facts: Facts) -> str:
    spec, student = facts.run.spec, facts.student
    own = None if student is None else student.spec
    loss = facts.candidate.loss if student is None else student.loss
    lines = [
        f"- Recipe: {(own and own.recipe) or spec.objective.recipe}",
        f"- Corpus: `{_plain(facts.corpus)}`, data fingerprint `{data_fingerprint(facts.corpus)}` (of the "
        "data as it was at the export)",
        f"- Seed: {spec.seed} of the search" + ("" if own is None else f", {own.seed} of the distillation"),
        "- Distillation: mini-KD of the search" if own is None else f"- Distillation: {own.epochs:g} epochs",
    ]
    if facts.task is not None:
        lines.append(f"- Task: `{_plain(facts.task)}`")
    if loss is not None:
        lines.append(f"- Held-out loss: {loss:.4f}{_yardstick(facts)}")
    return "\n".join([*lines, "- The same search elsewhere: `run.json`"])


def _yardstick(facts: Facts) -> str:
    """Describes the loss; empty for a task-specific student, whose loss is of its predictions."""
    of = {
        "vectors": "1 - agreement (linear CKA) of sentence vectors with the teacher's",
        "last_layer": "normalised squared error of the last hidden states",
        "layers": "normalised squared error of hidden states, mean over layers",
    }
    word = of.get(facts.run.spec.objective.yardstick or "")
    return "" if word is None or facts.task is not None else f" ({word})"


def _checks(checks: Checks) -> str:
    lines = ["- Stock transformers, in a clean process: loaded, and nothing in it but the student"]
    if checks.onnx is not None:
        lines.append(f"- ONNX in float32 against torch: at most {checks.onnx.max_difference_fp32:.1e} apart")
        lines += [f"- {sentence}" for sentence in [loss_by_int8(checks.onnx)] if sentence]
    for name, difference in (
        ("onnxruntime and tokenizers", checks.onnxruntime_alone),
        ("sentence-transformers", checks.sentence_transformers),
    ):
        if difference is not None:
            lines.append(f"- {name} alone: vectors at most {difference:.1e} from those of transformers")
    versions = ", ".join(f"{name} {number}" for name, number in checks.versions.items())
    return "\n".join([*lines, f"- Versions: {versions}", "- Checksums: `sha256sum -c SHA256SUMS`"])


def _notes(facts: Facts, checks: Checks) -> str:
    own = facts.candidate.notes if facts.student is None else facts.student.notes
    notes = [f"- {_plain(note)}" for note in (*own, *checks.notes)]
    return "\n".join(["## Notes", "", *notes]) if notes else ""


def _plain(text: str) -> str:
    """Puts a text on one line, without backticks, which would end a code span."""
    return " ".join(text.replace("`", "'").split())


def latency_table(searched: LatencyReading | None, again: Mapping[str, LatencyReading]) -> str:
    """Returns a table of the search's latency and of those measured again on the exported files."""
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
    """Describes how a latency was measured."""
    threads = "1 thread" if reading.threads == 1 else f"{reading.threads} threads"
    unclean = "" if reading.clean else "; the machine was busy, so it is an upper bound"
    return (
        f"{reading.dtype}, {threads}, batch {reading.batch_size}, {reading.sequence_length} tokens, "
        f"{reading.n} runs in turns with the teacher's{unclean}"
    )


def score_table(facts: Facts) -> str:
    """Returns a table of the scores of student and teacher and the share retained, in per cent."""
    rows = score_rows(facts.scores)
    if not rows:
        return "Not scored."
    cells = [
        [
            row.task,
            row.metric,
            *map(_percent, (row.student, row.interval, row.spread, row.teacher, row.retained)),
        ]
        for row in rows
    ]
    names = ["task", "metric", "student", "± 95 %", "spread over seeds", "teacher", "retained %"]
    return _table(names, cells)


def layer_table(losses: Sequence[LayerLoss]) -> str:
    """Returns a table of the teacher layers that each student layer learnt from, by loss term."""
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
