"""``ssl-export``: a run's encoder as a file that another library loads, checked by loading it there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from sslcli.build import allow
from sslcli.config import expand
from sslcli.encoders.base import Encoder
from sslcli.engine.console import Console
from sslcli.engine.files import write_atomically
from sslcli.engine.resume import open_run
from sslcli.errors import UserError, suggest
from sslcli.evaluate import restore
from sslcli.types import View

Weights = dict[str, Tensor]


def run(config: Mapping[str, Any]) -> Path:
    """Write the file, load it in the target library, compare outputs, and only then say so."""
    formats = {"safetensors": _safetensors, "timm": _timm, "torchvision": _torchvision}
    if config["format"] not in formats:
        raise UserError(f"format: there is no '{config['format']}'. {suggest(config['format'], formats)}")
    allow(config["plugins"])
    run_dir, state = open_run(config["run"])
    encoder, _, _ = restore(state, torch.device("cpu"))
    suffix = "safetensors" if config["format"] == "safetensors" else "pth"
    output = config["output"]
    path = expand(output) if output else run_dir / "export" / f"encoder-{config['format']}.{suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output: {path.parent} cannot be made: {error.strerror}.") from None
    console = Console()
    for line in formats[config["format"]](encoder, path, state):
        console.line(line)
    return path


def _safetensors(encoder: Encoder, path: Path, state: Mapping[str, Any]) -> list[str]:
    """The encoder's own keys, with the config in the header."""
    weights = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    header = {"format": "pt", "config": json.dumps(state["config"]), "step": str(state["step"])}
    write_atomically(path, lambda file: file.write(to_safetensors(weights, metadata=header)))
    written = load_file(path)
    if written.keys() != weights.keys() or any(not torch.equal(written[k], weights[k]) for k in weights):
        raise RuntimeError(f"{path} does not hold what was written")
    return [f"wrote {path}: {len(written)} tensors, read back and equal"]


def _timm(encoder: Encoder, path: Path, state: Mapping[str, Any]) -> list[str]:
    """A state dict for ``timm.create_model(name, num_classes=0)``."""
    import timm

    model, name = _timm_model(encoder, state)
    stem = _small_stem(model, timm.create_model(name, num_classes=0))
    fresh = timm.create_model(name, num_classes=0)
    return _check(encoder, model, fresh, stem, path, f"timm.create_model('{name}', num_classes=0)", classifier=())


def _torchvision(encoder: Encoder, path: Path, state: Mapping[str, Any]) -> list[str]:
    """A state dict for torchvision's class of the same name; all but the classifier loads strictly."""
    import torchvision

    model, name = _timm_model(encoder, state)
    if name not in torchvision.models.list_models(module=torchvision.models) or not name.startswith("resnet"):
        raise UserError(f"format: torchvision's weights for {name} are not laid out like timm's; use format=timm.")
    stem = _small_stem(model, torchvision.models.get_model(name))
    fresh = torchvision.models.get_model(name)
    return _check(
        encoder, model, fresh, stem, path, f"torchvision.models.{name}()", classifier=("fc.weight", "fc.bias")
    )


def _timm_model(encoder: Encoder, state: Mapping[str, Any]) -> tuple[nn.Module, str]:
    model = getattr(encoder, "model", None)
    name = state["config"]["encoder"].get("name")
    if not isinstance(model, nn.Module) or name is None:
        raise UserError("format: this run's encoder is not a timm model; use format=safetensors.")
    if not hasattr(model, "conv1") or not hasattr(model, "fc"):
        raise UserError(f"format: {name} is not a ResNet; only those can be exported so far. Use safetensors.")
    if any(isinstance(m, nn.GroupNorm) for m in model.modules()):
        raise UserError("format: the run has encoder.norm=layer, which that class does not have; use safetensors.")
    return model, name


def _small_stem(trained: nn.Module, standard: nn.Module) -> list[str]:
    """The lines that turn the library's own model into the run's small stem; none for the standard one."""
    ours, theirs = trained.get_submodule("conv1"), standard.get_submodule("conv1")
    if not isinstance(ours, nn.Conv2d) or not isinstance(theirs, nn.Conv2d):
        raise UserError("format: this ResNet has a deep stem; use format=safetensors.")
    if (ours.kernel_size, ours.stride) == (theirs.kernel_size, theirs.stride):
        return []
    return [
        f"model.conv1 = torch.nn.Conv2d(3, {ours.out_channels}, {ours.kernel_size[0]}, "
        f"stride={ours.stride[0]}, padding={ours.padding[0]}, bias=False)",
        "model.maxpool = torch.nn.Identity()",
    ]


def _check(
    encoder: Encoder,
    trained: nn.Module,
    fresh: nn.Module,
    stem: list[str],
    path: Path,
    recipe: str,
    *,
    classifier: tuple[str, ...],
) -> list[str]:
    """Write ``trained``'s weights, load them into ``fresh`` after the ``stem`` lines, compare the features."""
    for line in stem:
        exec(line, {"torch": torch, "model": fresh})  # the very lines that the user is shown
    weights = {name: tensor.contiguous() for name, tensor in trained.state_dict().items()}
    write_atomically(path, lambda file: torch.save(weights, file))
    written: Weights = torch.load(path, weights_only=True)
    missing, unexpected = fresh.load_state_dict(written, strict=False)
    if tuple(missing) != classifier or unexpected:
        raise RuntimeError(f"{path} does not load: missing {missing}, unexpected {unexpected}")
    if classifier:
        fresh.fc = nn.Identity()
    fresh.eval()
    name, field = next((k, f) for k, f in encoder.spec.items() if len(f.shape) == 3)
    x = torch.randn(2, *field.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = encoder.eval()(View(x, name)).pooled
        theirs = fresh(x.expand(-1, 3, -1, -1))
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    grey = [] if field.shape[0] == 3 else ["Grey images go in as three equal channels: x.expand(-1, 3, -1, -1)"]
    channels = "per channel" if field.shape[0] == 3 else "to the one channel before it is repeated"
    return [
        f"wrote {path}: {len(written)} matched, {len(missing)} missing (classifier), 0 unexpected; equal outputs",
        "load it:",
        f"  model = {recipe}",
        *(f"  {line}" for line in stem),
        f'  model.load_state_dict(torch.load("{path}", weights_only=True), strict={not classifier})',
        f"Pixels in [0, 1] are normalised {channels}: mean {list(field.mean)}, std {list(field.std)}, "
        f"size {field.shape[1]} x {field.shape[2]}",
        *grey,
    ]
