"""Where a run lives if the user does not say it: a name from its config, under which the same command finds it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sslcli.config.composed import TrainConfig, read
from sslcli.config.identity import fingerprint, name_prefix, run_name
from sslcli.errors import UserError
from sslcli.run_dir.layout import read_config


def default_run_dir(config: TrainConfig, choices: Mapping[str, str], folder: Path = Path("runs")) -> Path:
    """The directory of the run that ``config`` describes, whichever version of this tool began it.

    A run of an earlier version has another name where that version's config had other keys, or named its classes
    elsewhere. So where there is no run of today's name, those of the same prefix are asked for the config that they
    hold, brought up to date.

    Args:
        config: of the command.
        choices: the options by their groups, for the part of the name that people read.
        folder: where runs are.
    """
    path = folder / run_name(config, choices)
    if path.exists():
        return path
    wanted = fingerprint(config)
    older = sorted(folder.glob(f"{name_prefix(choices)}????????"))
    return next((place for place in older if _fingerprint_of(place) == wanted), path)


def _fingerprint_of(run_dir: Path) -> str | None:
    """That of the config in a run directory; None if there is none that can be read."""
    try:
        return fingerprint(read(read_config(run_dir), TrainConfig))
    except (UserError, TypeError):
        return None
