"""The space that a search goes through: Hydra's grammar for several values of a key, as Optuna's distributions."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, Transformer, ValueType
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from sslcli.config.arguments import key_of
from sslcli.config.identity import is_changeable
from sslcli.config.secrets import hide
from sslcli.errors import UserError

_WHOLE_ENDS = re.compile(r"interval\s*\(\s*[+-]?\d+\s*,\s*[+-]?\d+\s*\)")
_DRAWS = 1000  # tries to find a point by chance before all are held for tried


@dataclass(frozen=True)
class Dimension:
    """A key that is searched over.

    Args:
        key: the key or group as it stands before ``=``.
        distribution: what its values are drawn from.
        texts: how the values are written in an override, where they are counted; the text of any other is its own.
    """

    key: str
    distribution: BaseDistribution
    texts: Sequence[tuple[Any, str]] = ()

    def override(self, value: Any) -> str:
        """Return the override that sets the key to a value of the distribution."""
        for known, text in self.texts:
            if type(known) is type(value) and (known == value or _is_near(known, value)):
                return f"{self.key}={text}"
        return f"{self.key}={self._short(value)}"

    def _short(self, value: Any) -> Any:
        """Return a number with fractions with as many digits as matter, so that an override can be read."""
        found = self.distribution
        if not isinstance(found, FloatDistribution):
            return value
        short = float(f"{value:.4g}")
        return short if found.low <= short <= found.high else value

    @property
    def others(self) -> Sequence[Any]:
        """All choices but the first, or the end of a range."""
        found = self.distribution
        if isinstance(found, CategoricalDistribution):
            return found.choices[1:]
        assert isinstance(found, IntDistribution | FloatDistribution)
        return [found.high]

    @property
    def middle(self) -> Any:
        """The first choice, or a value in the middle of a range."""
        found = self.distribution
        if isinstance(found, CategoricalDistribution):
            return found.choices[0]
        if isinstance(found, IntDistribution):
            return found.low + (found.high - found.low) // found.step // 2 * found.step
        assert isinstance(found, FloatDistribution)
        if found.step is not None:
            return self.texts[len(self.texts) // 2][0]
        return math.sqrt(found.low * found.high) if found.log else (found.low + found.high) / 2

    def draw(self, chance: random.Random) -> Any:
        """Return a value of a dimension that is no interval of numbers with fractions."""
        found = self.distribution
        if isinstance(found, CategoricalDistribution):
            return chance.choice(found.choices)
        assert isinstance(found, IntDistribution | FloatDistribution) and found.step
        if isinstance(found, IntDistribution):
            return chance.randrange(found.low, found.high + 1, found.step)
        return chance.choice([value for value, _ in self.texts])


@dataclass(frozen=True)
class Space:
    """The overrides of every trial: those that are fixed, and the dimensions, in the order of the command line."""

    parts: Sequence[str | Dimension]

    @property
    def dimensions(self) -> dict[str, Dimension]:
        """The dimensions by their keys."""
        return {part.key: part for part in self.parts if isinstance(part, Dimension)}

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The distributions by their keys."""
        return {key: dimension.distribution for key, dimension in self.dimensions.items()}

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """Return the overrides of the trial with these values by key."""
        return [part if isinstance(part, str) else part.override(values[part.key]) for part in self.parts]

    def corners(self) -> Iterator[list[str]]:
        """Yield the overrides of the middle, then of points that differ in one key: other choices, a range's end."""
        middle = {key: dimension.middle for key, dimension in self.dimensions.items()}
        yield self.overrides(middle)
        for key, dimension in self.dimensions.items():
            for value in dimension.others:
                yield self.overrides({**middle, key: value})

    def untried(self, tried: Collection[Sequence[str]], chance: random.Random) -> dict[str, Any] | None:
        """Return by chance a point whose overrides are not among ``tried``; None where there is none (any more)."""
        if any(isinstance(d, FloatDistribution) and d.step is None for d in self.distributions.values()):
            return None  # uncountable: the sampler finds others
        for _ in range(_DRAWS):
            point = {key: dimension.draw(chance) for key, dimension in self.dimensions.items()}
            if tuple(self.overrides(point)) not in tried:
                return point
        return None

    def to_plain(self) -> dict[str, str]:
        """Return a text for each part by its key, by which two spaces are compared; not for keys that may change."""
        found = {}
        for part in self.parts:
            if isinstance(part, Dimension):
                found[part.key] = distribution_to_json(part.distribution)
            elif _is_compared(key_of(part)):
                found[key_of(part)] = hide(part)
        return found


