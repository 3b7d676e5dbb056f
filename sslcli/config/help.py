"""The text of ``--help``, composed of the first comment of each yaml file and the help of each config field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

from sslcli.config.composed import CONFIGS

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


def text(name: str, conf: str, extra: str | None) -> str:
    """Return the help text of one command."""
    summary, examples = _USAGE[name]
    width = max(len(command) for command, _ in examples)
    lines = [summary, "", f"usage: ssl-{name} [group=option ...] [key=value ...]", ""]
    lines += [f"  {command:<{width}}  {what}" for command, what in examples]
    folders = [Path(conf), *([Path(extra)] if extra else [])]
    lines += ["", "Groups (group=option):"]
    for group in _groups(name, folders):
        lines.append(f"  {group}")
        for option, description in _options(group, folders):
            lines.append(f"    {option:<22} {description}")
    lines += ["", "Keys (key=value):"]
    lines += [f"  {key:<24} {description}" for key, description in _keys(CONFIGS[name], "")]
    if name == "train":
        lines += [
            "  optimizer.lr             learning rate; optimizer.scale=linear scales it with the batch size",
            "  optimizer.weight_decay   for weights, not for biases, norms and tokens",
            "  objective.temperature    of the contrastive softmax",
            "  objective.mask_ratio     share of hidden patches",
            "  objective.norm           batch, layer or none, in the projector",
            "  encoder.norm             batch or layer",
            "  encoder.image_size       pixels a side that the encoder sees",
            "  encoder.weights          a run or file to start from (MoCo, SimMIM, torchvision, ...), or timm:NAME",
            "  dataset.path             where the data is",
            "  dataset.size             pixels a side that a folder's pictures are decoded to",
            "  dataset.workers          processes that fetch data",
            "  probe.max_samples        maximum number of reference samples and of query samples",
            "  probe.every              steps between evaluations during training (the probe's cheap form)",
            "  probe.patience           stop after this many evaluations without a better checkpoint.keep_best",
            "  probe.patience_after     steps before which no evaluation counts against the patience",
        ]
    lines += ["", "All other keys are in the composed config: ssl-" + name + " --cfg job"]
    return "\n".join(lines)


def _groups(name: str, folders: list[Path]) -> list[str]:
    order = ["encoder", "objective", "dataset", "views", "device", "optimizer", "schedule", "probe", "logger"]
    wanted = {
        "train": order,
        "eval": ["dataset", "device", "probe"],
        "export": ["format", "dataset", "device"],
        "report": ["device"],
    }[name]
    found = {p.name for folder in folders if folder.is_dir() for p in folder.iterdir() if p.is_dir()}
    others = sorted(found - {*order, "format", "__pycache__"}) if name == "train" else []
    return [*wanted, *others]


def _options(group: str, folders: list[Path]) -> Iterator[tuple[str, str]]:
    for folder in folders:
        for path in sorted((folder / group).glob("*.yaml")):
            yield path.stem, describe(path)


def describe(path: Path) -> str:
    """Return the first comment of a yaml file, apart from Hydra's ``@package`` directive."""
    for line in path.read_text().splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ")
    return ""


def _keys(schema: type, prefix: str) -> Iterator[tuple[str, str]]:
    for f in fields(schema):
        inner = f.default_factory
        if isinstance(inner, type) and is_dataclass(inner):
            yield from _keys(inner, f"{prefix}{f.name}.")
        elif "help" in f.metadata:
            yield f"{prefix}{f.name}", f.metadata["help"]
