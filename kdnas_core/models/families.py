"""The families of models that can be a teacher: their configuration, and how each names its weights."""

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
    """How the models of one `model_type` differ from BERT's.

    Attributes:
        head: paths of a masked-LM head in a model that has one: dense layer, layer norm, scores.
        head_act: the field of the config that names the activation of that head; None for gelu always.
        fields: what its config calls a field of BERT's config.
        layer: path of a layer in the base model.
        modules: what a layer calls a module of BERT's layer.
        after_padding: whether positions are counted on from the padding's id, and not from 0.
    """

    head: tuple[str, str, str]
    head_act: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    layer: str = "encoder.layer"
    modules: Mapping[str, str] = field(default_factory=dict)
    after_padding: bool = False


_ROBERTA = Family(("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder"), after_padding=True)

# Encoders with absolute positions and BERT's layers, so that a student can be cut out of them.
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
BOTTLENECKS = "mobilebert"  # of students alone: named as BERT, but no student is cut out of one
_BERT = FAMILIES["bert"]


def field_of(family: str, field: str) -> str:
    """What a family calls a field that BERT's config calls `field`."""
    return FAMILIES.get(family, _BERT).fields.get(field, field)


def first_position(family: str, pad: int) -> int:
    """The row of the first token in the position table: RoBERTa's families count on from the padding's id."""
    return pad + 1 if FAMILIES.get(family, _BERT).after_padding else 0


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


def canonical(weights: Mapping[str, Weight], family: str) -> dict[str, Weight]:
    """The weights of an encoder by BERT's names.

    Args:
        weights: by the family's own names, as in the state dict of its base model.
        family: its `model_type`.
    """
    own = FAMILIES.get(family, _BERT)
    return _renamed(weights, own.layer, _BERT.layer, {name: bert for bert, name in own.modules.items()})


def own_names(weights: Mapping[str, Weight], family: str) -> dict[str, Weight]:
    """The weights of an encoder by its family's own names; undoes `canonical`."""
    own = FAMILIES.get(family, _BERT)
    return _renamed(weights, _BERT.layer, own.layer, own.modules)


def own_path(layer: int, module: str, family: str) -> str:
    """Where a module that BERT calls `module` is in layer 0..N-1 of a family's base model."""
    own = FAMILIES.get(family, _BERT)
    return f"{own.layer}.{layer}.{own.modules.get(module, module)}"


def _renamed(
    weights: Mapping[str, Weight], stack: str, new_stack: str, modules: Mapping[str, str]
) -> dict[str, Weight]:
    """Weights of layers under `new_stack` and the new names of their modules; the others as they are."""
    layer = re.compile(rf"{re.escape(stack)}\.(\d+)\.(.+)\.(weight|bias)")

    def new_name(name: str) -> str:
        found = layer.fullmatch(name)
        if found is None:
            return name
        number, module, kind = found.groups()
        return f"{new_stack}.{number}.{modules.get(module, module)}.{kind}"

    return {new_name(name): weight for name, weight in weights.items()}
