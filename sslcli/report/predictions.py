"""What a masked objective predicts of some samples, with the views and the masks of step 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from torch import Tensor

from sslcli.components import Components
from sslcli.data.base import Dataset
from sslcli.features import Features, evaluating
from sslcli.randomness import Randomness
from sslcli.types import Compute, View

T = TypeVar("T")


def first_prediction(
    components: Components,
    shown: Dataset,
    index: Tensor,
    compute: Compute,
    seed: int,
    predict: Callable[[Features, int], T | None],
) -> tuple[View, T] | None:
    """Return the first view of which the objective predicts something, and the prediction; None if there is none.

    Args:
        components: the trained components, on the device.
        shown: a split of the data.
        index: (N,) positions of the samples.
        compute: device and precision.
        seed: seed of the views and masks.
        predict: returns the prediction of a view by its number, such as ``Objective.reconstruction``.
    """
    columns = {name: c.to(compute.device) for name, c in shown.fetch(index).items()}
    randomness = Randomness(seed, 0, np.arange(len(index)), compute.device)
    with evaluating(components.encoder, components.objective), compute.autocast():
        encoder, views = components.encoder, components.views(columns, randomness)
        features = Features(encoder, views, randomness, columns, at_once=encoder.at_once)
        tried = ((features.views[i], predict(features, i)) for i in components.objective.reads)
        return next(((view, made) for view, made in tried if made is not None), None)
