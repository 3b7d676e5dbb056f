"""Converts checkpoints of old formats.

Format 3 stores the kind and the dtype of each column of the dataset, and a digest of the data's content, or of the
names, sizes and times of its files; older ones stored the number of samples or a digest of names. Format 2 stores the
state of each hook of the training loop under the hook's name, and name and digest of each file that was fitted on the
data. Format 1 stored metric sums (``meter``) and online evaluation (``watch``) at the top level.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    online = found.get("hooks", {}).get("online_evaluation")
    if online is not None:
        found["hooks"] = {**found["hooks"], "online_evaluation": _with_online_names(online)}
    if "config" in found:
        found["config"] = read(up_to_date(found["config"], state["format"]), TrainConfig)
    if "spec" in found:
        found["spec"] = with_kinds(found["spec"])
    return found


def with_kinds(spec: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Add kind and dtype to the plain columns of a dataset where they are missing, as formats 1 and 2 guessed them."""
    return {name: field if "kind" in field else {**_guessed(field), **field} for name, field in spec.items()}


def _guessed(field: Mapping[str, Any]) -> dict[str, Any]:
    if field.get("vocab"):
        return {"kind": "tokens" if field["shape"] else "id", "dtype": "int64"}
    if len(field["shape"]) == 3:
        return {"kind": "image", "dtype": "uint8"}
    return {"kind": "vector", "dtype": "float32"}


def _with_online_names(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of online evaluation with the name that its kNN accuracy has now."""
    new: dict[Any, Any] = {"knn_top1": "online_knn_top1"}
    others = {new.get(name, name): value for name, value in state.get("others", {}).items()}
    return {**state, "metric": new.get(state.get("metric"), state.get("metric")), "others": others}
