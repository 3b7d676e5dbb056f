"""Builds objects from config nodes: ``{_target_: module.Class, key: value}`` becomes ``Class(*injected, key=value)``.

The constructor of a part is the schema of its node: positional parameters are injected by the code, keyword-only
parameters are the keys of the yaml, and their annotations are the types that are checked.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sslcli.config.ranges import check_number, largest
from sslcli.config.value_types import fits, type_in_words
from sslcli.errors import UserError, described, is_out_of_memory, suggest

T = TypeVar("T")

_allowed: list[str] = ["sslcli"]


def allow(plugins: Sequence[str]) -> None:
    """Allow `_target_` to name classes of ``plugins``, which must come from the command line, never from a checkpoint.

    Raises:
        UserError: a package cannot be found.
    """
    _allowed[:] = ["sslcli", *plugins]
    here = str(Path.cwd())
    if plugins and here not in sys.path:
        sys.path.insert(0, here)
    for name in plugins:
        if not all(part.isidentifier() for part in name.split(".")):
            raise UserError(f"plugins: '{name}' is not the name of a package.")
        try:
            importlib.import_module(name)
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # our own signals raise something else
            if isinstance(error, ModuleNotFoundError) and name.startswith(str(error.name)):
                reason = f"there is no package '{name}'. Install it, or start in the folder that holds it."
            else:
                reason = f"'{name}' cannot be imported ({described(error)}). Mend it, or leave it out."
            raise UserError(f"plugins: {reason}") from error


def locate(target: Any, where: str) -> Callable[..., Any]:
    """Return the class or function that `_target_` names, in this package or in an allowed plugin.

    Raises:
        UserError: `_target_` is missing, outside these packages, or does not exist.
    """
    if not isinstance(target, str):
        raise UserError(f"{where}: the key '_target_' is missing; it names the class to build.")
    if not any(target.startswith(f"{package}.") for package in _allowed):
        if "." not in target:
            raise UserError(f"{where}._target_: '{target}' is no whole name. Write package.module.{target or 'Class'}.")
        raise UserError(
            f"{where}._target_: '{target}' is outside {', '.join(_allowed)}. "
            f"If you trust it, add its package to the command: plugins=[{target.partition('.')[0]}]"
        )
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):  # one that the module imports
            raise UserError(f"{where}._target_: '{module_name}' cannot be imported ({described(error)}).") from error
        raise UserError(f"{where}._target_: there is no module '{error.name}'.") from error
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # our own signals raise something else
        raise UserError(f"{where}._target_: '{module_name}' cannot be imported ({described(error)}).") from error
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, vars(module), n=1)
        hint = f" Did you mean '{module_name}.{near[0]}'?" if near else ""
        raise UserError(f"{where}._target_: '{module_name}' has no '{name}'.{hint}")
    return typing.cast(Callable[..., Any], getattr(module, name))


def build(node: Mapping[str, Any], base: type[T], *injected: Any, where: str) -> T:
    """Build the part that ``node`` describes, after checking the names and types of its keys.

    Args:
        node: a plain mapping with ``_target_`` and the part's keyword-only parameters.
        base: the class that the result must be an instance of.
        injected: the positional arguments.
        where: the config path of the node, for messages.

    Raises:
        UserError: the target is not allowed; a key is unknown, missing, of the wrong type or out of range; or the
            constructor raises any error.
    """
    if isinstance(node, str) and "." in where:
        group = where.partition(".")[0]
        raise UserError(f"{where}: the text '{node}' stands where a part belongs. Write {group}@{where}={node}")
    if not isinstance(node, Mapping):
        raise UserError(f"{where}: {node!r} is not a section with a '_target_'.")
    factory = locate(node.get("_target_"), where)
    if not inspect.isclass(factory) and not inspect.isfunction(factory):
        raise UserError(f"{where}._target_: {node['_target_']} is neither a class nor a function.")
    hints = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory, include_extras=True)
    made = factory if inspect.isclass(factory) else hints.get("return")
    if not (inspect.isclass(made) and issubclass(made, base)):  # known before anything is called
        fault = "is not" if inspect.isclass(factory) else "is not annotated to return"
        raise UserError(f"{where}._target_: {node['_target_']} {fault} a {base.__name__}.")
    values = {key: value for key, value in node.items() if key != "_target_"}
    name = getattr(factory, "__name__", str(factory))
    parameters = {
        key: parameter
        for key, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    for key, value in values.items():
        if key not in parameters:
            raise UserError(f"Unknown key '{where}.{key}'. {suggest(str(key), parameters)}")
        if value is None and parameters[key].default is inspect.Parameter.empty:
            raise UserError(f"{where}.{key} is needed by {name}. Set it: {where}.{key}=...")
        if not fits(value, hints.get(key, Any)):
            raise UserError(f"{where}.{key}: {value!r} is not {type_in_words(hints[key])}.")
        check_number(f"{where}.{key}", value, hints.get(key, Any))
    for key, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and key not in values:
            raise UserError(f"{where}.{key} is needed by {name}. Set it: {where}.{key}=...")
    try:
        part = factory(*injected, **values)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{where}: {_failure(error, node['_target_'], where, values)}") from error
    if not isinstance(part, base):
        raise UserError(f"{where}._target_: {name} is not a {base.__name__}.")
    return part


def _failure(error: Exception, target: str, where: str, values: Mapping[str, Any]) -> str:
    """Return why a constructor failed: our own raise ValueError with a message that names the key."""
    if is_out_of_memory(error):
        return f"{target} needs more memory than there is.{largest(f'{where}.', values)}"
    if type(error) is ValueError:
        return str(error)
    return f"{target} cannot be built ({described(error)}).{largest(f'{where}.', values)}"
