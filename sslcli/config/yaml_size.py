"""How large a yaml file becomes once its aliases are written out: nine lines can stand for a billion values."""

from __future__ import annotations

from pathlib import Path

import yaml

from sslcli.errors import UserError

LIMIT = 100_000  # values; the largest of our own files has some dozens


def refuse_bombs(folder: Path) -> None:
    """Check the yaml files below a user's folder before anything expands them.

    Raises:
        UserError: one stands for more than ``LIMIT`` values.
    """
    for path in sorted(folder.rglob("*.yaml")):
        try:
            text = path.read_text() if path.is_file() else ""
            node = yaml.compose(text) if "*" in text else None
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            continue  # it is told when the file is used
        if node is not None and size(node, {}) > LIMIT:
            raise UserError(f"{path} stands for more than {LIMIT:,} values, by aliases of aliases. Write it out.")


def size(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the number of values that a node stands for; ``known`` has those of nodes that were met before."""
    if id(node) not in known:
        known[id(node)] = 1  # of an alias to what it lies in
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            inner = node.value
        elif isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(size(part, known) for part in inner)
    return known[id(node)]
