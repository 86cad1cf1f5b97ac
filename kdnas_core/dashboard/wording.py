"""How numbers and states read on a screen: units on everything, a dash where nothing is known."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence

from kdnas_core.architecture import Architecture
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.runs.records import Candidate
from kdnas_core.spec import DistilSpec, LatencySpec, ObjectiveSpec

UNKNOWN = "–"

RUN_COLOURS = {
    "queued": "gray",
    "running": "blue",
    "paused": "gray",
    "stopped": "gray",
    "interrupted": "orange",
    "finished": "green",
    "failed": "red",
}
CANDIDATE_COLOURS = {
    "proposed": "gray",
    "over_budget": "orange",
    "distilling": "blue",
    "done": "green",
    "failed": "red",
}
USES = {
    "vectors": "Their sentence vectors",
    "fine_tuning": "Fine-tuning on tasks",
}
YARDSTICKS = {
    "vectors": "sentence vectors",
    "last_layer": "last hidden states",
    "layers": "hidden states, mean over layers",
}
RECIPES = {
    "vectors": "Sentence vectors",
    "kdnas": "KD-NAS",
    "tinybert": "TinyBERT",
    "distilbert": "DistilBERT",
    "pkd": "Patient KD",
    "pd": "Pre-trained distillation",
    "minilm": "MiniLM",
    "minilmv2": "MiniLMv2",
    "mobilebert": "MobileBERT",
    "custom": "Your own terms",
}
RUNTIMES: dict[str, str] = {
    "onnxruntime": "ONNX Runtime",
    "onnxruntime-int8": "ONNX Runtime, 8-bit weights",
    "torch": "torch",
    "torch-cuda": "torch on CUDA",
}
# in the order in which a page shows them
TERMS = {
    "hidden_probe": "Hidden states, by a probe",
    "hidden": "Hidden states",
    "vector": "Sentence vectors, by angle",
    "similarity": "Similarities of texts",
    "yardstick": "What students are compared by",
    "embedding": "Embeddings",
    "cosine": "Hidden states, by angle",
    "patience": "First token's states",
    "feature_map": "Feature maps",
    "attention": "Attention scores",
    "attention_kl": "Attention, KL",
    "attention_transfer": "Attention, cross-entropy",
    "value_relation": "Value relation",
    "relations": "Relations of queries, keys and values",
    "relations-query": "Query relations",
    "relations-key": "Key relations",
    "relations-value": "Value relations",
    "prediction": "Predictions",
    "prediction_kl": "Predictions, KL",
    "masked_lm": "Masked words",
}


def milliseconds(value: float | None) -> str:
    """For example "6.13 ms"."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:.2f} ms"


def estimated(value: float | None) -> str:
    """A latency that nobody measured, for example "≈ 14 ms, estimated"."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    digits = 0 if value >= 9.95 else 1 if value >= 0.995 else 2  # two that count: it is not known better
    return f"≈ {value:,.{digits}f} ms, estimated"


def number(value: float | None, digits: int = 3) -> str:
    """A loss or a reward, which have no unit."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def judged(candidate: Candidate) -> str:
    """What the frontier judges a candidate by: "agreement 58.8 ± 0.4 %", or "score 0.81" with tasks."""
    if candidate.proxy_score is not None:
        return f"score {number(candidate.proxy_score)}"
    return f"agreement {agreement(candidate.loss, candidate.loss_se)}"


def agreement(loss: float | None, standard_error: float | None = None) -> str:
    """One minus a loss with its standard error, for example "58.8 ± 0.4 %"."""
    if loss is None or not math.isfinite(loss):
        return UNKNOWN
    spread = "" if standard_error is None else f" ± {100 * standard_error:.1f}"
    return f"{100 * (1 - loss):.1f}{spread} %"


def criterion(candidates: Sequence[Candidate], yardstick: str | None) -> str:
    """The frontier's vertical axis."""
    if any(candidate.proxy_score is not None for candidate in candidates):
        return "score on the tasks, % (proxy)"
    return agreement_with(yardstick)


def agreement_with(yardstick: str | None) -> str:
    """What an agreement in per cent is one of."""
    of = YARDSTICKS.get(yardstick or "")
    return "agreement with the teacher, %" + (f" ({of})" if of else "")


def significant(value: float | None) -> str:
    """A loss of any scale with three digits that count, for example "0.0123" or "1,234"."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def times(value: float | None) -> str:
    """A ratio to the teacher, for example "3.0×"."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:.1f}×"


def count(value: float | None) -> str:
    """A large count in short, for example "22.7 M"."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.1f} {letter}"
    return f"{value:.0f}"


def points(value: float | None) -> str:
    """A score as tables of GLUE have it, times 100: "91.2"."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def percent(value: float | None) -> str:
    """A share, for example "96.7 %"."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def size(count_of_bytes: int) -> str:
    """Bytes on a disk, for example "45.3 MB"."""
    return f"{count(count_of_bytes)}B" if count_of_bytes >= 1_000 else f"{count_of_bytes} B"


def duration(seconds: float | None) -> str:
    """A length of time as one would say it, for example "3 min" or "1 h 20 min"."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def ago(moment: float | None, now: float) -> str:
    """How long a moment is past, for example "4 s ago"."""
    if moment is None:
        return "never"
    past = max(0.0, now - moment)
    return f"{duration(past)} ago" if past < 86_400 else f"{past / 86_400:.0f} days ago"


