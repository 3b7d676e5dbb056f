"""A job of a sweep: its config, and where its folder is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra.types import HydraContext
    from omegaconf import DictConfig


def job_folder(hydra: Any) -> Path:
    """Return the folder of a job of a sweep: of the number that its overrides have, else of its place in the sweep."""
    name = hydra.sweep.subdir
    return Path(hydra.sweep.dir) / (str(hydra.job.num) if name == "." else str(name))


def job_config(context: HydraContext, config: DictConfig, overrides: Sequence[str], number: int) -> DictConfig:
    """Return the config of a job, as Hydra's own launchers make it.

    Args:
        context: Hydra's context, which composes configs.
        config: the config of the sweep.
        overrides: those of the job.
        number: the place of the job in the sweep.
    """
    from omegaconf import open_dict

    found = context.config_loader.load_sweep_config(config, list(overrides))
    with open_dict(found):
        found.hydra.job.id = found.hydra.job.num = number
    return found
