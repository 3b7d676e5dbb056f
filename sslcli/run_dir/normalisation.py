"""Mean and standard deviation of pictures that were fitted for a run, in the format of Hugging Face's image processors.

``preprocessor_config.json`` in the run directory has the numbers that neither the config nor the dataset names: those
that were measured on the training part, or those of the weights that the run began with; and the measured range of
integers of more than 8 bits. Checkpoints have its digest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sslcli.errors import UserError
from sslcli.run_dir.formatting import listed
from sslcli.run_dir.json_files import JsonFile, loads

NAME = "preprocessor_config.json"
_NAMED = 4  # channels whose numbers are shown


@dataclass(frozen=True)
class Normalisation:
    """The numbers by which each channel of the pictures is normalised, and where they are from."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str  # for people
    unit: float = 1.0  # what the numbers of a picture are multiplied with first: 1/255 for uint8
    levels: tuple[float, float] | None = None  # the integers in the files that become 0 and 255, if they were measured
    levels_source: str = ""  # for people

    def content(self) -> bytes:
        """Return the content of the file."""
        values = {
            "do_rescale": self.unit != 1,
            "rescale_factor": self.unit,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "source": self.source,
        }
        if self.levels is not None:
            values |= {"range": list(self.levels), "range_source": self.levels_source}
        return f"{json.dumps(values, indent=2)}\n".encode()


def in_words(mean: Sequence[float], std: Sequence[float], source: str) -> str:
    """Return mean and standard deviation of each channel for people; of many channels, those of the first."""
    means, stds = (listed([f"{value:.4f}" for value in values], _NAMED, " ") for values in (mean, std))
    return f"mean {means}, std {stds} ({source})"


def levels_in_words(levels: Sequence[float], source: str) -> str:
    """Return the range of deep integers for people."""
    return f"integers of more than 8 bits: {levels[0]:,.0f} is black, {levels[1]:,.0f} is white ({source})"


@dataclass(kw_only=True)
class Preprocessor(JsonFile):
    """The schema of the file."""

    image_mean: list[float]
    image_std: list[float]
    rescale_factor: float
    source: str
    range: list[float] = field(default_factory=list)
    range_source: str = ""


def parse(content: bytes) -> Normalisation:
    """Return what is in the file of a run.

    Raises:
        UserError: it is not as it was written.
    """
    try:
        values = loads(content, Preprocessor)
        fitted = Normalisation(
            tuple(values["image_mean"]), tuple(values["image_std"]), values["source"], values["rescale_factor"]
        )
        if "range" in values:
            low, high = values["range"]
            fitted = replace(fitted, levels=(low, high), levels_source=values["range_source"])
    except (ValueError, LookupError) as error:
        raise UserError(f"run_dir: its {NAME} cannot be read ({error}). {_WAY_OUT}") from None
    if fitted.content() != content:
        raise UserError(f"run_dir: its {NAME} has been changed. {_WAY_OUT}")
    return fitted


_WAY_OUT = "Restore it, or start afresh with resume=never."
