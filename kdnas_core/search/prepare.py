"""Prepares a search from a spec; all errors of a spec are raised here, before anything is written."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdnas_core.architecture import Architecture, static_student
from kdnas_core.data.corpus import check_corpus
from kdnas_core.data.splits import SplitTexts, proxy_texts
from kdnas_core.data.tasks import read_task
from kdnas_core.data.tokens import Passage
from kdnas_core.distillation.layers import LayerSample
from kdnas_core.distillation.needs import (
    check_length,
    head_in_use,
    importance_for,
    own_head,
    profile_of,
    supernet_for,
)
from kdnas_core.distillation.plan import Plan, TeacherProfile, plan
from kdnas_core.distillation.precision import autocast_dtype
from kdnas_core.distillation.recipes import start_layers
from kdnas_core.distillation.trainer import ProxySet
from kdnas_core.errors import BadInput
from kdnas_core.evaluation.proxy_task import ProxyTask, proxy_of
from kdnas_core.files import cache_folder
from kdnas_core.hardware import chosen_device, exclusive
from kdnas_core.latency.bench import LatencyBench
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.latency.runtimes import check_runtime
from kdnas_core.models.mlm_head import TeacherHead
from kdnas_core.models.pooling import is_embedding_teacher
from kdnas_core.models.sources import check_teacher
from kdnas_core.models.static import can_be_static
from kdnas_core.models.student import new_student
from kdnas_core.models.targets import Targets
from kdnas_core.models.teacher import Teacher, load_teacher
from kdnas_core.models.teacher_outputs import NeededOutputs, teacher_targets
from kdnas_core.search.judge import Judge
from kdnas_core.search.reward import budget_ms, within_budget
from kdnas_core.search.space import SearchSpace
from kdnas_core.spec import RunSpec

NO_DOUBT = 10  # a small student takes more time for its FLOPs than its teacher, but not so many times more


@dataclass(frozen=True)
class Known:
    """What another process of a search has measured for it.

    Attributes:
        teacher_latency: when the search began.
        autocast: dtype of forward passes, None for float32.
    """

    teacher_latency: LatencyReading
    autocast: torch.dtype | None


@dataclass(frozen=True)
class Prepared:
    """A prepared search.

    Attributes:
        spec: with every knob of its space.
        space: of the search.
        bench: measures latency, and holds the teacher.
        teacher_latency: measured when the search began.
        profile: of the teacher.
        plans: the loss terms of the students, one plan for each kind of student whose terms can differ.
        words: the teacher's own masked-LM head, if the recipe needs one and the teacher has one.
        texts: the proxy set.
        tasks: the proxies of the tasks that candidates are scored on.
        known: what another process has measured.
    """

    spec: RunSpec
    space: SearchSpace
    bench: LatencyBench
    teacher_latency: LatencyReading
    profile: TeacherProfile
    plans: list[Plan]
    words: TeacherHead | None
    texts: SplitTexts
    tasks: list[ProxyTask]
    known: Known | None = None

    @property
    def beside(self) -> tuple[Architecture, ...]:
        """What is judged besides the architectures of the space."""
        return _beside(self.spec, self.teacher)

    @property
    def teacher(self) -> Teacher:
        """The teacher of the search."""
        return self.bench.teacher

    @property
    def read_by_layer(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[str], int]:
        """The teacher, and the held-out texts to compare layers on, mixed: some read the first alone."""
        held_out = [text.text for text in self.texts.held_out]
        random.Random(0).shuffle(held_out)
        teacher = self.teacher
        return teacher.model, teacher.tokenizer, held_out, self.spec.proxy.sequence_length


def prepare(spec: RunSpec, report: Callable[[str], None], known: Known | None = None) -> Prepared:
    """Loads and measures what a search needs before its first candidate.

    Args:
        spec: of the run.
        report: called with a sentence on what is being done.
        known: what another process has measured, if it has prepared the search before.

    Raises:
        BadInput: the search cannot run; says why in one sentence.
    """
    spec = spec.model_copy(update={"device": chosen_device(spec.device)})
    check_runtime(spec.latency.runtime)
    check_teacher(spec.teacher)
    check_corpus(spec.corpus)
    report("loading the teacher")
    teacher = load_teacher(spec.teacher)
    spec = spec.filled_for(is_embedding_teacher(spec.teacher)).filled_from(teacher.architecture)
    check_length("proxy.sequence_length", spec.proxy.sequence_length, teacher)
    check_length("latency.sequence_length", spec.latency.sequence_length, teacher)
    space = SearchSpace.from_spec(spec.space, teacher.architecture)
    _check_start(spec, space)
    words = own_head(spec.objective, space.smallest(), teacher)
    profile = profile_of(teacher, spec.objective, words)
    spec = spec.with_static(_can_be_static(spec, teacher, profile))
    plans = _plans(spec, [*space.kinds(), *_beside(spec, teacher)], profile)
    tasks = [_proxy_task(source, spec, teacher) for source in spec.tasks]
    report("reading the corpus")
    with exclusive():  # the first harvest computes for some ten seconds
        texts = proxy_texts(spec.corpus, cache_folder(), spec.proxy, teacher.tokenizer, report)
    bench = LatencyBench(teacher, spec.latency)
    if known is None:
        report("measuring the teacher's latency")
        teacher_latency = bench.teacher_latency()
        _check_budget(spec, space, bench, teacher_latency)
    else:
        teacher_latency = known.teacher_latency
    return Prepared(spec, space, bench, teacher_latency, profile, plans, words, texts, tasks, known)


def _beside(spec: RunSpec, teacher: Teacher) -> tuple[Architecture, ...]:
    return (static_student(teacher.architecture.hidden_size),) if spec.search.static else ()


def _can_be_static(spec: RunSpec, teacher: Teacher, profile: TeacherProfile) -> bool:
    makes_means = is_embedding_teacher(spec.teacher) and profile.pooling == "mean"
    if not (makes_means and spec.objective.yardstick == "vectors" and can_be_static(teacher)):
        return False
    try:
        plan(spec.objective, static_student(teacher.architecture.hidden_size), profile)
    except BadInput:  # it can learn by none of the terms
        return False
    return True


def _proxy_task(source: str, spec: RunSpec, teacher: Teacher) -> ProxyTask:
    with exclusive():  # the packaged task may need the harvest
        task = read_task(source, cache_folder())
    return proxy_of(task, teacher.tokenizer, spec.proxy.sequence_length)


def _plans(spec: RunSpec, shapes: Iterable[Architecture], profile: TeacherProfile) -> list[Plan]:
    """One plan for each kind of student whose terms can differ; refuses a mapping that does not fit."""
    distinct = {
        (shape.layers, shape.hidden_size, shape.attention_heads, shape.bottleneck_size): shape
        for shape in shapes
    }
    if spec.objective.start != "random":
        for shape in distinct.values():
            if shape.is_static:
                continue
            start_layers(spec.objective, shape.layers, profile.architecture.layers)
    return [plan(spec.objective, shape, profile) for shape in distinct.values()]


def make_judge(prepared: Prepared, report: Callable[[str], None], slots: int = 1) -> Judge:
    """Makes the judge of a search; computes the teacher's outputs on the proxy set unless they are cached.

    Args:
        prepared: the search.
        report: called with a sentence on the progress.
        slots: that the device is divided into.
    """
    spec, texts = prepared.spec, prepared.texts
    autocast = autocast_dtype() if prepared.known is None else prepared.known.autocast
    sets = [
        _targets(prepared, passages, autocast, report, name)
        for name, passages in (
            ("held-out", [text.text for text in texts.held_out]),
            ("proxy", texts.passages(spec.proxy.pairs or 0.0)),
        )
    ]
    pooling = prepared.profile.pooling
    importance = importance_for(spec.objective, prepared.teacher, pooling, texts.learnt, report)
    languages = [text.language for text in texts.held_out]
    data = ProxySet.of(sets[1], sets[0], prepared.teacher.model.config, languages)
    shared = supernet_for(
        spec.objective, prepared.teacher, data, importance, pooling, prepared.space, autocast, report
    )
    with exclusive():
        layers = LayerSample.of(*prepared.read_by_layer)
    return Judge(
        spec,
        prepared.bench,
        teacher_ms=prepared.teacher_latency.p50,
        profile=prepared.profile,
        data=data,
        words=head_in_use(prepared.teacher, prepared.words, data, prepared.plans, spec.seed, report),
        autocast=autocast,
        slots=slots,
        importance=importance,
        shared=shared,
        tasks=prepared.tasks,
        layers=layers,
    )


def _targets(
    prepared: Prepared,
    passages: Sequence[Passage],
    autocast: torch.dtype | None,
    report: Callable[[str], None],
    name: str,
) -> Targets:
    def progress(share: float) -> None:
        report(f"teacher outputs on the {name} set: {share:.0%}")

    length = prepared.spec.proxy.sequence_length
    wanted = NeededOutputs(
        projections=sorted(set().union(*(each.projections for each in prepared.plans))),
        hidden_words=any(each.hides_words for each in prepared.plans),
    )
    with exclusive():
        cache = cache_folder()
        return teacher_targets(prepared.teacher, passages, length, autocast, cache, progress, wanted)


def _check_start(spec: RunSpec, space: SearchSpace) -> None:
    """Refuses a supernet of students that cannot be cut out of one."""
    if spec.objective.start == "supernet" and any(shape.bottleneck_size for shape in space.presets):
        raise BadInput(
            "A MobileBERT cannot be cut out of a supernet; set objective.start=teacher or take it out of "
            "space.presets."
        )


def _check_budget(
    spec: RunSpec, space: SearchSpace, bench: LatencyBench, teacher_latency: LatencyReading
) -> None:
    """Refuses a budget that the smallest student misses, which is measured unless FLOPs leave no doubt."""
    smallest, wanted = space.smallest(), budget_ms(spec.latency, teacher_latency.p50)
    length = spec.latency.sequence_length
    share = smallest.flops(length) / bench.teacher.architecture.flops(length)
    # elsewhere the time of a small model may be that of launching its operations
    if spec.latency.runtime.startswith("onnxruntime") and NO_DOUBT * share * teacher_latency.p50 < wanted:
        return
    student = new_student(bench.teacher, smallest, spec.seed)
    latency = bench.student_latency(smallest, student)
    if not within_budget(latency, spec.latency, teacher_latency.p50):
        raise BadInput(
            f"The budget of {wanted:.3g} ms is below every student: the smallest ({smallest.key}) takes "
            f"{latency.p50:.3g} ms; raise the budget or give the space smaller choices."
        )
