"""The importance of a teacher's attention heads and neurons, by which a cut selects heads and layers.

There are two measures. The first is the effect of a head or a neuron on the sentence vector. The second is a
head's attention to the same word in the other segment. It compares two texts word by word and is invisible on
single texts, so distillation does not rebuild it, and tasks on pairs need it.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch.nn import functional as F

from kdnas_core.files import keep_latest, write_whole
from kdnas_core.hardware import compute_device, moved, other_device
from kdnas_core.models.capture import capture, dot_scores
from kdnas_core.models.families import own_path
from kdnas_core.models.mapping import layer_map
from kdnas_core.models.pooling import Mode
from kdnas_core.models.targets import has_segments, pooled
from kdnas_core.models.teacher import Teacher

TEXTS = 192
LENGTH = 48  # tokens
BATCH = 32
PROBES = 2  # random directions of the sentence vector for each text
PAIR_WORDS = 24  # of a text, in each segment of a synthetic pair
SAME_WORD_SHARE = 0.15  # of attention; in the packaged teacher two heads have 0.30 and 0.47, the rest 0.08
KEPT = 8  # teachers; the least recently used are deleted
_VERSION = 1  # raised when the same teacher and texts give other values

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Importance:
    """The importance of the parts of a teacher of N layers, measured on texts.

    Attributes:
        heads: (N, heads) root mean square change of the unit sentence vector without the head, to first
            order (Michel et al., arXiv 1905.10650, section 4.1, with a vector in place of the loss).
        neurons: (N, F) the same for feed-forward neurons.
        same_word: (N, heads) share of a word's attention to the same word in the other segment, on pairs
            that share half of their words.
    """

    heads: torch.Tensor
    neurons: torch.Tensor
    same_word: torch.Tensor

    def ranked_heads(self, layer: int) -> torch.Tensor:
        """Returns the (heads,) rank scores of a layer: same-word heads first, then by effect."""
        effect, same_word = self.heads[layer - 1], self.same_word[layer - 1]
        return torch.where(
            same_word >= SAME_WORD_SHARE, 1 + same_word, effect / effect.max().clamp(min=1e-12) * 0.99
        )

    def source_layers(self, layers: int) -> list[int]:
        """Returns the teacher layer 1..N that each of M student layers is cut from.

        The layers are spread evenly (floor(i * N / M)). A layer with a same-word head then replaces the
        nearest layer without one, except the last.
        """
        sources = [source for (source,) in layer_map("uniform", layers, len(self.heads))]
        best = self.same_word.amax(1)
        same_word = [layer for layer in range(1, len(best) + 1) if best[layer - 1] >= SAME_WORD_SHARE]
        for layer in sorted(same_word, key=lambda layer: -float(best[layer - 1])):
            free = [place for place, source in enumerate(sources[:-1]) if source not in same_word]
            if layer not in sources and free:
                sources[min(free, key=lambda place: abs(sources[place] - layer))] = layer
        return sorted(sources)


def importance_of(
    teacher: Teacher,
    texts: Sequence[str],
    pooling: Mode,
    cache: Path,
    progress: Progress = lambda share: None,
) -> Importance:
    """Measures the importance of a teacher's heads and neurons, or reads it from the cache.

    Args:
        teacher: not changed.
        texts: training texts; the first `TEXTS` are read.
        pooling: of its sentence vectors.
        cache: folder of the cache.
        progress: called with the share done, 0 to 1.
    """
    texts = list(texts[:TEXTS])
    question = json.dumps([_VERSION, teacher.fingerprint, pooling, texts, *other_device()])
    path = cache / "importance" / f"{hashlib.sha256(question.encode()).hexdigest()[:24]}.safetensors"
    if path.is_file():
        path.touch()  # the least recently used file is deleted first
        return Importance(**load_file(path))
    with moved(teacher.model):
        heads, neurons = _effects(teacher, texts, pooling, progress)
        importance = Importance(heads, neurons, _same_word(teacher, _synthetic_pairs(texts)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, save({name: value.contiguous() for name, value in vars(importance).items()}))
    keep_latest(path.parent.glob("*.safetensors"), KEPT)
    return importance


def _effects(
    teacher: Teacher, texts: Sequence[str], pooling: Mode, progress: Progress
) -> tuple[torch.Tensor, torch.Tensor]:
    """Effects of heads (N, heads) and neurons (N, F): the gradients of gates of 1 on them.

    The squared gradient of a random projection of the vector estimates that of the whole vector.
    """
    shape = teacher.architecture
    heads = torch.zeros(shape.layers, shape.attention_heads)
    neurons = torch.zeros(shape.layers, shape.intermediate_size)
    generator = torch.Generator().manual_seed(0)
    with _gated(teacher) as gates:
        for start in range(0, len(texts), BATCH):
            inputs = _inputs(teacher, texts[start : start + BATCH])
            of_heads, of_neurons = gates.opened(len(inputs["input_ids"]))
            vectors = F.normalize(_vectors(teacher, inputs, pooling), dim=-1)
            for _ in range(PROBES):
                direction = torch.randn(vectors.shape, generator=generator).to(vectors.device)
                gradients = torch.autograd.grad(
                    (vectors * direction).sum(), [*of_heads, *of_neurons], retain_graph=True
                )
                for layer in range(shape.layers):
                    heads[layer] += gradients[layer].square().sum(0).cpu()
                    neurons[layer] += gradients[shape.layers + layer].square().sum(0).cpu()
            progress(min(1.0, (start + BATCH) / len(texts)))
    count = PROBES * len(texts)
    return (heads / count).sqrt(), (neurons / count).sqrt()


def _inputs(teacher: Teacher, texts: Sequence[Any]) -> Any:
    return teacher.tokenizer(
        list(texts), truncation=True, max_length=LENGTH, padding=True, return_tensors="pt"
    ).to(compute_device())


def _vectors(teacher: Teacher, inputs: Any, pooling: Mode) -> torch.Tensor:
    mask = inputs["attention_mask"]
    states = teacher.model(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state
    return pooled(states[mask.bool()], mask.sum(1), pooling)


class _Gates:
    """Gates of 1 on the output of each head and neuron, for each text."""

    def __init__(self, teacher: Teacher) -> None:
        self.shape = teacher.architecture
        self.heads: list[torch.Tensor] = []
        self.neurons: list[torch.Tensor] = []

    def opened(self, texts: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Returns new gates for a batch: N tensors (texts, heads) and N tensors (texts, F)."""

        def ones(width: int) -> list[torch.Tensor]:
            device = compute_device()
            return [
                torch.ones(texts, width, requires_grad=True, device=device) for _ in range(self.shape.layers)
            ]

        self.heads, self.neurons = ones(self.shape.attention_heads), ones(self.shape.intermediate_size)
        return self.heads, self.neurons

    def through_heads(self, layer: int) -> Callable[[Any, Any], tuple[torch.Tensor]]:
        """Returns a hook for the dense layer after the heads."""

        def hook(module: Any, arguments: Any) -> tuple[torch.Tensor]:
            states: torch.Tensor = arguments[0]  # (B, n, heads * d)
            by_head = states.unflatten(-1, (self.shape.attention_heads, -1))
            return ((by_head * self.heads[layer][:, None, :, None]).flatten(-2),)

        return hook

    def through_neurons(self, layer: int) -> Callable[[Any, Any], tuple[torch.Tensor]]:
        """Returns a hook for the dense layer after the neurons."""

        def hook(module: Any, arguments: Any) -> tuple[torch.Tensor]:
            return (arguments[0] * self.neurons[layer][:, None, :],)

        return hook


