"""The launcher of a sweep with ``plan=true``: what each job would cost, in this process and without a folder."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from sslcli.run_dir.formatting import in_time
from sslcli.sweeps.job_folder import job_config


class Planned:
    """Calls the task with the config of each job; it returns the seconds that the job would take.

    Args:
        hydra_context: composes the configs.
        task_function: the task.
        config: the config of the sweep.
    """

    def __init__(self, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Plan the jobs, one after the other, and print their time together."""
        returned = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            config = job_config(self._context, self._config, overrides, number)
            HydraConfig.instance().set_config(config)
            task_config = copy.deepcopy(config)
            with open_dict(task_config):
                del task_config["hydra"]
            job = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
            job.return_value = self._task(task_config)
            returned.append(job)
        known = [job.return_value for job in returned if job.return_value is not None]
        count = f"{len(known)} job{'s' * (len(known) != 1)}"
        print(f"{count}: {in_time(sum(known))} of training one after the other", flush=True)
        return returned
