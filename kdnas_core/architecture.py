"""Architecture: one point of a search space, and the published students as presets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from kdnas_core.errors import BadInput


@dataclass(frozen=True)
class Architecture:
    """The shape of a student: all that a stock `transformers` config needs to know.

    The last three are those of MobileBERT (arXiv 2004.02984), set together; without them a student is a plain
    transformer.

    Attributes:
        layers: transformer layers, M; 0 for a static student (`static_student`).
        hidden_size: width of the residual stream.
        intermediate_size: width of the feed-forward layer.
        attention_heads: heads; must divide `hidden_size`, or `bottleneck_size` where that is set.
        hidden_act: activation of the feed-forward layer.
        embedding_size: width of a factorised embedding, None where it is not factorised.
        bottleneck_size: width of attention and feed-forward layers between two bottlenecks.
        feed_forward_networks: how many feed-forward layers stand one upon another in a layer.
        bottleneck_attention: whether queries, keys and values all read the bottleneck that the layer reads;
            else queries and keys share a second bottleneck, and values read the stream itself.
    """

    layers: int
    hidden_size: int
    intermediate_size: int
    attention_heads: int
    hidden_act: str = "gelu"
    embedding_size: int | None = None
    bottleneck_size: int | None = None
    feed_forward_networks: int | None = None
    bottleneck_attention: bool | None = None

    def __post_init__(self) -> None:
        width = self.hidden_size if self.bottleneck_size is None else self.bottleneck_size
        name = "hidden" if self.bottleneck_size is None else "bottleneck"
        if self.attention_heads < 1 or width % self.attention_heads:
            raise BadInput(
                f"{self.attention_heads} attention heads do not divide a {name} size of {width}; "
                "choose a number of heads that does."
            )
        bottleneck = (self.bottleneck_size, self.feed_forward_networks, self.bottleneck_attention)
        if len({field is None for field in bottleneck}) > 1:
            raise BadInput(
                "The fields bottleneck_size, feed_forward_networks and bottleneck_attention make a "
                "MobileBERT together; set all of them or none."
            )

    @property
    def key(self) -> str:
        """The architecture in one word, equal for equal architectures."""
        if self.is_static:
            return f"static-{self.hidden_size}"
        word = (
            f"{self.layers}x{self.hidden_size}-f{self.intermediate_size}"
            f"-h{self.attention_heads}-{self.hidden_act}"
        )
        if self.embedding_size is not None:
            word += f"-e{self.embedding_size}"
        if self.bottleneck_size is not None:
            word += f"-b{self.bottleneck_size}-n{self.feed_forward_networks}"
        return f"{word}-a" if self.bottleneck_attention else word

    @property
    def is_static(self) -> bool:
        """Whether it has no layers: each word has one vector, whatever stands around it."""
        return self.layers == 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(layers, hidden size, intermediate size): what fixes the parameters of a plain student's layers."""
        return self.layers, self.hidden_size, self.intermediate_size

    def to_dict(self) -> dict[str, Any]:
        """The knobs by name; the optional ones only where they are set."""
        return {knob: value for knob, value in dataclasses.asdict(self).items() if value is not None}

    def flops(self, sequence_length: int) -> int:
        """Multiply-adds, counted as two, of one forward pass over one sequence, without pooler or heads.

        Counts the matrix products (embedding projection, projections, attention, feed-forward) and nothing
        else, as `torch.utils.flop_counter` does; embedding look-ups cost none.
        """
        n, h, f = sequence_length, self.hidden_size, self.intermediate_size
        if self.bottleneck_size is not None:
            layer = n * _bottleneck_weights(self, self.bottleneck_size) + 2 * n * n * self.bottleneck_size
        else:
            layer = n * (4 * h * h + 2 * h * f) + 2 * n * n * h
        return 2 * (n * self._embedding_weights() + self.layers * layer)

    def _embedding_weights(self) -> int:
        """Of the matrix between the embedding tables and the stream; 0 where there is none."""
        width = self.embedding_size or self.hidden_size
        if self.bottleneck_size is not None:
            return 3 * width * self.hidden_size  # MobileBERT reads each word with its two neighbours
        return 0 if width == self.hidden_size else width * self.hidden_size


def static_student(width: int) -> Architecture:
    """Returns the shape of a static student; without layers, the sizes of a layer say nothing."""
    return Architecture(layers=0, hidden_size=width, intermediate_size=1, attention_heads=1)


@dataclass(frozen=True)
class LayerSource:
    """What a student layer was cut from.

    Attributes:
        layer: of the teacher, counted from 1.
        heads: of that layer, counted from 1.
    """

    layer: int
    heads: tuple[int, ...]

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> LayerSource:
        """Undoes `dataclasses.asdict` and JSON."""
        return cls(fields["layer"], tuple(fields["heads"]))


def _bottleneck_weights(architecture: Architecture, width: int) -> int:
    """Matrix weights of one MobileBERT layer."""
    h, f = architecture.hidden_size, architecture.intermediate_size
    into, out = h * width, width * h
    if architecture.bottleneck_attention:
        attention = 4 * width * width
    else:
        attention = into + 3 * width * width + h * width  # a bottleneck more; values read the stream
    return into + attention + (architecture.feed_forward_networks or 1) * 2 * width * f + out


def _mobilebert(feed_forward_networks: int, bottleneck_attention: bool) -> Architecture:
    return Architecture(24, 512, 512, 4, "relu", 128, 128, feed_forward_networks, bottleneck_attention)


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
    "mminilm-l12-h384": Architecture(12, 384, 1536, 12),
    "mminilmv2-l6-h384": Architecture(6, 384, 1536, 12),
    "mobilebert": _mobilebert(4, bottleneck_attention=False),
    "mobilebert-tiny": _mobilebert(2, bottleneck_attention=True),
}
