"""What several tests need: a composed config, and a trainer built from it."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import numpy as np
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra

from sslcli.cli import conf_dir
from sslcli.config import SCHEMAS, check_values, settle_length, to_plain
from sslcli.engine.console import Console
from sslcli.engine.device import choose
from sslcli.engine.trainer import Trainer
from sslcli.evaluate import Parts, build_parts
from sslcli.randomness import Randomness
from sslcli.ranks import Ranks
from sslcli.train import make_trainer as assemble

TINY = ("dataset=synthetic", "dataset.num_samples=200", "dataset.size=16", "train.batch_size=16", "train.steps=3")


def compose(*overrides: str, name: str = "train") -> dict:
    """The plain config of ``ssl-train *overrides``."""
    ConfigStore.instance().store(name="schema", node=SCHEMAS[name])
    GlobalHydra.instance().clear()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        plain = to_plain(hydra_compose(name, list(overrides)), SCHEMAS[name])
    if name == "train":
        settle_length(plain, list(overrides))
        check_values(plain)
    return plain


def make_trainer(run_dir: Path, *overrides: str, parts: Parts | None = None, ranks: Ranks | None = None) -> Trainer:
    """A trainer as ``ssl-train *overrides device=cpu`` makes it; ``parts`` replaces those of the config."""
    config = compose("device=cpu", *overrides)
    compute = choose("cpu", config["train"]["precision"])
    return assemble(config, parts or build_parts(config), compute, run_dir, Console(), ranks)


def start_two(command: list[str], **environment: str) -> list[subprocess.Popen]:
    """``command`` in two processes, with the variables that torchrun would set."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **environment}
    return [
        subprocess.Popen(
            command,
            env={**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]


def randomness(size: int, step: int = 0, seed: int = 0) -> Randomness:
    return Randomness(seed, step, np.arange(size), torch.device("cpu"))
