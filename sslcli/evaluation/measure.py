"""Measure a trained encoder and its baselines."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from sslcli.components import Components, build_encoder
from sslcli.config.composed import TrainConfig
from sslcli.data.base import Dataset
from sslcli.data.corrupt import CorruptReplaced
from sslcli.data.dataloading import in_pieces
from sslcli.data.selection import drawn
from sslcli.encoders.base import Encoder
from sslcli.encoders.batchnorm import batch_norms
from sslcli.errors import UserError, described
from sslcli.evaluation.base import Embed, Metric, NoProbe, Probe, headline, with_headline
from sslcli.evaluation.context import ProbeContext
from sslcli.evaluation.context import embed as features_of
from sslcli.evaluation.dropout import are_equal, dropping
from sslcli.evaluation.geometry import label_free
from sslcli.evaluation.ranking import Ranking
from sslcli.features import Features, evaluating
from sslcli.objectives.multi_crop import check_readable
from sslcli.pretrained.fit import check_fit
from sslcli.randomness import Randomness, fold
from sslcli.run_dir import inside
from sslcli.run_dir.console import Console
from sslcli.types import Compute, Loss
from sslcli.views.base import Views


def embedder(encoder: Encoder, views: Views, compute: Compute, *, workers: int | None = None) -> Embed:
    """Return a function from samples to the encoder's pooled features, in eval mode; ``workers`` read ahead."""

    def embed(dataset: Dataset, index: Tensor) -> Tensor:
        return features_of(encoder, views, compute, on_device(dataset, index, compute, workers), len(index))

    return embed


def on_device(dataset: Dataset, index: Tensor, compute: Compute, workers: int | None) -> Iterator[dict[str, Tensor]]:
    """Yield the samples at ``index`` (N,) in order, in batches, on the device; ``workers`` read ahead."""
    for piece, _ in in_pieces(dataset, index, workers):
        yield {name: column.to(compute.device) for name, column in piece.items()}


@dataclass
class Measured:
    """What an evaluation measured."""

    metrics: dict[str, Metric]  # of the probe; if these data lack what it needs, held-out loss and label-free metrics
    label_free: dict[str, Metric]  # RankMe and its like, where they were asked for and are not among those
    left_out: list[str]  # what was not measured, and why; and what else the probe says beside its numbers

    @property
    def headline(self) -> str | None:
        """The name of the metric by which runs are compared; None if the probe had too few samples."""
        return headline(self.metrics)


def measure(
    config: TrainConfig,
    components: Components,
    compute: Compute,
    probe: Probe,
    *,
    budget: float,
    start: Path | None = None,
    settled: int | None = None,
    seed: int | None = None,
    with_label_free: bool = False,
) -> Measured:
    """Measure a run's encoder and its baselines.

    Args:
        config: the run's config.
        components: the run's components.
        compute: device and precision.
        probe: the probe.
        budget: seconds that the probe may take if it chooses its own size.
        start: the file of the given weights that the run began with, if any; they become a baseline.
        settled: the size that the probe chose before.
        seed: seed of the probe; None is the run's.
        with_label_free: measure the label-free metrics also where the probe does not.
    """
    context = probe_context(config, components, compute, budget=budget, start=start)
    context.settled = settled
    context.seed = context.seed if seed is None else seed
    metrics, others = probe(context), {}
    if not metrics and context.queried.rankings is not None and not isinstance(probe, NoProbe):
        metrics = Ranking()(context)  # users and items have no labels, which the probe may have wanted
    if not metrics and not context.left_out:
        metrics = {**held_out_loss(config, components, compute), **label_free(context)}
    elif with_label_free and "rankme" not in metrics:
        others = label_free(context)
    notes = "; training used labels" if components.objective.label is not None else ""
    replaced = sum(
        len(part.corrupt_places)
        for part in (components.dataset, components.dataset.held_out)
        if isinstance(part, CorruptReplaced)
    )
    notes += f"; {replaced} unreadable samples replaced by others" if replaced else ""
    first = f"{components.dataset.counted}; " if components.dataset.counted else ""
    for metric in (*metrics.values(), *others.values()):
        metric.protocol = f"{first}{metric.protocol}{notes}"
    unmarked = {name: replace(metric, headline=False) for name, metric in others.items()}
    return Measured(with_headline(metrics), unmarked, [*context.left_out, *context.notes])


def context_of(config: TrainConfig, components: Components, compute: Compute, encoder: Encoder) -> ProbeContext:
    """Return the context in which probes read one encoder only, without baselines."""
    workers = config.dataset.workers

    def copied(name: str, drop_path: float) -> Encoder:
        return copy.deepcopy(encoder)

    return ProbeContext(
        components.dataset,
        {"trained": encoder},
        components.views,
        compute,
        pieces=lambda dataset, index: on_device(dataset, index, compute, workers),
        copied=copied,
        seed=config.seed,
        raw_input=False,
        similarity=components.objective.similarity,
    )


