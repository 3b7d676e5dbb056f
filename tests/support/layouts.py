"""Every objective in every layout of one batch: what ``test_layouts`` compares."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from torch import Tensor

from sslcli.cli import conf_dir
from sslcli.config.composed import TrainConfig
from sslcli.config.instantiate import allow
from sslcli.config.options import describe
from sslcli.distributed.ranks import Ranks, joined
from sslcli.distributed.start import Start
from support.helpers import TINY, compose, trainer_of
from support.masks import unequal_masks

BATCH = 64
# With Adam the first steps are signs of the gradient, which turn rounding into differences: SGD. Clipping makes the
# steps of all objectives as long, also where gradients are in the hundreds, as Barlow Twins' are.
EXACT = ("train.precision=fp32", "encoder.norm=layer", "optimizer=sgd", "optimizer.lr=0.05", "schedule=constant",
         "train.clip=1", f"train.batch_size={BATCH}", "log.every=2")  # fmt: skip
UNCOUPLED = {"norm": "layer", "dropout": 0.0, "drop_path": 0.0}  # what the promise of equal layouts asks for
LAYER = "objective.norm=layer"
SMALL = ("views.num_local=2", "views.local_size=0.5")  # multi-crop
TABLE = ("dataset=vectors", "dataset.name=wine", "encoder=mlp", "encoder.hidden_dim=16", "train.steps=3")
VIT = ("encoder=timm", "encoder.name=test_vit")  # 6 blocks, 64 wide
UNNORMED = tuple(option for option in EXACT if "norm" not in option)
SMALLEST = ("encoder.hidden_dim=16", "encoder.depth=1", "encoder.num_heads=2", "encoder.dropout=0", *UNNORMED)
OF_BAGS = ("encoder=text_bag", "encoder.hidden_dim=16", "encoder.bigrams=64", "views=span_mask", *UNNORMED)
OF_NODES = ("encoder=nodes", "encoder.dim=8", "encoder.layers=2", "encoder.noise=0.1", "views=nodes", *UNNORMED)
OF_TOWERS = ("encoder=towers", "encoder.dim=8", "encoder.hidden_dim=8", "encoder.std=0.1", "views=nodes", *UNNORMED)
NOISE = {"joint_nodes": "added", "joint_layers": "all"}  # what views.noise has to be
# What has other data in the place of pictures, by the words that the yaml of its objective begins with: what makes them
# in tests/support/modalities.py, and the options. Texts have 0 to 22 words and histories 0 to 12 items.
OTHER_DATA = {
    "texts": ({"_target_": "padded_texts"}, ("encoder=text_transformer", "views=columns", *SMALLEST)),
    "bags of texts": ({"_target_": "padded_texts"}, OF_BAGS),
    "histories": ({"_target_": "histories"}, ("encoder=history", "views=history", *SMALLEST)),
    "users and items": ({"_target_": "pairs_dataset", "users": 40, "items": 15}, OF_NODES),
    "features": ({"_target_": "pairs_dataset", "users": 40, "items": 15, "features": True}, OF_TOWERS),
}


def sections(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A composed section and all that are nested in it, each with its path."""
    yield path, node
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from sections(value, f"{path}.{key}")


