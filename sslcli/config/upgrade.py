"""Configs of old runs, brought up to date before they are compared, built or hashed.

A checkpoint's config names classes where they were when it was written, and lacks keys that came later. Whoever moves
a class that a yaml names, or gives one a new key, adds a row here, so that no run is orphaned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Where the modules that ``_target_`` names were, and where they are.
_MOVED = {
    "sslcli.datasets.cifar": "sslcli.data.published.cifar",
    "sslcli.datasets.fashion_mnist": "sslcli.data.published.fashion_mnist",
    "sslcli.datasets.imagenet": "sslcli.data.published.imagenet",
    "sslcli.datasets.images": "sslcli.data.pictures.images",
    "sslcli.datasets.mnist": "sslcli.data.published.mnist",
    "sslcli.datasets.packed": "sslcli.data.pictures.packed",
    "sslcli.datasets.parquet": "sslcli.data.pictures.parquet",
    "sslcli.datasets.shards": "sslcli.data.pictures.shards",
    "sslcli.datasets.stl10": "sslcli.data.published.stl10",
    "sslcli.datasets.synthetic": "sslcli.data.synthetic",
    "sslcli.engine.optim": "sslcli.training.optim",
    "sslcli.engine.schedule": "sslcli.training.schedule",
    "sslcli.formats.embeddings": "sslcli.export.embeddings",
    "sslcli.formats.onnx": "sslcli.export.onnx",
    "sslcli.formats.safetensors": "sslcli.export.safetensors",
    "sslcli.formats.timm": "sslcli.export.timm",
    "sslcli.formats.torch_export": "sslcli.export.torch_export",
    "sslcli.formats.torchvision": "sslcli.export.torchvision",
    "sslcli.probes.base": "sslcli.evaluation.base",
    "sslcli.probes.finetune": "sslcli.evaluation.finetune",
    "sslcli.probes.information": "sslcli.evaluation.mutual_information",
    "sslcli.probes.knn": "sslcli.evaluation.knn",
    "sslcli.probes.linear": "sslcli.evaluation.linear",
    "sslcli.probes.spread": "sslcli.evaluation.geometry",
    "sslcli.views.image": "sslcli.views.image.pipeline",
}
# What the code did without a key, by target, where that is not the constructor's default of today.
_WITHOUT: dict[str, dict[str, Any]] = {}


def up_to_date(config: Mapping[str, Any]) -> dict[str, Any]:
    """A plain config as this version would have written it; one of this version is returned as it is."""
    return {str(key): _upgraded(value) for key, value in config.items()}


def _upgraded(node: Any) -> Any:
    if isinstance(node, list):
        return [_upgraded(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    found = {key: _upgraded(value) for key, value in node.items()}
    target = found.get("_target_")
    if isinstance(target, str):
        module, _, name = target.rpartition(".")
        found["_target_"] = target = f"{_MOVED[module]}.{name}" if module in _MOVED else target
        found = {**_WITHOUT.get(target, {}), **found}
    return found
