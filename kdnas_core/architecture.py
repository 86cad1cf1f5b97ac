"""Architecture: one point of a search space, and the published students as presets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from kdnas_core.errors import BadInput


@dataclass(frozen=True)
class Architecture:
    """The shape of a student: all that a stock `transformers` config needs to know.

    Attributes:
        layers: transformer layers, M.
        hidden_size: width of the residual stream.
        intermediate_size: width of the feed-forward layer.
        attention_heads: heads; must divide `hidden_size`.
        hidden_act: activation of the feed-forward layer.
        embedding_size: width of a factorised embedding, None where it is not factorised.
    """

    layers: int
    hidden_size: int
    intermediate_size: int
    attention_heads: int
    hidden_act: str = "gelu"
    embedding_size: int | None = None

    def __post_init__(self) -> None:
        if self.attention_heads < 1 or self.hidden_size % self.attention_heads:
            raise BadInput(
                f"{self.attention_heads} attention heads do not divide a hidden size of {self.hidden_size}; "
                "choose a number of heads that does."
            )

    @property
    def key(self) -> str:
        """The architecture in one word, equal for equal architectures."""
        word = (
            f"{self.layers}x{self.hidden_size}-f{self.intermediate_size}"
            f"-h{self.attention_heads}-{self.hidden_act}"
        )
        return word if self.embedding_size is None else f"{word}-e{self.embedding_size}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(layers, hidden size, intermediate size): what fixes the parameter count."""
        return self.layers, self.hidden_size, self.intermediate_size

    def to_dict(self) -> dict[str, Any]:
        """The knobs by name; `embedding_size` only where it is set."""
        knobs = dataclasses.asdict(self)
        if self.embedding_size is None:
            del knobs["embedding_size"]
        return knobs

    def flops(self, sequence_length: int) -> int:
        """Multiply-adds, counted as two, of one forward pass of the layers over one sequence.

        Counts the matrix products (projections, attention, feed-forward) and nothing else, as
        `torch.utils.flop_counter` does; embedding look-ups cost none.
        """
        n, h, f = sequence_length, self.hidden_size, self.intermediate_size
        projections = 4 * n * h * h
        attention = 2 * n * n * h
        feed_forward = 2 * n * h * f
        return 2 * self.layers * (projections + attention + feed_forward)


# Shapes as published (KD-NAS and TinyBERT compare against most of them).
PRESETS: dict[str, Architecture] = {
    "bert-base": Architecture(12, 768, 3072, 12),
    "distilbert6": Architecture(6, 768, 3072, 12),
    "distilbert4": Architecture(4, 768, 3072, 12),
    "tinybert4": Architecture(4, 312, 1200, 12),
    "tinybert6": Architecture(6, 768, 3072, 12),
    "bert-pkd-6": Architecture(6, 768, 3072, 12),
    "bert-pkd-4": Architecture(4, 768, 3072, 12),
    "bert-pkd-3": Architecture(3, 768, 3072, 12),
    "bert-tiny": Architecture(2, 128, 512, 2),
    "bert-mini": Architecture(4, 256, 1024, 4),
    "bert-small": Architecture(4, 512, 2048, 8),
    "bert-medium": Architecture(8, 512, 2048, 8),
    "minilm-l12-h384": Architecture(12, 384, 1536, 12),
    "minilm-l6-h384": Architecture(6, 384, 1536, 12),
    "minilm-l6-h768": Architecture(6, 768, 3072, 12),
}
