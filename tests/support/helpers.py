"""Helpers of many tests: composed configs, trainers built from them, and contexts of probes."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra

from sslcli.cli import conf_dir
from sslcli.commands.build_trainer import make_trainer as assemble
from sslcli.components import Components, build_components
from sslcli.config.checks import check, settle_length
from sslcli.config.composed import CONFIGS, TrainConfig, read, resolved, schema
from sslcli.distributed import Ranks
from sslcli.encoders.base import Encoder
from sslcli.evaluation.context import ProbeContext
from sslcli.randomness import Randomness
from sslcli.run_dir.console import Console
from sslcli.run_dir.metrics_jsonl import NAME, JsonLines
from sslcli.training.device import choose
from sslcli.training.hooks import Hook
from sslcli.training.trainer import Trainer
from sslcli.types import Encoded, Field, Spec
from sslcli.views.base import PassThrough, Views
from sslcli.views.image.pipeline import ImageViews

H = TypeVar("H", bound=Hook)
TINY = ("dataset=synthetic", "dataset.num_samples=200", "dataset.size=16", "train.batch_size=16", "train.steps=3")


def compose(*overrides: str, name: str = "train") -> Any:
    """Return the typed config of ``ssl-train *overrides``, or of another command ``name``."""
    kind = CONFIGS[name]
    ConfigStore.instance().store(name="schema", node=schema(kind))
    GlobalHydra.instance().clear()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        plain = resolved(hydra_compose(name, list(overrides)), kind)
    if name == "train":
        settle_length(plain, list(overrides))
    config = read(plain, kind)
    if name == "train":
        check(config)
    return config


def make_trainer(
    run_dir: Path, *overrides: str, parts: Components | None = None, ranks: Ranks | None = None
) -> Trainer:
    """Build the trainer of ``ssl-train *overrides device=cpu``; ``parts`` replaces the config's components."""
    return trainer_of(compose("device=cpu", *overrides), run_dir, parts=parts, ranks=ranks)


def trainer_of(
    config: TrainConfig, run_dir: Path, *, parts: Components | None = None, ranks: Ranks | None = None
) -> Trainer:
    """Build a trainer on the CPU for a composed config."""
    compute = choose("cpu", config.train.precision)
    lines = JsonLines(run_dir / NAME)
    parts = parts or build_components(config)
    return assemble(config, parts, compute, run_dir, Console(), ranks, record=lines.write)


def hook_of(trainer: Trainer, kind: type[H]) -> H:
    """Return the trainer's hook of that class."""
    (found,) = (hook for hook in trainer.hooks if isinstance(hook, kind))
    return found


def start_two(command: list[str], **environment: str) -> list[subprocess.Popen]:
    """Start ``command`` in two processes with torchrun's environment variables; they can import from tests/."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": path}
    return [
        subprocess.Popen(
            command,
            env={**os.environ, **common, **environment, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]


def randomness(size: int, step: int = 0, seed: int = 0) -> Randomness:
    return Randomness(seed, step, np.arange(size), torch.device("cpu"))


class Flat(Encoder):
    """An encoder that returns the view itself, as rows of numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dim = width

    def forward(self, view, mask=None) -> Encoded:
        rows = view.x.float().flatten(1)
        return Encoded(rows[:, None], rows)


class Uninformative(Encoder):
    """An encoder whose features are random numbers that carry no information about the samples."""

    dim = 16

    def forward(self, view, mask=None) -> Encoded:
        seed = int(view.x.double().sum().abs())
        rows = torch.randn(len(view.x), self.dim, generator=torch.Generator().manual_seed(seed))
        return Encoded(rows[:, None], rows)


def plain_views(dataset, **options) -> Views:
    """Return a pipeline of two views of a dataset's first column, with pixels in [0, 1], not normalised."""
    spec = Spec({name: Field(field.shape, field.vocab) for name, field in dataset.spec.items()})
    images = len(next(iter(spec.values())).shape) == 3
    return ImageViews(spec, spec, 2, **options) if images else PassThrough(spec, spec, 2)


def make_context(dataset, views=None, *, asked=None, pieces=64, copied=None, **encoders) -> ProbeContext:
    """Return a probe's context of ``dataset``; by default ``Flat`` is trained and ``Uninformative`` the baseline.

    Every request for samples is appended to the list ``asked`` as (split, index).
    """
    width = int(np.prod(next(iter(dataset.spec.values())).shape))
    encoders = encoders or {"trained": Flat(width), "random_init": Uninformative()}

    def read(split, index):
        if asked is not None:
            asked.append((split, index))
        return (split.fetch(part) for part in index.split(pieces))

    return ProbeContext(
        dataset, encoders, views or plain_views(dataset), choose("cpu", "fp32"), pieces=read, copied=copied, budget=10.0
    )