def objectives() -> Mapping[str, Mapping[str, Any]]:
    """Every yaml in ``conf/objective`` by its name, composed at once and without the rest of a config."""
    names = sorted(path.stem for path in (Path(conf_dir()) / "objective").glob("*.yaml"))
    GlobalHydra.instance().clear()
    with initialize_config_dir(conf_dir(), version_base="1.3"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of _self_, which only a primary config needs
        composed = hydra_compose(overrides=[f"+objective@{name}={name}" for name in names])
    return {str(name): node for name, node in OmegaConf.to_container(composed).items()}


def found_in_conf() -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """Of every yaml in ``conf/objective``: its name, its options, and whether it masks in a way that may be unequal."""
    for name, node in objectives().items():
        choice = f"objective={name}"
        inside = list(sections(node, "objective"))
        uncoupled = (f"{path}.{key}={UNCOUPLED[key]}" for path, node in inside for key in node if key in UNCOUPLED)
        uncoupled = (*uncoupled, *([f"views.noise={NOISE[name]}"] if name in NOISE else []))
        masks = any("mask_ratio" in node and not node.get("visible_only") for _, node in inside)
        yield name, (choice, *uncoupled), masks


def data_of(name: str) -> str | None:
    """The data that an objective reads in the place of pictures, which is what its yaml begins with; None: pictures."""
    line = describe(Path(conf_dir()) / "objective" / f"{name}.yaml")
    return next((word for word in OTHER_DATA if line.startswith(word)), None)


def added(**parts: tuple[str, ...]) -> tuple[str, ...]:
    """Further parts of ``objective=joint``, each an objective's name (and a number) with its options."""
    found: list[str] = []
    for name, options in parts.items():
        found += [f"+objective@objective.parts.{name}={name.rstrip('3')}", f"+objective.weights.{name}=1"]
        found += [f"objective.parts.{name}.{option}" for option in options]
    return tuple(found)


FOUND = {name: (options, masks) for name, options, masks in found_in_conf()}
YAMLS = {name: found for name, found in FOUND.items() if data_of(name) is None}
OTHER_YAMLS = {name: options for name, (options, _) in FOUND.items() if name not in YAMLS}
VARIANTS = {
    "cross_view": ("objective.form=cross_view", "objective.learn_temperature=true", LAYER),
    "one direction": ("objective.form=cross_view", "objective.symmetric=false", LAYER),
    "decoupled": ("objective.form=decoupled", LAYER),
    "sigmoid": ("objective.form=sigmoid", "objective.learn_temperature=true", LAYER),
    "moco 1": ("objective=moco", "objective.version=1", "objective.queue=150", LAYER),
    "moco 2": ("objective=moco", "objective.queue=150", "objective.symmetric=false", LAYER),
    "moco 3": ("objective=moco", "objective.version=3", LAYER),
    "supervised": ("objective.form=supervised", "objective.label=label", LAYER),
    "simmim of a ViT": ("objective=simmim", *VIT),
    "visible only": ("objective=simmim", *VIT, "objective.visible_only=true", "objective.mask=random"),
    "infomax smile": ("objective=infomax", "objective.estimator=smile", "objective.critic=concat", LAYER),
    "infomax mine": ("objective=infomax", "objective.estimator=mine", "objective.critic=separable", LAYER),
    "infomax gaussian": ("objective=infomax", "objective.estimator=gaussian", "objective.width=8", LAYER),
    "infomax local": ("objective=infomax", "objective.pairs=local", "objective.estimator=jsd", LAYER),
    "infomax noise": ("objective=infomax", "objective.pairs=noise", LAYER),
    "vectors": (*TABLE, LAYER),
    "vectors, moco": (*TABLE, "objective=moco", "objective.queue=150", LAYER),
    "vectors, infomax": (*TABLE, "views=mask_features", "objective=infomax", LAYER),
    "nt_xent, small views": (LAYER, *SMALL),
    "all that take small views": (
        "objective=joint",
        "objective.parts.infonce.norm=layer",
        "log.every=100",  # comparing the gradients of six terms takes longer than the steps
        *SMALL,
        *added(byol=("norm=layer",), simsiam=("norm=layer",), moco=("queue=150",), moco3=("version=3", "norm=layer")),
    ),
}
VARIANTS_OF = {  # of other data, each a key of OTHER_DATA
    "texts": {
        "infonce, texts": (LAYER, "views=token_delete"),
        "moco 3, texts": (*VARIANTS["moco 3"], "views=token_crop"),
        "infomax, texts": ("objective=infomax", LAYER, "views=span_mask"),
        "joint, texts": (
            "objective=joint_masked",
            "objective.parts.moco.norm=layer",
            "~objective.parts.simmim",
            "~objective.weights.simmim",
            *added(masked_tokens=()),
            "views=span_mask",  # of parts of texts, step 1 has an input of 5e-8 to a ReLU, which rounding turns round
        ),
    },
    "bags of texts": {"infomax, bags": ("objective=infomax", "objective.pairs=local", LAYER)},  # pairs of tokens
    "histories": {
        "masked_tokens, histories": ("objective=masked_tokens", "encoder.causal=false"),
        "infonce, histories": (LAYER, "views.whole=0"),
    },
    "features": {
        "infonce, towers": ("objective=infonce_nodes",),
        "bpr, towers": ("objective=bpr", "objective.negatives=2", "objective.l2=0.01"),
    },
}
CASES = {name: options for name, (options, _) in YAMLS.items()} | VARIANTS
MASKED = {name: options for name, (options, masks) in YAMLS.items() if masks}
MASKED["simmim of a ViT"] = VARIANTS["simmim of a ViT"]
WRONG = {"wrong": ("objective=simmim", "objective._target_=support.masks.MeanOfMeans")}


@dataclass(frozen=True)
class Case:
    """The options of a command, whether its samples hide unequal numbers of cells, and its data if not pictures."""

    options: tuple[str, ...]
    unequal: bool = False
    data: str | None = None


OTHER_CASES = {name: Case(options, data=data_of(name)) for name, options in OTHER_YAMLS.items()}
OTHER_VARIANTS = {
    name: Case(options, data=data) for data, variants in VARIANTS_OF.items() for name, options in variants.items()
}
EQUAL = {name: Case(options) for name, options in (CASES | WRONG).items()}
UNEQUAL = {f"{name}, unequal masks": Case(options, unequal=True) for name, options in (MASKED | WRONG).items()}
MEASURED = EQUAL | UNEQUAL | OTHER_CASES | OTHER_VARIANTS
OF_VARIANTS = [case for case in MEASURED if case.partition(",")[0] in VARIANTS or case in (VARIANTS | OTHER_VARIANTS)]
OF_YAMLS = [case for case in MEASURED if case not in OF_VARIANTS]


def config_of(case: Case) -> TrainConfig:
    """The config of a case with the whole batch at once."""
    if case.data is None:
        tiny = () if set(TABLE) <= set(case.options) else TINY
        return compose("device=cpu", *tiny, *EXACT, *case.options)
    made, options = OTHER_DATA[case.data]
    config = compose("device=cpu", "train.steps=3", *options, *case.options)
    node = {**made, "_target_": f"support.modalities.{made['_target_']}"}
    return replace(config, dataset=replace(config.dataset, node=node))


def measure(case: Case, accumulate: int, ranks: Ranks) -> dict[str, Tensor]:
    """Loss and gradients of the first step, and everything that three steps leave behind."""
    config = config_of(case)
    config = replace(config, train=replace(config.train, accumulate=accumulate))
    with tempfile.TemporaryDirectory() as folder, unequal_masks() if case.unequal else nullcontext():
        trainer = trainer_of(config, Path(folder), ranks=ranks)
    parts = {"encoder": trainer.encoder, "objective": trainer.objective}
    for module in parts.values():
        module.train()
    batches = trainer.loader.batches(0)
    loss, outputs = trainer.gradients(next(batches))
    found = {"loss": loss.total.detach()}
    for part, module in parts.items():
        gradients = ((name, p.grad) for name, p in module.named_parameters() if p.grad is not None)
        found.update({f"gradient of {part}.{name}": gradient.clone() for name, gradient in gradients})
    trainer.update(loss, outputs)
    trainer.step += 1
    for _ in range(2):
        trainer.train_step(next(batches))
    for part, module in parts.items():
        found.update({f"{part}.{name}": value.clone() for name, value in module.state_dict().items()})
    return found


def shared_by(size: int) -> tuple[str, str]:
    """The layouts of ``size`` processes: with one micro-batch each, and with two."""
    return f"{size} processes", f"{size} processes x 2 micro-batches"


def measure_all(cases: list[str], ranks: Ranks) -> dict[str, dict[str, dict[str, Tensor]]]:
    """By layout and case: what this process finds alone of its share of the cases, and with the others of each."""
    mine = cases[ranks.rank :: ranks.size]
    alone, together = Ranks(), ranks
    layouts = {
        "whole": (mine, 1, alone),
        "4 micro-batches": (mine, 4, alone),
        **{name: (cases, count, together) for name, count in zip(shared_by(ranks.size), (1, 2))},
    }
    return {
        layout: {name: measure(MEASURED[name], accumulate, group) for name in names}
        for layout, (names, accumulate, group) in layouts.items()
    }


def one_rank(cases: list[str], folder: Path) -> None:
    """What each of several processes does: measure the cases and write what it finds."""
    allow(["support"])  # where the wrong objective is
    with joined(Start.read(), torch.device("cpu")) as ranks:
        torch.save(measure_all(cases, ranks), folder / f"rank{ranks.rank}.pt")
