"""Full distillation: trains a candidate of a search on the whole corpus, with the teacher online."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from kdnas_core.architecture import Architecture, LayerSource
from kdnas_core.data.corpus import check_corpus
from kdnas_core.data.splits import SplitTexts, full_texts
from kdnas_core.data.tokens import Passage
from kdnas_core.distillation.beginning import begin
from kdnas_core.distillation.needs import check_length, head_in_use, importance_for, own_head, profile_of
from kdnas_core.distillation.objective import Places
from kdnas_core.distillation.plan import Plan, TeacherProfile, plan
from kdnas_core.distillation.precision import autocast_dtype
from kdnas_core.distillation.trainer import ProxySet, Watcher, distil
from kdnas_core.files import cache_folder
from kdnas_core.hardware import exclusive, moved, turns
from kdnas_core.models.importance import Importance
from kdnas_core.models.kept_outputs import kept_outputs
from kdnas_core.models.mlm_head import TeacherHead
from kdnas_core.models.pooling import is_embedding_teacher
from kdnas_core.models.sources import check_teacher
from kdnas_core.models.student import new_student, read_student, save
from kdnas_core.models.targets import Targets, TokenizedTexts, tokenised
from kdnas_core.models.teacher import Teacher, load_teacher
from kdnas_core.models.teacher_outputs import NeededOutputs, OnlineTargets, teacher_targets
from kdnas_core.spec import DistilSpec, ObjectiveSpec, ProxySpec, RunSpec

SAMPLE = 1_000  # texts whose teacher outputs are stored, for the start and to fit projections
LOOKS = 20  # the most evaluations after the one before the first step
STEPS_A_LOOK = 100  # the fewest steps between evaluations
CHECKPOINT = "checkpoint.safetensors"
CUT_OF_TEACHER = "It begins with a cut of the teacher: the supernet of its run serves the search alone."


@dataclass(frozen=True)
class FullListener:
    """Callbacks of a full distillation; any may raise to end it early, after which it can be resumed.

    Attributes:
        waiting: called while another process holds the device.
        say: called with a sentence on what is being done.
        begun: called with the number of steps in all.
        noted: called with sentences on loss terms that are left out, or replaced methods.
        step: called with the steps taken.
        held_out: called with the steps taken and the held-out losses by term and (layer, teacher layer).
    """

    waiting: Callable[[], None]
    say: Callable[[str], None]
    begun: Callable[[int], None]
    noted: Callable[[Sequence[str]], None]
    step: Callable[[int], None]
    held_out: Callable[[int, dict[str, Places]], None]


@dataclass(frozen=True)
class FullResult:
    """The outcome of a full distillation.

    Attributes:
        loss: on held-out texts, comparable to the losses of the run's candidates.
        languages: the loss by language, if there are several.
        loss_se: standard error of the loss over texts, if known.
        cut_from: the sources of its layers; empty for random weights.
    """

    loss: float
    languages: dict[str, float]
    loss_se: float | None = None
    cut_from: tuple[LayerSource, ...] = ()


def check_full(spec: RunSpec, how: DistilSpec, architecture: Architecture) -> None:
    """Checks a full distillation before anything is written.

    Raises:
        BadInput: says why in one sentence.
    """
    check_teacher(spec.teacher)
    check_corpus(how.corpus or spec.corpus)
    teacher = load_teacher(spec.teacher)
    check_length("sequence_length", how.sequence_length, teacher)
    objective = objective_of(spec.filled_for(is_embedding_teacher(spec.teacher)), how)
    plan(objective, architecture, profile_of(teacher, objective, own_head(objective, architecture, teacher)))


def distil_fully(
    spec: RunSpec,
    how: DistilSpec,
    architecture: Architecture,
    folder: Path,
    listener: FullListener,
    start: Path | None = None,
) -> FullResult:
    """Distils a student on the whole corpus, or resumes an interrupted call.

    The teacher's outputs are computed batch by batch and kept in the cache if they are small enough, for
    later epochs and other students. Without masked words, an epoch of known outputs needs no teacher.

    The same arguments give the same student but for rounding: the outputs of a text are those of the batch
    that it was first in, perhaps that of another student.

    Args:
        spec: of the candidate's run.
        how: the differences from the run: corpus, recipe, epochs and others.
        architecture: of the candidate.
        folder: for the checkpoint, and at the end for the student in the format of stock `transformers`.
        listener: callbacks.
        start: the folder of a student of the same architecture, which goes on with its weights.

    Raises:
        BadInput: as `check_full`.
        Diverged: the loss is not finite.
    """
    listener.say("loading the teacher")
    teacher = load_teacher(spec.teacher)
    spec = spec.filled_for(is_embedding_teacher(spec.teacher))
    material = _material(spec, how, architecture, teacher, listener, is_new=start is None)
    steps = math.ceil(how.epochs * len(material.data.learnt) / how.batch_size)
    proxy = training_of(how.batch_size, how.learning_rate, steps)
    begun = begin(
        teacher,
        architecture,
        material.objective,
        material.profile,
        material.data,
        material.words,
        how.seed,
        material.importance,
        student=None if start is None else _going_on(teacher, architecture, start, how.seed),
    )
    is_cut = start is None and material.objective.start == "supernet"
    listener.noted([*begun.notes, *([CUT_OF_TEACHER] if is_cut else [])])
    listener.begun(steps)
    listener.say("distilling on the full corpus")
    autocast = autocast_dtype()
    saved, looks = folder / CHECKPOINT, max(1, min(LOOKS, steps // STEPS_A_LOOK))
    with turns(listener.waiting) as let_others, moved(teacher.model):
        watcher = watcher_of(listener, let_others)
        result = distil(
            begun.student, begun.objective, material.data, proxy, how.seed, autocast, watcher, saved, looks
        )
    save(begun.student, teacher.tokenizer, folder)
    saved.unlink(missing_ok=True)
    return FullResult(result.loss, result.languages, result.standard_error, begun.sources)


def _going_on(teacher: Teacher, architecture: Architecture, start: Path, seed: int) -> PreTrainedModel:
    """A student with the weights of another one; of a static one, positions stay frozen."""
    student = new_student(teacher, architecture, seed)
    student.load_state_dict(read_student(start).state_dict())
    return student


def training_of(batch_size: int, learning_rate: float, steps: int) -> ProxySpec:
    """Returns the settings of a full distillation; its steps are not limited as those of a spec."""
    return ProxySpec(batch_size=batch_size, learning_rate=learning_rate).model_copy(update={"steps": steps})


def watcher_of(listener: FullListener, let_others: Callable[[], None]) -> Watcher:
    """Returns a watcher that calls a listener, and after each step lets others use the device (`turns`)."""

    def step(taken: int) -> None:
        listener.step(taken)
        let_others()

    return Watcher(
        step, lambda result: listener.held_out(result.step, result.terms), lambda note: listener.noted([note])
    )


@dataclass(frozen=True)
class _Material:
    """The objective, the data and the teacher's parts for a student."""

    objective: ObjectiveSpec
    profile: TeacherProfile
    data: ProxySet
    words: TeacherHead | None
    importance: Importance | None


