"""Formats numbers and states for the screen, with units, and with a dash for unknown values."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence

from kdnas_core.architecture import Architecture
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.runs.records import Candidate
from kdnas_core.search.stopping import Outlook
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
    "pruned": "gray",
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
    "embedding": "Sentence vectors alone",
    "similarity": "Similarities of sentence vectors",
    "contrastive": "Contrastive, with soft labels",
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
CONTROLLERS = {
    "surrogate": "Surrogate",
    "lstm": "LSTM, of KD-NAS",
    "random": "Random",
    "optuna-tpe": "TPE, of Optuna",
    "optuna-nsga2": "NSGA-II, of Optuna",
    "optuna-gp": "Gaussian process, of Optuna",
}
RUNTIMES: dict[str, str] = {
    "onnxruntime": "ONNX Runtime",
    "onnxruntime-int8": "ONNX Runtime, 8-bit weights",
    "torch": "torch",
    "torch-cuda": "torch on CUDA",
}
DEVICES = {
    "auto": "The best: a CUDA GPU, else the processor",
    "cpu": "The processor",
    "cuda": "A CUDA GPU",
    "mps": "Apple's GPU",
}
# in the order in which a page shows them
TERMS = {
    "hidden_probe": "Hidden states, by a probe",
    "hidden": "Hidden states",
    "vector": "Sentence vectors, by angle",
    "vector_mse": "Sentence vectors, squared error",
    "similarity": "Similarities of texts",
    "contrastive": "Nearest texts, KL",
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
    """Formats a latency, for example "6.13 ms"."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:.2f} ms"


def estimated(value: float | None) -> str:
    """Formats an estimated latency, for example "≈ 14 ms, estimated"."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    digits = 0 if value >= 9.95 else 1 if value >= 0.995 else 2  # two significant digits
    return f"≈ {value:,.{digits}f} ms, estimated"


def number(value: float | None, digits: int = 3) -> str:
    """Formats a number without a unit, such as a loss or a reward."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def judged(candidate: Candidate) -> str:
    """Formats a candidate's value on the frontier: "agreement 58.8 ± 0.4 %", or "score 0.81" with tasks."""
    if candidate.proxy_score is not None:
        return f"score {number(candidate.proxy_score)}"
    return f"agreement {agreement(candidate.loss, candidate.loss_se)}"


def tie(better: Sequence[Candidate]) -> str:
    """Says that a pick is tied with candidates that are better and slower."""
    ids = ", ".join(str(each.id) for each in better)
    slower = f"candidate {ids}, which is" if len(better) == 1 else f"candidates {ids}, which are"
    return f"Tied with {slower} slower: the difference is within the noise of the held-out texts."


def ahead(following: Candidate, margin: float, noise: float | None) -> str:
    """Says how far a pick is ahead of the next within the budget."""
    return f"{lead(margin, noise)} ahead of candidate {following.id}, the next within the budget."


def lead(margin: float, noise: float | None) -> str:
    """Formats a difference of two losses with its standard error, for example "1.6 ± 0.23 points"."""
    spread = "" if noise is None else f" ± {100 * noise:.2g}"
    return f"{100 * margin:.1f}{spread} points"


def exchange(pick: Candidate, other: Candidate) -> str:
    """Says what a student that is slower or faster than a pick would change."""
    ms, points = other.point[0] - pick.point[0], 100 * (pick.point[1] - other.point[1])
    latency = f"{milliseconds(abs(ms))} {'more' if ms > 0 else 'less'}"
    verb, change = ("gains", points) if ms > 0 else ("loses", -points)
    return f"{latency} {verb} {change:.1f} points, {change / abs(ms):.1f} for each ms (candidate {other.id})."


def agreement(loss: float | None, standard_error: float | None = None) -> str:
    """Formats one minus a loss with its standard error, for example "58.8 ± 0.4 %"."""
    if loss is None or not math.isfinite(loss):
        return UNKNOWN
    spread = "" if standard_error is None else f" ± {100 * standard_error:.1f}"
    return f"{100 * (1 - loss):.1f}{spread} %"


def criterion(candidates: Sequence[Candidate], yardstick: str | None) -> str:
    """Returns the title of the frontier's vertical axis."""
    if any(candidate.proxy_score is not None for candidate in candidates):
        return "score on the tasks, % (proxy)"
    return agreement_with(yardstick)


def agreement_with(yardstick: str | None) -> str:
    """Returns the title of an axis of agreement in per cent."""
    of = YARDSTICKS.get(yardstick or "")
    return "agreement with the teacher, %" + (f" ({of})" if of else "")


def significant(value: float | None) -> str:
    """Formats a loss with at least three significant digits, for example "0.0123" or "1,234"."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def times(value: float | None) -> str:
    """Formats a ratio to the teacher, for example "3.0×"."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:.1f}×"


def count(value: float | None) -> str:
    """Abbreviates a large count, for example "22.7 M"."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.1f} {letter}"
    return f"{value:.0f}"


def points(value: float | None) -> str:
    """Formats a score times 100, as tables of GLUE do, for example "91.2"."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def percent(value: float | None) -> str:
    """Formats a share, for example "96.7 %"."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def size(count_of_bytes: int) -> str:
    """Formats a number of bytes, for example "45.3 MB"."""
    return f"{count(count_of_bytes)}B" if count_of_bytes >= 1_000 else f"{count_of_bytes} B"


def duration(seconds: float | None) -> str:
    """Formats a duration, for example "3 min" or "1 h 20 min"."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def ago(moment: float | None, now: float) -> str:
    """Formats the time since a moment, for example "4 s ago"."""
    if moment is None:
        return "never"
    past = max(0.0, now - moment)
    return f"{duration(past)} ago" if past < 86_400 else f"{past / 86_400:.0f} days ago"