@contextmanager
def _gated(teacher: Teacher) -> Iterator[_Gates]:
    """The teacher with gates until the end of the block; its weights stay frozen."""
    gates, family = _Gates(teacher), teacher.model.config.model_type
    with ExitStack() as hooks:
        for layer in range(teacher.layers):
            for name, hook in (
                ("attention.output.dense", gates.through_heads(layer)),
                ("output.dense", gates.through_neurons(layer)),
            ):
                module = teacher.model.get_submodule(own_path(layer, name, family))
                hooks.enter_context(module.register_forward_pre_hook(hook))
        yield gates


def _synthetic_pairs(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of a text's first words and the same words, half of them replaced by words of all texts."""
    rng = random.Random(0)
    firsts = [text.split()[:PAIR_WORDS] for text in texts]
    others = [word for words in firsts for word in words]
    return [
        (" ".join(words), " ".join(rng.choice(others) if rng.random() < 0.5 else word for word in words))
        for words in firsts
    ]


@torch.inference_mode()
def _same_word(teacher: Teacher, pairs: Sequence[tuple[str, str]]) -> torch.Tensor:
    """(N, heads) mean attention of words that both segments share to the same word in the other segment."""
    heads = teacher.architecture.attention_heads
    total, count = torch.zeros(teacher.layers, heads), 0
    with capture(teacher.model) as captured:
        for start in range(0, len(pairs), BATCH):
            inputs = _inputs(teacher, pairs[start : start + BATCH])
            same = _same_in_other_segment(inputs)
            if not has_segments(teacher.model.config):
                inputs.pop("token_type_ids", None)
            teacher.model(**inputs)
            padding = ~inputs["attention_mask"].bool()[:, None, None, :]
            for layer, states in enumerate(zip(captured.queries, captured.keys, strict=True)):
                scores = dot_scores(states[0].float(), states[1].float(), heads)
                attention = scores.masked_fill(padding, -torch.inf).softmax(-1)
                total[layer] += (attention * same[:, None]).sum((0, 2, 3)).cpu()
            count += int(same.any(-1).sum())
    return total / max(1, count)


def _same_in_other_segment(inputs: Any) -> torch.Tensor:
    """(B, n, n): whether two tokens are the same word in different segments."""
    ids = inputs["input_ids"]
    # special tokens and padding belong to no segment
    segments = torch.tensor(
        [[-1 if of is None else of for of in inputs.sequence_ids(row)] for row in range(len(ids))]
    ).to(ids.device)
    real = segments >= 0
    across = segments[:, :, None] != segments[:, None, :]
    return (ids[:, :, None] == ids[:, None, :]) & across & real[:, :, None] & real[:, None, :]
