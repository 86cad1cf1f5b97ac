"""Cuts a student's weights out of its teacher.

P (H_T, H_S) projects the residual stream to the principal directions of the teacher's hidden states. A
teacher weight W becomes W P if it reads the stream and P^T W if it writes to it. At the teacher's own width P
is the identity, so weights of the teacher's shape are copied.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedConfig, PreTrainedModel

from kdnas_core.architecture import LayerSource
from kdnas_core.errors import BadInput
from kdnas_core.models.families import canonical, first_position, own_names
from kdnas_core.models.heads import Narrow, Weights, leading, of_least_error, per_head
from kdnas_core.models.importance import Importance
from kdnas_core.models.targets import Targets
from kdnas_core.models.teacher import Teacher

WORDS = "embeddings.word_embeddings.weight"
POSITIONS = "embeddings.position_embeddings.weight"
SEGMENTS = "embeddings.token_type_embeddings.weight"
NORM = "embeddings.LayerNorm"
PROJECTION = "embeddings_project"

PCA_TOKENS = 20_000

# Principal directions of targets' states and models' word embeddings, by the id of the living object.
_DIRECTIONS: dict[int, torch.Tensor] = {}


@dataclass(frozen=True)
class Cut:
    """A student's weights, by their names in its state dict, and the source of each of its layers."""

    weights: Weights
    sources: tuple[LayerSource, ...]


@torch.no_grad()
def cut_out(
    student: PreTrainedModel,
    teacher: Teacher,
    targets: Targets,
    importance: Importance,
    sources: Sequence[int] | None = None,
    shared: Weights | None = None,
) -> Cut:
    """Cuts a student's weights out of a teacher, or out of the weights of a supernet.

    Where the student has more heads, more neurons or wider heads than the teacher, the rest keeps the
    student's random weights. A MobileBERT gets only the word embedding: its layers have no counterpart.

    Args:
        student: has the shapes and the random weights; not changed.
        teacher: the teacher to cut.
        targets: its hidden states, for their principal directions.
        importance: of its heads and neurons; the most important ones are kept.
        sources: the teacher layer 1..N of each student layer; None to choose them by importance.
        shared: a supernet's weights of the teacher's shapes and names, cut in the place of the teacher's;
            the dimensions of its heads are in order.

    Raises:
        BadInput: `sources` has another number of layers than the student, or names a layer that the teacher
            lacks.
    """
    own, theirs = student.state_dict(), teacher.model.state_dict()
    if shared is not None:
        own, theirs = _without_effect(own, student.config.model_type), shared
    return cut_weights(own, theirs, student.config, teacher, targets, importance, sources, shared is not None)


def _without_effect(own: Weights, family: str) -> Weights:
    """Random weights of which those that a cut leaves change no output, but can be learnt.

    Of the two factors of a product (queries and keys, values and output, both feed-forward layers) one is 0.
    """
    by_bert = canonical(own, family)
    silent = {
        name: torch.zeros_like(weight)
        for name, weight in by_bert.items()
        if name.endswith(("self.key.weight", "self.key.bias", "output.dense.weight"))
    }
    return own_names(by_bert | silent, family)


