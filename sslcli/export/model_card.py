"""``model_card.md``: a description of an exported file, its quality, and how to load it, for its recipients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from omegaconf import OmegaConf

import sslcli
from sslcli.config.composed import TrainConfig, to_plain
from sslcli.config.secrets import shown
from sslcli.errors import UserError, one_line
from sslcli.export.base import Checked, Lines, Source
from sslcli.run_dir.measurements import number, with_error
from sslcli.run_dir.readings import Reading
from sslcli.run_dir.records import measured_at

NAME = "model_card.md"
_FIRST = "<!-- written by ssl-export -->"
_LIBRARIES = ("torch", "torchvision", "timm", "safetensors", "onnx", "onnxruntime", "pyarrow", "numpy")


def check_place(path: Path) -> None:
    """Raise UserError if ``path`` is a file that this tool did not write."""
    if path.is_file() and not path.read_text(errors="replace").startswith(_FIRST):
        raise UserError(f"output: {path} is not this tool's and would be overwritten. Choose another folder.")


def card(source: Source, path: Path, lines: Lines, checked: Checked, compare: Sequence[str] = ()) -> str:
    """Return the model card of the file ``path``, which ``lines`` load and ``compare`` compares with golden samples."""
    config = source.config
    sections: dict[str, Sequence[str]] = {
        "Load it": ["```python", *lines, "```", "", f"Checked with these lines: {checked}."],
        **({"Compare it": compare} if compare else {}),
        "Input": _input(source),
        "Training": _training(source, config),
        "How good it is": _metrics(source),
        "Whose it is": _rights(config),
        "Versions": _versions(source),
        "Config": ["```yaml", OmegaConf.to_yaml(to_plain(config)).rstrip(), "```"],
    }
    text = [_FIRST, f"# {path.name}", "", f"Step {source.state['step']:,} of the run {source.run_dir}."]
    for title, content in sections.items():
        text += ["", f"## {title}", "", *content]
    return shown("\n".join(text)) + "\n"


def _input(source: Source) -> list[str]:
    """Describe size, statistics and interpolation of the input."""
    column = source.field
    rows = [f"- shape of a sample: {' x '.join(map(str, column.shape)) or 'one number'}"]
    if column.is_ids:
        return [*rows, f"- ids from 0 to {column.vocab - 1}"]
    rows += [f"- mean: {list(column.mean)}", f"- std: {list(column.std)}"] if column.mean else ["- not normalised"]
    if column.kind != "image":
        return rows
    grey = ["- grey: one channel, normalised before it is repeated for a model of three"] * (column.shape[0] == 1)
    deep = (
        ["- of integers of more than 8 bits, {:g} is 0 and {:g} is 255".format(*column.levels)] if column.levels else []
    )
    return [
        *rows,
        "- pixels in [0, 1] before they are normalised" if column.is_pixels else "- numbers as the dataset has them",
        *grey,
        *deep,
        "- interpolation: bilinear, antialiased (torchvision's `resize(..., antialias=True)`); of a picture file, the "
        "largest centred square",
    ]


def _training(source: Source, config: TrainConfig) -> list[str]:
    state, weights = source.state, config.encoder.weights
    return [
        f"- encoder: {config.encoder.name}, features of width {source.model.dim}"
        + (f", started from {weights}" if weights else ""),
        f"- objective: {config.objective.name}"
        + (", which reads LABELS" if config.objective.node.get("label") else ", which reads no labels"),
        f"- data: {config.dataset.name}, {state['data']}",
        *_classes(state.get("classes", {})),
        f"- weights: the {source.weights}'s" + (", a momentum copy" if source.weights == "teacher" else ""),
        f"- length: {state['step']:,} steps of {config.train.batch_size} samples, {state['seconds']:,.0f} s",
        f"- seed: {config.seed}",
        f"- command: `{state['environment']['command']}`",
    ]


def _classes(counts: Mapping[str, int]) -> list[str]:
    """List the classes of the training samples by label, with the number of samples; nothing without labels."""
    named = ", ".join(f"{one_line(name)} ({count:,})" for name, count in counts.items())
    return [f"- classes (label 0 first) and their training samples: {named}"] if counts else []


def _metrics(source: Source) -> list[str]:
    """Return a table of the metrics at the exported step, with protocols and baselines."""
    rows = [_row(*found) for found in measured_at(source.run_dir, source.state["step"], source.weights)]
    if not rows:
        return ["Nothing was measured at this step."]
    return ["| metric | value | baselines | protocol | file |", "|---|---|---|---|---|", *rows]


def _row(name: str, reading: Reading, file: str) -> str:
    spread = f", std {number(reading.std, reading.unit)}" if reading.std is not None else ""
    error = reading.standard_error
    shown = ", ".join(f"{key} {number(value, reading.unit, error)}" for key, value in reading.baselines.items())
    return f"| {name} | {with_error(reading)}{spread} | {shown} | {reading.protocol} | {file} |"


def _rights(config: TrainConfig) -> list[str]:
    start = config.encoder.weights
    others = f"the data and of {start}, which it started from," if start else "the data"
    return [
        "These weights are yours. sslcli is software under the MIT licence, which claims nothing on what it trains. "
        f"The terms of {others} are between you and their owners."
    ]


def _versions(source: Source) -> list[str]:
    environment = source.state["environment"]
    trained = {"sslcli": source.state["version"], "torch": environment["torch"], "python": environment["python"]}
    exported = {"sslcli": sslcli.__version__} | {name: v for name in _LIBRARIES if (v := _version(name))}
    device = f"{environment['device']}, {environment['precision']}"
    return [
        f"- trained with {_list(trained)} on {device}"
        + (f", commit {environment['commit']}" * bool(environment["commit"])),
        f"- exported with {_list(exported)}",
    ]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _list(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
