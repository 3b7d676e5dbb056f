"""Label-free metrics of held-out samples, with raw input and the random initialisation as baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from sslcli.config.ranges import Count
from sslcli.data.selection import drawn
from sslcli.evaluation.base import Metric, NoProbe, Probe, compared
from sslcli.evaluation.collapse_monitor import FEWEST, SAMPLES
from sslcli.evaluation.context import ProbeContext
from sslcli.evaluation.label_free import HIGHER_IS_BETTER, OF_VIEWS, spread
from sslcli.evaluation.label_free_scores import SCORES, Drawn
from sslcli.run_dir.measurements import best_baseline

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
        max_samples: largest number of held-out samples, each read as a clean view and as two random views; null takes
            all.
        lidar_samples: number of samples for LiDAR; its paper uses 1000.
        lidar_views: number of random views of each of them; its paper uses 50.
    """

    def __init__(self, *, max_samples: Count | None = 2048, lidar_samples: int = 256, lidar_views: int = 16) -> None:
        if (max_samples is not None and max_samples < FEWEST) or lidar_samples < 2 or lidar_views < 2:
            raise ValueError(f"max_samples must be at least {FEWEST}, lidar_samples and lidar_views at least 2")
        self.max_samples, self.lidar_samples, self.lidar_views = max_samples, lidar_samples, lidar_views

    def __call__(self, context: ProbeContext) -> dict[str, Metric]:
        return _measured(context, self.max_samples, self.lidar_samples, self.lidar_views)

    def cheap(self) -> Probe:
        """Return a probe that adds nothing: every evaluation while training has these metrics, of 512 samples."""
        return NoProbe()


def label_free(context: ProbeContext) -> dict[str, Metric]:
    """Return RankMe, alignment, uniformity and the std of a dimension, of the samples of ``CollapseMonitor``."""
    return _measured(context, SAMPLES)


def _measured(
    context: ProbeContext, count: int | None, lidar_samples: int = 0, lidar_views: int = 0
) -> dict[str, Metric]:
    dataset = context.queried
    index = drawn(len(dataset), len(dataset) if count is None else count)
    if len(index) < FEWEST:
        context.leave_out(f"rankme and its like: {len(index)} samples are too few, they need {FEWEST}")
        return {}
    clean, one, two = (context.draw(dataset, index, number) for number in (None, 0, 1))
    views = [context.draw(dataset, index[:lidar_samples], number) for number in range(lidar_views)]
    groups = {name: torch.stack([view[name] for view in views], dim=1) if views else None for name in clean}
    samples = {name: Drawn(clean[name], one[name], two[name], groups[name]) for name in clean}
    found = {name: spread(*each) for name, each in samples.items()}
    for name, each in found.items():
        if context.nothing_differs(one[name], two[name]):
            found[name] = {title: value for title, value in each.items() if title not in OF_VIEWS}
    if "alignment" not in found["trained"]:
        context.leave_out("alignment and lidar: the views of a sample are equal, and the encoder has no dropout")
    sizes = _sizes(context.split, samples["trained"], context.kind_of_views)
    metrics = {}
    for title in found["trained"]:
        values = {name: each[title] for name, each in found.items() if title in each}
        protocol, direction = _WORDS[title].format_map(sizes), HIGHER_IS_BETTER[title]
        scores = _scored(title, values, samples)
        metric = compared(context, scores, protocol, unit="", higher_is_better=direction, headline=title == "rankme")
        value = values.pop("trained")  # the mean of the scores up to rounding
        metrics[title] = replace(metric, value=value, baselines=values)
    return metrics


def _scored(title: str, values: Mapping[str, float], samples: Mapping[str, Drawn]) -> dict[str, float | Tensor]:
    """Return the values, with the trained encoder's and its best baseline's as scores, which take a while."""
    rivals = {name: value for name, value in values.items() if name != "trained"}
    needed = ("trained", best_baseline(rivals, HIGHER_IS_BETTER[title]))
    scores = {name: SCORES[title](samples[name]) for name in values if name in needed}
    return {**values, **{name: each for name, each in scores.items() if each.isfinite().all()}}


def _sizes(split: str, trained: Drawn, kind: str) -> dict[str, str]:
    count, width = trained.clean.shape
    groups = (0, 0) if trained.groups is None else trained.groups.shape
    return {
        "clean": f"{count:,} {split} features of width {width}",
        "pairs": f"two {kind} of {count:,} {split} samples",
        "groups": f"{groups[0]:,} {split} samples by {groups[1]} {kind} of each",
    }