def cut_weights(
    own: Weights,
    theirs: Weights,
    config: PreTrainedConfig,
    teacher: Teacher,
    targets: Targets,
    importance: Importance,
    sources: Sequence[int] | None = None,
    in_order: bool = False,
) -> Cut:
    """Cuts a student's weights out of others, differentiably; arguments as for `cut_out`.

    Args:
        own: the student's weights by its family's names, for shapes and for what stays random.
        theirs: the weights to cut, by the names of the teacher's family.
        config: the student's.
        teacher: gives names and fixed directions.
        targets: its hidden states.
        importance: of its heads and neurons.
        sources: the teacher layer of each student layer.
        in_order: whether heads have the dimensions that matter most in front, as after `order_heads`.
    """
    layers = config.num_hidden_layers
    sources = _checked(sources or importance.source_layers(layers), layers, teacher.layers)
    family = config.model_type
    own = canonical(own, family)
    theirs = canonical(theirs, teacher.model.config.model_type)
    if family == "mobilebert":
        return Cut(cut_words(own, theirs, teacher.model), ())
    device = theirs[WORDS].device
    directions = principal_directions(targets, config.hidden_size).to(device)
    weights = cut_embeddings(own, theirs, config, teacher.model, directions)
    heads, teacher_heads = config.num_attention_heads, teacher.architecture.attention_heads
    narrow = leading if in_order else of_least_error
    kept = []
    for i, source in enumerate(sources):
        to, of = f"encoder.layer.{i}", f"encoder.layer.{source - 1}"
        chosen = largest(importance.ranked_heads(source), heads).to(device)
        neurons = importance.neurons[source - 1].to(device)
        cut = cut_layer(
            _below(own, to), _below(theirs, of), directions, heads, chosen, teacher_heads, neurons, narrow
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


def cut_layer(
    mine: Weights,
    layer: Weights,
    p: torch.Tensor,
    heads: int,
    kept_heads: torch.Tensor,
    teacher_heads: int,
    neurons: torch.Tensor,
    narrow: Narrow,
) -> Weights:
    """Cuts a student's layer out of a teacher's.

    Args:
        mine: the student's layer: shapes, and weights for the rest that the teacher's layer does not fill.
        layer: the teacher's layer.
        p: (H_T, H_S), with orthonormal columns.
        heads: number of the student's heads.
        kept_heads: indices of the teacher's heads to keep, at most `heads`.
        teacher_heads: number of the teacher's heads.
        neurons: (F_T,) importance of the teacher's neurons.
        narrow: makes heads narrower.
    """
    attention = _attention(mine, layer, p, heads, kept_heads, teacher_heads, narrow)
    return attention | _feed_forward(mine, layer, p, neurons)


def largest(importance: torch.Tensor, count: int) -> torch.Tensor:
    """Returns the ascending indices of the `count` largest; all indices in order if all are kept."""
    return importance.argsort(descending=True)[:count].sort().values


def layer_norm(theirs: Weights, name: str, p: torch.Tensor) -> Weights:
    """Projects a layer norm: the diagonal of P^T diag(scale) P, since a layer norm holds no more."""
    scale, shift = theirs[f"{name}.weight"], theirs[f"{name}.bias"]
    return {f"{name}.weight": (scale[:, None] * p * p).sum(0), f"{name}.bias": p.T @ shift}


def _attention(
    mine: Weights,
    layer: Weights,
    p: torch.Tensor,
    heads: int,
    chosen: torch.Tensor,
    teacher_heads: int,
    narrow: Narrow,
) -> Weights:
    """The student's attention from the chosen heads of the teacher."""
    # W_q P with the bias as one more column, so that the cut products include the bias
    query, key, value = (
        per_head(
            torch.cat(
                [layer[f"attention.self.{name}.weight"] @ p, layer[f"attention.self.{name}.bias"][:, None]], 1
            ),
            teacher_heads,
        )  # (heads, d_T, H_S + 1)
        for name in ("query", "key", "value")
    )
    dense = "attention.output.dense"
    output = per_head((p.T @ layer[f"{dense}.weight"]).T, teacher_heads)  # (heads, d_T, H_S)
    width = p.shape[1] // heads
    query, key = narrow(query[chosen], key[chosen], width)
    output, value = narrow(output[chosen], value[chosen], width)
    # scores are divided by the square root of the head width, which changes
    rescale = (width / (p.shape[0] // teacher_heads)) ** 0.25
    cut = {}
    for name, part in (("query", query * rescale), ("key", key * rescale), ("value", value)):
        weight, bias = mine[f"attention.self.{name}.weight"], mine[f"attention.self.{name}.bias"]
        cut[f"attention.self.{name}.weight"] = _filled(weight, part[:, :, :-1], heads, width)
        cut[f"attention.self.{name}.bias"] = _filled(bias[:, None], part[:, :, -1:], heads, width)[:, 0]
    cut[f"{dense}.weight"] = _filled(mine[f"{dense}.weight"].T, output, heads, width).T
    cut[f"{dense}.bias"] = p.T @ layer[f"{dense}.bias"]
    return cut | layer_norm(layer, "attention.output.LayerNorm", p)


def _filled(weight: torch.Tensor, parts: torch.Tensor, heads: int, width: int) -> torch.Tensor:
    """`weight` (heads * width, columns) with `parts` (h, r, columns) as the first rows of its first heads."""
    whole = weight.clone().unflatten(0, (heads, width))
    whole[: parts.shape[0], : parts.shape[1]] = parts
    return whole.flatten(0, 1)


def _feed_forward(mine: Weights, layer: Weights, p: torch.Tensor, importance: torch.Tensor) -> Weights:
    reads, writes = layer["intermediate.dense.weight"] @ p, p.T @ layer["output.dense.weight"]
    chosen = largest(importance, mine["intermediate.dense.bias"].shape[0])
    cut = {
        name: mine[name].clone()
        for name in ("intermediate.dense.weight", "intermediate.dense.bias", "output.dense.weight")
    }
    cut["intermediate.dense.weight"][: len(chosen)] = reads[chosen]
    cut["intermediate.dense.bias"][: len(chosen)] = layer["intermediate.dense.bias"][chosen]
    cut["output.dense.weight"][:, : len(chosen)] = writes[:, chosen]
    cut["output.dense.bias"] = p.T @ layer["output.dense.bias"]
    return cut | layer_norm(layer, "output.LayerNorm", p)


def cut_embeddings(
    own: Weights, theirs: Weights, student: PreTrainedConfig, teacher: PreTrainedModel, p: torch.Tensor
) -> Weights:
    """Cuts the embedding tables, the layer norm and, if the student has one, the embedding projection.

    Args:
        own: the student's weights, for their shapes.
        theirs: the weights to cut.
        student: the student's config.
        teacher: the teacher's model.
        p: (H_T, H_S), the projection of the stream.
    """
    tables = _aligned(own, theirs, student, teacher.config)
    projection, bias = _projection(theirs, p)
    if f"{PROJECTION}.weight" in own:
        # the best approximation of the teacher's word embedding of that rank
        q = word_directions(teacher, own[WORDS].shape[1]).to(p.device)  # (E_T, E_S)
        return _factorised(tables, theirs, projection, bias, q)
    if f"{PROJECTION}.weight" in theirs:
        return _multiplied(tables, theirs, projection, bias)
    return _through(tables, p) | layer_norm(theirs, NORM, p)


def cut_words(own: Weights, theirs: Weights, teacher: PreTrainedModel) -> Weights:
    """Cuts the word embedding alone, by its principal directions."""
    return {WORDS: theirs[WORDS] @ word_directions(teacher, own[WORDS].shape[1])}


def _aligned(own: Weights, theirs: Weights, student: PreTrainedConfig, teacher: PreTrainedConfig) -> Weights:
    """The teacher's tables with the student's rows, since the first position may differ."""
    first, to = (first_position(config.model_type, config.pad_token_id) for config in (teacher, student))
    tables = {WORDS: theirs[WORDS], POSITIONS: theirs[POSITIONS][first - to :]}
    if SEGMENTS in theirs:
        return tables | {SEGMENTS: theirs[SEGMENTS]}
    if SEGMENTS in own:  # the teacher has no segments, so all embeddings are 0
        return tables | {SEGMENTS: theirs[WORDS].new_zeros(len(own[SEGMENTS]), theirs[WORDS].shape[1])}
    return tables


def _projection(theirs: Weights, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(H_S, E_T) and (H_S,): from the teacher's tables to the projected stream."""
    if f"{PROJECTION}.weight" not in theirs:
        return p.T, p.new_zeros(p.shape[1])
    return p.T @ theirs[f"{PROJECTION}.weight"], p.T @ theirs[f"{PROJECTION}.bias"]


def _factorised(
    tables: Weights, theirs: Weights, projection: torch.Tensor, bias: torch.Tensor, q: torch.Tensor
) -> Weights:
    """Tables projected by q (E_T, E_S), and the projection from there to the stream."""
    return {
        **_through(tables, q),
        **layer_norm(theirs, NORM, q),
        f"{PROJECTION}.weight": projection @ q,
        f"{PROJECTION}.bias": bias,
    }


def _multiplied(tables: Weights, theirs: Weights, projection: torch.Tensor, bias: torch.Tensor) -> Weights:
    """Tables multiplied by the projection, for a student without a projection after its layer norm."""
    scaled = projection * theirs[f"{NORM}.weight"]
    # standard deviation of the projection of a vector with variance 1
    spread = scaled.norm() / len(bias) ** 0.5
    return {
        **_through(tables, scaled.T),
        f"{NORM}.weight": spread.expand(len(bias)).clone(),
        f"{NORM}.bias": bias + projection @ theirs[f"{NORM}.bias"],
    }


def _through(tables: Weights, directions: torch.Tensor) -> Weights:
    return {name: table @ directions for name, table in tables.items()}


def principal_directions(targets: Targets, count: int) -> torch.Tensor:
    """Computes P (H, count), the principal directions of the hidden states of all teacher layers.

    The states are not centred, so that their mean is kept too. P is the identity if count >= H.
    """
    return _first(targets, targets.width, count, lambda: _gram_of_layers(targets.states_sample(PCA_TOKENS)))


def word_directions(model: PreTrainedModel, count: int) -> torch.Tensor:
    """Computes the principal directions (E, count) of the rows of a model's word embedding (V, E)."""
    table = model.get_input_embeddings().get_parameter("weight").detach()
    return _first(model, table.shape[1], count, lambda: table.T @ table)


def _gram_of_layers(states: NDArray[np.float16]) -> torch.Tensor:
    """(tokens, N, H) -> (H, H), layer by layer, since float32 copies of all would take gigabytes."""
    layers = (torch.from_numpy(states[:, layer]).float() for layer in range(states.shape[1]))
    return torch.stack([layer.T @ layer for layer in layers]).sum(0)


def _first(owner: object, width: int, count: int, gram: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The first `count` eigenvectors of the owner's Gram matrix, computed once for each owner."""
    if count >= width:
        return torch.eye(width, count)
    if id(owner) not in _DIRECTIONS:
        vectors = torch.linalg.eigh(gram()).eigenvectors  # by ascending eigenvalue
        _DIRECTIONS[id(owner)] = vectors.flip(1)
        weakref.finalize(owner, _DIRECTIONS.pop, id(owner))
    return _DIRECTIONS[id(owner)][:, :count].contiguous()
