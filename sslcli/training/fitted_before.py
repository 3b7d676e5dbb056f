"""What an earlier session of a run has fitted on its data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from sslcli.config.composed import TrainConfig
from sslcli.data.base import Dataset
from sslcli.distributed.ranks import Ranks
from sslcli.run_dir.fitted import Fitted, read
from sslcli.training.resume import run_before, starts_afresh


def fitted_before(config: TrainConfig, run_dir: Path, dataset: Dataset, ranks: Ranks) -> Fitted:
    """Return what earlier sessions of a run have fitted; a run that begins may fit more.

    A run that was killed before its first checkpoint goes on with what it has fitted, if its data are still the same.
    """
    afresh = starts_afresh(config, run_dir)

    def kept() -> dict[str, bytes]:
        if config.resume == "never":
            return {}
        if afresh:
            return read(run_dir, lambda: identity_of_data(config, dataset))
        return read(run_before(config, run_dir))

    return Fitted(ranks.by_first(kept), complete=not afresh, by_first=ranks.by_first)


def identity_of_data(config: TrainConfig, dataset: Dataset) -> str:
    """Return a digest of the data and of how they are read."""
    text = f"{dataset.fingerprint()} {json.dumps(config.dataset.node, sort_keys=True, default=str)}"
    return hashlib.sha256(text.encode()).hexdigest()
