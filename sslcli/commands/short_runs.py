"""The start line of a run that is as short as those that were measured and did not pass their random weights."""

from __future__ import annotations

from dataclasses import dataclass

from sslcli.config.automatic import family
from sslcli.config.composed import TrainConfig

ERROR = 1.6  # standard error of the difference of the two accuracies, in points
LONGER = 2  # times as many samples: nothing is known of such a run


@dataclass(frozen=True)
class Measured:
    """Mean 20-NN accuracy of two seeds on the embedded Fashion-MNIST, in percent (docs/results.md, short runs)."""

    family: str
    objective: str
    samples: int  # steps times batch
    trained: float
    random: float


# Runs of one to three CPU minutes in batches of 32, at 3e-3 (resnet) or 1e-3: those that gain less than two errors.
MEASURED = (
    Measured("resnet", "simmim", 3200, 52.6, 54.2),
    Measured("resnet", "byol", 3200, 56.5, 54.2),
    Measured("vit", "infonce", 4800, 48.8, 46.6),
    Measured("vit", "moco", 4800, 39.2, 46.6),
    Measured("vit", "simmim", 4800, 36.5, 46.6),
    Measured("vit", "joint", 4800, 47.4, 46.6),
    Measured("vit", "infomax", 4800, 48.4, 46.6),
    Measured("vit", "byol", 4800, 37.7, 46.6),
    Measured("convnext", "infonce", 2560, 67.9, 69.3),
    Measured("convnext", "moco", 2560, 66.5, 69.3),
    Measured("convnext", "simmim", 2560, 66.9, 69.3),
    Measured("convnext", "joint", 2560, 68.8, 69.3),
    Measured("convnext", "infomax", 2560, 68.7, 69.3),
    Measured("convnext", "byol", 2560, 66.3, 69.3),
    Measured("swin", "infonce", 2560, 63.9, 69.6),
    Measured("swin", "moco", 2560, 54.0, 69.6),
    Measured("swin", "simmim", 2560, 53.5, 69.6),
    Measured("swin", "joint", 2560, 63.0, 69.6),
    Measured("swin", "infomax", 2560, 61.0, 69.6),
    Measured("swin", "byol", 2560, 51.4, 69.6),
)


def short_run_lines(config: TrainConfig, samples: int | None) -> list[str]:
    """Return a line if runs of this length were not better than random weights, else none.

    Args:
        config: the run's config.
        samples: the samples that the run will see; None if its length is given in minutes.
    """
    if samples is None:
        return []
    kind, objective = family(config.encoder.node), config.objective.name.lower()
    return [
        f"{row.samples:,} samples were too few for a {kind}: {row.trained} % kNN, random weights {row.random} % "
        f"(± {ERROR}): train longer"
        for row in MEASURED
        if (row.family, row.objective) == (kind, objective) and samples < LONGER * row.samples
    ]
