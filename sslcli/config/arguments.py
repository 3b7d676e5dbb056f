"""Prepares the command line for Hydra: order of flags, ``~``, the folder of a sweep, the folders of configs."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sslcli.config.paths import expand
from sslcli.config.secrets import hide
from sslcli.errors import UserError, suggest

_FLAGS = {"-h", "--help", "--version", "--hydra-help", "-m", "--multirun", "--resolve", "-r", "--run", "-sc",
          "--shell-completion"}  # fmt: skip
_FLAGS_WITH_VALUE = {"--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p",
                     "--cfg", "-c", "--info", "-i"}  # fmt: skip


def flags_first(arguments: list[str]) -> list[str]:
    """Move flags before overrides, because Hydra 1.3 stops reading overrides at the first flag (hydra issue 3053).

    Raises:
        UserError: there is no such flag.
    """
    flags, overrides = [], []
    rest = iter(arguments)
    for argument in rest:
        name = argument.partition("=")[0]
        if not argument.startswith("-"):
            overrides.append(argument)
        elif name not in _FLAGS | _FLAGS_WITH_VALUE:
            raise UserError(f"There is no flag '{name}'. {suggest(name, _FLAGS | _FLAGS_WITH_VALUE)}")
        else:
            flags.append(argument)
            if argument in _FLAGS_WITH_VALUE:
                value = next(rest, None)
                if value is None:
                    raise UserError(f"{argument}: a value must follow. The flag stands last.")
                if argument in ("--cfg", "-c") and value not in ("job", "hydra", "all"):
                    raise UserError(f"{argument} {value}: there is no such part. Known: job, hydra, all.")
                flags.append(value)
    return flags + overrides


def home_expanded(argument: str) -> str:
    """Replace ``~`` in ``key=~/x``: a shell does not expand it there, and Hydra's grammar does not allow it."""
    key, equals, value = argument.partition("=")
    return f"{key}={expand(value)}" if equals and value.startswith("~") else argument


def sweep_dir(arguments: list[str]) -> Path:
    """Return the folder of a sweep: ``run_dir`` if it is given, else a name computed from the overrides."""
    overrides = [a for a in arguments if not a.startswith("-")]
    given = [a.partition("=")[2].strip("'\"") for a in overrides if a.lstrip("+").startswith("run_dir=")]
    if given and given[-1] not in ("", "null"):
        return expand(given[-1])
    return Path("runs") / f"sweep-{hashlib.sha256(hide(' '.join(overrides)).encode()).hexdigest()[:8]}"


def conf_dir() -> str:
    """Return the folder of the yaml files: inside an installed package, or next to the package in a checkout.

    Raises:
        UserError: there is no such folder.
    """
    here = Path(__file__).resolve().parents[1]
    for path in (here / "conf", here.parent / "conf"):
        if (path / "train.yaml").is_file():
            return str(path)
    raise UserError("The folder conf/ is missing from this installation. Install sslcli again.")


def config_dir(arguments: list[str]) -> str | None:
    for flag, value in zip(arguments, [*arguments[1:], ""]):
        name, equals, joined = flag.partition("=")
        if name in ("--config-dir", "-cd"):
            return joined if equals else value
    return None
