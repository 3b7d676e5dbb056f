"""Converts checkpoints of old formats.

Format 2 stores the state of each hook of the training loop under the hook's name, and name and digest of each file that
was fitted on the data. Format 1 stored metric sums (``meter``) and online evaluation (``watch``) at the top level.
"""

from __future__ import annotations

from typing import Any

from sslcli.config.composed import TrainConfig, read
from sslcli.config.upgrade import up_to_date


def upgrade(state: dict[str, Any]) -> dict[str, Any]:
    """Convert the content of a checkpoint to the current format, with its config as a ``TrainConfig``."""
    found = dict(state)
    if found["format"] == 1:
        found["hooks"] = {"metric_lines": found.pop("meter")}
        seen = found.pop("watch", None)
        if seen is not None:
            found["hooks"]["online_evaluation"] = {**seen, "count": seen.get("looks", 0)}
        found["files"] = {}
    if "config" in found:
        found["config"] = read(up_to_date(found["config"], state["format"]), TrainConfig)
    return found
