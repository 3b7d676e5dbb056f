"""Brings metrics of old ``result.json`` and ``eval.json`` up to date: they had no unit, direction and headline.

Before, these followed from the metric's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sslcli.run_dir.formatting import SHARE, is_number

Json = dict[str, Any]

_SHARES = ("top1", "top5", "accuracy")  # a metric whose name has one of these was a share
_KNOWN: dict[str, tuple[str, bool | None]] = {  # unit, and whether higher is better
    "held_out_loss": ("", False),
    "rankme": ("", True),
    "lidar": ("", True),
    "dimension_std": ("", True),
    "alignment": ("", False),
    "uniformity": ("", False),
    "mi_floor": ("nats", True),
    "mi_gaussian": ("nats", None),
    "mi_ceiling": ("nats", None),
}
_HEADLINES = ("knn_top1", "held_out_loss")


def metric_up_to_date(name: str, entry: Mapping[str, Any]) -> Json:
    """Return the entry of a metric as this version would write it."""
    if "unit" in entry:
        return dict(entry)
    is_share = any(word in name for word in _SHARES)
    unit, higher_is_better = (SHARE, True) if is_share else _KNOWN.get(name, ("", None))
    nested = entry.get("controls")
    found = {**{key: value for key, value in entry.items() if key != "controls"}}
    if isinstance(nested, Mapping):  # the first versions kept the baselines apart
        found |= nested
    return {**found, "unit": unit, "higher_is_better": higher_is_better, "headline": name in _HEADLINES}


def result_up_to_date(result: Mapping[str, Any]) -> Json:
    """Return the content of ``result.json`` as this version would write it."""
    if "headline" in result:
        return dict(result)
    metrics = result.get("metrics")
    known = [name for name in metrics if is_metric(metrics[name])] if isinstance(metrics, Mapping) else []
    headline = next((name for name in (*_HEADLINES, *known) if name in known), None)
    quality = result.get("quality")  # label-free metrics had a place of their own
    more = {name: {"value": value} for name, value in quality.items()} if isinstance(quality, Mapping) else {}
    found = {key: value for key, value in result.items() if key != "quality"}
    return {**found, "metrics": {**more, **(metrics or {})}, "headline": headline}


def is_metric(entry: Any) -> bool:
    """Whether a value in these files is a metric: a mapping with a number called ``value``."""
    return isinstance(entry, Mapping) and is_number(entry.get("value"))
