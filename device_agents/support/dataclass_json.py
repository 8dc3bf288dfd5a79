"""Dataclasses from JSON that may be damaged: the inverse of `dataclasses.asdict`."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")


def read_as(kind: type[Record], plain: Any) -> Record:
    """The record that was written as this JSON. Unknown fields are ignored; `ValueError` says which value is invalid."""
    value: Record = read_value(kind, plain)
    return value


def read_value(kind: Any, plain: Any) -> Any:
    """The same for any type that a field may be declared as, such as `float | None` or `Sequence[Mapping[str, int]]`."""
    if kind is Any:
        return plain
    if is_dataclass(kind) and isinstance(kind, type):
        return _read_fields(kind, plain)
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if plain is None else read_value(next(arg for arg in args if arg is not type(None)), plain)
    if origin in (tuple, Sequence) and isinstance(plain, list):
        if all(type(item) is args[0] for item in plain):  # thousands of samples at once
            return tuple(plain)
        return tuple(read_value(args[0], item) for item in plain)
    if origin is Mapping and isinstance(plain, dict):
        return {name: read_value(args[1], value) for name, value in plain.items()}
    if kind is float and isinstance(plain, int | float) and not isinstance(plain, bool):
        return float(plain)
    if isinstance(kind, type) and type(plain) is kind:
        return plain
    raise ValueError(f"{str(plain)[:60]!r} is not what belongs here")


def _read_fields(kind: Any, plain: Any) -> Any:
    if not isinstance(plain, dict):
        raise ValueError(f"{str(plain)[:60]!r} is not a {kind.__name__}")
    try:
        return kind(**{name: read_value(hint, plain[name]) for name, hint in _field_types(kind).items() if name in plain})
    except TypeError as exc:
        raise ValueError(f"a {kind.__name__} lacks fields: {exc}") from exc


@cache
def _field_types(kind: Any) -> dict[str, Any]:
    return {name: hint for name, hint in get_type_hints(kind).items() if name in kind.__dataclass_fields__}
