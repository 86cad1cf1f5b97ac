"""Prepares what an objective needs from its teacher: profile, masked-LM head, head importance, supernet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from kdnas_core.architecture import Architecture
from kdnas_core.data.corpus import Text
from kdnas_core.data.tokens import NOT_HIDDEN
from kdnas_core.distillation.losses import masked_lm
from kdnas_core.distillation.plan import Plan, TeacherProfile
from kdnas_core.distillation.recipes import start_layers, terms_of
from kdnas_core.distillation.supernet import Drawn, supernet_of
from kdnas_core.distillation.trainer import ProxySet
from kdnas_core.errors import BadInput
from kdnas_core.files import cache_folder
from kdnas_core.hardware import compute_device, exclusive, moved
from kdnas_core.models.heads import Weights
from kdnas_core.models.importance import Importance, importance_of
from kdnas_core.models.mlm_head import MlmHead, TeacherHead, teacher_head
from kdnas_core.models.pooling import Mode, pooling_mode
from kdnas_core.models.targets import Targets
from kdnas_core.models.teacher import Teacher, most_tokens
from kdnas_core.models.vocabulary import Vocabulary
from kdnas_core.spec import LOGITS, SUPERNET_STEPS, ObjectiveSpec

TRAIN_STEPS = 200  # more steps overfit the proxy set
TRAIN_BATCH = 512  # masked words
TRAIN_RATE = 2e-3
INITIAL_SCALE = 0.1  # of the layer norm: small, so that word frequencies dominate the first predictions


def profile_of(teacher: Teacher, objective: ObjectiveSpec, words: TeacherHead | None) -> TeacherProfile:
    """Returns the profile of a teacher for an objective, with its own masked-LM head or a trained one."""
    predicts = words is not None or objective.head == "trained"
    hides = teacher.tokenizer.mask_token_id is not None
    return TeacherProfile(teacher.architecture, predicts, hides, pooling_mode(teacher.name))


def own_head(objective: ObjectiveSpec, student: Architecture, teacher: Teacher) -> TeacherHead | None:
    """Returns the teacher's own masked-LM head if the objective needs one and the teacher has one."""
    terms = terms_of(objective, student, teacher.architecture)
    return teacher_head(teacher) if any(term.kind in LOGITS for term in terms) else None


def head_in_use(
    teacher: Teacher,
    own: TeacherHead | None,
    data: ProxySet,
    plans: Sequence[Plan],
    seed: int,
    report: Callable[[str], None],
    waiting: Callable[[], None] = lambda: None,
) -> TeacherHead | None:
    """Returns the teacher's masked-LM head on the words in use: its own, or trained now; None if not needed.

    Args:
        teacher: of the head.
        own: its own head, for its whole vocabulary.
        data: has the words in use.
        plans: the terms of the students.
        seed: of the order of the words that a head is trained on.
        report: called with a sentence on what is being done.
        waiting: as for `exclusive`.
    """
    if own is not None:
        return own.only(data.vocabulary)
    if not any(term.spec.kind in LOGITS for each in plans for term in each.terms):
        return None
    report("training a masked-LM head for the teacher")
    with exclusive(waiting):
        return trained_head(teacher, data.train, data.vocabulary, seed)


