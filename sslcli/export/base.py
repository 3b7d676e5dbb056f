"""The interface of formats: a format writes a file and gives the Python lines that load it, which the check runs."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslcli.components import restore_dataset
from sslcli.config.choices import DatasetChoice
from sslcli.config.composed import TrainConfig
from sslcli.data.base import Dataset
from sslcli.errors import UserError
from sslcli.pretrained.model import Pretrained
from sslcli.run_dir.checkpoint import State
from sslcli.run_dir.formatting import few
from sslcli.run_dir.output import check_output
from sslcli.types import Compute, Field

SAMPLES = 3  # of the check's larger batch, and beside an export
TOLERANCE = 1e-4  # largest relative difference; another order of float32 sums gives about 1e-6


@dataclass
class Source:
    """The run to export."""

    run_dir: Path
    state: State  # the checkpoint
    model: Pretrained  # the encoder with its preprocessing, on ``compute``'s device
    compute: Compute
    dataset: DatasetChoice  # what the command says of the data to embed
    plugins: Sequence[str] = ()
    weights: str = "student"  # or teacher: whose weights ``model`` has
    batch: Tensor | None = None  # raw samples for the check; None draws them

    @property
    def config(self) -> TrainConfig:
        """The run's config."""
        config: TrainConfig = self.state["config"]
        return config

    def data(self) -> tuple[DatasetChoice, Dataset]:
        """Return the data that the command reads, as ``restore_dataset`` does."""
        return restore_dataset(self.state, self.dataset, self.model.encoder, self.model.views.field)

    @torch.inference_mode()
    def features(self, columns: Mapping[str, Tensor]) -> Tensor:
        """Return the features (B, D) of samples of the dataset, float32, on the CPU."""
        raw = columns[self.model.views.field].to(self.compute.device)
        with torch.backends.cudnn.flags(allow_tf32=False):
            return self.model(raw).float().cpu()

    @property
    def field(self) -> Field:
        """The column that the encoder reads, with the encoder's input size."""
        return self.model.encoder.spec[self.model.views.field]


@dataclass
class Checked:
    """The result of loading the file again and comparing it with the encoder."""

    matched: int
    missing: list[str]
    unexpected: list[str]
    equal: str  # what was compared, and the largest difference
    of: str = "tensors"
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.matched:,} {self.of} matched, {len(self.missing):,} missing{few(self.missing)}, "
            f"{len(self.unexpected):,} unexpected{few(self.unexpected)}; {self.equal}"
        )


@dataclass
class Lines:
    """Lines of Python that load a file and use it: they read ``batch`` and set ``features``."""

    load: list[str]
    use: list[str]
    array: str = "torch"  # or numpy: the library of ``batch`` and ``features``

    def __iter__(self) -> Any:
        return iter([*self.load, *self.use])


class Format:
    """One kind of file."""

    suffix: str  # suffix of the file's name
    begins: bytes = b""  # a regular expression for its first bytes; a file of another kind is never replaced
    name: str = "encoder"  # name of the file, if the user gives none
    reads_data: bool = False  # whether it reads a data set
    is_folder: bool = False  # whether it writes a folder of files

    def replaces(self, path: Path) -> bool:
        """Return whether ``path``, which the user named, is an earlier export in this format.

        Raises:
            UserError: nothing can be written there, or something else would be lost.
        """
        return check_output(path, self.begins)

    def write(self, source: Source, path: Path) -> None:
        """Write the file.

        Raises:
            UserError: this run's encoder cannot be written in this format, or a library is missing.
        """
        raise NotImplementedError

    def lines(self, source: Source, path: Path) -> Lines:
        """Return the lines with which a user loads ``path``; the check runs the same lines."""
        raise NotImplementedError

    def check(self, source: Source, path: Path) -> Checked:
        """Load the written file by ``lines``, and compare it with the encoder.

        Raises:
            RuntimeError: they differ.
        """
        raise NotImplementedError


