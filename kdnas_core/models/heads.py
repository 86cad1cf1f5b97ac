"""Attention heads of another width: which of a head's dimensions a cut keeps."""

from __future__ import annotations

from collections.abc import Callable

import torch

Weights = dict[str, torch.Tensor]
Pair = tuple[torch.Tensor, torch.Tensor]
Narrow = Callable[[torch.Tensor, torch.Tensor, int], Pair]


def per_head(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """(heads * d, columns) -> (heads, d, columns)."""
    return weight.unflatten(0, (heads, -1))


def of_least_error(left: torch.Tensor, right: torch.Tensor, width: int) -> Pair:
    """(heads, d, a) and (heads, d, b) -> (heads, r, a) and (heads, r, b), r = min(width, d).

    Their products left^T right are the best approximations of rank r; at the width d nothing changes.
    """
    return (left, right) if width == left.shape[1] else _balanced(left, right, min(width, left.shape[1]))


def leading(left: torch.Tensor, right: torch.Tensor, width: int) -> Pair:
    """As `of_least_error`, of heads whose dimensions are in order: the first ones."""
    return left[:, :width], right[:, :width]


@torch.no_grad()
def order_heads(weights: Weights, layers: int, heads: int) -> Weights:
    """Rotates each head so that the dimensions that matter most to its products come first.

    The products of queries with keys and of values with the output layer stay the same, and so does the
    model's output.

    Args:
        weights: of an encoder, by BERT's names (`canonical`).
        layers: N.
        heads: of each layer.

    Returns:
        All weights.
    """
    turned = dict(weights)
    for layer in range(layers):
        at, dense = f"encoder.layer.{layer}.attention.self", f"encoder.layer.{layer}.attention.output.dense"
        query, key, value = (_with_bias(weights, f"{at}.{name}", heads) for name in ("query", "key", "value"))
        output = per_head(weights[f"{dense}.weight"].T, heads)
        query, key = _balanced(query, key, query.shape[1])
        output, value = _balanced(output, value, value.shape[1])
        for name, part in (("query", query), ("key", key), ("value", value)):
            turned[f"{at}.{name}.weight"] = part[:, :, :-1].flatten(0, 1).contiguous()
            turned[f"{at}.{name}.bias"] = part[:, :, -1].flatten().contiguous()
        turned[f"{dense}.weight"] = output.flatten(0, 1).T.contiguous()
    return turned


def _with_bias(weights: Weights, name: str, heads: int) -> torch.Tensor:
    """A linear layer by head with its bias as the last column, (heads, d, H + 1)."""
    return per_head(torch.cat([weights[f"{name}.weight"], weights[f"{name}.bias"][:, None]], 1), heads)


def _balanced(left: torch.Tensor, right: torch.Tensor, rank: int) -> Pair:
    """The factors of the best approximations of rank r of left^T right, by descending singular value.

    The decomposition is that of (d, d) matrices: with the orthonormal factors Q of both, the product is
    Q_l (R_l R_r^T) Q_r^T.
    """
    (q_left, r_left), (q_right, r_right) = (torch.linalg.qr(each.mT) for each in (left, right))
    u, values, v = torch.linalg.svd(r_left @ r_right.mT)
    root = values[:, :rank, None].sqrt()
    return root * (q_left @ u).mT[:, :rank], root * (v @ q_right.mT)[:, :rank]
