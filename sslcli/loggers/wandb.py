"""Weights & Biases, offline: ``wandb sync RUN_DIR/wandb/offline-run-*`` uploads a run when its owner wants to."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from sslcli.data.pictures.encode import drawn
from sslcli.loggers.base import Logger, require
from sslcli.run_dir import inside


class WandB(Logger):
    """Scalars, pictures and results in ``run_dir/wandb``. No machine data, no code, no error reports are collected.

    The sessions of a run share an id, which is stored in its directory, so that uploading them gives one curve.

    Args:
        mode: ``offline`` writes files only; ``online`` sends the logged values to the service and needs its API key.
        project: name of the W&B project.
        entity: W&B user or team; null is the service's default.
    """

    takes_pictures = True

    def __init__(
        self, *, mode: Literal["offline", "online"] = "offline", project: str = "sslcli", entity: str | None = None
    ) -> None:
        require("wandb", "wandb")
        self._mode, self._project, self._entity = mode, project, entity
        self._run: Any = None

    def start(self, settings: Mapping[str, Any], run_dir: Path, step: int) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._run = wandb.init(
            mode=self._mode,
            project=self._project,
            entity=self._entity,
            dir=str(run_dir),
            name=run_dir.name,
            id=_identity(run_dir / "wandb"),
            resume="allow",
            config=dict(settings),
            settings=wandb.Settings(
                silent=True,
                console="off",  # it would replace this process's output streams
                disable_code=True,
                disable_git=True,
                x_disable_meta=True,
                x_disable_stats=True,
            ),
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({name: value for name, value in values.items() if name != "step"}, step=step)

    def pictures(self, step: int, name: str, images: Tensor) -> None:
        import wandb

        self._run.log({name: [wandb.Image(drawn(picture)) for picture in images]}, step=step)

    def finish(self, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._run.summary[f"result/{name}"] = value
        self._run.finish()


def _identity(folder: Path) -> str:
    """Return the run's W&B id, which its first session creates."""
    folder.mkdir(exist_ok=True)
    known = inside.read(folder, "id")
    if known is None:
        known = secrets.token_hex(8).encode()
        inside.write(folder, "id", lambda file: file.write(known))
    return known.decode(errors="replace")
