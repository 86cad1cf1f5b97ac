"""What an objective needs of its teacher: outputs, a masked-LM head, and what its heads do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from kdnas_core.architecture import Architecture
from kdnas_core.data.corpus import Text
from kdnas_core.data.tokens import NOT_HIDDEN
from kdnas_core.distillation.losses import masked_lm
from kdnas_core.distillation.plan import Plan, TeacherProfile
from kdnas_core.distillation.recipes import terms_of
from kdnas_core.distillation.trainer import ProxySet
from kdnas_core.errors import BadInput
from kdnas_core.files import cache_folder
from kdnas_core.hardware import exclusive
from kdnas_core.models.importance import Importance, importance_of
from kdnas_core.models.mlm_head import MlmHead, TeacherHead, teacher_head
from kdnas_core.models.pooling import Mode, pooling_mode
from kdnas_core.models.targets import Targets
from kdnas_core.models.teacher import Teacher, most_tokens
from kdnas_core.models.vocabulary import Vocabulary
from kdnas_core.spec import LOGITS, ObjectiveSpec

TRAIN_STEPS = 200  # more steps overfit the proxy set
TRAIN_BATCH = 512  # hidden words
TRAIN_RATE = 2e-3
QUIET = 0.1  # of the norm's scale: what the untrained layer says is not to drown the frequencies


def profile_of(teacher: Teacher, objective: ObjectiveSpec, words: TeacherHead | None) -> TeacherProfile:
    """What a teacher has to give to an objective, with its own masked-LM head or one trained for it."""
    predicts = words is not None or objective.head == "trained"
    hides = teacher.tokenizer.mask_token_id is not None
    return TeacherProfile(teacher.architecture, predicts, hides, pooling_mode(teacher.name))


def own_head(objective: ObjectiveSpec, student: Architecture, teacher: Teacher) -> TeacherHead | None:
    """The teacher's own masked-LM head, where the objective needs one and it has one."""
    terms = terms_of(objective, student, teacher.architecture)
    return teacher_head(teacher) if any(term.kind in LOGITS for term in terms) else None


def head_in_use(
    teacher: Teacher,
    own: TeacherHead | None,
    data: ProxySet,
    plans: Sequence[Plan],
    seed: int,
    say: Callable[[str], None],
    waiting: Callable[[], None] = lambda: None,
) -> TeacherHead | None:
    """The teacher's masked-LM head on the words in use: its own, or trained now; None where none is needed.

    Args:
        teacher: whose.
        own: its own head, for its whole vocabulary.
        data: whose words are in use.
        plans: what is learnt.
        seed: of the order of the words that a head is trained on.
        say: told in words what is being done.
        waiting: as for `exclusive`.
    """
    if own is not None:
        return own.only(data.vocabulary)
    if not any(term.spec.kind in LOGITS for each in plans for term in each.terms):
        return None
    say("training a masked-LM head for the teacher")
    with exclusive(waiting):
        return trained_head(teacher, data.train, data.vocabulary, seed)


def trained_head(teacher: Teacher, train: Targets, vocabulary: Vocabulary, seed: int) -> TeacherHead:
    """A masked-LM head for a teacher that has none, trained on its last hidden states; the teacher stays.

    Tied to the teacher's word embeddings, and for the words in use only.

    Args:
        teacher: whose embeddings.
        train: with hidden words, renumbered by `vocabulary`.
        vocabulary: in use.
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
    optimiser = torch.optim.AdamW(head.parameters(), lr=TRAIN_RATE)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(TRAIN_STEPS):
        some = torch.randint(len(places), (min(TRAIN_BATCH, len(places)),), generator=generator)
        masked_lm(head(states[some], table), labels[some]).backward()
        optimiser.step()
        optimiser.zero_grad()
    return TeacherHead(head.eval().requires_grad_(False), table)


@torch.no_grad()
def _begin_with_frequencies(head: MlmHead, train: Targets) -> None:
    """Begins with a guess by frequency: a few hundred steps would not get the bias there."""
    words = train.ids[train.labels == NOT_HIDDEN]
    counts = torch.from_numpy(np.bincount(words, minlength=len(head.bias))).float()
    head.bias.copy_(((counts + 1) / (counts + 1).sum()).log())
    head.norm.weight.mul_(QUIET)


def importance_for(
    objective: ObjectiveSpec,
    teacher: Teacher,
    pooling: Mode,
    texts: Sequence[Text],
    say: Callable[[str], None],
    waiting: Callable[[], None] = lambda: None,
) -> Importance | None:
    """What the teacher's heads and neurons do on texts to learn from; None where nothing is cut out of it.

    Args:
        objective: says where students start.
        teacher: whose heads.
        pooling: how its sentence vectors are made.
        texts: to learn from.
        say: told in words how far it is.
        waiting: as for `exclusive`.
    """
    if objective.start != "teacher":
        return None

    def progress(share: float) -> None:
        say(f"measuring what each head of the teacher does: {share:.0%}")

    with exclusive(waiting):
        return importance_of(teacher, [text.text for text in texts], pooling, cache_folder(), progress)


def check_length(field: str, length: int, teacher: Teacher) -> None:
    """Refuses more tokens than the teacher reads.

    Raises:
        BadInput: it reads fewer than `length`, which `field` has.
    """
    longest = most_tokens(teacher)
    if length > longest:
        raise BadInput(f"'{field}' is {length}, but the teacher reads at most {longest} tokens; lower it.")
