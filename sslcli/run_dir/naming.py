"""The default run directory, named after the config, so that the same command finds its run again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sslcli.config.composed import TrainConfig, read
from sslcli.config.identity import fingerprint, name_prefix, run_name
from sslcli.errors import UserError
from sslcli.run_dir.layout import read_config


def default_run_dir(config: TrainConfig, choices: Mapping[str, str], folder: Path = Path("runs")) -> Path:
    """Return the directory of the run that ``config`` describes, also if an older version of this tool started it.

    A run of an older version may have a different name, because the config had other keys or class names. If there is
    no run with the current name, the updated configs of all runs with the same name prefix are compared.

    Args:
        config: the config of the command.
        choices: the chosen option of each config group, for the readable part of the name.
        folder: the folder of all runs.
    """
    path = folder / run_name(config, choices)
    if path.exists():
        return path
    wanted = fingerprint(config)
    candidates = sorted(folder.glob(f"{name_prefix(choices)}????????"))
    return next((candidate for candidate in candidates if _fingerprint_of(candidate) == wanted), path)


def _fingerprint_of(run_dir: Path) -> str | None:
    """Return the fingerprint of the config in a run directory; None if it cannot be read."""
    try:
        return fingerprint(read(read_config(run_dir), TrainConfig))
    except (UserError, TypeError):
        return None
