"""What the commands that read a checkpoint have in common: where they compute, and what they may take of your time."""

from __future__ import annotations

from sslcli.components import Components
from sslcli.config.composed import TrainConfig
from sslcli.config.sections import DeviceSection
from sslcli.evaluation.measure import embedder, random_init
from sslcli.report.collect import collect_visuals
from sslcli.report.visuals import Visuals
from sslcli.run_dir.checkpoint import State
from sslcli.training.device import choose, set_threads
from sslcli.types import Compute


def compute_for(device: DeviceSection, state: State) -> Compute:
    """Where a checkpoint's run is measured: as the command says, else with the run's threads and precision."""
    set_threads(device.threads or state["environment"]["threads"])
    precision = state["config"].train.precision
    return choose(device.name, "auto" if precision == "fp16" else precision)  # which a CPU does not have


def budget(train_seconds: float) -> float:
    """Seconds that a probe at the end of a run may take: a tenth of the training, at least 15."""
    return max(15.0, 0.1 * train_seconds)


def visuals_of(
    config: TrainConfig, components: Components, compute: Compute, *, seconds: float, thumbnails: bool = False
) -> Visuals:
    """What there is to show of a trained model; ``seconds`` is how long it was trained."""
    workers = config.dataset.workers
    untrained = random_init(config, components, compute, samples=512)
    return collect_visuals(
        components,
        compute,
        embed=embedder(components.encoder, components.views, compute, workers=workers),
        untrained=embedder(untrained, components.views, compute, workers=workers),
        seed=config.seed,
        budget=budget(seconds),
        thumbnails=thumbnails,
    )
