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


# Runs of one to three CPU minutes in batches of 32: those that gain less than two errors.
MEASURED = (
    Measured("resnet", "simmim", 3200, 52.6, 54.2),
    Measured("resnet", "byol", 3200, 56.5, 54.2),
    Measured("vit", "moco", 4800, 47.0, 46.6),
    Measured("vit", "simmim", 4800, 39.7, 46.6),
    Measured("vit", "byol", 4800, 46.0, 46.6),
    Measured("convnext", "infonce", 2560, 68.0, 69.3),
    Measured("convnext", "moco", 2560, 66.6, 69.3),
    Measured("convnext", "simmim", 2560, 66.5, 69.3),
    Measured("convnext", "joint", 2560, 68.5, 69.3),
    Measured("convnext", "infomax", 2560, 67.6, 69.3),
    Measured("convnext", "byol", 2560, 66.0, 69.3),
    Measured("swin", "infonce", 2560, 65.5, 69.6),
    Measured("swin", "moco", 2560, 59.2, 69.6),
    Measured("swin", "simmim", 2560, 60.5, 69.6),
    Measured("swin", "joint", 2560, 66.8, 69.6),
    Measured("swin", "infomax", 2560, 64.7, 69.6),
    Measured("swin", "byol", 2560, 57.4, 69.6),
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
