"""Updates configs of old runs before they are compared, built or hashed.

The config in an old checkpoint names classes at their old places and lacks keys that were added later. Whoever moves a
class that a yaml names, or adds a key to one, must add a row here, so that old runs can still be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORMAT = 6  # of the checkpoints that this version writes

# Old and new names of the modules that ``_target_`` names.
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
# For configs of a format before the given one: by target, the values of keys that did not exist yet, chosen such that
# the code does what it did then.
_WITHOUT: dict[int, dict[str, dict[str, Any]]] = {
    2: {
        "sslcli.encoders.convnet_small.ConvNetSmall": {"view_share": 1.0},
        "sslcli.objectives.infonce.InfoNCE": {"depth": 2},
        "sslcli.objectives.infomax.Infomax": {"depth": 2},
        "sslcli.training.optim.adamw": {"lr": 1e-3},
        "sslcli.training.schedule.Cosine": {"warmup": 0.05},
    },
    3: {
        f"sslcli.objectives.{name}": {"reads": None}
        for name in (
            "barlow_twins.BarlowTwins",
            "byol.BYOL",
            "infomax.Infomax",
            "infonce.InfoNCE",
            "moco.moco",
            "simmim.SimMIM",
            "simsiam.SimSiam",
            "vicreg.VICReg",
        )
    },
    4: {
        "sslcli.views.image.pipeline.ImageViews": {"channel_drop": 0.0},
        **{f"sslcli.data.pictures.{name}": {"channels": None} for name in ("parquet.parquet", "shards.shards")},
        "sslcli.data.pictures.images.images": {"channels": None, "label": None, "links": "one"},
        "sslcli.data.published.imagenet.imagenet": {"crop": "device"},
        "sslcli.encoders.timm.Timm": {"pool": "patches"},
        "sslcli.objectives.infonce.InfoNCE": {"last_norm": False},
        "sslcli.training.optim.adamw": {"decay_all": False},
        "sslcli.training.optim.lars": {"exempt_lr": None},
        "sslcli.training.optim.sgd": {"decay_all": False},
        "sslcli.training.schedule.Cosine": {"initial": 0.0, "from_start": False},
    },
    5: {"sslcli.objectives.infonce.InfoNCE": {"log_q": "auto", "unique": False}},  # auto is nothing without a graph
    6: {
        "sslcli.data.pictures.images.images": {"split_folders": False},
        "sslcli.encoders.text_bag.TextBag": {"unit": False},
        "sslcli.views.text.whole.Pairs": {"delete": 0.0},
    },
}
# By target, old and new names of keys.
_RENAMED: dict[str, dict[str, str]] = {
    "sslcli.evaluation.geometry.Geometry": {"samples": "max_samples"},
    "sslcli.evaluation.mutual_information.MutualInformation": {"samples": "max_samples"},
}


def up_to_date(config: Mapping[Any, Any], written_in: int = FORMAT) -> dict[str, Any]:
    """Return a plain config as this version would write it.

    Args:
        config: a plain config of this or an older version.
        written_in: the checkpoint format of the version that wrote it.
    """
    return {str(key): _upgraded(value, written_in) for key, value in config.items()}


def _upgraded(node: Any, written_in: int) -> Any:
    if isinstance(node, list):
        return [_upgraded(item, written_in) for item in node]
    if not isinstance(node, Mapping):
        return node
    found = {key: _upgraded(value, written_in) for key, value in node.items()}
    target = found.get("_target_")
    if isinstance(target, str):
        module, _, name = target.rpartition(".")
        found["_target_"] = target = f"{_MOVED[module]}.{name}" if module in _MOVED else target
        for number, without in _WITHOUT.items():
            if written_in < number:
                found = {**without.get(target, {}), **found}
        renamed = _RENAMED.get(target, {})
        found = {renamed.get(key, key): value for key, value in found.items()}
    return found
