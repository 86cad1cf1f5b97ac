"""Named objectives: each published recipe as a list of loss terms, and the layers its student starts from.

Differences from the papers:
- Errors of hidden states and embeddings are in units of the teacher's variance, with the published weights.
- A mini-KD is general distillation: masked words replace the labels of a task (PKD, TinyBERT's second stage).
  A recipe that needs them masks words in its first stage too.
- Predictions are compared at masked words only; DistilBERT's published code compares them at all tokens.
- One warm-up and one decay span both stages and all turns; the papers train their stages separately. With
  fewer steps than layers, some layers of MobileBERT have no turn.
- MiniLM and MiniLMv2 learn from the teacher's last layer. MiniLMv2 uses layer 21 of teachers with 24 layers;
  set the mapping [null, ..., 21] for that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from kdnas_core.architecture import Architecture
from kdnas_core.models.mapping import layer_map
from kdnas_core.spec import Mapping, ObjectiveSpec, TermSpec

RELATION_HEADS = 48  # MiniLMv2's, for widths of 384 and 768
CONTRASTIVE_TEMPERATURE = 0.05  # of cosines (SimCSE, arXiv 2104.08821)


def terms_of(objective: ObjectiveSpec, student: Architecture, teacher: Architecture) -> list[TermSpec]:
    """Returns the terms of an objective for a student of this shape.

    Args:
        objective: a recipe or custom terms; its mapping replaces that of the recipe.
        student: its depth is a weight in TinyBERT, which sums over layers.
        teacher: its width and the student's decide MiniLMv2's relation heads.
    """
    if objective.recipe == "custom":
        usual = objective.mapping or "uniform"
        return [term.model_copy(update={"mapping": term.mapping or usual}) for term in objective.terms]
    assert objective.recipe is not None, "see ObjectiveSpec.filled_for"
    mapping = objective.mapping
    m = float(max(1, student.layers))
    match objective.recipe:
        case "vectors":  # ours, by benchmarks.yardstick: last states, sentence vectors, their similarities
            usual = mapping or "final"
            return [
                TermSpec(kind="hidden", mapping=usual),
                TermSpec(kind="vector", mapping=usual, weight=4.0),
                TermSpec(kind="similarity", mapping=usual),
            ]
        case "embedding":  # EmbedDistill, arXiv 2301.12005, and sentence-transformers' MSELoss
            usual = mapping or "final"
            return [TermSpec(kind="vector", mapping=usual), TermSpec(kind="vector_mse", mapping=usual)]
        case "similarity":  # arXiv 1907.09682, on sentence vectors
            return [TermSpec(kind="similarity", mapping=mapping or "final")]
        case "contrastive":  # SEED (arXiv 2101.04731), with the batch in the place of its queue
            usual, soft = mapping or "final", CONTRASTIVE_TEMPERATURE
            return [TermSpec(kind="contrastive", mapping=usual, temperature=soft)]
        case "kdnas":  # arXiv 2303.09639
            return [TermSpec(kind="hidden", mapping=mapping or "uniform+last")]
        case "tinybert":  # arXiv 1909.10351, eq. 11: a sum over layers, intermediate first, then prediction
            return [
                TermSpec(kind="embedding"),
                TermSpec(kind="attention", mapping=mapping or "uniform", weight=m),
                TermSpec(kind="hidden", mapping=mapping or "uniform", weight=m),
                TermSpec(kind="prediction", stage=2),
            ]
        case "distilbert":  # arXiv 1910.01108, weights and temperature of its published training
            return [
                TermSpec(kind="prediction_kl", weight=5.0, temperature=2.0),
                TermSpec(kind="masked_lm", weight=2.0),
                TermSpec(kind="cosine", mapping=mapping or "final"),
            ]
        case "pkd":  # arXiv 1908.09355, "skip", middle of its grid; words stand for its task's labels
            return [
                TermSpec(kind="masked_lm", weight=0.5),
                TermSpec(kind="prediction_kl", weight=0.5, temperature=10.0),
                TermSpec(kind="patience", mapping=mapping or "skip", weight=100.0),
            ]
        case "pd":  # arXiv 1908.08962: pre-trained first, then taught by soft labels alone
            return [TermSpec(kind="masked_lm"), TermSpec(kind="prediction", stage=2)]
        case "minilm":  # arXiv 2002.10957
            return [
                TermSpec(kind="attention_kl", mapping=mapping or "final"),
                TermSpec(kind="value_relation", mapping=mapping or "final"),
            ]
        case "minilmv2":  # arXiv 2012.15828
            heads = relation_heads(student, teacher)
            return [TermSpec(kind="relations", mapping=mapping or "final", relation_heads=heads)]
        case "mobilebert":  # arXiv 2004.02984: layer after layer, then words, by half from the teacher
            return [
                TermSpec(kind="feature_map", mapping=mapping or "uniform", progressive=True),
                TermSpec(kind="attention_transfer", mapping=mapping or "uniform", progressive=True),
                TermSpec(kind="prediction", weight=0.5, stage=2),
                TermSpec(kind="masked_lm", weight=0.5, stage=2),
            ]


def relation_heads(student: Architecture, teacher: Architecture) -> int:
    """Returns the most relation heads, up to MiniLMv2's 48, that divide both widths."""
    both = math.gcd(student.bottleneck_size or student.hidden_size, teacher.hidden_size)
    return max(heads for heads in range(1, RELATION_HEADS + 1) if both % heads == 0)


def start_layers(objective: ObjectiveSpec, layers: int, teacher_layers: int) -> list[int] | None:
    """Returns the teacher layer 1..N that each of M student layers is cut from, as chosen or as published.

    None if there is neither: `importance.py` then chooses the layers.

    Raises:
        BadInput: the layers are not M, or the teacher lacks one.
    """
    n, m = teacher_layers, layers
    published: dict[str, Mapping | Sequence[int]] = {}
    if m <= n:  # DistilBERT: spread evenly from first to last, as 1, 3, 5, 8, 10, 12 of 12; PKD: the first
        spread = [1 + round(i * (n - 1) / max(1, m - 1)) for i in range(m)]
        published = {"distilbert": spread, "pkd": "bottom"}
    chosen = objective.start_layers or published.get(objective.recipe or "")
    return None if chosen is None else [sources[0] for sources in layer_map(chosen, m, n)]
