"""Small teachers, targets and readings for tests of learning and measuring."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch

from kdnas_core.architecture import Architecture
from kdnas_core.data.tokens import NOT_HIDDEN, Passage
from kdnas_core.distillation.objective import Objective, make_objective
from kdnas_core.distillation.plan import RELATED, TeacherProfile, plan
from kdnas_core.distillation.trainer import ProxySet
from kdnas_core.files import cache_folder
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.models.importance import Importance
from kdnas_core.models.mlm_head import MlmHead, TeacherHead
from kdnas_core.models.targets import Targets
from kdnas_core.models.teacher import Teacher, load_teacher
from kdnas_core.models.teacher_outputs import NeededOutputs, teacher_targets
from kdnas_core.models.vocabulary import Vocabulary
from kdnas_core.spec import ObjectiveSpec

torch.set_num_threads(1)  # things this small are not worth a second


HIDDEN_STATES = NeededOutputs()  # and nothing else


@cache
def teacher_of(folder: Path) -> Teacher:
    """The tiny teacher, loaded once for all tests; none may change it."""
    return load_teacher(str(folder))


def targets_of(
    teacher: Teacher,
    texts: Sequence[Passage],
    sequence_length: int = 64,
    wanted: NeededOutputs = HIDDEN_STATES,
) -> Targets:
    """Returns the teacher's outputs for some texts."""
    return teacher_targets(teacher, texts, sequence_length, None, cache_folder(), wanted=wanted)


def everything_of(teacher: Teacher) -> NeededOutputs:
    """All outputs that an objective can need: queries, keys and values of all layers, with words hidden."""
    layers = range(1, teacher.layers + 1)
    return NeededOutputs([(kind, layer) for kind in RELATED for layer in layers], hidden_words=True)


def made_up_targets(seed: int, lengths: Sequence[int], layers: int, width: int) -> Targets:
    """Teacher outputs of random numbers, about a mean that is not 0, with a true variance."""
    rng = np.random.default_rng(seed)
    tokens = sum(lengths)
    hidden = [
        (rng.normal(size=(tokens, width)) + rng.normal(size=width)).astype(np.float16)
        for _ in range(layers + 1)
    ]
    return Targets(
        ids=rng.integers(1, 50, tokens),
        labels=np.full(tokens, NOT_HIDDEN),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        outputs={("hidden", layer): states for layer, states in enumerate(hidden)},
        variance=np.array([states.astype(np.float64).var(axis=0).mean() for states in hidden]),
    )


def made_up_importance(teacher: Teacher, seed: int = 0) -> Importance:
    """Returns random effects of a teacher's heads and neurons; no head finds the same word."""
    shape, generator = teacher.architecture, torch.Generator().manual_seed(seed)
    heads = torch.rand(shape.layers, shape.attention_heads, generator=generator)
    neurons = torch.rand(shape.layers, shape.intermediate_size, generator=generator)
    return Importance(heads, neurons, same_word=torch.zeros_like(heads))


def whole_vocabulary(teacher: Teacher) -> Vocabulary:
    """Returns a vocabulary in which every word keeps its id."""
    words = teacher.model.config.vocab_size
    return Vocabulary(np.arange(words), np.arange(words))


def proxy_set_of(
    teacher: Teacher, train: Targets, held_out: Targets, languages: Sequence[str] = ()
) -> ProxySet:
    """Returns both target sets in the vocabulary of the words that they use."""
    return ProxySet.of(train, held_out, teacher.model.config, languages)


def whole_proxy_set(teacher: Teacher, learnt: Sequence[str], held_out: Sequence[str]) -> ProxySet:
    """Returns a proxy set with everything that a recipe can need, of texts cut at 24 tokens."""
    wanted = everything_of(teacher)
    sets = [targets_of(teacher, texts, 24, wanted) for texts in (learnt, held_out)]
    return proxy_set_of(teacher, sets[0], sets[1])


def made_up_words(teacher: Teacher, vocabulary: Vocabulary) -> TeacherHead:
    """Returns a random masked-LM head for a teacher, with confident predictions."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        width = teacher.architecture.hidden_size
        table = torch.randn(len(vocabulary.rows), width)
        head = MlmHead(width, width, len(vocabulary.rows), "gelu", eps=1e-12)
        torch.nn.init.normal_(head.dense.weight)
        torch.nn.init.normal_(head.bias)
    return TeacherHead(head.eval().requires_grad_(False), table)


def objective_of(
    spec: ObjectiveSpec, student: Architecture, teacher: Teacher, vocabulary: Vocabulary, seed: int = 0
) -> Objective:
    """The objective of a student whose teacher has a made-up masked-LM head."""
    planned = plan(spec, student, TeacherProfile(teacher.architecture, predicts_words=True, hides_words=True))
    words = made_up_words(teacher, vocabulary)
    table = (len(vocabulary.rows), student.embedding_size or student.hidden_size)
    return make_objective(planned, spec, student, teacher.architecture, words, table, seed)


def reading_of(milliseconds: float, teacher_milliseconds: float = 10.0, clean: bool = True) -> LatencyReading:
    """Returns a made-up latency reading."""
    return LatencyReading(
        p50=milliseconds,
        p95=milliseconds * 1.1,
        samples=(milliseconds,) * 3,
        teacher_p50=teacher_milliseconds,
        runtime="onnxruntime",
        dtype="float32",
        threads=1,
        batch_size=1,
        sequence_length=16,
        device="a machine",
        repeated=0,
        clean=clean,
    )
