"""Every objective in every layout of one batch: what ``test_layouts`` compares; as a script, one process of two."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from sslcli.distributed import Ranks, joined
from support.helpers import TINY, make_trainer

BATCH = 64
# With Adam the first steps are signs of the gradient, which turn rounding into differences: SGD.
EXACT = ("train.precision=fp32", "encoder.norm=layer", "optimizer=sgd", "optimizer.lr=0.05", "schedule=constant",
         f"train.batch_size={BATCH}", "log.every=2")  # fmt: skip
LAYER = "objective.norm=layer"
SMALL = ("views.num_local=2", "views.local_size=0.5")  # multi-crop


def added(**parts: tuple[str, ...]) -> tuple[str, ...]:
    """Further parts of ``objective=joint``, each an objective's name (and a number) with its options."""
    found: list[str] = []
    for name, options in parts.items():
        found += [f"+objective@objective.parts.{name}={name.rstrip('3')}", f"+objective.weights.{name}=1"]
        found += [f"objective.parts.{name}.{option}" for option in options]
    return tuple(found)


CASES = {
    "nt_xent": (LAYER,),
    "cross_view": ("objective.form=cross_view", "objective.learn_temperature=true", LAYER),
    "one direction": ("objective.form=cross_view", "objective.symmetric=false", LAYER),
    "decoupled": ("objective.form=decoupled", LAYER),
    "sigmoid": ("objective.form=sigmoid", "objective.learn_temperature=true", LAYER),
    "moco 1": ("objective=moco", "objective.version=1", "objective.queue=150", LAYER),
    "moco 2": ("objective=moco", "objective.queue=150", "objective.symmetric=false", LAYER),
    "moco 3": ("objective=moco", "objective.version=3", LAYER),
    "byol": ("objective=byol", LAYER),
    "supervised": ("objective.form=supervised", "objective.label=label", LAYER),
    "simsiam": ("objective=simsiam", LAYER),
    "vicreg": ("objective=vicreg", LAYER, "seed=1"),  # with seed 0 a unit lies on the kink of its ReLU after two steps
    "barlow": ("objective=barlow_twins", "optimizer.lr=0.0005", LAYER),  # its gradients are in the hundreds
    "simmim": ("objective=simmim",),
    "simmim of a ViT": ("objective=simmim", "encoder=vit_tiny"),
    "visible only": ("objective=simmim", "encoder=vit_tiny", "objective.visible_only=true", "objective.mask=random"),
    "infomax": ("objective=infomax", LAYER),
    "infomax smile": ("objective=infomax", "objective.estimator=smile", "objective.critic=concat", LAYER),
    "infomax mine": ("objective=infomax", "objective.estimator=mine", "objective.critic=separable", LAYER),
    "infomax gaussian": ("objective=infomax", "objective.estimator=gaussian", "objective.width=8", LAYER),
    "infomax local": ("objective=infomax", "objective.pairs=local", "objective.estimator=jsd", LAYER),
    "infomax noise": ("objective=infomax", "objective.pairs=noise", LAYER),
    "joint masked": ("objective=joint_masked", "objective.parts.moco.norm=layer"),
    "joint": ("objective=joint", "objective.parts.infonce.norm=layer"),
    "nt_xent, small views": (LAYER, *SMALL),
    "all that take small views": (
        "objective=joint",
        "objective.parts.infonce.norm=layer",
        "log.every=100",  # comparing the gradients of six terms takes longer than the steps
        *SMALL,
        *added(byol=("norm=layer",), simsiam=("norm=layer",), moco=("queue=150",), moco3=("version=3", "norm=layer")),
    ),
}


def measure(overrides: tuple[str, ...], ranks: Ranks | None = None) -> dict[str, torch.Tensor]:
    """Loss and gradients of the first step, and everything that three steps leave behind."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(Path(folder), *TINY, *EXACT, *overrides, ranks=ranks)
    parts = {"encoder": trainer.encoder, "objective": trainer.objective}
    found: dict[str, torch.Tensor] = {}
    update = trainer._update

    def watched(loss, outputs):
        if not found:
            found["loss"] = loss.total.detach()
            for part, module in parts.items():
                for name, p in module.named_parameters():
                    if p.grad is not None:
                        found[f"gradient of {part}.{name}"] = p.grad.clone()
        update(loss, outputs)

    trainer._update = watched
    for module in parts.values():
        module.train()
    batches = trainer.loader.batches(0)
    for _ in range(3):
        trainer.train_step(next(batches))
    for part, module in parts.items():
        found.update({f"{part}.{name}": value.clone() for name, value in module.state_dict().items()})
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as ranks:
        for accumulate in (1, 2):
            results = {
                name: measure((*overrides, f"train.accumulate={accumulate}"), ranks)
                for name, overrides in CASES.items()
            }
            torch.save(results, Path(sys.argv[1]) / f"accumulate{accumulate}-rank{ranks.rank}.pt")