def shape(architecture: Architecture) -> str:
    """Describes an architecture, for example "4 layers · hidden 192 · FFN 768 · 6 heads · gelu"."""
    if architecture.is_static:
        return f"static, without layers · hidden {architecture.hidden_size}"
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


def short_shape(architecture: Architecture) -> str:
    """Describes an architecture in short, for example "4 x 192, FFN 768, 6 heads"."""
    if architecture.is_static:
        return f"static, {architecture.hidden_size} wide"
    size, heads = architecture.intermediate_size, architecture.attention_heads
    return f"{architecture.layers} x {architecture.hidden_size}, FFN {size}, {heads} heads"


def budget(latency: LatencySpec, budget_ms: float | None) -> str:
    """Describes the latency budgets: as given, the largest in milliseconds if known, and the runtime."""
    where = f" in {runtime(latency.runtime)}"
    if latency.budget_speedup is None:
        return ", ".join(map(milliseconds, latency.amounts)) + where
    speedup = ", ".join(f"{amount:g}" for amount in latency.amounts) + "× faster than the teacher"
    return (speedup if budget_ms is None else f"{milliseconds(budget_ms)} ({speedup})") + where


def protocol(reading: LatencyReading) -> str:
    """Describes where and how a latency was measured."""
    return (
        f"{reading.device} · {runtime(reading.runtime)} ({reading.dtype})"
        f" · {_plural(reading.threads, 'thread')} · batch {reading.batch_size}"
        f" · {reading.sequence_length} tokens · {_plural(reading.n, 'timed run')}"
    )


def runtime(name: str) -> str:
    """Returns a runtime's name for the screen, for example "ONNX Runtime, 8-bit weights"."""
    return RUNTIMES.get(name, name)


def recipe(name: str | None) -> str:
    """Returns a recipe's name for the screen; None is the usual recipe for the teacher."""
    return "Usual" if name is None else RECIPES.get(name, name)


def objective(spec: ObjectiveSpec) -> str:
    """Describes an objective: its recipe, or the terms of a custom one."""
    if spec.recipe != "custom":
        return recipe(spec.recipe)
    return " + ".join(dict.fromkeys(term(part.kind).lower() for part in spec.terms))


def distillation(how: DistilSpec, objective_of_run: ObjectiveSpec) -> str:
    """Describes a distillation, for example "TinyBERT · 3 epochs" or "for sst2 · 3 epochs"."""
    epochs = f"{how.epochs:g} {'epoch' if how.epochs == 1 else 'epochs'}"
    if how.task is not None:
        return f"for {task(how.task)} · {epochs}{' with augmentation' if how.augment else ''}"
    learnt = recipe(how.recipe) if how.recipe else objective(objective_of_run)
    return f"{learnt} · {epochs}"


def task(source: str) -> str:
    """Returns the short name of a task from its folder or hub name."""
    if source.startswith("hub:"):
        name, _, config = source.removeprefix("hub:").partition(":")
        return config.partition(":")[0] or name.rpartition("/")[2]
    return source.rstrip("/").rpartition("/")[2] or source


def numbered(term: str) -> tuple[str, str]:
    """Splits a loss term into its kind and its number, if any: "hidden-2" into "hidden" and "2"."""
    number = re.search(r"-(\d+)", term)
    return re.sub(r"-\d+", "", term), number[1] if number else ""


def outlook(expected: Outlook) -> str:
    """Describes what another episode is expected to bring."""
    if expected.gain is None:
        return ""
    lower = f"to lower the best loss within a budget by {100 * expected.gain:.1f} %"
    if expected.no_gain:
        return f"**No gain is expected** after episode {expected.episode}: another is expected {lower}."
    return f"After episode {expected.episode}, another is expected {lower}."


def controller(name: str) -> str:
    """Returns the name of a controller for a page."""
    return CONTROLLERS.get(name, name)


def term(name: str) -> str:
    """Describes a loss term, for example "Attention scores", or "Attention scores (2)" for the second."""
    kind, number = numbered(name)
    words = TERMS.get(kind, kind.replace("_", " ").capitalize())
    return f"{words} ({number})" if number else words


def layer(number: int, depth: int) -> str:
    """Formats a layer of a model of this depth; layer 0 and the one past the last have names."""
    if number == 0:
        return "embedding"
    return "prediction" if number > depth > 0 else str(number)


def plain(text: str) -> str:
    """Escapes a user's text, in which Streamlit would read Markdown, links and images."""
    return re.sub(r"([\\`*_{}\[\]()#+!$&:<>|~-])", r"\\\1", text)


def plain_html(text: str) -> str:
    """Escapes a user's text, in which Plotly would read tags."""
    return html.escape(text, quote=False)


def device(name: str) -> str:
    """Formats a choice of where models compute."""
    return DEVICES.get(name, name)


def state(word: str) -> str:
    """Formats a state of the store."""
    return word.replace("_", " ")


def _plural(quantity: int, noun: str) -> str:
    return f"{quantity} {noun}" if quantity == 1 else f"{quantity} {noun}s"
