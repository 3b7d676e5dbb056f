"""MLflow: a database in the run directory, or a server.

``mlflow ui --backend-store-uri sqlite:///RUN_DIR/mlflow.db`` shows the database.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sslcli.config.identity import flatten
from sslcli.data.pictures.encode import drawn
from sslcli.loggers.base import Logger, require

_KEY = "sslcli.run_dir"
_BATCH = 100  # largest number of parameters in one call


class MLflow(Logger):
    """Config, scalars, pictures and results as one MLflow run; MLflow's telemetry is switched off.

    A resumed session continues that run. MLflow cannot delete logged values, so steps that are trained again after a
    kill are not logged again; with the same command their values are the same.

    Args:
        tracking_uri: MLflow's storage; null is ``mlflow.db`` and ``mlflow/`` in the run directory.
        experiment: name of the MLflow experiment.
    """

    takes_pictures = True

    def __init__(self, *, tracking_uri: str | None = None, experiment: str = "sslcli") -> None:
        for package in ("mlflow", "sqlalchemy", "alembic"):
            require(package, "mlflow")
        self._uri, self._experiment = tracking_uri, experiment
        self._client: Any = None
        self._run_id = ""
        self._last: dict[str, int] = {}  # per metric: the last logged step

    def start(self, settings: Mapping[str, Any], run_dir: Path, step: int) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)  # do not report the creation of tables
        folder = run_dir.resolve()
        uri = self._uri or f"sqlite:///{folder}/mlflow.db"
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        found = self._client.get_experiment_by_name(self._experiment)
        place = None if self._uri else (folder / "mlflow").as_uri()
        experiment = found.experiment_id if found else self._client.create_experiment(self._experiment, place)
        before = self._continued(experiment, str(folder)) if step else None
        self._run_id = before or self._fresh(experiment, settings, folder)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        # Per metric: a step may have two lines, and the run may have been killed between them.
        new = {name: v for name, v in values.items() if name != "step" and step > self._last.get(name, 0)}
        if new:
            self._log(new, step)

    def pictures(self, step: int, name: str, images: Tensor) -> None:
        for k, picture in enumerate(images):
            self._client.log_image(self._run_id, drawn(picture), f"{name}/step-{step:08d}-{k}.png")

    def finish(self, metrics: Mapping[str, float]) -> None:
        self._log({f"result/{name}": value for name, value in metrics.items()}, max(self._last.values(), default=0))
        self._client.set_terminated(self._run_id, "FINISHED" if metrics else "KILLED")

    def _log(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(self._run_id, metrics=[Metric(name, value, now, step) for name, value in values.items()])
        self._last |= dict.fromkeys(values, step)

    def _continued(self, experiment: str, folder: str) -> str | None:
        """Return the id of the MLflow run that an earlier session created for this directory, if any."""
        for run in self._client.search_runs([experiment]):
            if run.data.tags.get(_KEY) == folder:
                for name in run.data.metrics:
                    history = self._client.get_metric_history(run.info.run_id, name)
                    self._last[name] = max(metric.step for metric in history)
                self._client.update_run(run.info.run_id, status="RUNNING")
                return str(run.info.run_id)
        return None

    def _fresh(self, experiment: str, settings: Mapping[str, Any], folder: Path) -> str:
        from mlflow.entities import Param

        made = self._client.create_run(experiment, run_name=folder.name, tags={_KEY: str(folder)})
        params = [Param(key, str(value)[:500]) for key, value in flatten(settings).items()]
        for start in range(0, len(params), _BATCH):
            self._client.log_batch(made.info.run_id, params=params[start : start + _BATCH])
        return str(made.info.run_id)
