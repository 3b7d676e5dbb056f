"""What ``auto`` stands for in ``optimizer.lr``, ``schedule.warmup`` and ``views``.

One rate does not serve all encoders: 0.01, the best for the smallest convolutional net, leaves a ViT at its chance
level. The tables below give values for a family of encoders, an objective and an optimizer. They are settled after the
config is composed and before the run gets its name, and are written into its ``config.yaml`` as values. What the user
gives is never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sslcli.config.choices import part_name
from sslcli.errors import UserError

AUTO = "auto"
STARTS_FROM = "small"  # the option of views that conf/views/auto.yaml has the keys of
ANY = "any"
# The family of an encoder by the beginning of its class's or timm model's name; of any other it is ``other``.
FAMILIES = {
    "convnetsmall": "convnet_small",
    "mlp": "mlp",
    "resnet": "resnet",
    "convnext": "convnext",
    "swin": "swin",
    "vit": "vit",
    "textbag": "text_bag",
    "texttransformer": "text_transformer",
    "huggingface": "hf",
    "history": "history",
    "nodes": "nodes",
    "towers": "towers",
}
OF_TEXTS = ("text_bag", "text_transformer", "hf")  # the families that read texts
VIEWS = {"vectors": "scarf"}  # the option of ``views`` for a dataset, by the end of its ``_target_``
Row = tuple[str, str, str, float]  # of these tables: the first row that fits gives the value
# optimizer, family, objective: learning rate, before optimizer.scale
RATES: tuple[Row, ...] = (
    ("adamw", "convnet_small", ANY, 1e-2),
    ("adamw", "mlp", ANY, 1e-2),
    ("adamw", "resnet", ANY, 3e-3),
    ("adamw", "text_bag", ANY, 1e-2),
    ("adamw", "text_transformer", ANY, 1e-3),
    ("adamw", "hf", ANY, 3e-5),  # of weights that were trained before
    ("adamw", "nodes", ANY, 5e-3),
    ("adamw", "towers", ANY, 5e-3),
    ("adamw", ANY, ANY, 1e-3),
    ("sgd", ANY, ANY, 0.06),
    ("lars", ANY, ANY, 0.3),
)
# AdamW's rates of these families are for batches of 256: smaller ones get them times the square root of their share.
FOR_BATCHES_OF = 256
BY_BATCH = ("vit", "swin", "convnext")
# schedule, family, objective: share of training
WARMUPS: tuple[Row, ...] = (
    ("cosine", ANY, ANY, 0.1),
    ("constant", ANY, ANY, 0.0),
    ("steps", ANY, ANY, 0.0),
)


def settle(plain: dict[str, Any], views: str | None, views_of: Callable[[str], Any]) -> list[str]:
    """Replace each ``auto`` by its value.

    Args:
        plain: the composed config, changed in place.
        views: the chosen option of the group ``views``.
        views_of: returns the section of another option of ``views``, with the keys that the user gave.

    Returns:
        What was settled, in words for the start lines; [] if the user gave everything.

    Raises:
        UserError: there is no row for an optimizer or a schedule of the user's own.
    """
    encoder, objective = family(plain.get("encoder")), _name(plain.get("objective"))
    case = f"{encoder}, {objective}"
    found: list[str] = []
    if _is_auto(plain, "optimizer", "lr"):
        optimizer = _name(plain["optimizer"])
        rate = _value(RATES, optimizer, encoder, objective, "optimizer.lr")
        batch = _small_batch(plain, optimizer, encoder)
        if batch is not None:
            rate = float(f"{rate * (batch / FOR_BATCHES_OF) ** 0.5:.2g}")
        plain["optimizer"]["lr"] = rate
        found.append(f"learning rate {rate:g} ({case}, {optimizer}{'' if batch is None else f', batch {batch}'})")
    if _is_auto(plain, "schedule", "warmup"):
        share = _value(WARMUPS, _name(plain["schedule"]), encoder, objective, "schedule.warmup")
        plain["schedule"]["warmup"] = share
        found.append(f"warm-up {share:g} of training")
    if views == AUTO:
        option = views_option(plain.get("objective"), plain.get("dataset"), encoder)
        if option != STARTS_FROM:  # composing again would take as long as all else before torch is loaded
            plain["views"] = views_of(option)
        found.append(f"views {option}")
    return found


def family(encoder: Any) -> str:
    """Return the family of an encoder's section of the config; ``other`` for the user's own and for unknown models."""
    name = _name(encoder)
    return next((word for beginning, word in FAMILIES.items() if name.startswith(beginning)), "other")


def views_option(objective: Any, dataset: Any = None, encoder: str = "") -> str:
    """Return the option of ``views`` for an objective, and for a dataset or a family of encoders of other than images.

    A masked objective reconstructs what it sees, so its views are mildly cropped and not recoloured, as published for
    SimMIM; else it would learn to remove noise. All others need strong augmentations, so a joint takes theirs. Of texts
    a masked objective reads all words, and others compare two parts of a text.
    """
    target = str(dataset.get("_target_") or "") if isinstance(dataset, Mapping) else ""
    if target.rpartition(".")[2] in VIEWS:
        return VIEWS[target.rpartition(".")[2]]
    parts = objective.get("parts") if isinstance(objective, Mapping) else None
    members = list(parts.values()) if isinstance(parts, Mapping) else [objective]
    names = {_name(member) for member in members}
    if encoder == "history":
        return "history"
    if names == {"maskedtokens"}:
        return "columns"
    if encoder in OF_TEXTS:
        return "token_crop"
    return "simmim" if names == {"simmim"} else "small"


def _name(section: Any) -> str:
    return part_name(section).lower() if isinstance(section, Mapping) else ""


def _small_batch(plain: Mapping[str, Any], optimizer: str, encoder: str) -> int | None:
    """Return the size of a batch that lowers the rate; None if it does not, or if optimizer.scale says how it does."""
    batch = plain.get("train", {}).get("batch_size")
    falls = optimizer == "adamw" and encoder in BY_BATCH and plain["optimizer"].get("scale", "none") == "none"
    return batch if falls and isinstance(batch, int) and 0 < batch < FOR_BATCHES_OF else None


def _is_auto(plain: Mapping[str, Any], section: str, key: str) -> bool:
    node = plain.get(section)
    return isinstance(node, Mapping) and node.get(key) == AUTO


def _value(table: tuple[Row, ...], part: str, encoder: str, objective: str, path: str) -> float:
    for *row, value in table:
        if all(want in (ANY, given) for want, given in zip(row, (part, encoder, objective))):
            return value
    raise UserError(f"{path}=auto: no value is known for {part}. Give a number.")
