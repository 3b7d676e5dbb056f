"""The components of a run, built from its config: as they are before the first step, or as a checkpoint has them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from sslcli.config.choices import DatasetChoice
from sslcli.config.composed import TrainConfig
from sslcli.config.instantiate import allow, build
from sslcli.config.paths import expand
from sslcli.data.base import Dataset, Labelled
from sslcli.data.corrupt import CorruptReplaced
from sslcli.data.dataloading import kept_in_memory
from sslcli.encoders.base import Encoder
from sslcli.errors import UserError
from sslcli.objectives.base import Objective
from sslcli.pretrained.load import LoadReport, load_weights
from sslcli.pretrained.safetensors_io import read_export
from sslcli.randomness import fold
from sslcli.run_dir.checkpoint import State, open_run
from sslcli.types import Spec
from sslcli.views.base import Views


@dataclass
class Components:
    """What a run is made of."""

    dataset: Dataset
    encoder: Encoder
    objective: Objective
    views: Views
    start: LoadReport | None = None  # what became of the weights that the encoder started from


def build_dataset(config: TrainConfig) -> Dataset:
    """The training split of a run's data, with its held-out part."""
    return build(config.dataset.node, Dataset, where="dataset")


def build_encoder(config: TrainConfig, spec: Spec) -> Encoder:
    """A run's encoder at its random initialisation, the same every time."""
    torch.manual_seed(fold(config.seed, "encoder") % 2**63)
    return build(config.encoder.node, Encoder, spec, where="encoder")


def build_objective(config: TrainConfig, encoder: Encoder) -> Objective:
    """A run's objective at its random initialisation."""
    torch.manual_seed(fold(config.seed, "objective") % 2**63)
    return build(config.objective.node, Objective, encoder, where="objective")


def build_views(config: TrainConfig, encoder: Encoder, objective: Objective) -> Views:
    """A run's views, as many as the objective reads."""
    views = build(config.views.node, Views, encoder.view_spec, encoder.spec, objective.num_views, where="views")
    views.with_target = objective.needs_target
    objective.expect_local(views.num_local)
    return views


def build_components(config: TrainConfig, *, afresh: bool = True) -> Components:
    """All components of a run before its first step: random, or the encoder at ``encoder.weights``.

    Args:
        config: the run's.
        afresh: whether the run starts now; one that goes on has its weights in a checkpoint and needs no file.
    """
    dataset = kept_in_memory(build_dataset(config), config.dataset.cache)
    encoder = build_encoder(config, dataset.spec)
    weights = config.encoder.weights
    start = load_weights(encoder, weights) if weights and afresh else None
    objective = build_objective(config, encoder)  # after the weights: a teacher is a copy of the encoder
    views = build_views(config, encoder, objective)
    return Components(readable(dataset, objective), encoder, objective, views, start)


def readable(dataset: Dataset, objective: Objective) -> Dataset:
    """The dataset with corrupt samples replaced, and with its labels as a column where the objective reads them."""
    try:
        return CorruptReplaced(dataset if objective.label is None else Labelled(dataset, objective.label))
    except ValueError as error:
        raise UserError(f"objective: {error}") from error


def restore_encoder(state: State, device: torch.device) -> tuple[Encoder, Views]:
    """A checkpoint's trained encoder in eval mode on ``device``, and its views; needs no data."""
    encoder, _, views = _rebuilt(state)
    return encoder.to(device).eval(), views


def restore(state: State, device: torch.device) -> tuple[Encoder, Objective, Views]:
    """The same, and its trained objective in eval mode."""
    encoder, objective, views = _rebuilt(state)
    objective.load_state_dict(state["objective"])
    return encoder.to(device).eval(), objective.to(device).eval(), views


def _rebuilt(state: State) -> tuple[Encoder, Objective, Views]:
    """A trained encoder, an objective that is not, and their views."""
    config: TrainConfig = state["config"]
    encoder = build_encoder(config, Spec.from_plain(state["spec"]))
    encoder.load_state_dict(state["encoder"])
    objective = build_objective(config, encoder)
    return encoder, objective, build_views(config, encoder, objective)


def restore_components(state: State, device: torch.device, other: DatasetChoice | None = None) -> Components:
    """All components of a checkpoint's run, trained, with its own data or with ``other``.

    Raises:
        UserError: the encoder cannot read the other data.
    """
    encoder, objective, views = restore(state, device)
    config: TrainConfig = replace(state["config"], dataset=other) if other else state["config"]
    dataset = kept_in_memory(build_dataset(config), config.dataset.cache)
    dataset.spec.check_readable(views.field, encoder.spec)
    return Components(readable(dataset, objective), encoder, objective, views)


class Pretrained(nn.Module):
    """A trained encoder with its preprocessing, in eval mode."""

    def __init__(self, encoder: Encoder, views: Views) -> None:
        super().__init__()
        self.encoder, self.views = encoder, views
        self.dim = encoder.dim
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, dim) of raw samples: images are uint8 (B, C, H, W) or floats in [0, 1], of any size."""
        view = self.views.evaluation_view({self.views.field: x})
        pooled: Tensor = self.encoder(view).pooled
        return pooled


def load(run: str | Path, *, device: str = "cpu", plugins: tuple[str, ...] = ()) -> Pretrained:
    """The encoder of a run directory, a checkpoint or a safetensors export, ready for raw samples.

    Raises:
        UserError: no such run, a damaged file, or a part from a package that ``plugins`` does not name.
    """
    allow(plugins)
    exported = Path(run).suffix == ".safetensors"
    state = read_export(expand(str(run))) if exported else open_run(str(run))[1]
    encoder, views = restore_encoder(state, torch.device(device))
    return Pretrained(encoder, views.to(device))
