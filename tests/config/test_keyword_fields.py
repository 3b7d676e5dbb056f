"""A constructor that takes the fields of a dataclass looks like one that spells them out."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from sslcli.config.instantiate import build
from sslcli.config.keyword_fields import takes_fields_of
from sslcli.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Numbers:
    flip: float = 0.5
    scale: Annotated[tuple[float, float], "shares"] = (0.2, 1.0)
    name: str | None = None


class ByHand:
    def __init__(
        self,
        spec: dict[str, int],
        *,
        second: Mapping[str, Any] | None = None,
        flip: float = 0.5,
        scale: tuple[float, float] = (0.2, 1.0),
        name: str | None = None,
    ) -> None:
        self.numbers = Numbers(flip=flip, scale=scale, name=name)


class Derived:
    @takes_fields_of(Numbers)
    def __init__(self, spec: dict[str, int], *, second: Mapping[str, Any] | None = None, **numbers: Any) -> None:
        self.numbers = Numbers(**numbers)


def test_it_has_the_parameters_and_types_of_the_one_written_by_hand():
    def shape(kind):
        return [(p.name, p.kind, p.default) for p in inspect.signature(kind).parameters.values()]

    assert shape(Derived) == shape(ByHand)
    assert typing.get_type_hints(Derived.__init__) == typing.get_type_hints(ByHand.__init__)


@pytest.mark.parametrize("key, value", [("flip", "often"), ("scale", [0.5]), ("flop", 0.5), ("numbers", 1)])
def test_a_wrong_key_or_value_is_told_in_the_same_words(monkeypatch, key, value):
    import sslcli.config.instantiate as instantiate

    told = []
    for kind in (ByHand, Derived):
        monkeypatch.setattr(instantiate, "locate", lambda target, where, kind=kind: kind)
        with pytest.raises(UserError) as error:
            build({"_target_": "x", key: value}, kind, {}, where="views")
        told.append(str(error.value))
    assert told[0] == told[1]


def test_a_call_is_that_of_the_dataclass():
    assert Derived({}, flip=0.1).numbers == ByHand({}, flip=0.1).numbers
    with pytest.raises(TypeError, match="flop"):
        Derived({}, flop=0.1)
