"""The names of a run's files, and how the files of an earlier run are moved away for a new one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sslcli.config.composed import TrainConfig, to_plain
from sslcli.config.secrets import hidden
from sslcli.config.upgrade import FORMAT, up_to_date
from sslcli.errors import UserError
from sslcli.run_dir import inside, lock, outcome, owner
from sslcli.run_dir.console import Console
from sslcli.run_dir.formatting import first_line
from sslcli.run_dir.normalisation import NAME as NORMALISATION

START = "start.safetensors"  # the encoder after loading encoder.weights, before its first step
CONFIG = "config.yaml"
_HEADER = "# sslcli format "
_FILES = (
    START,
    NORMALISATION,
    "metrics.jsonl",
    "metrics.csv",
    "result.json",
    "eval.json",
    "report.html",
    CONFIG,
    "train.log",
    "bad_samples.txt",
)
_FOLDERS = ("checkpoints", "export", "fitted")
_OF_LOGGERS = ("tensorboard", "wandb", "mlflow", "mlflow.db")  # which may be links


def is_run(place: Path) -> bool:
    """Whether a folder is a run directory."""
    return (place / CONFIG).is_file()


def refuse_links(run_dir: Path) -> None:
    """Raise UserError, before anything is read or written, if one of a run's own files or folders is a link."""
    files = (*_FILES, "mlflow.db", lock.NAME, lock.EVALUATION, owner.NAME, outcome.NAME)
    inside.refuse_links(run_dir, files=files, folders=(*_FOLDERS, "previous"))


def write_config(run_dir: Path, config: TrainConfig) -> None:
    """Write ``config.yaml``: the whole config of a run, with the format's number in a comment."""
    inside.write_text(run_dir, CONFIG, f"{_HEADER}{FORMAT}\n{OmegaConf.to_yaml(to_plain(config))}")


def read_config(run_dir: Path, key: str = "run") -> dict[str, Any]:
    """Read ``config.yaml`` and convert it to the current format; ``key`` is the config path that messages name.

    Raises:
        UserError: it is missing, cannot be read, or is not a config.
    """
    path = run_dir / CONFIG
    try:
        text = (inside.read(run_dir, CONFIG) or b"").decode()
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError("it has aliases, which this tool does not write and which a few lines may make endless")
        content = OmegaConf.to_container(OmegaConf.create(text))
    except (ValueError, AssertionError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{key}: {path} cannot be read ({first_line(error)}).") from None
    if not isinstance(content, dict) or not content:
        raise UserError(f"{key}: {path} does not hold a config.")
    written_in = re.match(rf"{_HEADER}(\d+)$", text, re.MULTILINE)
    return up_to_date(hidden(content), int(written_in[1]) if written_in else 1)


def make_room(run_dir: Path, resume: str, console: Console) -> None:
    """Before a start from step 0 with ``resume=never``, move the files of an earlier run into ``previous/N``.

    Nothing is deleted. Without ``resume=never``, the files of a run that was killed before its first checkpoint stay,
    and the run continues with them.

    Raises:
        UserError: the folder holds files with these names but is not a run directory.
    """
    leftovers = [run_dir / name for name in (*_FILES, *_FOLDERS, *_OF_LOGGERS) if (run_dir / name).exists()]
    if leftovers and not (run_dir / "train.log").is_file():
        name = leftovers[0].name
        raise UserError(f"run_dir: {run_dir} holds {name} and no train.log, so it is not a run's. Give another.")
    if not leftovers or resume != "never":
        return
    number = 1
    while str(number) in inside.names(run_dir, "previous"):
        number += 1
    target = f"previous/{number}"
    inside.make_folder(run_dir, target)
    for path in leftovers:
        inside.move(run_dir, path.name, f"{target}/{path.name}")
    console.line(f"starting afresh; what was in {run_dir} is in {run_dir / target} now")
