"""One layer cut out of a teacher's, by the names of BERT, with the residual stream seen through P (H_T, H_S).

Attention heads and feed-forward neurons are those that matter most (`importance.py`), in the teacher's order.
Where a head is of another width than the teacher's, its query-key and value-output
products are cut to that width by their singular values, the best that a product of that rank can do.
"""

from __future__ import annotations

import torch

from kdnas_core.distillation.names import Weights


def cut_layer(
    mine: Weights,
    layer: Weights,
    p: torch.Tensor,
    heads: int,
    kept_heads: torch.Tensor,
    teacher_heads: int,
    neurons: torch.Tensor,
) -> Weights:
    """A student's layer.

    Args:
        mine: the student's own layer: shapes, and what the teacher's cannot fill.
        layer: the teacher's.
        p: (H_T, H_S), with orthonormal columns.
        heads: the student's.
        kept_heads: indices of the teacher's heads that it is given, no more than it has.
        teacher_heads: the teacher's.
        neurons: (F_T,) how much each of the teacher's neurons matters.
    """
    attention = _attention(mine, layer, p, heads, kept_heads, teacher_heads)
    return attention | _feed_forward(mine, layer, p, neurons)


def largest(importance: torch.Tensor, count: int) -> torch.Tensor:
    """Where the `count` largest are, in order, so that what is whole stays as it is."""
    return importance.argsort(descending=True)[:count].sort().values


def layer_norm(theirs: Weights, name: str, p: torch.Tensor) -> Weights:
    """The diagonal of the scale as seen through P: all that a layer norm can hold of it."""
    scale, shift = theirs[f"{name}.weight"], theirs[f"{name}.bias"]
    return {f"{name}.weight": (scale[:, None] * p * p).sum(0), f"{name}.bias": p.T @ shift}


def _attention(
    mine: Weights, layer: Weights, p: torch.Tensor, heads: int, chosen: torch.Tensor, teacher_heads: int
) -> Weights:
    """The student's attention, of the chosen heads of the teacher."""
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
    dense = "attention.output.dense"
    output = _per_head((p.T @ layer[f"{dense}.weight"]).T, teacher_heads)  # (heads, d_T, H_S)
    width = p.shape[1] // heads
    query, key = _to_width(query[chosen], key[chosen], width)
    output, value = _to_width(output[chosen], value[chosen], width)
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


def _per_head(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """(heads * d, columns) -> (heads, d, columns)."""
    return weight.unflatten(0, (heads, -1))


def _to_width(left: torch.Tensor, right: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(heads, d, a) and (heads, d, b) -> (heads, r, a) and (heads, r, b), r = min(width, d).

    Their products left^T right are the nearest of rank r; at the width d they are those that were given.
    """
    depth = left.shape[1]
    if width == depth:
        return left, right
    rank = min(width, depth)
    u, values, v = torch.linalg.svd(left.mT @ right, full_matrices=False)
    root = values[:, :rank, None].sqrt()
    return root * u.mT[:, :rank], root * v[:, :rank]


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
