"""A student's weights cut out of its teacher.

The residual stream is seen through P (H_T, H_S), the principal directions of the teacher's hidden states: a
teacher weight W becomes W P where it reads the stream and P^T W where it writes to it. At the teacher's own
width P is the identity: what has the teacher's shape is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from kdnas_core.architecture import LayerSource
from kdnas_core.distillation.cut_embeddings import cut_embeddings, cut_words
from kdnas_core.distillation.cut_layer import cut_layer, largest
from kdnas_core.distillation.directions import principal_directions
from kdnas_core.distillation.importance import Importance
from kdnas_core.distillation.names import Weights, canonical, own_names
from kdnas_core.distillation.targets import Targets
from kdnas_core.distillation.teacher import Teacher
from kdnas_core.errors import BadInput


@dataclass(frozen=True)
class Cut:
    """A student's weights, by their names in its state dict, and what each of its layers was cut from."""

    weights: Weights
    sources: tuple[LayerSource, ...]


@torch.no_grad()
def cut_out(
    student: PreTrainedModel,
    teacher: Teacher,
    targets: Targets,
    importance: Importance,
    sources: Sequence[int] | None = None,
) -> Cut:
    """Weights for a student.

    Where the student has more than the teacher (heads, neurons, head width), the rest keeps the student's own
    random weights. Of a MobileBERT only the table of words is given: its layers have no counterpart.

    Args:
        student: gives the shapes and the random rest; not changed.
        teacher: is cut.
        targets: its hidden states, for their principal directions.
        importance: of its heads and neurons; those that matter most are kept.
        sources: the teacher layer 1..N that each student layer is cut from; None for those that matter most.

    Raises:
        BadInput: the sources are not one for each layer, or one is no layer of the teacher.
    """
    layers = student.config.num_hidden_layers
    sources = _checked(sources or importance.source_layers(layers), layers, teacher.layers)
    family = student.config.model_type
    own = canonical(student.state_dict(), family)
    theirs = canonical(teacher.model.state_dict(), teacher.model.config.model_type)
    if family == "mobilebert":
        return Cut(cut_words(own, theirs, teacher.model), ())
    directions = principal_directions(targets, student.config.hidden_size)
    weights = cut_embeddings(own, theirs, student, teacher.model, directions)
    heads, teacher_heads = student.config.num_attention_heads, teacher.architecture.attention_heads
    kept = []
    for i, source in enumerate(sources):
        to, of = f"encoder.layer.{i}", f"encoder.layer.{source - 1}"
        chosen = largest(importance.ranked_heads(source), heads)
        neurons = importance.neurons[source - 1]
        cut = cut_layer(
            _below(own, to), _below(theirs, of), directions, heads, chosen, teacher_heads, neurons
        )
        weights |= {f"{to}.{name}": weight for name, weight in cut.items()}
        kept.append(LayerSource(source, tuple(int(head) + 1 for head in chosen)))
    return Cut(own_names(weights | _pooler(own, theirs, directions), family), tuple(kept))


def _checked(sources: Sequence[int], layers: int, teacher_layers: int) -> Sequence[int]:
    if len(sources) != layers:
        raise BadInput(
            f"The start names {len(sources)} teacher layers; name one for each of the {layers} layers."
        )
    for source in sources:
        if not 1 <= source <= teacher_layers:
            raise BadInput(
                f"The start names layer {source}, but the teacher has layers 1 to {teacher_layers}; "
                "name those."
            )
    return sources


def _below(weights: Weights, prefix: str) -> Weights:
    return {
        name.removeprefix(f"{prefix}."): weight
        for name, weight in weights.items()
        if name.startswith(f"{prefix}.")
    }


def _pooler(own: Weights, theirs: Weights, p: torch.Tensor) -> Weights:
    weight, bias = "pooler.dense.weight", "pooler.dense.bias"
    if weight not in own or weight not in theirs:
        return {}
    return {weight: p.T @ theirs[weight] @ p, bias: p.T @ theirs[bias]}
