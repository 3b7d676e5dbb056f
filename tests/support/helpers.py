"""What several tests need: a composed config, and a trainer built from it."""

from __future__ import annotations

import copy
import functools
import math
import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import open_dict

from sslcli.cli import conf_dir
from sslcli.commands.build_trainer import make_trainer as assemble
from sslcli.components import Components, build_components
from sslcli.config.composed import CONFIGS, TrainConfig, read, resolved, schema, to_plain
from sslcli.config.origin import settled
from sslcli.distributed.ranks import Ranks
from sslcli.encoders.base import Encoder
from sslcli.evaluation.context import ProbeContext
from sslcli.randomness import Randomness
from sslcli.run_dir.console import Console
from sslcli.run_dir.metrics_jsonl import NAME, JsonLines
from sslcli.training.device import choose
from sslcli.training.hooks import Hook
from sslcli.training.trainer import Trainer
from sslcli.types import Encoded, Spec
from sslcli.views.base import PassThrough, Views
from sslcli.views.image.pipeline import ImageViews

H = TypeVar("H", bound=Hook)
TINY = ("dataset=synthetic", "dataset.num_samples=200", "dataset.size=16", "train.batch_size=16", "train.steps=3")


def compose(*overrides: str, name: str = "train") -> Any:
    """The typed config of ``ssl-train *overrides``; a copy of one's own, as composing takes longer than a few steps."""
    return copy.deepcopy(_composed(overrides, name))


@functools.cache
def _composed(overrides: tuple[str, ...], name: str) -> Any:
    kind = CONFIGS[name]
    ConfigStore.instance().store(name="schema", node=schema(kind))
    GlobalHydra.instance().clear()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        composed = hydra_compose(name, list(overrides), return_hydra_config=True)
        choices = composed.hydra.runtime.choices
        with open_dict(composed):
            del composed["hydra"]
        plain = resolved(composed, kind)
        return settled(plain, overrides, choices)[0] if name == "train" else read(plain, kind)


def make_trainer(
    run_dir: Path, *overrides: str, parts: Components | None = None, ranks: Ranks | None = None
) -> Trainer:
    """A trainer as ``ssl-train *overrides device=cpu`` makes it; ``parts`` replaces those of the config."""
    return trainer_of(compose("device=cpu", *overrides), run_dir, parts=parts, ranks=ranks)


def trainer_of(
    config: TrainConfig, run_dir: Path, *, parts: Components | None = None, ranks: Ranks | None = None
) -> Trainer:
    """A trainer on the CPU for a composed config."""
    compute = choose("cpu", config.train.precision)
    lines = JsonLines(run_dir / NAME)
    parts = parts or build_components(config)
    return assemble(config, parts, compute, run_dir, Console(), ranks, record=lines.write)


def plain_state(step: int = 1, **more: Any) -> dict[str, Any]:
    """The content of a checkpoint of a run with nothing in it, and ``more``."""
    environment = {
        "torch": "",
        "python": "",
        "device": "",
        "precision": "fp32",
        "threads": 1,
        "ranks": 1,
        "command": "",
    }
    empty: dict[str, Any] = {name: {} for name in ("spec", "encoder", "objective", "optimizer", "scaler", "hooks")}
    return {
        "version": "0",
        "config": to_plain(TrainConfig()),
        "step": step,
        "seconds": 0.0,
        "length": {"steps": 9, "minutes": None},
        "environment": environment,
        "data": "",
        **empty,
        **more,
    }


def percent(value: float, error: float, *, sign: str = "") -> str:
    """How a share with this standard error is printed, without its unit: as many digits as two digits of the error."""
    digits = max(0, 1 - math.floor(math.log10(100 * error))) if error else 2
    return f"{100 * value:{sign}.{digits}f}" + (f" ± {100 * error:.{digits}f}" if error else "")


def hook_of(trainer: Trainer, kind: type[H]) -> H:
    """The trainer's hook of that kind."""
    (found,) = (hook for hook in trainer.hooks if isinstance(hook, kind))
    return found


def each_rank(size: int = 2) -> list[dict[str, str]]:
    """The variables that torchrun would set for each of several processes."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [{**common, "RANK": rank, "LOCAL_RANK": rank} for rank in map(str, range(size))]


def start_two(command: list[str], **environment: str) -> list[subprocess.Popen]:
    """``command`` in two processes, as torchrun starts them."""
    return [
        subprocess.Popen(
            command,
            env={**os.environ, **ranks, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for ranks in each_rank()
    ]


def randomness(size: int, step: int = 0, seed: int = 0) -> Randomness:
    return Randomness(seed, step, np.arange(size), torch.device("cpu"))


class Flat(Encoder):
    """Does nothing: the numbers of the view in a row."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dim = width

    def forward(self, view, mask=None) -> Encoded:
        rows = view.x.float().flatten(1)
        return Encoded(rows[:, None], rows)


class Deaf(Encoder):
    """Tells nothing of its input."""

    dim = 16

    def forward(self, view, mask=None) -> Encoded:
        seed = int(view.x.double().sum().abs())
        rows = torch.randn(len(view.x), self.dim, generator=torch.Generator().manual_seed(seed))
        return Encoded(rows[:, None], rows)


def plain_views(dataset, **options) -> Views:
    """Two views of a dataset's first column, pixels in [0, 1] and not normalised."""
    spec = Spec({name: replace(field, mean=(), std=()) for name, field in dataset.spec.items()})
    images = next(iter(spec.values())).kind == "image"
    return ImageViews(spec, spec, 2, **options) if images else PassThrough(spec, spec, 2)


def make_context(dataset, views=None, *, asked=None, pieces=64, copied=None, **encoders) -> ProbeContext:
    """``dataset`` as a probe meets it; without encoders, what does nothing beside what tells nothing.

    ``asked`` is a list that is told of every request as (split, index).
    """
    width = int(np.prod(next(iter(dataset.spec.values())).shape))
    encoders = encoders or {"trained": Flat(width), "random_init": Deaf()}

    def read(split, index):
        if asked is not None:
            asked.append((split, index))
        return (split.fetch(part) for part in index.split(pieces))

    return ProbeContext(
        dataset, encoders, views or plain_views(dataset), choose("cpu", "fp32"), pieces=read, copied=copied, budget=10.0
    )
