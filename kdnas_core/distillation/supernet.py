"""A supernet: weights of the teacher's size, trained so that students of all shapes can be cut out of them.

Each step trains students of several shapes, drawn anew, with shared weights (AutoTinyBERT, arXiv 2107.13686).
The weights keep the teacher's basis, and a student's are the differentiable cut of them (`cut_weights`). So
before the first step each student is as it is cut out of the teacher.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn
from torch.func import functional_call
from transformers import AutoModel, PreTrainedModel

from kdnas_core.architecture import Architecture
from kdnas_core.data.tokens import endless
from kdnas_core.distillation import losses
from kdnas_core.distillation.loop import Diverged, Group, Loop, Saved
from kdnas_core.distillation.trainer import ProxySet
from kdnas_core.errors import Failure
from kdnas_core.files import keep_latest, write_whole
from kdnas_core.hardware import autocast_to, free_memory, held, moved, other_device, turns
from kdnas_core.models.cut import WORDS, cut_weights, principal_directions
from kdnas_core.models.families import canonical, own_names
from kdnas_core.models.heads import Weights, order_heads
from kdnas_core.models.importance import Importance
from kdnas_core.models.pooling import Mode
from kdnas_core.models.student import student_config
from kdnas_core.models.targets import Batch, Targets, has_segments, make_batch, pooled
from kdnas_core.models.teacher import Teacher
from kdnas_core.models.vocabulary import only_used_words
from kdnas_core.spec import SUPERNET_BATCH, SUPERNET_SHAPES, SUPERNET_STEPS

RATE = 1e-3
OF_VECTORS = 4.0  # weight of the error of vectors, as in the recipe "vectors"
SEED = 0
KEPT = 4  # supernets in the cache; the least recently used are deleted
REMEDY = "begin anew with objective.start=teacher"
_VERSION = 1  # raised, with METHOD, when the same question gives other weights

log = logging.getLogger(__name__)
# of each depth, the teacher layer of each student layer; None to choose them by importance
Sources = Mapping[int, Sequence[int] | None]


class Drawn(Protocol):
    """A space of shapes."""

    @property
    def key(self) -> str:
        """A text that is equal for equal spaces."""

    @property
    def depths(self) -> Sequence[int]:
        """The numbers of layers."""

    def draw(self, rng: random.Random) -> Architecture:
        """Draws a shape."""


def supernet_of(
    teacher: Teacher,
    data: ProxySet,
    importance: Importance,
    pooling: Mode,
    space: Drawn,
    sources: Sources,
    autocast: torch.dtype | None,
    cache: Path,
    stepped: Callable[[int], None],
    waiting: Callable[[], None] = lambda: None,
) -> Weights:
    """Trains a supernet, or reads it from the cache; returns its weights by the teacher's names.

    Args:
        teacher: of all students; not changed.
        data: the training set; words that it lacks keep the teacher's embedding.
        importance: of the teacher's heads and neurons, by which students are cut.
        pooling: of sentence vectors.
        space: of the students' shapes.
        sources: the teacher layers that students are cut from.
        autocast: dtype of the forward pass, None for float32.
        cache: folder of the cache; while it trains, checkpoints are there too.
        stepped: called with the steps taken; may raise to end it early.
        waiting: called while another process trains the same, or has the device; may raise to end it.

    Raises:
        Failure: the loss is not finite.
    """
    question = {
        "method": [_VERSION, SUPERNET_STEPS, SUPERNET_SHAPES, SUPERNET_BATCH, RATE],
        "teacher": teacher.fingerprint,
        "texts": data.fingerprint,
        "importance": [
            hashlib.sha256(each.numpy().tobytes()).hexdigest() for each in vars(importance).values()
        ],
        "pooling": pooling,
        "space": space.key,
        "sources": sorted(sources.items()),
        "autocast": str(autocast),
        "device": other_device(),
    }
    digest = hashlib.sha256(json.dumps(question).encode()).hexdigest()[:24]
    path = cache / "supernets" / f"{digest}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with held(FileLock(path.with_suffix(".lock")), waiting):  # another search may train the same
        known = _read(path)
        if known is not None:
            return known
        supernet = Supernet(teacher, data.train, importance, pooling, sources)
        weights = _trained(supernet, data, space, autocast, stepped, waiting, path.with_suffix(".checkpoint"))
        _keep(path, weights)
    del supernet
    free_memory()
    return weights


def _read(path: Path) -> Weights | None:
    """The weights in a file; None if there is none, or it is damaged."""
    if not path.is_file():
        return None
    try:
        path.touch()  # the least recently used file is deleted first
        return load_file(path)
    except (OSError, SafetensorError) as error:
        log.warning(f"A supernet cannot be read: {error}")
        path.unlink(missing_ok=True)
        return None


def _keep(path: Path, weights: Weights) -> None:
    """Writes the weights to the cache, if the disk has room, and deletes what was not used for longest."""
    try:
        write_whole(path, save({name: weight.contiguous() for name, weight in weights.items()}))
        path.with_suffix(".checkpoint").unlink(missing_ok=True)
        for kind in ("*.safetensors", "*.checkpoint"):
            keep_latest(path.parent.glob(kind), KEPT)
    except OSError as error:
        log.warning(f"A supernet is not kept: {error}")


def _trained(
    supernet: Supernet,
    data: ProxySet,
    space: Drawn,
    autocast: torch.dtype | None,
    stepped: Callable[[int], None],
    waiting: Callable[[], None],
    checkpoint: Path,
) -> Weights:
    """Trains a supernet, from the checkpoint on if there is one."""
    rng, steps = random.Random(SEED), SUPERNET_STEPS
    with (
        turns(waiting) as let_others,
        only_used_words(supernet.model, data.vocabulary),
        moved(supernet),
    ):
        saved = Saved(checkpoint, f"supernet, {steps} steps", {"supernet": supernet})
        loop = Loop([Group(list(supernet.parameters()))], steps, RATE, saved)
        done = loop.steps_saved()
        batches = endless(data.train.lengths, SUPERNET_BATCH, SEED)
        for step in range(1, steps + 1):
            shapes, texts = [space.draw(rng) for _ in range(SUPERNET_SHAPES)], next(batches)
            if step <= done:
                continue
            try:
                loop.take(step, partial(supernet.gradients, shapes, texts, autocast))
            except Diverged as error:
                raise Failure(f"The training of the supernet diverged ({error}); {REMEDY}.") from None
            loop.keep(step)
            try:
                stepped(step)
                let_others()
            except Exception:
                loop.keep(step, now=True)
                raise
    return {name: weight.detach().clone() for name, weight in supernet.model.state_dict().items()}


class Supernet(nn.Module):
    """Shared weights with the projections of all students' states and vectors to the teacher's."""

    def __init__(
        self, teacher: Teacher, train: Targets, importance: Importance, pooling: Mode, sources: Sources
    ) -> None:
        super().__init__()
        self.teacher, self.train_set, self.importance, self.pooling = teacher, train, importance, pooling
        self.sources = sources
        self.family = teacher.model.config.model_type
        self.model: PreTrainedModel = copy.deepcopy(teacher.model).requires_grad_(True)
        shape = teacher.architecture
        weights = canonical(self.model.state_dict(), self.family)
        in_order = order_heads(weights, shape.layers, shape.attention_heads)
        self.model.load_state_dict(own_names(in_order, self.family))
        self.to_states, self.to_vectors = (_identity(shape.hidden_size) for _ in range(2))
        self.pad = teacher.model.config.pad_token_id or 0
        self.parts = 1  # of a batch, where the device has too little memory for all of it

    def gradients(
        self, shapes: Sequence[Architecture], texts: Sequence[int], autocast: torch.dtype | None
    ) -> float:
        """Adds the gradients of students of these shapes on a batch; returns their mean loss."""
        while True:
            try:
                size = math.ceil(len(texts) / self.parts)
                parts = [texts[start : start + size] for start in range(0, len(texts), size)]
                return sum(
                    self._gradients_of(shape, part, len(part) / len(texts) / len(shapes), autocast)
                    for shape in shapes
                    for part in parts
                )
            except torch.OutOfMemoryError:
                if self.parts >= len(texts):
                    raise
            self.zero_grad()
            free_memory()
            self.parts *= 2

    def _gradients_of(
        self, shape: Architecture, texts: Sequence[int], weight: float, autocast: torch.dtype | None
    ) -> float:
        loss = weight * self.loss(shape, make_batch(self.train_set, texts, self.pad), autocast)
        loss.backward()
        return loss.item()

    def loss(self, shape: Architecture, batch: Batch, autocast: torch.dtype | None = None) -> torch.Tensor:
        """Computes the loss of a student: last states, sentence vectors, and their similarities."""
        states, directions = self.states(shape, batch, autocast)
        last = self.teacher.layers
        target = batch.teacher("hidden", last)
        mine, theirs = (pooled(each, batch.lengths, self.pooling) for each in (states, target))
        predicted = self.to_states(states @ directions.T)
        return (
            losses.normalised_mse(predicted, target, float(batch.variance[last]))
            + OF_VECTORS * losses.cosine_distance(self.to_vectors(mine @ directions.T), theirs)
            + losses.similarity_error(mine, theirs)
        )

    def states(
        self, shape: Architecture, batch: Batch, autocast: torch.dtype | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns a student's last states (real tokens, H_S), and P (H_T, H_S) by which it is cut."""
        student = self._empty(shape)
        words, ids = self._words_of(batch.ids)
        theirs: Weights = dict(self.model.named_parameters())
        theirs[WORDS] = theirs[WORDS][words]
        rest = {
            name: torch.zeros(weight.shape, device=ids.device) for name, weight in student.named_parameters()
        }
        cut = cut_weights(
            rest,
            theirs,
            student.config,
            self.teacher,
            self.train_set,
            self.importance,
            self.sources[shape.layers],
            in_order=True,
        )
        inputs = {"input_ids": ids, "attention_mask": batch.mask}
        if has_segments(student.config):
            inputs["token_type_ids"] = torch.zeros_like(ids) if batch.types is None else batch.types
        weights = rest | _buffers(student, ids.device) | cut.weights
        with autocast_to(autocast):
            output = functional_call(student, weights, kwargs=inputs)
        directions = principal_directions(self.train_set, shape.hidden_size).to(ids.device)
        return batch.real(output.last_hidden_state), directions

    def _words_of(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The words of a batch and all up to the padding, ascending; and the batch by their numbers."""
        kept = torch.arange(self.pad + 1, device=ids.device)
        words, numbers = torch.cat([kept, ids.flatten()]).unique(return_inverse=True)
        return words, numbers[len(kept) :].view_as(ids)

    def _empty(self, shape: Architecture) -> PreTrainedModel:
        """A student without weights."""
        config = student_config(self.teacher.model.config, shape)
        config.vocab_size = self.pad + 1
        with torch.device("meta"):
            model: PreTrainedModel = AutoModel.from_config(config, dtype=torch.float32)
        return model.eval()


def _buffers(student: PreTrainedModel, device: torch.device) -> Weights:
    """The buffers of an encoder: positions and segments."""
    return {
        name: torch.arange(buffer.shape[-1], device=device)[None]
        if name.endswith("position_ids")
        else torch.zeros(buffer.shape, dtype=buffer.dtype, device=device)
        for name, buffer in student.named_buffers()
    }


def _identity(width: int) -> nn.Linear:
    layer = nn.Linear(width, width)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
