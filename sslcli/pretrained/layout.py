"""One way in which files of other projects name an encoder's tensors, and how these names become timm's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """One row of the table of layouts.

    ``marks``, ``strip``, ``drop`` and ``into`` are regular expressions that match a key from its start.

    Args:
        name: name of the layout, for messages.
        marks: a file has this layout if each of these expressions matches one of its keys.
        strip: the prefix of the encoder's keys, which is removed; keys without it do not belong to the encoder.
        drop: keys, after stripping, that do not belong to the encoder either: heads, constants.
        rename: regular expressions and replacements, applied in order to the rest of each key.
        transform: a final change of the tensors.
        into: a key that the encoder must have for this row to be used; empty for no condition.
        num_heads: (width, heads) of this project's ViTs where they differ from timm's; shapes do not show the heads.
    """

    name: str
    marks: tuple[str, ...]
    strip: str = ""
    drop: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    transform: Callable[[Weights], Weights] = dict
    into: str = ""
    num_heads: tuple[tuple[int, int], ...] = ()

    def recognises(self, keys: Iterable[str]) -> bool:
        """Return whether these keys have this layout."""
        known = list(keys)
        return all(any_matches(mark, known) for mark in self.marks)

    def renamed(self, key: str) -> str | None:
        """Return the new name of a key; None if the key does not belong to the encoder."""
        start = re.match(self.strip, key)
        if start is None:
            return None
        rest = key[start.end() :]
        if any(re.match(pattern, rest) for pattern in self.drop):
            return None
        for pattern, replacement in self.rename:
            rest = re.sub(pattern, replacement, rest)
        return rest

    def apply(self, weights: Mapping[str, Tensor]) -> Weights:
        """Return the encoder's tensors by their new names."""
        named = ((self.renamed(key), tensor) for key, tensor in weights.items())
        return self.transform({key: tensor for key, tensor in named if key is not None})


def any_matches(pattern: str, keys: Iterable[str]) -> bool:
    """Return whether a regular expression matches one of the keys from its start."""
    return any(re.match(pattern, key) for key in keys)
