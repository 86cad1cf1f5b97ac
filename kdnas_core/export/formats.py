"""In what forms a student leaves the house."""

from __future__ import annotations

from typing import Literal, get_args

from kdnas_core.errors import BadInput

Format = Literal["hf", "onnx", "zip"]
FORMATS: tuple[Format, ...] = get_args(Format)
# files of a tokenizer, of which an export has some; none of them can hold code
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
)


def parse_formats(text: str) -> frozenset[Format]:
    """The formats of a comma list; `hf`, the folder that all else lies in, is always one of them.

    Raises:
        BadInput: one of them is not known.
    """
    named = [name.strip() for name in text.split(",")]
    for name in named:
        if name not in FORMATS:
            choices = ", ".join(FORMATS)
            raise BadInput(
                f"The format {name[:60]!r} is not known; write --format with {choices}, or several."
            )
    return frozenset(each for each in FORMATS if each in named or each == "hf")