def same_features(source: Source, lines: Lines) -> str:
    """Run ``lines`` on one drawn sample and on the source's; report the largest difference to the encoder's features.

    Of tokens it runs on shorter texts, too.

    Raises:
        Different: the difference is above the tolerance, or a shape differs.
    """
    scope: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec("\n".join(lines.load), scope)
    worst = 0.0
    several = samples(source.field, SAMPLES) if source.batch is None else source.batch
    shorter = [several[:, : source.field.shape[0] // 2 + 1]] if source.field.kind == "tokens" else []
    for batch in (samples(source.field, 1), several, *shorter):  # graphs are traced with a batch of two
        scope["batch"] = batch.numpy() if lines.array == "numpy" else batch
        with torch.no_grad():
            exec("\n".join(lines.use), scope)
            ours = source.model(batch)
        theirs = torch.as_tensor(scope["features"])
        if theirs.shape != ours.shape:
            raise Different(f"features of shape {tuple(theirs.shape)} for {tuple(ours.shape)}")
        worst = max(worst, float((theirs - ours).abs().max() / ours.abs().max().clamp(min=1e-12)))
    if not worst <= TOLERANCE:
        raise Different(f"features differ by {worst:.1e}, relative to the largest")
    return f"features of 1 and of {SAMPLES} samples are equal, maximum relative difference {worst:.0e}"


class Different(RuntimeError):
    """A written file computes other values than the encoder."""


def samples(column: Field, size: int) -> Tensor:
    """Draw seeded raw samples (size, *shape): pixels in [0, 1], numbers, or ids, which end in padding if it exists."""
    generator = torch.Generator().manual_seed(size)
    shape = (size, *column.shape)
    if column.is_ids:
        ids = torch.randint(column.vocab, shape, generator=generator, dtype=column.dtype)
        if column.pad is not None:
            ids[:, (column.shape[0] + 1) // 2 :] = column.pad
        return ids
    draw = torch.rand if column.kind == "image" else torch.randn
    return draw(shape, generator=generator)


def normalising(column: Field, array: str = "torch.tensor") -> list[str]:
    """Return lines that compute the normalised ``x`` from a raw ``batch``; ``array`` is the array constructor."""
    if column.kind == "tokens":
        filled = "" if column.pad is None else f"; {column.pad} fills short texts up"
        return [f"# batch: whole numbers of shape (B, T), T at most {column.shape[0]}{filled}", "x = batch"]
    if column.is_ids:
        return [f"# batch: whole numbers of shape (B, {_sizes(column)})", "x = batch"]
    kind = "float32 in [0, 1]" if column.is_pixels else "float32"
    lines = [f"# batch: {kind} of shape (B, {_sizes(column)})"]
    if column.levels:
        low, high = column.levels
        lines.append(f"# from integers of more than 8 bits: batch = ((integers - {low:g}) / {high - low:g}).clip(0, 1)")
    if not column.mean:
        return [*lines, "x = batch"]
    shape = (-1, *(1,) * (len(column.shape) - 1))
    mean, std = (f"{array}({list(values)}).reshape{shape}" for values in (column.mean, column.std))
    return [*lines, f"x = (batch - {mean}) / {std}"]


def _sizes(column: Field) -> str:
    return ", ".join(map(str, column.shape))


def three_channels(column: Field) -> str:
    """Return an expression for ``x`` with three channels; the channel of a grey image is repeated."""
    return "x.expand(-1, 3, -1, -1)" if column.shape[0] == 1 else "x"


def needed(*modules: str, extra: str, by: str) -> None:
    """Import optional libraries.

    Raises:
        UserError: a library is missing; the message has the command that installs it.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name == module
            reason = f"needs {module}" if missing else f"cannot use {module} ({error})"
            raise UserError(f"{by} {reason}: pip install 'sslcli[{extra}]'") from None
