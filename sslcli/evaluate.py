"""From a checkpoint to numbers: rebuild the run's parts, embed its data, probe; and ``sslcli.load``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sslcli.batchnorm import batch_norms
from sslcli.build import allow, build
from sslcli.config import DeviceSection, FeedSection, StartSection, expand, section
from sslcli.datasets.base import Dataset, Labelled
from sslcli.datasets.mended import Mended
from sslcli.encoders.base import Encoder
from sslcli.engine.console import Console
from sslcli.engine.device import Compute, choose, set_threads
from sslcli.engine.feed import in_pieces, kept_in_memory
from sslcli.engine.resume import START, open_run
from sslcli.errors import UserError
from sslcli.features import Features
from sslcli.objectives.base import Objective
from sslcli.objectives.multi_crop import check_readable
from sslcli.probes.base import Embed, Metric, Probe, compared, table
from sslcli.probes.geometry import rankme
from sslcli.probes.subject import Subject, labels_of
from sslcli.probes.subject import embed as features_of
from sslcli.randomness import Randomness, fold
from sslcli.records import add_metrics, settled_size
from sslcli.types import Spec
from sslcli.views.base import Views
from sslcli.weights.packed import read_export
from sslcli.weights.start import Report, start_from


@dataclass
class Parts:
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


def build_parts(config: Mapping[str, Any], *, afresh: bool = True) -> Parts:
    """All parts of a run before its first step: at their random initialisation, or the encoder at ``encoder.weights``.

    Args:
        config: the run's.
        afresh: whether the run starts now; one that goes on has its weights in a checkpoint and needs no file.
    """
    dataset = kept_in_memory(build_dataset(config), FeedSection.of(config["dataset"]).cache)
    encoder = build_encoder(config, dataset.spec)
    weights = StartSection.of(config["encoder"]).weights
    start = start_from(encoder, weights) if weights and afresh else None
    objective = build_objective(config, encoder)  # after the weights: a teacher is a copy of the encoder
    views = build_views(config, encoder, objective)
    return Parts(readable(dataset, objective), encoder, objective, views, start)


def readable(dataset: Dataset, objective: Objective) -> Dataset:
    """The dataset with bad samples replaced, and with its labels as a column where the objective reads them."""
    try:
        return Mended(dataset if objective.label is None else Labelled(dataset, objective.label))
    except ValueError as error:
        raise UserError(f"objective: {error}") from error


def embedder(encoder: Encoder, views: Views, compute: Compute, *, workers: int | None = None) -> Embed:
    """A function from samples of a dataset to the encoder's pooled features, in eval mode; ``workers`` read ahead."""

    def embed(dataset: Dataset, index: Tensor) -> Tensor:
        return features_of(encoder, views, compute, on_device(dataset, index, compute, workers))

    return embed


def on_device(dataset: Dataset, index: Tensor, compute: Compute, workers: int | None) -> Iterator[dict[str, Tensor]]:
    """The samples at ``index`` (N,) in order, some at a time, on the device; ``workers`` read ahead."""
    for piece, _ in in_pieces(dataset, index, workers):
        yield {name: column.to(compute.device) for name, column in piece.items()}


def measure(
    config: Mapping[str, Any],
    parts: Parts,
    compute: Compute,
    probe: Probe,
    *,
    budget: float,
    start: Path,
    settled: int | None = None,
    seed: int | None = None,
) -> dict[str, Metric]:
    """Every number that a run reports: the probe's, or without labels the held-out loss and RankMe.

    Args:
        config: the run's.
        parts: its parts.
        compute: where to compute.
        probe: what measures.
        budget: seconds that it may take, where its size is left to it.
        start: the file with the weights that the run began at, if it began at somebody's; they are a control then.
        settled: the size that it settled on before.
        seed: of what it draws; null is the run's.
    """
    measured = subject(config, parts, compute, budget=budget, start=start)
    measured.settled = settled
    measured.seed = measured.seed if seed is None else seed
    metrics = probe(measured) or without_labels(config, parts, compute, measured)
    if parts.objective.label is not None:
        for metric in metrics.values():
            metric.protocol += "; training used labels"
    replaced = sum(len(part.places) for part in (parts.dataset, parts.dataset.held_out) if isinstance(part, Mended))
    for metric in metrics.values():
        metric.protocol += f"; {replaced} unreadable samples replaced by others" if replaced else ""
    return metrics


