"""The start line of a run that is as short as one that was measured and did not pass its random initialisation."""

from __future__ import annotations

from dataclasses import dataclass

from sslcli.config.automatic import family
from sslcli.config.composed import TrainConfig

LONGER = 2  # times as many samples: nothing is known of such a run


@dataclass(frozen=True)
class Measured:
    """20-NN accuracy on the embedded Fashion-MNIST, in percent (docs/results.md, short runs)."""

    family: str
    objective: str
    samples: int  # steps times batch
    trained: float
    random: float


# With the defaults of family and objective, one to three CPU minutes each: those that are not above random weights.
MEASURED = (
    Measured("resnet", "simmim", 3200, 52.4, 52.9),
    Measured("vit", "infonce", 3840, 50.1, 51.6),
    Measured("vit", "moco", 4800, 40.2, 45.7),
    Measured("vit", "simmim", 4800, 37.4, 45.7),
    Measured("vit", "joint", 4800, 44.4, 45.7),
    Measured("vit", "infomax", 4800, 45.7, 45.7),
    Measured("vit", "byol", 4800, 40.2, 45.7),
    Measured("convnext", "infonce", 2560, 67.9, 69.0),
    Measured("convnext", "moco", 2560, 66.6, 69.0),
    Measured("convnext", "simmim", 2560, 67.1, 69.0),
    Measured("convnext", "joint", 2560, 67.5, 69.0),
    Measured("convnext", "infomax", 2560, 68.0, 69.0),
    Measured("convnext", "byol", 2560, 65.9, 69.0),
    Measured("swin", "infonce", 2560, 63.3, 69.2),
    Measured("swin", "moco", 2560, 58.9, 69.2),
    Measured("swin", "simmim", 2560, 50.8, 69.2),
    Measured("swin", "joint", 2560, 63.7, 69.2),
    Measured("swin", "infomax", 2560, 61.9, 69.2),
    Measured("swin", "byol", 2560, 57.9, 69.2),
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
        f"{row.samples:,} samples left a {kind} at {row.trained} % kNN, and random weights have {row.random} %: "
        "train longer"
        for row in MEASURED
        if (row.family, row.objective) == (kind, objective) and samples < LONGER * row.samples
    ]
