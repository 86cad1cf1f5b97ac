"""A student's weights cut out of its teacher.

The residual stream is seen through P (H_T, H_S), the principal directions of the teacher's hidden states: a
teacher weight W becomes W P where it reads the stream and P^T W where it writes to it. Attention heads and
feed-forward neurons are those with the largest product of what they read and write. A head's query-key and
value-output products are cut to the student's head width by their singular values, the best that a product
of that rank can do. At the teacher's own width P is the identity, so that nothing is lost.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from kdnas_core.distillation.mapping import layer_map
from kdnas_core.distillation.targets import Targets
from kdnas_core.distillation.teacher import Teacher

PCA_TOKENS = 20_000

Weights = dict[str, torch.Tensor]


@torch.no_grad()
def cut_out(student: PreTrainedModel, teacher: Teacher, targets: Targets) -> Weights:
    """Weights for a student, by their names in its state dict.

    Student layer i is cut from teacher layer floor(i * N / M). Where the student has more than the teacher
    (heads, neurons, head width), the rest keeps the student's own random weights.

    Args:
        student: gives the shapes and the random rest; not changed.
        teacher: is cut.
        targets: its hidden states, for their principal directions.
    """
    own, theirs = student.state_dict(), teacher.model.state_dict()
    directions = principal_directions(targets, student.config.hidden_size)
    weights = _embeddings(theirs, directions)
    sources = layer_map("uniform", student.config.num_hidden_layers, teacher.layers)
    heads = (student.config.num_attention_heads, teacher.architecture.attention_heads)
    for i, (source,) in enumerate(sources):
        to, of = f"encoder.layer.{i}", f"encoder.layer.{source - 1}"
        mine, layer = _below(own, to), _below(theirs, of)
        cut = _attention(mine, layer, directions, *heads) | _feed_forward(mine, layer, directions)
        weights |= {f"{to}.{name}": weight for name, weight in cut.items()}
    if "pooler.dense.weight" in own and "pooler.dense.weight" in theirs:
        weights["pooler.dense.weight"] = directions.T @ theirs["pooler.dense.weight"] @ directions
        weights["pooler.dense.bias"] = directions.T @ theirs["pooler.dense.bias"]
    return weights


def principal_directions(targets: Targets, count: int) -> torch.Tensor:
    """P (H, count): the directions in which the hidden states of all teacher layers together lie most.

    Not centred, so that their mean is kept too. The identity where nothing is to be left out.
    """
    width = targets.hidden.shape[2]
    if count >= width:
        return torch.eye(width, count)
    states = torch.tensor(targets.hidden[:PCA_TOKENS], dtype=torch.float32).flatten(0, 1)  # (tokens * N, H)
    _, vectors = torch.linalg.eigh(states.T @ states)  # by rising eigenvalue
    return vectors.flip(1)[:, :count].contiguous()


def _below(weights: Weights, prefix: str) -> Weights:
    return {
        name.removeprefix(f"{prefix}."): weight
        for name, weight in weights.items()
        if name.startswith(f"{prefix}.")
    }


def _embeddings(theirs: Weights, p: torch.Tensor) -> Weights:
    names = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    tables = {f"embeddings.{name}.weight": theirs[f"embeddings.{name}.weight"] @ p for name in names}
    return tables | _layer_norm(theirs, "embeddings.LayerNorm", p)


def _layer_norm(theirs: Weights, name: str, p: torch.Tensor) -> Weights:
    """The diagonal of the scale as seen through P: all that a layer norm can hold of it."""
    scale, shift = theirs[f"{name}.weight"], theirs[f"{name}.bias"]
    return {f"{name}.weight": (scale[:, None] * p * p).sum(0), f"{name}.bias": p.T @ shift}


def _attention(mine: Weights, layer: Weights, p: torch.Tensor, heads: int, teacher_heads: int) -> Weights:
    """The student's attention: as many of the teacher's heads as it has, those that write most first."""
    # W_q P with the bias as one more column, so that the cut products hold the bias as well
    query, key, value = (
        _per_head(
            torch.cat(
                [layer[f"attention.self.{name}.weight"] @ p, layer[f"attention.self.{name}.bias"][:, None]], 1
            ),
            teacher_heads,
        )  # (heads, d_T, H_S + 1)
        for name in ("query", "key", "value")
    )
    output = _per_head(
        (p.T @ layer["attention.output.dense.weight"]).T, teacher_heads
    ).mT  # (heads, H_S, d_T)
    chosen = (output @ value).flatten(1).norm(dim=1).argsort(descending=True)[:heads]
    width = p.shape[1] // heads
    # scores are divided by the square root of the head width, which changes
    rescale = (width / query.shape[1]) ** 0.25
    keys, queries = _cut_product(query[chosen].mT @ key[chosen], min(width, query.shape[1]))
    writes, reads = _cut_product(output[chosen] @ value[chosen], min(width, query.shape[1]))
    cut = {}
    for name, part in (("query", keys.mT * rescale), ("key", queries * rescale), ("value", reads)):
        weight, bias = mine[f"attention.self.{name}.weight"], mine[f"attention.self.{name}.bias"]
        cut[f"attention.self.{name}.weight"] = _filled(weight, part[:, :, :-1], heads, width)
        cut[f"attention.self.{name}.bias"] = _filled(bias[:, None], part[:, :, -1:], heads, width)[:, 0]
    dense = "attention.output.dense"
    cut[f"{dense}.weight"] = _filled(mine[f"{dense}.weight"].T, writes.mT, heads, width).T
    cut[f"{dense}.bias"] = p.T @ layer[f"{dense}.bias"]
    return cut | _layer_norm(layer, "attention.output.LayerNorm", p)


def _per_head(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """(heads * d, columns) -> (heads, d, columns)."""
    return weight.unflatten(0, (heads, -1))


def _cut_product(product: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(heads, a, b) -> (heads, a, rank) and (heads, rank, b), whose product is the nearest of that rank."""
    left, values, right = torch.linalg.svd(product, full_matrices=False)
    root = values[:, :rank].sqrt()
    return left[:, :, :rank] * root[:, None, :], root[:, :, None] * right[:, :rank]


def _filled(weight: torch.Tensor, parts: torch.Tensor, heads: int, width: int) -> torch.Tensor:
    """`weight` (heads * width, columns) with `parts` (h, r, columns) as the first rows of its first heads."""
    whole = weight.clone().unflatten(0, (heads, width))
    whole[: parts.shape[0], : parts.shape[1]] = parts
    return whole.flatten(0, 1)


def _feed_forward(mine: Weights, layer: Weights, p: torch.Tensor) -> Weights:
    reads, writes = layer["intermediate.dense.weight"] @ p, p.T @ layer["output.dense.weight"]
    neurons = mine["intermediate.dense.bias"].shape[0]
    chosen = (reads.norm(dim=1) * writes.norm(dim=0)).argsort(descending=True)[:neurons]
    cut = {
        name: mine[name].clone()
        for name in ("intermediate.dense.weight", "intermediate.dense.bias", "output.dense.weight")
    }
    cut["intermediate.dense.weight"][: len(chosen)] = reads[chosen]
    cut["intermediate.dense.bias"][: len(chosen)] = layer["intermediate.dense.bias"][chosen]
    cut["output.dense.weight"][:, : len(chosen)] = writes[:, chosen]
    cut["output.dense.bias"] = p.T @ layer["output.dense.bias"]
    return cut | _layer_norm(layer, "output.LayerNorm", p)
