"""Label-free metrics of an encoder during training, and a warning of collapse."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from sslcli import signals
from sslcli.data.base import Dataset
from sslcli.data.selection import drawn
from sslcli.data.widths import trimmed
from sslcli.encoders.base import Encoder
from sslcli.evaluation.context import Columns, random_view
from sslcli.evaluation.dropout import are_equal, dropping
from sslcli.evaluation.label_free import OF_VIEWS, collapse, spread
from sslcli.features import evaluating
from sslcli.randomness import Randomness, fold
from sslcli.types import View
from sslcli.views.base import Views

SAMPLES = 512  # clean images; a tenth of a second on a CPU with the default encoder
FEWEST = 16  # samples needed for the metrics
ADVICE = "Lower optimizer.lr, take a larger train.batch_size, or keep objective.norm=batch"
PIECE = 128  # samples at a time, to limit memory
LIDAR_SAMPLES, LIDAR_VIEWS = 128, 8  # the paper's 1000 and 50 would take minutes


class CollapseMonitor:
    """Measures RankMe, alignment, uniformity, per-dimension std, LiDAR and alpha-ReQ of an encoder's pooled features.

    The samples are always the same, and held out if the dataset has a held-out part. The encoder is in eval mode, and
    the augmented views have their own random numbers, so measuring does not change a run. Where the views of a sample
    are equal, the encoder keeps its dropout for them; without dropout there is no alignment and no LiDAR.

    Args:
        dataset: the training split.
        views: the run's pipeline of views.
        device: the device to compute on.
        seed: seed of the augmented views.
        full: measure LiDAR and alpha-ReQ as well.
        warn: called with the text of a warning, once for each metric that shows a collapse.
    """

    def __init__(
        self,
        dataset: Dataset,
        views: Views,
        device: torch.device,
        *,
        seed: int,
        full: bool,
        warn: Callable[[str], None],
    ) -> None:
        self._source = dataset.held_out or dataset
        self.count = min(SAMPLES, len(self._source))
        self._views, self._device, self._seed, self._full = views, device, seed, full
        self._warn = warn
        self._warned: set[str] = set()

    @functools.cached_property
    def _columns(self) -> Columns:
        """The samples, read at the first use, as only one of several processes needs them."""
        with signals.waiting(signals.GRACE):
            return trimmed(self._source.fetch(drawn(len(self._source), self.count)), self._source.spec)

    @torch.no_grad()
    def __call__(self, encoder: Encoder) -> dict[str, float]:
        """Return the metrics by name; {} if there are too few samples."""
        if self.count < FEWEST:
            return {}
        with evaluating(encoder):
            found = self._measure(encoder)
        self.judge(found, encoder.dim)
        return found

    def signs(self, metrics: Mapping[str, float], dim: int) -> list[str]:
        """Return a sentence for each metric of ``count`` features of width ``dim`` that shows a collapse."""
        return collapse(metrics, samples=self.count, dim=dim)

    def judge(self, metrics: Mapping[str, float], dim: int) -> None:
        """Warn of each metric of ``count`` features of width ``dim`` that shows a collapse, once a metric."""
        for text in self.signs(metrics, dim):
            metric = text.partition(" ")[0]
            if metric not in self._warned:
                self._warned.add(metric)
                self._warn(f"{text}. {ADVICE}.")

    def _measure(self, encoder: Encoder) -> dict[str, float]:
        everything = {name: column.to(self._device) for name, column in self._columns.items()}
        clean = _pooled(encoder, self._views.evaluation_view(everything))
        views = [self._augmented(everything, draw) for draw in (0, 1)]
        by_dropout = are_equal(*views)

        def embed(view: View, draw: int) -> Tensor:
            seed = fold(self._seed, "dropout", draw)
            with dropping(encoder, seed, self._device) if by_dropout else nullcontext():
                return _pooled(encoder, view)

        one, two = (embed(view, draw) for draw, view in enumerate(views))
        groups = None
        if self._full:
            few = {name: column[:LIDAR_SAMPLES] for name, column in everything.items()}
            groups = torch.stack([embed(self._augmented(few, draw), draw) for draw in range(LIDAR_VIEWS)], dim=1)
        found = spread(clean, one, two, groups)
        if by_dropout and torch.equal(one, two):  # there is no dropout
            found = {name: value for name, value in found.items() if name not in OF_VIEWS}
        return found

    def _augmented(self, columns: Columns, number: int) -> View:
        positions = np.arange(len(next(iter(columns.values()))))
        return random_view(self._views, columns, Randomness(self._seed, -1 - number, positions, self._device), number)


def _pooled(encoder: Encoder, view: View) -> Tensor:
    """Return pooled features (N, D), float32 on the CPU; spectra need float64, which not every device supports."""
    starts = range(0, len(view.x), PIECE)
    return torch.cat([encoder(view.rows(slice(start, start + PIECE))).pooled.float().cpu() for start in starts])
