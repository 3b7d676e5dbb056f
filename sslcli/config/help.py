"""The text of ``--help``, composed of the first comment of each yaml file and the help of each config field."""

from __future__ import annotations

from typing import Any

from sslcli.config.composed import CONFIGS, leaves
from sslcli.config.options import Folders, as_written, describe

_USAGE = {
    "train": (
        "Pretrain an encoder on unlabelled data. Without arguments: embedded images, a minute or two on a CPU.",
        [
            ("ssl-train", "the default run"),
            ("ssl-train objective=simmim encoder=vit_tiny", "other parts"),
            ("ssl-train dataset=images dataset.path=DIR", "your own pictures"),
            ("ssl-train -m objective.temperature=0.1,0.2 seed=0,1", "a sweep of four runs"),
            ("ssl-train --cfg job", "print the composed config and stop"),
            ("ssl-train --config-dir DIR plugins=[mypkg] objective=mine", "your own parts"),
        ],
    ),
    "eval": (
        "Measure the encoder of a run.",
        [
            ("ssl-eval run=runs/NAME", "weighted 20-NN accuracy and its baselines"),
            ("ssl-eval run=runs/NAME probe=all", "kNN, linear, geometry, information and fine-tuning"),
            ("ssl-eval run=runs/NAME probe=linear dataset=images dataset.path=DIR", "on other labelled data"),
            ("ssl-eval run=runs/NAME/checkpoints/best", "the best checkpoint, where checkpoint.keep_best is set"),
        ],
    ),
    "export": (
        "Hand a run's encoder over to another library, checked by loading it there.",
        [
            ("ssl-export run=runs/NAME", "safetensors, for sslcli.load and encoder.weights"),
            ("ssl-export run=runs/NAME format=torchvision", "a state dict for torchvision's own class"),
            ("ssl-export run=runs/NAME format=onnx format.preprocessing=true", "pixels in [0, 1] in, features out"),
            ("ssl-export run=runs/NAME format=embeddings dataset=images dataset.path=DIR", "a table of features"),
        ],
    ),
    "report": (
        "Write a page of a run, or one that compares several; a file that needs no network.",
        [
            ("ssl-report run=runs/NAME", "report.html of one run"),
            ("ssl-report run=[runs/A,runs/B]", "comparison.html of several"),
            ("ssl-report run=SWEEP", "comparison.html of a sweep's folder"),
        ],
    ),
}

# Keys of parts that most users meet; those of a chosen part are listed by ``part_help``.
_OF_PARTS = {
    "optimizer.lr": "learning rate; optimizer.scale=linear scales it with the batch size",
    "optimizer.weight_decay": "for weights, not for biases, norms and tokens",
    "objective.temperature": "of the contrastive softmax",
    "objective.mask_ratio": "share of hidden patches",
    "objective.norm": "batch, layer or none, in the projector",
    "encoder.norm": "batch or layer",
    "encoder.image_size": "pixels a side that the encoder sees",
    "encoder.weights": "a run or file to start from (MoCo, SimMIM, torchvision, ...), or timm:NAME",
    "dataset.path": "where the data is",
    "dataset.size": "pixels a side that a folder's pictures are decoded to",
    "dataset.workers": "processes that fetch data",
    "probe.max_samples": "maximum number of reference samples and of query samples",
    "probe.every": "steps between evaluations during training (the probe's cheap form)",
    "probe.patience": "stop after this many evaluations without a better checkpoint.keep_best",
    "probe.patience_after": "steps before which no evaluation counts against the patience",
}


def text(name: str, folders: Folders) -> str:
    """Return the help text of one command."""
    summary, examples = _USAGE[name]
    width = max(len(command) for command, _ in examples)
    lines = [summary, "", f"usage: ssl-{name} [group=option ...] [key=value ...]", ""]
    lines += [f"  {command:<{width}}  {what}" for command, what in examples]
    chosen = folders.defaults(name)
    lines += ["", "Groups (group=option), and the option that is taken if none is given:"]
    for group in chosen:
        lines.append(f"  {group}={chosen[group]}")
        lines += [f"    {option:<22} {describe(path)}" for option, path in folders.groups.get(group, {}).items()]
    lacking = " (- where the part has no such key)" if name == "train" else ""
    lines += ["", f"Keys (key=value), and the values that are taken if none is given{lacking}:"]
    for key, words in explained(name).items():
        lines.append(f"  {key:<24} {folders.value(name, chosen, key) or default(CONFIGS[name], key):<9} {words}")
    example = {"train": "objective=moco", "eval": "probe=linear", "export": "format=onnx", "report": "device=cpu"}[name]
    lines += ["", f"The keys of the parts that are chosen: ssl-{name} {example} --help"]
    lines += [f"All keys, as one config: ssl-{name} --cfg job"]
    return "\n".join(lines)


def explained(name: str) -> dict[str, str]:
    """Return the keys of a command that have an explanation here: those of fixed sections, and some of parts."""
    fixed = {key: f.metadata["help"] for key, f in leaves(CONFIGS[name]) if "help" in f.metadata}
    return {**fixed, **(_OF_PARTS if name == "train" else {})}


def default(schema: type, key: str) -> str:
    """Return the default of a key of a fixed section, as it is written; ``-`` for keys of parts."""
    value: Any = schema()
    for name in key.split("."):
        if not hasattr(value, name):
            return "-"
        value = getattr(value, name)
    return as_written(value)
