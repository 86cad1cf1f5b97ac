"""From a spec to a search that can begin: all that can be wrong is found here, before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from kdnas_core.distillation.corpus import check_corpus, read_corpus
from kdnas_core.distillation.mapping import layer_map
from kdnas_core.distillation.precision import autocast_dtype
from kdnas_core.distillation.sources import check_teacher
from kdnas_core.distillation.student import new_student
from kdnas_core.distillation.targets import Targets, teacher_targets
from kdnas_core.distillation.teacher import Teacher, load_teacher
from kdnas_core.errors import BadInput
from kdnas_core.measure.bench import LatencyBench
from kdnas_core.measure.device import device
from kdnas_core.measure.memory import cache_folder
from kdnas_core.measure.reading import LatencyReading
from kdnas_core.search.judge import Judge
from kdnas_core.search.reward import budget_ms, within_budget
from kdnas_core.search.space import SearchSpace
from kdnas_core.spec import RunSpec

FEWEST_TEXTS = 48
MOST_HELD_OUT = 5  # at most one text in so many is held out, where the corpus is small
PROXY_SEED = 0  # the proxy set is the same for every seed, so that losses of two runs can be compared


@dataclass(frozen=True)
class Prepared:
    """A spec with its space filled in, and what was loaded and measured for it."""

    spec: RunSpec
    space: SearchSpace
    bench: LatencyBench
    teacher_latency: LatencyReading
    texts: list[str]

    @property
    def teacher(self) -> Teacher:
        """The teacher of the search."""
        return self.bench.teacher


def prepare(spec: RunSpec, say: Callable[[str], None]) -> Prepared:
    """Loads and measures what a search needs before its first candidate.

    Args:
        spec: what the user chose.
        say: told in words what is being done.

    Raises:
        BadInput: the spec cannot be searched; says why in one sentence.
    """
    check_teacher(spec.teacher)
    check_corpus(spec.corpus)
    say("loading the teacher")
    teacher = load_teacher(spec.teacher)
    _check_length(spec, teacher)
    space = SearchSpace.from_spec(spec.space, teacher.architecture)
    for layers in space.layers:
        layer_map(
            spec.objective.mapping or "uniform+last", layers, teacher.layers
        )  # refuses one beyond the teacher's depth
    spec = spec.model_copy(update={"space": spec.space.filled_from(teacher.architecture)})
    say("reading the corpus")
    texts = _proxy_texts(spec, say)
    say("measuring the teacher's latency")
    bench = LatencyBench(teacher, spec.latency)
    teacher_latency = bench.teacher_latency()
    _check_budget(spec, space, bench, teacher_latency)
    return Prepared(spec, space, bench, teacher_latency, texts)


def make_judge(prepared: Prepared, say: Callable[[str], None]) -> Judge:
    """Computes the teacher's outputs on the proxy set, or takes them from the cache.

    Args:
        prepared: the search.
        say: told in words how far it is.
    """
    spec = prepared.spec
    held_out = min(spec.proxy.held_out, len(prepared.texts) // MOST_HELD_OUT)
    autocast = autocast_dtype()
    targets = [
        _targets(prepared, texts, autocast, say, name)
        for name, texts in (
            ("held-out", prepared.texts[:held_out]),
            ("proxy", prepared.texts[held_out:]),
        )
    ]
    return Judge(
        spec,
        prepared.bench,
        teacher_ms=prepared.teacher_latency.p50,
        train=targets[1],
        held_out=targets[0],
        autocast=autocast,
    )


def _targets(
    prepared: Prepared, texts: list[str], autocast: torch.dtype | None, say: Callable[[str], None], name: str
) -> Targets:
    def progress(share: float) -> None:
        say(f"teacher outputs on the {name} set: {share:.0%}")

    length = prepared.spec.proxy.sequence_length
    with device():
        return teacher_targets(prepared.teacher, texts, length, autocast, cache_folder(), progress)


def _proxy_texts(spec: RunSpec, say: Callable[[str], None]) -> list[str]:
    wanted = spec.proxy.sentences + spec.proxy.held_out
    with device():  # the first harvest keeps a core busy for half a minute
        texts = read_corpus(spec.corpus, cache_folder(), PROXY_SEED, wanted, say)
    if len(texts) < FEWEST_TEXTS:
        raise BadInput(
            f"The corpus {spec.corpus} has only {len(texts)} different texts; a proxy set needs at least "
            f"{FEWEST_TEXTS}."
        )
    return texts


def _check_length(spec: RunSpec, teacher: Teacher) -> None:
    config = teacher.model.config
    # RoBERTa's family counts positions from the padding token's id on
    unused = config.pad_token_id + 1 if "roberta" in config.model_type else 0
    longest = min(config.max_position_embeddings - unused, teacher.tokenizer.model_max_length)
    for field, length in (
        ("proxy.sequence_length", spec.proxy.sequence_length),
        ("latency.sequence_length", spec.latency.sequence_length),
    ):
        if length > longest:
            raise BadInput(
                f"'{field}' is {length}, but the teacher reads at most {longest} tokens; lower it."
            )


def _check_budget(
    spec: RunSpec, space: SearchSpace, bench: LatencyBench, teacher_latency: LatencyReading
) -> None:
    smallest = space.smallest()
    student = new_student(bench.teacher, smallest, spec.seed)
    latency = bench.student_latency(smallest, student)
    if not within_budget(latency, spec.latency, teacher_latency.p50):
        wanted = budget_ms(spec.latency, teacher_latency.p50)
        raise BadInput(
            f"The budget of {wanted:.3g} ms is below every student: the smallest ({smallest.key}) takes "
            f"{latency.p50:.3g} ms; raise the budget or give the space smaller choices."
        )