def without_labels(config: Mapping[str, Any], parts: Parts, compute: Compute, measured: Subject) -> dict[str, Metric]:
    """The held-out loss and RankMe, where a probe finds nothing to measure."""
    held_out = parts.dataset.held_out
    if held_out is None:
        return {}
    metrics: dict[str, Metric] = {}
    loss = held_out_loss(config, parts, compute, held_out)
    if loss is not None:
        metrics["held_out_loss"] = loss
    index = torch.arange(min(2048, len(held_out)))
    metrics["rankme"] = compared(
        measured,
        {name: rankme(measured.features(name, held_out, index)) for name in measured.encoders},
        f"effective rank of {len(index):,} held-out features of width {parts.encoder.dim} (RankMe)",
    )
    return metrics


def subject(config: Mapping[str, Any], parts: Parts, compute: Compute, *, budget: float, start: Path) -> Subject:
    """A run's encoder with its data and controls, as probes meet it."""
    workers = FeedSection.of(config["dataset"]).workers
    encoders = {"trained": parts.encoder, **controls(config, parts, compute, start)}

    def copied(name: str, drop_path: float) -> Encoder:
        node = config["encoder"]
        own = {**node, "drop_path": drop_path} if "drop_path" in node else node
        encoder = build_encoder({**config, "encoder": own}, parts.encoder.spec)
        encoder.load_state_dict(encoders[name].state_dict())
        return encoder.to(compute.device).to(memory_format=torch.channels_last)

    return Subject(
        parts.dataset,
        encoders,
        parts.views,
        compute,
        pieces=lambda dataset, index: on_device(dataset, index, compute, workers),
        copied=copied,
        seed=config["seed"],
        budget=budget,
    )


def controls(config: Mapping[str, Any], parts: Parts, compute: Compute, start: Path) -> dict[str, Encoder]:
    """What the trained encoder is compared with, by name: the same encoder with other weights."""
    found = {"random_init": random_init(config, parts, compute)}
    if start.is_file():
        encoder = build_encoder(config, parts.encoder.spec)
        encoder.load_state_dict(load_file(start))
        found["start"] = encoder.to(compute.device).eval()
    return found


@torch.no_grad()
def random_init(config: Mapping[str, Any], parts: Parts, compute: Compute, *, samples: int = 2048) -> Encoder:
    """This run's encoder before its first step, its BatchNorm statistics measured on training ``samples``.

    Without them the control would read one to two points worse than random weights are.
    """
    encoder = build_encoder(config, parts.encoder.spec).to(compute.device)
    norms = batch_norms(encoder)
    if norms:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over what follows
        encoder.train()
        for part in torch.arange(min(samples, len(parts.dataset))).chunk(4):
            columns = {name: c.to(compute.device) for name, c in parts.dataset.fetch(part).items()}
            encoder(parts.views.clean(columns))
    return encoder.eval()


@torch.no_grad()
def held_out_loss(config: Mapping[str, Any], parts: Parts, compute: Compute, held_out: Dataset) -> Metric | None:
    """The objective's loss on one batch that training never saw, beside its chance level."""
    size = min(config["train"]["batch_size"], len(held_out), 1024)
    if size < 2 and parts.objective.couples_batch:
        return None
    columns = {name: c.to(compute.device) for name, c in held_out.fetch(torch.arange(size)).items()}
    value = dry_loss(parts, columns, compute, seed=config["seed"])
    chance = parts.objective.chance(size)
    return Metric(
        value,
        f"the objective's loss on {size:,} held-out samples, eval mode",
        controls={} if chance is None else {"chance": chance},
        split="held out",
        seed=config["seed"],
    )


