"""The default sweeper: every combination of the values that are given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from sslcli.config.arguments import key_of
from sslcli.errors import UserError
from sslcli.sweeps.numbered import Numbered
from sslcli.sweeps.planned import Planned


class GridSweeper(Sweeper):
    """Hydra's basic sweeper, except that a job's folder is found by its overrides, also when the sweep goes on.

    Unlike Hydra's it writes no ``multirun.yaml``, in which the passwords of URLs would stand; see ``sweep.json``.

    Args:
        max_batch_size: jobs that are handed to the launcher at once; None for all.
        params: further overrides with several values.
    """

    def __init__(self, max_batch_size: int | None = None, params: Mapping[str, str] | None = None) -> None:
        self.max_batch_size, self.params = max_batch_size, params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run the jobs; first make sure that the config of each can be composed."""
        assert self.hydra_context is not None and self.config is not None and self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        for override in overrides:
            if override.is_interval_sweep():
                raise UserError(
                    f"{override.input_line}: there is no end of values in an interval. hydra/sweeper=optuna searches "
                    f"it; for a grid, give values: {override.key_or_group}=A,B,C"
                )
        swept = {key_of(override.get_key_element()) for override in overrides if override.is_sweep_override()}
        launcher: Numbered | Planned = Numbered(self.launcher, Path(self.config.hydra.sweep.dir), swept)
        if self.config.get("plan"):
            launcher = Planned(self.hydra_context, self.task_function, self.config)
        batches = BasicSweeper.split_arguments(overrides, self.max_batch_size)
        for batch in batches:
            self.validate_batch_is_legal(batch)
        begun = 0
        for batch in batches:
            for job in launcher.launch(batch, begun):
                _ = job.return_value  # raises the error of a job that failed, where the launcher has caught it
            begun += len(batch)
