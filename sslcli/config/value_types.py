"""Compares plain values, of a config or of a file, with type annotations."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union


def fits(value: Any, hint: Any) -> bool:
    """Return whether a plain value, in which tuples may be lists, has the type that an annotation states."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin is Annotated:
        return fits(value, arguments[0])
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is Literal:
        return value in arguments
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value  # not nan
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    kind = origin or hint
    if kind in (list, tuple, Sequence) or (isinstance(kind, type) and issubclass(kind, Sequence) and kind is not str):
        if not isinstance(value, (list, tuple)):
            return False
        if kind is tuple and arguments and arguments[-1] is not Ellipsis:
            return len(value) == len(arguments) and all(map(fits, value, arguments))
        return not arguments or all(fits(item, arguments[0]) for item in value)
    if isinstance(kind, type) and issubclass(kind, Mapping):
        key, inner = arguments or (Any, Any)
        return isinstance(value, Mapping) and all(fits(k, key) and fits(v, inner) for k, v in value.items())
    return not isinstance(kind, type) or isinstance(value, kind)


def type_in_words(hint: Any) -> str:
    """Return the name of a type for people: ``a whole number or null``."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return type_in_words(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(type_in_words(option) for option in arguments)
    if origin is Literal:
        return "one of " + ", ".join(str(option) for option in arguments)
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", type(None): "null"}
    if hint in names:
        return names[hint]
    kind = origin or hint
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)} values like [{', '.join(type_in_words(a) for a in arguments)}]"
    if isinstance(kind, type) and issubclass(kind, Mapping):
        inner = arguments[1] if arguments else Any
        return "a mapping" if inner is Any else f"a mapping of names to {type_in_words(inner)}"
    return "a list" if isinstance(kind, type) and issubclass(kind, Sequence) else f"a {getattr(kind, '__name__', kind)}"
