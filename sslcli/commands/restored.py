"""Functions shared by the commands that read a checkpoint: device and precision, time budget, visuals."""

from __future__ import annotations

from sslcli.components import Components
from sslcli.config.choices import DatasetChoice
from sslcli.config.composed import TrainConfig
from sslcli.config.sections import DeviceSection
from sslcli.errors import UserError
from sslcli.evaluation.measure import embedder, random_init
from sslcli.evaluation.pca import principal_axes
from sslcli.report.collect import collect_visuals
from sslcli.report.visuals import Visuals
from sslcli.run_dir.checkpoint import State
from sslcli.training.device import choose, set_threads
from sslcli.types import Compute


def compute_for(device: DeviceSection, state: State) -> Compute:
    """Return the device and precision for a checkpoint: the command's device, the run's threads and precision."""
    set_threads(device.threads or state["environment"]["threads"])
    return compute_of(device, state["config"].train.precision)


def compute_of(device: DeviceSection, precision: str) -> Compute:
    """Return the device and the precision of a run that was trained elsewhere; a CPU does not support fp16."""
    return choose(device.name, "auto" if precision == "fp16" else precision)


def refuse_fitting(dataset: DatasetChoice) -> None:
    """Raise UserError if the data that a run is evaluated on are to be normalised in another way than in training."""
    if dataset.normalise is not None:
        raise UserError("dataset.normalise: a trained encoder reads data as it was trained to. Leave this out.")


def budget(train_seconds: float) -> float:
    """Return the seconds that a probe at the end of a run may take: a tenth of the training time, at least 15."""
    return max(15.0, 0.1 * train_seconds)


def visuals_of(
    config: TrainConfig, components: Components, compute: Compute, *, seconds: float, thumbnails: bool = False
) -> Visuals:
    """Return the visuals of a trained model for its report; ``seconds`` is the training time."""
    workers = config.dataset.workers
    untrained = random_init(config, components, compute, samples=512)
    return collect_visuals(
        components,
        compute,
        embed=embedder(components.encoder, components.views, compute, workers=workers),
        untrained=embedder(untrained, components.views, compute, workers=workers),
        random_init=untrained,
        axes=principal_axes,
        seed=config.seed,
        budget=budget(seconds),
        thumbnails=thumbnails,
    )
