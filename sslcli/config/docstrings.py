"""What the file of a constructor says about its keys, read without importing it: imports take seconds, or fail."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import NamedTuple

_Definition = ast.ClassDef | ast.FunctionDef


class Parameter(NamedTuple):
    """A keyword-only parameter of a constructor: its default as it is written, and its text in the docstring."""

    default: str
    text: str


def parameters(target: str) -> dict[str, Parameter]:
    """Return the keyword-only parameters of ``package.module.Name``; none if its file is not found or is broken.

    Names that a module imports from another are followed, and so is the first base of a class without a constructor.
    """
    module, _, name = target.rpartition(".")
    texts: dict[str, str] = {}
    for definition in _definitions(module, name, seen=set()):
        constructor = _constructor(definition)
        texts = {**_described(definition), **texts}
        if constructor is not None:
            texts = {**_described(constructor), **texts}
            pairs = zip(constructor.args.kwonlyargs, constructor.args.kw_defaults)
            return {a.arg: Parameter(ast.unparse(d) if d else "needed", texts.get(a.arg, "")) for a, d in pairs}
    return {}


def _definitions(module: str, name: str, seen: set[tuple[str, str]]) -> Iterator[_Definition]:
    """Iterate over the definition of a name, and those of the first bases if it is a class."""
    tree = _parsed(module)
    if tree is None or (module, name) in seen:
        return
    seen.add((module, name))
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            yield node
            if isinstance(node, ast.ClassDef) and node.bases and isinstance(node.bases[0], ast.Name):
                yield from _definitions(module, node.bases[0].id, seen)
            return
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    yield from _definitions(_absolute(node, module), alias.name, seen)


def _absolute(node: ast.ImportFrom, module: str) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".") if _is_package(module) else module.split(".")[:-1]
    return ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])


def _is_package(module: str) -> bool:
    path = _file(module)
    return path is not None and path.name == "__init__.py"


def _parsed(module: str) -> ast.Module | None:
    path = _file(module)
    try:
        return ast.parse(path.read_text(encoding="utf-8")) if path is not None else None
    except (OSError, ValueError, SyntaxError, RecursionError):
        return None


def _file(module: str) -> Path | None:
    """Return the file of a module, found as Python finds it, in the current folder first; no package is imported."""
    where: list[str] | None = [str(Path.cwd()), *sys.path]
    spec = None
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:end]), where)
        if spec is None:
            return None
        where = list(spec.submodule_search_locations or [])
    origin = spec.origin if spec is not None else None
    return Path(origin) if origin and origin.endswith(".py") else None


def _constructor(definition: _Definition) -> ast.FunctionDef | None:
    if isinstance(definition, ast.FunctionDef):
        return definition
    return next((n for n in definition.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)


def _described(definition: _Definition) -> dict[str, str]:
    """Return the texts of the section ``Args:`` of a docstring, each on one line."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", inspect.cleandoc(ast.get_docstring(definition) or ""), re.M)
    entries = re.findall(r"^ {4}(\w+)(?: \([^)]*\))?: ?(.*(?:\n {5,}.*)*)", section[1], re.M) if section else []
    return {name: " ".join(text.replace("``", "").split()) for name, text in entries}