def probe_context(
    config: TrainConfig, components: Components, compute: Compute, *, budget: float, start: Path | None = None
) -> ProbeContext:
    """Return the context that probes read: a run's encoder, its data and its baselines."""
    workers = config.dataset.workers
    encoders = {"trained": components.encoder, **baselines(config, components, compute, start)}

    drops_paths = "drop_path" in config.encoder.node

    def copied(name: str, drop_path: float) -> Encoder:
        own = config.encoder.with_keys(drop_path=drop_path) if drops_paths else config.encoder
        encoder = build_encoder(replace(config, encoder=own), components.encoder.spec)
        encoder.load_state_dict(encoders[name].state_dict())
        return encoder.to(compute.device).to(memory_format=torch.channels_last)

    return ProbeContext(
        components.dataset,
        encoders,
        components.views,
        compute,
        pieces=lambda dataset, index: on_device(dataset, index, compute, workers),
        copied=copied,
        drops_paths=drops_paths,
        seed=config.seed,
        budget=budget,
        similarity=components.objective.similarity,
    )


def baselines(config: TrainConfig, components: Components, compute: Compute, start: Path | None) -> dict[str, Encoder]:
    """Return the baseline encoders by name: the trained encoder's architecture with other weights."""
    found = {"random_init": random_init(config, components, compute)}
    weights = None if start is None else inside.read(start.parent, start.name)
    if weights is not None:
        encoder = build_encoder(config, components.encoder.spec)
        try:
            tensors = load(weights)
            check_fit(encoder, tensors, "encoder")
        except (SafetensorError, UserError) as error:
            Console().warn(f"{start} is damaged, so there is no baseline of the start: {described(error)}")
            return found
        encoder.load_state_dict(tensors)
        found["start"] = encoder.to(compute.device).eval()
    return found


@torch.no_grad()
def random_init(config: TrainConfig, components: Components, compute: Compute, *, samples: int = 2048) -> Encoder:
    """Return this run's encoder at initialisation, with BatchNorm statistics measured on training ``samples``.

    With the default statistics this baseline would be one to two points too low.
    """
    encoder = build_encoder(config, components.encoder.spec).to(compute.device)
    norms = batch_norms(encoder)
    if norms:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all following batches
        encoder.train()
        chosen = drawn(len(components.dataset), samples)
        for part in chosen.chunk(1 + len(chosen) // 512):  # equal parts: a part of one sample would have no variance
            columns = {name: c.to(compute.device) for name, c in components.dataset.fetch(part).items()}
            encoder(components.views.evaluation_view(columns))
    return encoder.eval()


@torch.no_grad()
def held_out_loss(config: TrainConfig, components: Components, compute: Compute) -> dict[str, Metric]:
    """Return the objective's loss on one held-out batch, with its chance level as baseline; {} if it has none."""
    held_out = components.dataset.held_out
    size = 0 if held_out is None else min(config.train.batch_size, len(held_out), 1024)
    if held_out is None or (size < 2 and components.objective.couples_batch):
        return {}
    if components.weights != "student":
        return {}  # the heads of the loss are the student's
    columns = {name: c.to(compute.device) for name, c in held_out.fetch(drawn(len(held_out), size)).items()}
    loss, by_dropout = _dry(components, columns, compute, seed=config.seed)
    mode = "views by dropout" if by_dropout else "eval mode"
    metric = Metric(
        float(loss.total),
        f"the objective's loss on {size:,} held-out samples, {mode}",
        unit="",
        higher_is_better=False,
        baselines={} if loss.chance is None else {"chance": float(loss.chance)},
        split="held out",
        seed=config.seed,
        headline=True,
    )
    return {"held_out_loss": metric}


def dry_loss(components: Components, columns: dict[str, Tensor], compute: Compute, *, seed: int) -> float:
    """Return the objective's loss on a batch in eval mode, without changing any state."""
    return float(_dry(components, columns, compute, seed=seed)[0].total)


@torch.no_grad()
def _dry(components: Components, columns: dict[str, Tensor], compute: Compute, *, seed: int) -> tuple[Loss, bool]:
    """Return the loss, and whether dropout was on because the first two views that the objective reads are equal."""
    encoder, reads = components.encoder, components.objective.reads
    size = len(next(iter(columns.values())))
    randomness = Randomness(seed, 0, np.arange(size), compute.device)
    with evaluating(encoder, components.objective):
        with compute.autocast():
            views = components.views(columns, randomness)
            check_readable(encoder, views, components.views.num_local)
            by_dropout = len(reads) > 1 and are_equal(views[reads[0]], views[reads[1]])
            with dropping(encoder, fold(seed, "dropout"), compute.device) if by_dropout else nullcontext():
                features = Features(encoder, views, randomness, columns, at_once=encoder.at_once)
                outputs = components.objective.project(features)
        return components.objective.loss(outputs), by_dropout