def read_space(overrides: Sequence[Override], composed: DictConfig) -> Space:
    """Return the space of the overrides of a command.

    Args:
        overrides: those of the command, parsed by Hydra.
        composed: the config without what is searched over: a key that is a number with fractions stays one.

    Raises:
        UserError: there is nothing to search over, or a range cannot be searched.
    """
    parts: dict[str, str | Dimension] = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_sweep_override():
            parts[key] = _dimension(key, override, composed)
        elif override.is_delete():
            parts[key] = _given(override)
        else:
            parts[key] = f"{key}={override.get_value_element_as_str()}"
    space = Space(list(parts.values()))
    if not space.dimensions:
        raise UserError(
            "hydra/sweeper=optuna: no key has a range to search. Give one: "
            "'optimizer.lr=tag(log, interval(1e-4, 1e-2))' or objective.temperature=0.1,0.2,0.5"
        )
    return space


def _dimension(key: str, override: Override, composed: DictConfig) -> Dimension:
    if override.is_interval_sweep():
        return Dimension(key, _interval(key, override, composed))
    logarithmic = _is_logarithmic(key, override)
    if not override.is_range_sweep():
        if logarithmic:
            raise UserError(f"{_given(override)}: log is for an interval or a range.")
        if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
            values: list[Any] = list(override.sweep_iterator())
        else:
            found = override.value()
            assert isinstance(found, ChoiceSweep)
            values = list(found.list)  # not shuffled
        texts = dict.fromkeys(Transformer.str(value) for value in values)
        by_text = {Transformer.str(value): value for value in reversed(values)}
        numbers = {text: value for text, value in by_text.items() if isinstance(value, (bool, int, float))}
        pairs = [(numbers.get(text, text), text) for text in texts]  # Optuna keeps what is no number as a text
        if not pairs:
            raise UserError(f"{_given(override)}: there is no value in it.")
        if len({value for value, _ in pairs}) < len(pairs):  # to Python, 1 is True
            pairs = [(text, text) for text in texts]
        return Dimension(key, CategoricalDistribution([value for value, _ in pairs]), pairs)
    return _range(key, override, logarithmic)


def _interval(key: str, override: Override, composed: DictConfig) -> BaseDistribution:
    found = override.value()
    assert isinstance(found, IntervalSweep) and found.start is not None and found.end is not None
    low, high = found.start, found.end
    _check_ends(override, low, high, _is_logarithmic(key, override))
    if low >= high:
        raise UserError(f"{_given(override)}: the second number must be larger than the first.")
    now = OmegaConf.select(composed, key_of(key), throw_on_missing=False, default=None)
    is_cast = isinstance(low, int) and isinstance(high, int)
    written_whole = bool(_WHOLE_ENDS.search(override.input_line or "")) and "float" not in (override.input_line or "")
    if is_cast or (written_whole and not isinstance(now, float)):
        return IntDistribution(int(low), int(high), log="log" in found.tags)
    return FloatDistribution(float(low), float(high), log="log" in found.tags)


def _range(key: str, override: Override, logarithmic: bool) -> Dimension:
    values: list[Any] = sorted(override.value().range())  # type: ignore[union-attr]
    if not values:
        raise UserError(f"{_given(override)}: there is no value in it. A range ends before its second number.")
    low, high = values[0], values[-1]
    _check_ends(override, low, high, logarithmic)
    step = values[1] - low if len(values) > 1 else 1
    if logarithmic and step != 1:
        raise UserError(f"{_given(override)}: a range by steps cannot be logarithmic. Use tag(log, interval(...)).")
    texts = [(value, Transformer.str(value)) for value in values]
    if isinstance(low, int):
        return Dimension(key, IntDistribution(low, high, log=logarithmic, step=step))
    return Dimension(key, FloatDistribution(low, high, step=step), texts)


def _check_ends(override: Override, low: float, high: float, logarithmic: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError(f"{_given(override)}: both numbers must be finite.")
    if logarithmic and low <= 0:
        raise UserError(f"{_given(override)}: a logarithmic range must begin above 0.")


def _is_logarithmic(key: str, override: Override) -> bool:
    tags: set[str] = getattr(override.value(), "tags", set())
    if tags - {"log"}:
        raise UserError(f"{_given(override)}: there is no tag {sorted(tags - {'log'})[0]}. Known: log.")
    return "log" in tags


def _given(override: Override) -> str:
    return override.input_line or override.key_or_group


def _is_compared(key: str) -> bool:
    """Whether trials with another value of a key cannot be compared; the probe may change in a run, not in a search."""
    return key.partition(".")[0] == "probe" or not is_changeable(key)


def _is_near(one: Any, two: Any) -> bool:
    return isinstance(one, float) and math.isclose(one, two, rel_tol=1e-9)
