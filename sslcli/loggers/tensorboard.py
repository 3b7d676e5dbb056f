"""TensorBoard: ``tensorboard --logdir RUN_DIR/tensorboard``, or the folder of all runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

from sslcli.loggers.base import Logger, require


class TensorBoard(Logger):
    """Event files in ``run_dir/tensorboard``: scalars, pictures, and at the end the embedding for the projector.

    Args:
        flush: longest time in seconds before events are written to disk.
    """

    takes_pictures = True

    def __init__(self, *, flush: int = 30) -> None:
        require("tensorboard", "tensorboard")
        if flush < 1:
            raise ValueError(f"flush={flush} must be at least 1 second")
        self._flush = flush
        self._writer: Any = None
        self._step = 0

    def start(self, settings: Mapping[str, Any], run_dir: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._step = step
        # Discard events after the checkpoint from which the run resumes: these steps are trained again.
        self._writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1, flush_secs=self._flush)
        self._writer.add_text("config", f"```yaml\n{OmegaConf.to_yaml(OmegaConf.create(dict(settings)))}```", step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._step = step
        for name, value in values.items():
            if name != "step":
                self._writer.add_scalar(name, value, step)

    def pictures(self, step: int, name: str, images: Tensor) -> None:
        self._writer.add_images(name, images, step)

    def embedding(self, step: int, features: Tensor, classes: list[str] | None, thumbnails: Tensor | None) -> None:
        if thumbnails is not None:
            thumbnails = thumbnails.expand(-1, 3, -1, -1)
        self._writer.add_embedding(features, classes, thumbnails, step, tag="features")

    def finish(self, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(f"result/{name}", value, self._step)
        self._writer.close()
