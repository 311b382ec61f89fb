"""Tables that people write (TOML, options) against the data classes that they must fit."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from harness.errors import HarnessError, InvalidInput, did_you_mean
from harness.util.literals import parse_length

__all__ = ["Length", "Record", "validate"]

R = TypeVar("R", bound=BaseModel)


def _length(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse_length(value.strip(), "a length")
    except InvalidInput:
        # the field is named and the value repeated by `validate`
        raise ValueError("expected a number or fraction such as 2/255, finite and not negative") from None


Length = Annotated[float, BeforeValidator(_length)]
"""A radius or a step in a table that people write: a number, or text such as "2/255"."""


class Record(BaseModel):
    """Frozen data whose unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def validate(
    kind: type[R],
    table: Mapping[str, Any],
    what: str,
    *,
    raises: type[HarnessError] = InvalidInput,
    strict: bool = False,
) -> R:
    """``table`` as a ``kind``.

    Args:
        what: begins the error, for example "the regime my.toml".
        raises: the class of the error.
        strict: whether values must have the types of the fields, so that true is no 1 and "1" is none either.

    Raises:
        HarnessError: the first problem: an unknown field with the nearest known one, or a wrong value.
    """
    if not isinstance(table, Mapping):
        raise raises(f"{what}: expected a table of fields, got a value of type {type(table).__name__}")
    try:
        return kind.model_validate(dict(table), strict=strict or None)
    except ValidationError as error:
        raise raises(f"{what}: {_explain(kind, error)}") from error


def _explain(kind: type[BaseModel], error: ValidationError) -> str:
    # a misspelt field is an unknown and a missing one; the first says more
    first = min(error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"the field {where!r} is missing"
    if first["type"] == "extra_forbidden":
        fields = _home(kind, first["loc"][:-1]).model_fields
        known = sorted(field.alias or name for name, field in fields.items())
        return (
            f"unknown field {where!r}: expected one of {', '.join(known)}{did_you_mean(str(first['loc'][-1]), known)}"
        )
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message[:1].lower()}{message[1:]}, got {reprlib.repr(first['input'])}"


def _home(kind: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    """The data class at the end of a path of field names and positions."""
    for step in path:
        if isinstance(step, str) and step in kind.model_fields:
            kind = _inner(kind.model_fields[step].annotation) or kind
    return kind


def _inner(annotation: Any) -> type[BaseModel] | None:
    """The data class inside an annotation such as ``tuple[Phase, ...]`` or ``Awp | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _inner(part))), None)
