"""The default run directory, named after the settings and the data, so that the same command finds its run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from sslcli.config.automatic import AUTO
from sslcli.config.composed import TrainConfig, restored
from sslcli.config.identity import Content, name_prefix, places, run_name, settings
from sslcli.errors import UserError
from sslcli.run_dir.layout import read_config

FOLDER = Path("runs")  # of all runs without a ``run_dir``


def default_run_dir(
    config: TrainConfig, choices: Mapping[str, str], content: Content, is_of_same_content: Callable[[Path], bool]
) -> Path:
    """Return the directory of the run that ``config`` describes, also if an older version of this tool started it.

    A run of an older version may have a different name, because the config had other keys or class names. If there is
    no run with the current name, the updated settings of all runs with the same name prefix are compared.

    Args:
        config: the config of the command.
        choices: the chosen option of each config group, for the readable part of the name.
        content: digests of the data and the initial weights.
        is_of_same_content: whether a run directory with equal settings was trained on these data from these weights.
    """
    path = FOLDER / run_name(config, choices, content)
    if path.exists():
        return path
    return next((run_dir for run_dir, _ in _of_equal_settings(config, choices) if is_of_same_content(run_dir)), path)


def run_dir_of_same_places(config: TrainConfig, choices: Mapping[str, str]) -> Path | None:
    """Return the directory of a run with this config and these very paths, whose data cannot be read now; else None."""
    found = _of_equal_settings(config, choices)
    return next((run_dir for run_dir, before in found if places(before) == places(config)), None)


def _of_equal_settings(config: TrainConfig, choices: Mapping[str, str]) -> Iterator[tuple[Path, TrainConfig]]:
    """Yield the runs whose settings are those of ``config``, with their configs."""
    own, is_auto = settings(config), config.train.accumulate == AUTO
    for run_dir in sorted(FOLDER.glob(f"{name_prefix(choices)}????????")):
        try:
            before = restored(read_config(run_dir))
        except UserError:
            continue
        if settings(_as_auto(before) if is_auto else before) == own:
            yield run_dir, before


def _as_auto(config: TrainConfig) -> TrainConfig:
    """Return the config of a run as ``train.accumulate=auto`` describes it, whatever number that has found."""
    return replace(config, train=replace(config.train, accumulate=AUTO))
