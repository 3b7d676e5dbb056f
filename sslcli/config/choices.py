"""The parts that a user chooses: each is a node, ``{_target_: package.Class, key: value}``, until it is built.

The constructor of a part is the schema of its node. Some keys of a part's section are not for its constructor, such as
``dataset.workers``, which the loader reads: they are fields of the ``Choice`` and are not in its node.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar, TypeVar

from sslcli.config.ranges import Count, Natural, Range, Share, check_number
from sslcli.config.value_types import fits, type_in_words
from sslcli.errors import UserError, suggest

C = TypeVar("C", bound="Choice")


def part_name(node: Mapping[str, Any]) -> str:
    """Return the ``name`` of a part, such as a timm model's, else that of its class or function; empty without one."""
    return str(node.get("name") or str(node.get("_target_") or "").rpartition(".")[2])


@dataclass
class Choice:
    """A part that was chosen and is not built yet; the node is empty if none was chosen."""

    node: Any = field(default_factory=dict)  # a mapping; ``build`` refuses anything else
    section: ClassVar[str] = ""  # the config path, of a subclass that has fields of its own

    @classmethod
    def read(cls: type[C], section: Any) -> C:
        """Read a choice from its section of a plain config.

        Raises:
            UserError: a field of this class has an invalid value.
        """
        if not isinstance(section, Mapping):
            return cls(section)
        own = {f.name for f in fields(cls)} - {"node"}
        node = {key: value for key, value in section.items() if key not in own}
        choice = cls(node, **{key: value for key, value in section.items() if key in own})
        choice._check_types()
        choice.check()
        return choice

    def _check_types(self) -> None:
        hints = typing.get_type_hints(type(self), include_extras=True)
        for name, value in vars(self).items():
            if name != "node":
                if not fits(value, hints[name]):
                    raise UserError(f"{self.section}.{name}: {value!r} is not {type_in_words(hints[name])}.")
                check_number(f"{self.section}.{name}", value, hints[name])

    def to_plain(self) -> Any:
        """Convert back to the section of a plain config."""
        if not isinstance(self.node, Mapping):
            return self.node
        return {**self.node, **{f.name: getattr(self, f.name) for f in fields(self) if f.name != "node"}}

    def check(self) -> None:
        """Raise UserError if a field of this class has an invalid value."""

    def __bool__(self) -> bool:
        return bool(self.node)

    @property
    def name(self) -> str:
        """The name of the timm model, else that of the class or function; empty if nothing was chosen."""
        return part_name(self.node or {})

    def with_keys(self: C, **values: Any) -> C:
        """Return a copy with other values for keys of the node."""
        return replace(self, node={**self.node, **values})


@dataclass
class DatasetChoice(Choice):
    """A dataset, and how its samples are loaded and normalised. The dataset itself does not read these fields."""

    section = "dataset"
    workers: Natural | None = None
    cache: str = "auto"
    max_bad: Share | None = None
    max_pixels: Count | None = None
    normalise: Any = None
    range: Any = "auto"
    buckets: Count | None = None

    def check(self) -> None:
        _check_normalise(self.normalise)
        _check_range(self.range)
        known = ("auto", "device", "memory", "none")
        if self.cache not in known:
            raise UserError(f"dataset.cache: there is no '{self.cache}'. {suggest(str(self.cache), known)}")


def _check_normalise(value: Any) -> None:
    """Raise UserError if ``value`` is neither a name nor a pair of mean and std, each of all channels or of each."""
    if value is None or value in ("measured", "imagenet"):
        return
    pair = value if isinstance(value, list) and len(value) == 2 else [None, None]
    mean, std = (part if isinstance(part, list) else [part] for part in pair)
    if not (mean and std and _are_finite((*mean, *std)) and min(std) > 0):
        raise UserError(
            f"dataset.normalise={value!r} must be measured, imagenet, null, or mean and std, such as [0.5,0.25] or "
            "[[0.5,0.4,0.3],[0.2,0.2,0.2]]."
        )


def _check_range(value: Any) -> None:
    """Raise UserError if ``value`` is neither auto nor two numbers, the lower first."""
    is_pair = isinstance(value, list) and len(value) == 2 and _are_finite(value)
    if value != "auto" and not (is_pair and value[0] < value[1]):
        raise UserError(f"dataset.range={value!r} must be auto, or the numbers that are black and white: [0,4095].")


def _are_finite(values: Sequence[Any]) -> bool:
    return all(fits(value, float) and math.isfinite(value) for value in values)


@dataclass
class EncoderChoice(Choice):
    """An encoder, the weights that it starts from, and for how many steps it keeps them.

    A resumed run does not read the weights again.
    """

    section = "encoder"
    weights: str | None = None
    freeze_steps: Natural = 0

    def check(self) -> None:
        if self.weights == "":
            raise UserError(f"encoder.weights={self.weights!r} must be a path, timm:NAME, or null.")


@dataclass
class OptimizerChoice(Choice):
    """An optimizer, and how its rate falls with the depth of the encoder's layers."""

    section = "optimizer"
    layer_decay: Annotated[float, Range(0, 1, open_low=True)] = 1.0


@dataclass
class ProbeChoice(Choice):
    """The probe at the end of a run, and the settings of online evaluation, which measures its cheap form."""

    section = "probe"
    every: Count | None = None
    share: Annotated[float, Range(0, 1, open_low=True)] | None = 0.1
    patience: Count | None = None
    patience_after: Natural = 0