def trained_head(teacher: Teacher, train: Targets, vocabulary: Vocabulary, seed: int) -> TeacherHead:
    """Trains a masked-LM head for a teacher without one, on its last hidden states; the teacher is frozen.

    The head is tied to the teacher's word embeddings and predicts the words in use only.

    Args:
        teacher: has the embeddings.
        train: with masked words, renumbered by `vocabulary`.
        vocabulary: the words in use.
        seed: of the order of the words.
    """
    whole = teacher.model.get_input_embeddings().weight
    assert isinstance(whole, torch.Tensor)
    table = whole.detach()[torch.from_numpy(vocabulary.rows)]
    head = MlmHead(train.width, table.shape[1], len(table), "gelu", eps=1e-12)
    _begin_with_frequencies(head, train)
    places = torch.from_numpy(train.labels != NOT_HIDDEN).nonzero()[:, 0].numpy()
    states = torch.from_numpy(train.outputs["hidden", teacher.layers][places]).float()
    labels = torch.from_numpy(train.labels[places])
    generator = torch.Generator().manual_seed(seed)
    with moved(head):
        optimiser, device = torch.optim.AdamW(head.parameters(), lr=TRAIN_RATE), compute_device()
        words = table.to(device)
        for _ in range(TRAIN_STEPS):
            chosen = torch.randint(len(places), (min(TRAIN_BATCH, len(places)),), generator=generator)
            logits = head(states[chosen].to(device), words)
            masked_lm(logits, labels[chosen].to(device)).backward()
            optimiser.step()
            optimiser.zero_grad()
    return TeacherHead(head.eval().requires_grad_(False), table)


@torch.no_grad()
def _begin_with_frequencies(head: MlmHead, train: Targets) -> None:
    """Sets the bias to the log frequencies, which a few hundred steps would not reach."""
    words = train.ids[train.labels == NOT_HIDDEN]
    counts = torch.from_numpy(np.bincount(words, minlength=len(head.bias))).float()
    head.bias.copy_(((counts + 1) / (counts + 1).sum()).log())
    head.norm.weight.mul_(INITIAL_SCALE)


def importance_for(
    objective: ObjectiveSpec,
    teacher: Teacher,
    pooling: Mode,
    texts: Sequence[Text],
    report: Callable[[str], None],
    waiting: Callable[[], None] = lambda: None,
) -> Importance | None:
    """Returns the importance of the teacher's heads and neurons; None if students are not cut out of it.

    Args:
        objective: has the start of students.
        teacher: the teacher to measure.
        pooling: of its sentence vectors.
        texts: training texts.
        report: called with a sentence on the progress.
        waiting: as for `exclusive`.
    """
    if objective.start == "random":
        return None

    def progress(share: float) -> None:
        report(f"measuring what each head of the teacher does: {share:.0%}")

    with exclusive(waiting):
        return importance_of(teacher, [text.text for text in texts], pooling, cache_folder(), progress)


def supernet_for(
    objective: ObjectiveSpec,
    teacher: Teacher,
    data: ProxySet,
    importance: Importance | None,
    pooling: Mode,
    space: Drawn,
    autocast: torch.dtype | None,
    report: Callable[[str], None],
) -> Weights | None:
    """Returns the weights of a supernet for a space; None if students are not cut out of one.

    They are trained at the first call, with checkpoints, and kept in the cache.

    Args:
        objective: has the start of students.
        teacher: of all students.
        data: the proxy set.
        importance: of the teacher's heads and neurons.
        pooling: of its sentence vectors.
        space: of the search.
        autocast: dtype of the forward pass, None for float32.
        report: called with a sentence on the progress; may raise to end it.
    """
    if objective.start != "supernet":
        return None
    assert importance is not None, "a cut needs to know what matters"
    sources = {depth: start_layers(objective, depth, teacher.layers) for depth in space.depths}

    def stepped(step: int) -> None:
        report(f"training a supernet of all shapes: {step / SUPERNET_STEPS:.0%}")

    def waiting() -> None:
        report("waiting to train a supernet of all shapes")

    cache = cache_folder()
    return supernet_of(teacher, data, importance, pooling, space, sources, autocast, cache, stepped, waiting)


def check_length(field: str, length: int, teacher: Teacher) -> None:
    """Refuses a length above the most tokens that the teacher reads.

    Raises:
        BadInput: names `field`, whose value is `length`.
    """
    longest = most_tokens(teacher)
    if length > longest:
        raise BadInput(f"'{field}' is {length}, but the teacher reads at most {longest} tokens; lower it.")
