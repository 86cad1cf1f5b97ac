"""Embeddings cut out of a teacher's, factorised or not on either side.

A factorised embedding is a narrow table and a projection to the stream, as in ELECTRA; one that is not is a
table as wide as the stream, with the identity for its projection.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from kdnas_core.distillation.cut_layer import layer_norm
from kdnas_core.distillation.directions import word_directions
from kdnas_core.distillation.families import first_position
from kdnas_core.distillation.names import Weights

WORDS = "embeddings.word_embeddings.weight"
POSITIONS = "embeddings.position_embeddings.weight"
SEGMENTS = "embeddings.token_type_embeddings.weight"
NORM = "embeddings.LayerNorm"
PROJECTION = "embeddings_project"


def cut_embeddings(
    own: Weights, theirs: Weights, student: PreTrainedModel, teacher: PreTrainedModel, p: torch.Tensor
) -> Weights:
    """Tables, layer norm and, where the student has one, the projection to its stream.

    Args:
        own: the student's weights, for their shapes.
        theirs: the teacher's.
        student: whose they are.
        teacher: likewise.
        p: (H_T, H_S), through which the stream is seen.
    """
    tables = _aligned(own, theirs, student, teacher)
    projection, bias = _projection(theirs, p)
    if f"{PROJECTION}.weight" in own:
        # of that rank, nothing is nearer to the teacher's words
        q = word_directions(teacher, own[WORDS].shape[1])  # (E_T, E_S)
        return _factorised(tables, theirs, projection, bias, q)
    if f"{PROJECTION}.weight" in theirs:
        return _multiplied(tables, theirs, projection, bias)
    return _through(tables, p) | layer_norm(theirs, NORM, p)


def cut_words(own: Weights, theirs: Weights, teacher: PreTrainedModel) -> Weights:
    """The table of words alone, by its principal directions."""
    return {WORDS: theirs[WORDS] @ word_directions(teacher, own[WORDS].shape[1])}


def _aligned(own: Weights, theirs: Weights, student: PreTrainedModel, teacher: PreTrainedModel) -> Weights:
    """The teacher's tables with the student's rows: its positions may be counted from elsewhere."""
    first, to = (
        first_position(model.config.model_type, model.config.pad_token_id) for model in (teacher, student)
    )
    tables = {WORDS: theirs[WORDS], POSITIONS: theirs[POSITIONS][first - to :]}
    if SEGMENTS in theirs:
        return tables | {SEGMENTS: theirs[SEGMENTS]}
    if SEGMENTS in own:  # the teacher knows of none, so they say nothing
        return tables | {SEGMENTS: theirs[WORDS].new_zeros(len(own[SEGMENTS]), theirs[WORDS].shape[1])}
    return tables


def _projection(theirs: Weights, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(H_S, E_T) and (H_S,): from the teacher's tables to its stream, as the student sees it."""
    if f"{PROJECTION}.weight" not in theirs:
        return p.T, p.new_zeros(p.shape[1])
    return p.T @ theirs[f"{PROJECTION}.weight"], p.T @ theirs[f"{PROJECTION}.bias"]


def _factorised(
    tables: Weights, theirs: Weights, projection: torch.Tensor, bias: torch.Tensor, q: torch.Tensor
) -> Weights:
    """Tables seen through q (E_T, E_S), and what is left of the teacher's projection."""
    return {
        **_through(tables, q),
        **layer_norm(theirs, NORM, q),
        f"{PROJECTION}.weight": projection @ q,
        f"{PROJECTION}.bias": bias,
    }


def _multiplied(tables: Weights, theirs: Weights, projection: torch.Tensor, bias: torch.Tensor) -> Weights:
    """Tables multiplied with the projection, for a student that has none after its layer norm."""
    scaled = projection * theirs[f"{NORM}.weight"]
    # what is normalised has variance 1; the projection of that has this one
    spread = scaled.norm() / len(bias) ** 0.5
    return {
        **_through(tables, scaled.T),
        f"{NORM}.weight": spread.expand(len(bias)).clone(),
        f"{NORM}.bias": bias + projection @ theirs[f"{NORM}.bias"],
    }


def _through(tables: Weights, directions: torch.Tensor) -> Weights:
    return {name: table @ directions for name, table in tables.items()}
