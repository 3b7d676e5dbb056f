"""A decorator for constructors whose keyword-only parameters are the fields of a dataclass."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, TypeVar

Constructor = TypeVar("Constructor", bound=Callable[..., None])


def takes_fields_of(record: type) -> Callable[[Constructor], Constructor]:
    """Decorate a constructor ``(self, ..., *, ..., **rest)`` that takes the fields of ``record`` as ``rest``.

    The signature and the annotations of the constructor then list the fields as keyword-only parameters, with their
    types and defaults, instead of ``**rest``. This makes the fields keys of the part's yaml, like any other
    keyword-only parameter (``sslcli.config.instantiate``). Calls of the constructor are not changed.

    Args:
        record: a dataclass whose fields are keyword-only.
    """

    def decorated(constructor: Constructor) -> Constructor:
        signature = inspect.signature(constructor)
        *own, rest = signature.parameters.values()
        assert rest.kind is rest.VAR_KEYWORD
        fields = inspect.signature(record).parameters.values()
        described: Any = constructor
        described.__signature__ = signature.replace(parameters=[*own, *fields])
        described.__annotations__ |= typing.get_type_hints(record)
        del described.__annotations__[rest.name]
        return constructor

    return decorated