@torch.no_grad()
def dry_loss(parts: Parts, columns: dict[str, Tensor], compute: Compute, *, seed: int) -> float:
    """The objective's loss on a batch in eval mode, leaving no trace in any part."""
    modules: list[nn.Module] = [parts.encoder, parts.objective]
    training = [module.training for module in modules]
    size = len(next(iter(columns.values())))
    randomness = Randomness(seed, 0, np.arange(size), compute.device)
    try:
        for module in modules:
            module.eval()
        with compute.autocast():
            views = parts.views(columns, randomness)
            check_readable(parts.encoder, views, parts.views.num_local)
            outputs = parts.objective.project(Features(parts.encoder, views, randomness, columns))
        return float(parts.objective.loss(outputs).total)
    finally:
        for module, mode in zip(modules, training):
            module.train(mode)


def restore_encoder(state: Mapping[str, Any], device: torch.device) -> tuple[Encoder, Views]:
    """A checkpoint's trained encoder in eval mode on ``device``, and its views; needs no data."""
    config = state["config"]
    encoder = build_encoder(config, Spec.from_plain(state["spec"]))
    encoder.load_state_dict(state["encoder"])
    views = build_views(config, encoder, build_objective(config, encoder))
    return encoder.to(device).eval(), views


def restore(state: Mapping[str, Any], device: torch.device) -> tuple[Encoder, Objective, Views]:
    """The same, and its trained objective in eval mode."""
    encoder, views = restore_encoder(state, device)
    objective = build_objective(state["config"], encoder)
    objective.load_state_dict(state["objective"])
    return encoder, objective.to(device).eval(), views


def restore_parts(state: Mapping[str, Any], device: torch.device, other: Mapping[str, Any] | None = None) -> Parts:
    """All parts of a checkpoint's run, trained, with its data or with ``other``, a dataset's section.

    Raises:
        UserError: the encoder cannot read the other data.
    """
    encoder, objective, views = restore(state, device)
    config = state["config"] if other is None else {**state["config"], "dataset": other}
    dataset = kept_in_memory(build_dataset(config), FeedSection.of(config["dataset"]).cache)
    dataset.spec.check_readable(views.field, encoder.spec)
    return Parts(readable(dataset, objective), encoder, objective, views)


def run(config: Mapping[str, Any]) -> dict[str, Metric]:
    """``ssl-eval``: probe a run's newest checkpoint and write ``eval.json`` into its directory."""
    allow(config["plugins"])
    device: DeviceSection = section(config, "device", DeviceSection)
    run_dir, state = open_run(config["run"])
    set_threads(device.threads or state["environment"]["threads"])
    precision = state["config"]["train"]["precision"]
    compute = choose(device.name, "auto" if precision == "fp16" else precision)  # which a CPU does not have
    other = config["dataset"] or None  # the run's own
    parts = restore_parts(state, compute.device, other)
    probe = build(config["probe"], Probe, where="probe")
    metrics = measure(
        {**state["config"], "dataset": other or state["config"]["dataset"]},
        parts,
        compute,
        probe,
        budget=budget(state["seconds"]),
        start=run_dir / START,
        settled=settled_size(run_dir, other),
        seed=config["seed"],
    )
    if not metrics:
        raise UserError("probe: these data have no held-out part, so there is nothing to measure.")
    console = Console()
    console.line(f"{run_dir}, step {state['step']}")
    if labels_of(parts.dataset) is None:
        console.line("these data have no labels in both splits: what reads labels is left out")
    for text in table(metrics):
        console.line(text)
    add_metrics(run_dir, metrics, step=state["step"], dataset=other)
    return metrics


def budget(train_seconds: float) -> float:
    """Seconds that a probe at the end of a run may take: a tenth of the training, at least 15."""
    return max(15.0, 0.1 * train_seconds)


class Pretrained(nn.Module):
    """A trained encoder with its preprocessing, in eval mode."""

    def __init__(self, encoder: Encoder, views: Views) -> None:
        super().__init__()
        self.encoder, self.views = encoder, views
        self.dim = encoder.dim
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, dim) of raw samples: images are uint8 (B, C, H, W) or floats in [0, 1], of any size."""
        view = self.views.clean({self.views.field: x})
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
