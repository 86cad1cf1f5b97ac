"""What all specs share: strict fields, and refusals as one sentence."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
)

from kdnas_core.errors import BadInput

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Unknown fields are refused: a misspelt one must never be silently the default."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def parsed(kind: type[Model], fields: dict[str, Any]) -> Model:
    """A spec of this kind with these fields.

    Raises:
        BadInput: one is unknown, or its value is not allowed; names it.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise BadInput(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    # of a union the branch that got furthest, of those the one of the kind that was given
    first = max(
        error.errors(),
        key=lambda found: (len(found["loc"]), found["type"] in ("too_short", "too_long")),
    )
    # "latency.budget_ms", without the names that pydantic adds for branches of a union
    parts = map(str, first["loc"])
    field = ".".join(part for part in parts if "[" not in part and not part.startswith("constrained-"))
    if first["type"] == "extra_forbidden":
        return f"'{field}' is not a field of a spec; check its spelling or leave it out."
    if first["type"] == "missing":
        return f"'{field}' is missing; add it."
    if first["type"] == "value_error":
        return f"'{field}': {first['ctx']['error']}."
    return f"'{field}' cannot be {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}."