def shape(architecture: Architecture) -> str:
    """An architecture in words, for example "4 layers · hidden 192 · FFN 768 · 6 heads · gelu"."""
    layers = "1 layer" if architecture.layers == 1 else f"{architecture.layers} layers"
    heads = "1 head" if architecture.attention_heads == 1 else f"{architecture.attention_heads} heads"
    embedding = "" if architecture.embedding_size is None else f" · embedding {architecture.embedding_size}"
    bottleneck = (
        "" if architecture.bottleneck_size is None else f" · bottleneck {architecture.bottleneck_size}"
    )
    stacked = f"{architecture.feed_forward_networks} × " if architecture.feed_forward_networks else ""
    return (
        f"{layers} · hidden {architecture.hidden_size}{embedding}{bottleneck}"
        f" · FFN {stacked}{architecture.intermediate_size}"
        f" · {heads} · {architecture.hidden_act}"
    )


def budget(latency: LatencySpec, budget_ms: float | None) -> str:
    """A latency budget as it was given, with its milliseconds where they are known, and its runtime."""
    where = f" in {runtime(latency.runtime)}"
    if latency.budget_speedup is None:
        return milliseconds(latency.budget_ms) + where
    speedup = f"{latency.budget_speedup:g}× faster than the teacher"
    return (speedup if budget_ms is None else f"{milliseconds(budget_ms)} ({speedup})") + where


def protocol(reading: LatencyReading) -> str:
    """Where and how a latency was measured: it means nothing without."""
    return (
        f"{reading.device} · {runtime(reading.runtime)} ({reading.dtype})"
        f" · {_plural(reading.threads, 'thread')} · batch {reading.batch_size}"
        f" · {reading.sequence_length} tokens · {_plural(reading.n, 'timed run')}"
    )


def runtime(name: str) -> str:
    """A runtime as an engineer says it, for example "ONNX Runtime, 8-bit weights"."""
    return RUNTIMES.get(name, name)


def recipe(name: str | None) -> str:
    """An objective as its paper names it; None where it is whatever is usual for the teacher."""
    return "Usual" if name is None else RECIPES.get(name, name)


def objective(spec: ObjectiveSpec) -> str:
    """What a student learns, in short: a recipe, or the terms that a custom one is made of."""
    if spec.recipe != "custom":
        return recipe(spec.recipe)
    return " + ".join(dict.fromkeys(term(part.kind).lower() for part in spec.terms))


def distillation(how: DistilSpec, objective_of_run: ObjectiveSpec) -> str:
    """How a student is distilled, in short, for example "TinyBERT · 3 epochs" or "for sst2 · 3 epochs"."""
    epochs = f"{how.epochs:g} {'epoch' if how.epochs == 1 else 'epochs'}"
    if how.task is not None:
        return f"for {task(how.task)} · {epochs}{' with augmentation' if how.augment else ''}"
    learnt = recipe(how.recipe) if how.recipe else objective(objective_of_run)
    return f"{learnt} · {epochs}"


def task(source: str) -> str:
    """The short name of a task that is named by its folder or its place on the hub."""
    if source.startswith("hub:"):
        name, _, config = source.removeprefix("hub:").partition(":")
        return config.partition(":")[0] or name.rpartition("/")[2]
    return source.rstrip("/").rpartition("/")[2] or source


def numbered(term: str) -> tuple[str, str]:
    """The kind of a loss term and its number where it has one: "hidden", "2" of "hidden-2"."""
    number = re.search(r"-(\d+)", term)
    return re.sub(r"-\d+", "", term), number[1] if number else ""


def term(name: str) -> str:
    """A loss term in words, for example "Attention scores"; the second of its kind "Attention scores (2)"."""
    kind, number = numbered(name)
    words = TERMS.get(kind, kind.replace("_", " ").capitalize())
    return f"{words} ({number})" if number else words


def layer(number: int, depth: int) -> str:
    """A layer of a model so many layers deep; layer 0 and the one past the last have names."""
    if number == 0:
        return "embedding"
    return "prediction" if number > depth > 0 else str(number)


def plain(text: str) -> str:
    """A user's text as it was typed, where Streamlit would read Markdown, links and images in it."""
    return re.sub(r"([\\`*_{}\[\]()#+!$&:<>|~-])", r"\\\1", text)


def plain_html(text: str) -> str:
    """A user's text as it was typed, where Plotly would read tags in it."""
    return html.escape(text, quote=False)


def state(word: str) -> str:
    """A state of the store as it reads on a screen."""
    return word.replace("_", " ")


def _plural(quantity: int, noun: str) -> str:
    return f"{quantity} {noun}" if quantity == 1 else f"{quantity} {noun}s"
