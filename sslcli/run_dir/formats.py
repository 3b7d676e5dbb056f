"""The formats of checkpoints: what has changed from one to the next.

Format 2 keeps the state of each of the loop's hooks under the hook's name, and the files that were fitted on the data
by name and digest. In format 1 the sums of the metrics and what had been seen of the run stood beside the weights.
"""

from __future__ import annotations

from typing import Any

from sslcli.config.composed import TrainConfig, read
from sslcli.config.upgrade import up_to_date


def upgrade(state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's content as this version would have written it, with its config as a ``TrainConfig``."""
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
