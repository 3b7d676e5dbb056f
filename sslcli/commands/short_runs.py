"""The start line of a run that is as short as one that was measured and did not pass its random initialisation."""

from __future__ import annotations

from dataclasses import dataclass

from sslcli.config.automatic import family
from sslcli.config.composed import TrainConfig

LONGER = 2  # times as many samples: nothing is known of such a run


@dataclass(frozen=True)
class Measured:
    """20-NN accuracy on a held-out fifth of the embedded Fashion-MNIST, in percent (docs/results.md, short runs)."""

    family: str
    objective: str
    samples: int  # steps times batch
    trained: float
    random: float


# With the defaults of family and objective, one CPU minute each.
MEASURED = (
    Measured("vit", "infonce", 3840, 50.1, 51.6),
    Measured("vit", "simmim", 3840, 36.7, 51.6),
    Measured("vit", "byol", 3840, 45.5, 51.6),
    Measured("convnext", "infonce", 1920, 72.3, 73.0),
    Measured("convnext", "simmim", 1920, 70.9, 73.0),
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
