"""Run every objective with every split of one batch, for ``test_layouts``; as a script, one of two processes."""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslcli.cli import conf_dir
from sslcli.config.instantiate import allow
from sslcli.distributed import Ranks, joined
from support.helpers import TINY, compose, trainer_of
from support.masks import unequal_masks

BATCH = 64
# SGD, because Adam's first steps are signs of the gradient, which amplify rounding errors. Clipping gives the steps of
# all objectives the same length, also where gradients are in the hundreds, as with Barlow Twins.
EXACT = ("train.precision=fp32", "encoder.norm=layer", "optimizer=sgd", "optimizer.lr=0.05", "schedule=constant",
         "train.clip=1", f"train.batch_size={BATCH}", "log.every=2")  # fmt: skip
UNCOUPLED = {"norm": "layer", "dropout": 0.0, "drop_path": 0.0}  # so that all splits give the same result
LAYER = "objective.norm=layer"
SMALL = ("views.num_local=2", "views.local_size=0.5")  # multi-crop
VIT = ("encoder=timm", "encoder.name=test_vit")  # 6 blocks, 64 wide


def sections(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield a composed section and all sections nested in it, each with its path."""
    yield path, node
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from sections(value, f"{path}.{key}")


def found_in_conf() -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """Yield, for every yaml in ``conf/objective``: its name, its options, and whether its masks may be unequal."""
    for yaml in sorted((Path(conf_dir()) / "objective").glob("*.yaml")):
        choice = f"objective={yaml.stem}"
        inside = list(sections(compose(choice).objective.node, "objective"))
        uncoupled = (f"{path}.{key}={UNCOUPLED[key]}" for path, node in inside for key in node if key in UNCOUPLED)
        masks = any("mask_ratio" in node and not node.get("visible_only") for _, node in inside)
        yield yaml.stem, (choice, *uncoupled), masks


def added(**parts: tuple[str, ...]) -> tuple[str, ...]:
    """Return options that add parts to ``objective=joint``, each named like an objective (and a number)."""
    found: list[str] = []
    for name, options in parts.items():
        found += [f"+objective@objective.parts.{name}={name.rstrip('3')}", f"+objective.weights.{name}=1"]
        found += [f"objective.parts.{name}.{option}" for option in options]
    return tuple(found)


YAMLS = {name: (options, masks) for name, options, masks in found_in_conf()}
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
    "nt_xent, small views": (LAYER, *SMALL),
    "all that take small views": (
        "objective=joint",
        "objective.parts.infonce.norm=layer",
        "log.every=100",  # comparing the gradients of six terms takes longer than the steps
        *SMALL,
        *added(byol=("norm=layer",), simsiam=("norm=layer",), moco=("queue=150",), moco3=("version=3", "norm=layer")),
    ),
}
CASES = {name: options for name, (options, _) in YAMLS.items()} | VARIANTS
MASKED = {name: options for name, (options, masks) in YAMLS.items() if masks}
MASKED["simmim of a ViT"] = VARIANTS["simmim of a ViT"]
WRONG = {"wrong": ("objective=simmim", "objective._target_=support.masks.MeanOfMeans")}


@dataclass(frozen=True)
class Case:
    """The options of a command, and whether its masks hide unequal numbers of cells in its samples."""

    options: tuple[str, ...]
    unequal: bool = False


EQUAL = {name: Case(options) for name, options in (CASES | WRONG).items()}
UNEQUAL = {f"{name}, unequal masks": Case(options, unequal=True) for name, options in (MASKED | WRONG).items()}
MEASURED = EQUAL | UNEQUAL


composed = functools.cache(lambda options: compose("device=cpu", *TINY, *EXACT, *options))  # slow to compose


def measure(case: Case, accumulate: int, ranks: Ranks) -> dict[str, Tensor]:
    """Return loss and gradients of the first step, and all weights and buffers after three steps."""
    config = composed(case.options)
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


def measure_all(ranks: Ranks) -> dict[str, dict[str, dict[str, Tensor]]]:
    """Measure by layout and case: every second case in this process alone, and all cases with both processes."""
    mine = list(MEASURED)[ranks.rank :: ranks.size]
    alone, together = Ranks(), ranks
    layouts = {"1 x 64": (mine, 1, alone), "4 x 16": (mine, 4, alone),
               "2 x 32": (MEASURED, 1, together), "2 x 2 x 16": (MEASURED, 2, together)}  # fmt: skip
    return {
        layout: {name: measure(MEASURED[name], accumulate, group) for name in names}
        for layout, (names, accumulate, group) in layouts.items()
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    allow(["support"])  # the module of the wrong objective
    with joined(torch.device("cpu")) as ranks:
        torch.save(measure_all(ranks), Path(sys.argv[1]) / f"rank{ranks.rank}.pt")
