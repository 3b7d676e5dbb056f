"""The choices of a run, built from its config, as they are before the first step or as a checkpoint has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sslcli.config.instantiate import build
from sslcli.config.sections import FeedSection, StartSection
from sslcli.data.base import Dataset, Labelled
from sslcli.data.corrupt import CorruptReplaced
from sslcli.data.dataloading import kept_in_memory
from sslcli.encoders.base import Encoder
from sslcli.errors import UserError
from sslcli.objectives.base import Objective
from sslcli.pretrained.load import Report, load_weights
from sslcli.randomness import fold
from sslcli.types import Spec
from sslcli.views.base import Views


@dataclass
class Components:
    """The four choices of a run, built."""

    dataset: Dataset
    encoder: Encoder
    objective: Objective
    views: Views
    start: Report | None = None  # what the encoder's first weights were loaded from


def build_dataset(config: Mapping[str, Any]) -> Dataset:
    """The training split of a run's data, with its held-out part."""
    return build(FeedSection.without(config["dataset"]), Dataset, where="dataset")


def build_encoder(config: Mapping[str, Any], spec: Spec) -> Encoder:
    """A run's encoder at its random initialisation, the same every time."""
    torch.manual_seed(fold(config["seed"], "encoder") % 2**63)
    return build(StartSection.without(config["encoder"]), Encoder, spec, where="encoder")


def build_objective(config: Mapping[str, Any], encoder: Encoder) -> Objective:
    """A run's objective at its random initialisation."""
    torch.manual_seed(fold(config["seed"], "objective") % 2**63)
    return build(config["objective"], Objective, encoder, where="objective")


def build_views(config: Mapping[str, Any], encoder: Encoder, objective: Objective) -> Views:
    """A run's views, as many as the objective reads."""
    views = build(config["views"], Views, encoder.view_spec, encoder.spec, objective.num_views, where="views")
    views.with_target = objective.needs_target
    objective.expect_local(views.num_local)
    return views


def build_components(config: Mapping[str, Any], *, afresh: bool = True) -> Components:
    """All components of a run before its first step: random, or the encoder at ``encoder.weights``.

    Args:
        config: the run's.
        afresh: whether the run starts now; one that goes on has its weights in a checkpoint and needs no file.
    """
    dataset = kept_in_memory(build_dataset(config), FeedSection.of(config["dataset"]).cache)
    encoder = build_encoder(config, dataset.spec)
    weights = StartSection.of(config["encoder"]).weights
    start = load_weights(encoder, weights) if weights and afresh else None
    objective = build_objective(config, encoder)  # after the weights: a teacher is a copy of the encoder
    views = build_views(config, encoder, objective)
    return Components(readable(dataset, objective), encoder, objective, views, start)


def readable(dataset: Dataset, objective: Objective) -> Dataset:
    """The dataset with bad samples replaced, and with its labels as a column where the objective reads them."""
    try:
        return CorruptReplaced(dataset if objective.label is None else Labelled(dataset, objective.label))
    except ValueError as error:
        raise UserError(f"objective: {error}") from error


def restore_encoder(state: Mapping[str, Any], device: torch.device) -> tuple[Encoder, Views]:
    """A checkpoint's trained encoder in eval mode on ``device``, and its views; needs no data."""
    encoder, _, views = _rebuilt(state)
    return encoder.to(device).eval(), views


def restore(state: Mapping[str, Any], device: torch.device) -> tuple[Encoder, Objective, Views]:
    """The same, and its trained objective in eval mode."""
    encoder, objective, views = _rebuilt(state)
    objective.load_state_dict(state["objective"])
    return encoder.to(device).eval(), objective.to(device).eval(), views


def _rebuilt(state: Mapping[str, Any]) -> tuple[Encoder, Objective, Views]:
    """A trained encoder, and beside it an objective that is not."""
    config = state["config"]
    encoder = build_encoder(config, Spec.from_plain(state["spec"]))
    encoder.load_state_dict(state["encoder"])
    objective = build_objective(config, encoder)
    return encoder, objective, build_views(config, encoder, objective)


def restore_components(
    state: Mapping[str, Any], device: torch.device, other: Mapping[str, Any] | None = None
) -> Components:
    """All components of a checkpoint's run, trained, with its data or with ``other``, a dataset's section.

    Raises:
        UserError: the encoder cannot read the other data.
    """
    encoder, objective, views = restore(state, device)
    config = state["config"] if other is None else {**state["config"], "dataset": other}
    dataset = kept_in_memory(build_dataset(config), FeedSection.of(config["dataset"]).cache)
    dataset.spec.check_readable(views.field, encoder.spec)
    return Components(readable(dataset, objective), encoder, objective, views)
