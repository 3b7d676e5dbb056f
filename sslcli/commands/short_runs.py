"""The start line of a run that is as short as those that were measured and did not pass their random weights."""

from __future__ import annotations

from dataclasses import dataclass

from sslcli.config.automatic import family
from sslcli.config.composed import TrainConfig

LONGER = 2  # times as many samples: nothing is known of such a run
FASHION, EMOJI = "Fashion-MNIST", "emoji"
ERRORS = {FASHION: 1.6, EMOJI: 2.2}  # standard error of a difference of two accuracies in points: two seeds, and one


@dataclass(frozen=True)
class Measured:
    """Mean 20-NN accuracy over the seeds, in percent (docs/results.md, short runs)."""

    family: str
    objective: str
    samples: int  # steps times batch
    data: str
    trained: float
    random: float

    @property
    def error(self) -> float:
        """The standard error of the gain, in points."""
        return ERRORS[self.data]


# Runs of one to three CPU minutes in batches of 32: those that gain less than two errors.
MEASURED = (
    Measured("resnet", "simmim", 3200, FASHION, 52.6, 54.2),
    Measured("resnet", "byol", 3200, FASHION, 56.5, 54.2),
    Measured("vit", "moco", 4800, FASHION, 47.0, 46.6),
    Measured("vit", "simmim", 4800, FASHION, 39.7, 46.6),
    Measured("vit", "byol", 4800, FASHION, 46.0, 46.6),
    Measured("convnext", "infonce", 2560, FASHION, 68.0, 69.3),
    Measured("convnext", "moco", 2560, FASHION, 66.6, 69.3),
    Measured("convnext", "simmim", 2560, FASHION, 66.5, 69.3),
    Measured("convnext", "joint", 2560, FASHION, 68.5, 69.3),
    Measured("convnext", "infomax", 2560, FASHION, 67.6, 69.3),
    Measured("convnext", "byol", 2560, FASHION, 66.0, 69.3),
    Measured("swin", "infonce", 2560, FASHION, 65.5, 69.6),
    Measured("swin", "moco", 2560, FASHION, 59.2, 69.6),
    Measured("swin", "simmim", 2560, FASHION, 60.5, 69.6),
    Measured("swin", "joint", 2560, FASHION, 66.8, 69.6),
    Measured("swin", "infomax", 2560, FASHION, 64.7, 69.6),
    Measured("swin", "byol", 2560, FASHION, 57.4, 69.6),
    Measured("resnet", "infonce", 3200, EMOJI, 40.9, 43.0),
    Measured("resnet", "moco", 3200, EMOJI, 39.9, 43.0),
    Measured("resnet", "simmim", 3200, EMOJI, 38.4, 43.0),
    Measured("resnet", "joint", 3200, EMOJI, 40.6, 43.0),
    Measured("resnet", "infomax", 3200, EMOJI, 40.0, 43.0),
    Measured("resnet", "byol", 3200, EMOJI, 42.0, 43.0),
    Measured("vit", "infonce", 4800, EMOJI, 30.7, 31.7),
    Measured("vit", "moco", 4800, EMOJI, 32.4, 31.7),
    Measured("vit", "simmim", 4800, EMOJI, 31.8, 31.7),
    Measured("vit", "joint", 4800, EMOJI, 31.2, 31.7),
    Measured("vit", "infomax", 4800, EMOJI, 30.0, 31.7),
    Measured("vit", "byol", 4800, EMOJI, 28.2, 31.7),
    Measured("convnext", "infonce", 2560, EMOJI, 33.5, 37.3),
    Measured("convnext", "moco", 2560, EMOJI, 31.7, 37.3),
    Measured("convnext", "simmim", 2560, EMOJI, 34.0, 37.3),
    Measured("convnext", "joint", 2560, EMOJI, 33.8, 37.3),
    Measured("convnext", "infomax", 2560, EMOJI, 34.4, 37.3),
    Measured("convnext", "byol", 2560, EMOJI, 31.8, 37.3),
    Measured("swin", "infonce", 2560, EMOJI, 29.6, 37.3),
    Measured("swin", "moco", 2560, EMOJI, 30.5, 37.3),
    Measured("swin", "simmim", 2560, EMOJI, 25.9, 37.3),
    Measured("swin", "joint", 2560, EMOJI, 29.8, 37.3),
    Measured("swin", "infomax", 2560, EMOJI, 31.0, 37.3),
    Measured("swin", "byol", 2560, EMOJI, 33.7, 37.3),
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
    rows = [
        row for row in MEASURED if (row.family, row.objective) == (kind, objective) and samples < LONGER * row.samples
    ]
    if not rows:
        return []
    on = [f"{row.data} {row.trained} % kNN, random weights {row.random} % (± {row.error})" for row in rows]
    return [f"{rows[0].samples:,} samples were too few for a {kind}: {'; '.join(on)}. Train longer"]
