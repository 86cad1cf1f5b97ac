"""The model families of teachers: their configs and the names of their weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kdnas_core.architecture import Architecture
from kdnas_core.errors import BadInput

Weight = TypeVar("Weight")


@dataclass(frozen=True)
class Family:
    """The differences of a `model_type` from BERT.

    Attributes:
        head: paths of the masked-LM head's dense layer, layer norm and decoder.
        head_act: the config field of the head's activation; None if it is always gelu.
        fields: the names of BERT's config fields in this family.
        layer: path of the layers in the base model.
        modules: the names of the modules of BERT's layer in this family.
        after_padding: whether positions count from the padding's id + 1 instead of 0.
    """

    head: tuple[str, str, str]
    head_act: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    layer: str = "encoder.layer"
    modules: Mapping[str, str] = field(default_factory=dict)
    after_padding: bool = False


_ROBERTA = Family(("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder"), after_padding=True)

# Encoders with absolute positions and BERT's layers, which a cut needs.
FAMILIES = {
    "bert": Family(
        (
            "cls.predictions.transform.dense",
            "cls.predictions.transform.LayerNorm",
            "cls.predictions.decoder",
        ),
        head_act="hidden_act",
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": Family(
        ("vocab_transform", "vocab_layer_norm", "vocab_projector"),
        head_act="activation",
        fields={
            "num_hidden_layers": "n_layers",
            "hidden_size": "dim",
            "intermediate_size": "hidden_dim",
            "num_attention_heads": "n_heads",
            "hidden_act": "activation",
            "hidden_dropout_prob": "dropout",
            "attention_probs_dropout_prob": "attention_dropout",
        },
        layer="transformer.layer",
        modules={
            "attention.self.query": "attention.q_lin",
            "attention.self.key": "attention.k_lin",
            "attention.self.value": "attention.v_lin",
            "attention.output.dense": "attention.out_lin",
            "attention.output.LayerNorm": "sa_layer_norm",
            "intermediate.dense": "ffn.lin1",
            "output.dense": "ffn.lin2",
            "output.LayerNorm": "output_layer_norm",
        },
    ),
    "electra": Family(
        ("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head")
    ),
}
BOTTLENECKS = "mobilebert"  # for students only: its modules are named as BERT's
_BERT = FAMILIES["bert"]


def field_of(family: str, field: str) -> str:
    """Returns a family's name of a field of BERT's config."""
    return FAMILIES.get(family, _BERT).fields.get(field, field)


def first_position(family: str, pad: int) -> int:
    """Returns the first token's row of the position table: `pad` + 1 in RoBERTa's families, else 0."""
    return pad + 1 if FAMILIES.get(family, _BERT).after_padding else 0


def check_config(config: dict[str, Any], source: str) -> None:
    """Refuses a teacher that is not an encoder of a known family.

    Args:
        config: the fields of its config.
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
    """Returns the architecture of a `transformers` config.

    `embedding_size` is set if the embedding is factorised, which only ELECTRA's can be.

    Raises:
        BadInput: a field is missing, or is not a number.
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
            f"The config of the teacher {source} has a shape that is not a number; fix it."
        ) from None
    except KeyError as missing:
        raise BadInput(
            f"The config of the teacher {source} has no {missing}; use an encoder that has."
        ) from None


def canonical(weights: Mapping[str, Weight], family: str) -> dict[str, Weight]:
    """Renames the weights of an encoder to BERT's names.

    Args:
        weights: by the family's names, as in the state dict of its base model.
        family: its `model_type`.
    """
    own = FAMILIES.get(family, _BERT)
    return _renamed(weights, own.layer, _BERT.layer, {name: bert for bert, name in own.modules.items()})


def own_names(weights: Mapping[str, Weight], family: str) -> dict[str, Weight]:
    """Renames the weights of an encoder to its family's names: the inverse of `canonical`."""
    own = FAMILIES.get(family, _BERT)
    return _renamed(weights, _BERT.layer, own.layer, own.modules)


def own_path(layer: int, module: str, family: str) -> str:
    """Returns the path, in a family's base model, of a module of BERT's layer 0..N-1."""
    own = FAMILIES.get(family, _BERT)
    return f"{own.layer}.{layer}.{own.modules.get(module, module)}"


def _renamed(
    weights: Mapping[str, Weight], stack: str, new_stack: str, modules: Mapping[str, str]
) -> dict[str, Weight]:
    """Moves the layers from `stack` to `new_stack` and renames their modules; other names stay."""
    layer = re.compile(rf"{re.escape(stack)}\.(\d+)\.(.+)\.(weight|bias)")

    def new_name(name: str) -> str:
        match = layer.fullmatch(name)
        if match is None:
            return name
        number, module, kind = match.groups()
        return f"{new_stack}.{number}.{modules.get(module, module)}.{kind}"

    return {new_name(name): weight for name, weight in weights.items()}
