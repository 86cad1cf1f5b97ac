"""The published students of the table of systems: shapes, recipes and, if known, results.

The shapes are for a teacher of BERT-base's size; for another teacher, depth and width are scaled in
proportion.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kdnas_core.architecture import PRESETS, Architecture
from kdnas_core.spec import Recipe

BERT_BASE = PRESETS["bert-base"]
BERT_BASE_AVERAGE = 79.5  # on GLUE's test sets without WNLI, as for the students (arXiv 1909.10351, table 1)


@dataclass(frozen=True)
class System:
    """A published student.

    Attributes:
        name: from TinyBERT's table.
        preset: its shape, a name of `PRESETS`.
        recipe: of its distillation; None if it is not distilled.
        average: mean over GLUE's test sets without WNLI, out of 100.
        parameters: in millions.
        flops: in billions.
        speedup: over BERT-base.
    """

    name: str
    preset: str
    recipe: Recipe | None
    average: float | None = None
    parameters: float | None = None
    flops: float | None = None
    speedup: float | None = None

    @property
    def retained(self) -> float | None:
        """Its published average as a share of that of BERT-base."""
        return None if self.average is None else self.average / BERT_BASE_AVERAGE


# Averages, sizes and speed-ups of table 1 of arXiv 1909.10351, by two transcriptions of it that agree. The
# table has no average for BERT6-PKD and PD, and no speed-up for MobileBERT-TINY.
SYSTEMS = (
    System("BERT-TINY", "tinybert4", None, 70.2, 14.5, 1.2, 9.4),
    System("BERT-SMALL", "bert-small", None, 72.1, 29.2, 3.4, 5.7),
    System("BERT4-PKD", "bert-pkd-4", "pkd", 72.6, 52.2, 7.6, 3.0),
    System("DistilBERT4", "distilbert4", "distilbert", 71.9, 52.2, 7.6, 3.0),
    System("MobileBERT-TINY", "mobilebert-tiny", "mobilebert", 77.0, 15.1, 3.1),
    System("TinyBERT4", "tinybert4", "tinybert", 77.0, 14.5, 1.2, 9.4),
    System("BERT6-PKD", "bert-pkd-6", "pkd", parameters=67.0, flops=11.3, speedup=2.0),
    System("PD", "distilbert6", "pd", parameters=67.0, flops=11.3, speedup=2.0),
    System("DistilBERT6", "distilbert6", "distilbert", 76.8, 67.0, 11.3, 2.0),
    System("TinyBERT6", "tinybert6", "tinybert", 79.4, 67.0, 11.3, 2.0),
)


def scaled(shape: Architecture, teacher: Architecture) -> Architecture:
    """Scales a published shape to another teacher: depth and width in proportion, with the same heads.

    Attention widths are multiples of the heads. For a teacher of BERT-base's size, nothing is scaled.
    """
    deep, wide = teacher.layers / BERT_BASE.layers, teacher.hidden_size / BERT_BASE.hidden_size

    def width(size: int, step: int = 1) -> int:
        return max(step, step * round(size * wide / step))

    heads = shape.attention_heads
    plain = shape.bottleneck_size is None
    return replace(
        shape,
        layers=max(1, round(shape.layers * deep)),
        hidden_size=width(shape.hidden_size, heads if plain else 1),
        intermediate_size=width(shape.intermediate_size),
        embedding_size=None if shape.embedding_size is None else width(shape.embedding_size),
        bottleneck_size=None if shape.bottleneck_size is None else width(shape.bottleneck_size, heads),
    )


def name_of(system: System, shape: Architecture) -> str:
    """Returns a row's name, with the shape if it was scaled."""
    if shape == PRESETS[system.preset]:
        return system.name
    return f"{system.name} (scaled: {shape.layers} x {shape.hidden_size})"