def _material(
    spec: RunSpec,
    how: DistilSpec,
    architecture: Architecture,
    teacher: Teacher,
    listener: FullListener,
    is_new: bool,
) -> _Material:
    objective = objective_of(spec, how)
    own = own_head(objective, architecture, teacher)
    profile = profile_of(teacher, objective, own)
    planned = plan(objective, architecture, profile)
    texts = _texts(spec, how, teacher, listener)
    data = _data(teacher, texts, spec, how, planned, listener)
    say, waiting = listener.say, listener.waiting
    importance = None
    if is_new:
        importance = importance_for(objective, teacher, profile.pooling, texts.learnt, say, waiting)
    return _Material(
        objective,
        profile,
        data,
        head_in_use(teacher, own, data, [planned], how.seed, say, waiting),
        importance,
    )


def objective_of(spec: RunSpec, how: DistilSpec) -> ObjectiveSpec:
    """Returns the run's objective, or that of another recipe with its own mapping and start.

    Args:
        spec: of the run, filled in for its teacher.
        how: the differences from the run.
    """
    run_objective = spec.objective
    if how.recipe is None or how.recipe == run_objective.recipe:
        return run_objective
    return ObjectiveSpec(
        use=run_objective.use,
        yardstick=run_objective.yardstick,
        recipe=how.recipe,
        projection=run_objective.projection,
        start=run_objective.start,
        head=run_objective.head,
        first_stage=run_objective.first_stage,
    )


def _texts(spec: RunSpec, how: DistilSpec, teacher: Teacher, listener: FullListener) -> SplitTexts:
    corpus = how.corpus or spec.corpus
    listener.say("reading the corpus")
    with exclusive(listener.waiting):
        return full_texts(
            corpus,
            cache_folder(),
            spec.proxy,
            how.sentences,
            how.sequence_length,
            teacher.tokenizer,
            listener.say,
            of_many_lengths=how.cuts_pieces(spec.objective.use),
        )


def _data(
    teacher: Teacher,
    texts: SplitTexts,
    spec: RunSpec,
    how: DistilSpec,
    planned: Plan,
    listener: FullListener,
) -> ProxySet:
    pairs = spec.proxy.pairs if how.pairs is None else how.pairs
    learnt = texts.passages(pairs or 0.0)
    autocast = autocast_dtype()
    wanted = NeededOutputs(sorted(planned.projections), planned.hides_words)

    def stored(passages: Sequence[Passage], length: int, name: str) -> Targets:
        def progress(share: float) -> None:
            listener.say(f"teacher outputs on {name}: {share:.0%}")

        with exclusive(listener.waiting):
            return teacher_targets(teacher, passages, length, autocast, cache_folder(), progress, wanted)

    # of the run's length, so that losses can be compared
    judged = stored([text.text for text in texts.held_out], spec.proxy.sequence_length, "held-out texts")
    sample = stored(learnt[:SAMPLE], how.sequence_length, "a sample of the corpus")
    listener.say(f"tokenising {len(learnt)} texts")
    encoded = tokenised(teacher, learnt, how.sequence_length, planned.hides_words)
    full = online_targets(teacher, encoded, sample, autocast, planned)
    languages = [text.language for text in texts.held_out]
    return ProxySet.of(sample, judged, teacher.model.config, languages, full)


def online_targets(
    teacher: Teacher,
    texts: TokenizedTexts,
    sample: Targets,
    autocast: torch.dtype | None,
    planned: Plan,
) -> OnlineTargets:
    """Returns texts with the teacher's outputs, which are computed once where they are small enough to keep.

    Words that are masked differ in each epoch, so these outputs are never kept.
    """
    kept = None
    if not planned.hides_words:
        kept = kept_outputs(teacher, texts, autocast, sorted(planned.reads), cache_folder())
    return OnlineTargets.of(teacher, texts, sample.variance, autocast, planned.reads, kept)
