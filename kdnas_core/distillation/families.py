"""What the families of encoders differ in, as their configs say it. Imports nothing heavy."""

from __future__ import annotations

from typing import Any

from kdnas_core.architecture import Architecture
from kdnas_core.errors import BadInput

# Encoders with absolute positions and BERT's layers, so that a student can be cut out of them.
FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra")
_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert")

# What a family calls a field of BERT's config.
_OWN_NAMES = {
    "distilbert": {
        "num_hidden_layers": "n_layers",
        "hidden_size": "dim",
        "intermediate_size": "hidden_dim",
        "num_attention_heads": "n_heads",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    }
}


def field_of(family: str, field: str) -> str:
    """What a family calls a field that BERT's config calls `field`."""
    return _OWN_NAMES.get(family, {}).get(field, field)


def first_position(family: str, pad: int) -> int:
    """The row of the first token in the position table: RoBERTa's families count on from the padding's id."""
    return pad + 1 if family in _AFTER_PADDING else 0


def check_config(config: dict[str, Any], source: str) -> None:
    """Refuses a teacher whose config is that of no encoder a student can be cut out of.

    Args:
        config: its fields.
        source: the teacher's name, for the message.

    Raises:
        BadInput: another family, a decoder, or positions that are not absolute.
    """
    family = config.get("model_type")
    if family not in FAMILIES:
        raise BadInput(
            f"The teacher {source} is of the family {family!r}; use one of {', '.join(FAMILIES)} instead."
        )
    if config.get("is_decoder"):
        raise BadInput(
            f"The teacher {source} is a decoder, as its config says with is_decoder; use an encoder instead."
        )
    positions = config.get("position_embedding_type") or "absolute"
    if positions != "absolute":
        raise BadInput(
            f"The teacher {source} has positions of the type {positions!r}; use one with absolute positions."
        )


def shape_of(config: dict[str, Any], source: str) -> Architecture:
    """The architecture that the fields of a `transformers` config describe.

    `embedding_size` is set where the embedding is factorised, which only ELECTRA's can be.

    Raises:
        BadInput: one of the fields is missing, or is no number.
    """
    family = config.get("model_type") or ""

    def own(field: str) -> Any:
        return config[field_of(family, field)]

    try:
        embedding = own("embedding_size") if family == "electra" else own("hidden_size")
        return Architecture(
            layers=own("num_hidden_layers"),
            hidden_size=own("hidden_size"),
            intermediate_size=own("intermediate_size"),
            attention_heads=own("num_attention_heads"),
            hidden_act=own("hidden_act"),
            embedding_size=None if embedding == own("hidden_size") else embedding,
        )
    except TypeError:
        raise BadInput(
            f"The config of the teacher {source} has a shape that is no number; mend it."
        ) from None
    except KeyError as missing:
        raise BadInput(
            f"The config of the teacher {source} has no {missing}; use an encoder that has."
        ) from None
