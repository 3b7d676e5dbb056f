"""Find the directory of the run that a command without ``run_dir`` describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sslcli.components import build_dataset
from sslcli.config.composed import TrainConfig
from sslcli.config.identity import Content
from sslcli.data.base import Dataset
from sslcli.distributed.ranks import Ranks
from sslcli.errors import UserError
from sslcli.pretrained.importers import digest_of
from sslcli.run_dir import checkpoint
from sslcli.run_dir.naming import default_run_dir, run_dir_of_same_places
from sslcli.training.resume import is_trained_on


def find_run(config: TrainConfig, choices: Mapping[str, str], ranks: Ranks) -> tuple[Path, Dataset | None]:
    """Return the run directory, and the run's data, which its name depends on; None in other processes than the first.

    The data are None, too, if they or the initial weights cannot be read and there is a run with these very paths: it
    may be finished.

    Raises:
        UserError: the data or the initial weights cannot be read, and there is no such run.
    """
    built: list[Dataset] = []

    def found() -> Path:
        try:
            dataset = build_dataset(config)
            content = Content(dataset.fingerprint(0), digest_of(config.encoder.weights))
        except UserError:
            known = run_dir_of_same_places(config, choices)
            if known is None:
                raise
            return known
        built.append(dataset)
        return default_run_dir(config, choices, content, lambda run_dir: _is_same(run_dir, dataset, config))

    return ranks.by_first(found), built[0] if built else None


def _is_same(run_dir: Path, dataset: Dataset, config: TrainConfig) -> bool:
    """Whether a run has these data and started from these weights; it must have a checkpoint to show it."""
    try:
        newest = checkpoint.newest(run_dir, lambda text: None)
    except UserError:
        return False
    return newest is not None and is_trained_on(newest[1], dataset, config.encoder.weights)
