"""Label-free metrics of held-out samples, with raw input and the random initialisation as baselines."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcli.data.base import drawn
from sslcli.evaluation.base import Metric, Probe, compared
from sslcli.evaluation.context import ProbeContext
from sslcli.evaluation.label_free import HIGHER_IS_BETTER, spread

_FEWEST = 16  # samples needed for the metrics
_WORDS = {
    "rankme": "effective rank of {clean}",
    "alignment": "mean squared distance of {pairs}, on the sphere",
    "uniformity": "log mean exp(-2 squared distance) of {clean}, on the sphere",
    "dimension_std": "std of a dimension of {clean}, on the sphere",
    "lidar": "effective rank of the directions that separate {groups}",
    "alpha_req": "decay of the spectrum of {clean}",
    "alpha_req_r2": "how well a power law fits the spectrum of {clean}",
}


class Geometry(Probe):
    """RankMe, LiDAR, alpha-ReQ, alignment, uniformity and the std of a dimension; see ``label_free`` for each.

    Args:
        samples: number of held-out samples, each read as a clean view and as two random views.
        lidar_samples: number of samples for LiDAR; its paper uses 1000.
        lidar_views: number of random views of each of them; its paper uses 50.
    """

    def __init__(self, *, samples: int = 2048, lidar_samples: int = 256, lidar_views: int = 16) -> None:
        if samples < _FEWEST or lidar_samples < 2 or lidar_views < 2:
            raise ValueError(f"samples must be at least {_FEWEST}, lidar_samples and lidar_views at least 2")
        self.samples, self.lidar_samples, self.lidar_views = samples, lidar_samples, lidar_views

    def __call__(self, context: ProbeContext) -> dict[str, Metric]:
        dataset = context.queried
        index = drawn(len(dataset), self.samples)
        if len(index) < _FEWEST:
            return {}
        few = index[: self.lidar_samples]
        clean, one, two = (context.draw(dataset, index, number) for number in (None, 0, 1))
        views = [context.draw(dataset, few, number) for number in range(self.lidar_views)]
        groups = {name: torch.stack([view[name] for view in views], dim=1) for name in clean}
        found = {name: spread(clean[name], one[name], two[name], groups[name]) for name in clean}
        sizes = _sizes(context.split, clean["trained"], groups["trained"])
        return {
            title: compared(
                context,
                {name: values[title] for name, values in found.items() if title in values},
                _WORDS[title].format_map(sizes),
                unit="",
                higher_is_better=HIGHER_IS_BETTER[title],
                headline=title == "rankme",
            )
            for title in found["trained"]
        }


def _sizes(split: str, clean: Tensor, groups: Tensor) -> dict[str, str]:
    count, width = clean.shape
    return {
        "clean": f"{count:,} {split} features of width {width}",
        "pairs": f"two random views of {count:,} {split} samples",
        "groups": f"{len(groups):,} {split} samples by {groups.shape[1]} random views of each",
    }
