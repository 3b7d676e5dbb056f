"""The numbers of one view: what is done to it, how often and how strongly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sslcli.config.instantiate import build
from sslcli.views.image.ranges import Amount, Probability, Ratios, Shares, Sigmas, Turns, check_numbers


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is done to one view, in this order; everything is off by default.

    Each field is a keyword-only parameter of ``ImageViews``, and so a key of every yaml in ``conf/views``. A pair is
    a range, from and to: its values are drawn uniformly, ratios log-uniformly.

    Raises:
        ValueError: a number out of its range.
    """

    scale: Shares = (1.0, 1.0)  # share of the image's area in a crop
    ratio: Ratios = (1.0, 1.0)  # width to height of a crop
    flip: Probability = 0.0  # of a horizontal flip
    blur: Probability = 0.0  # of a Gaussian blur
    blur_sigma: Sigmas = (0.1, 2.0)  # its standard deviation, in pixels of a 224 pixel view; as wide in local views
    rotate: Probability = 0.0  # of a rotation, which interpolates bilinearly and is 0 outside the image
    degrees: Amount = 0.0  # its angle is from minus this to this
    jitter: Probability = 0.0  # of colour jitter by the next four numbers
    brightness: Amount = 0.0  # a factor from 1 - this to 1 + this
    contrast: Amount = 0.0  # likewise
    saturation: Amount = 0.0  # likewise
    hue: Turns = 0.0  # a rotation of the hue, in turns, from minus this to this
    gray: Probability = 0.0  # of grayscale
    solarise: Probability = 0.0  # of inverting what is at least half as bright as can be
    erase: Probability = 0.0  # of setting a rectangle to 0, the mean, after normalisation; not in the target
    erase_scale: Shares = (0.02, 0.33)  # share of the view's area in it
    erase_ratio: Ratios = (0.3, 3.3)  # its height to width

    def __post_init__(self) -> None:
        check_numbers(self)

    def changed(self, difference: Mapping[str, Any] | None, where: str) -> Recipe:
        """The recipe with some numbers replaced.

        Raises:
            UserError: an unknown name or a wrong value, with its config path under ``where``.
        """
        target = f"{Recipe.__module__}.{Recipe.__qualname__}"
        return build({"_target_": target, **asdict(self), **(difference or {})}, Recipe, where=where)

    @property
    def crops(self) -> bool:
        """Whether crops are random."""
        return not (tuple(self.scale) == (1.0, 1.0) and self.ratio[0] == self.ratio[1])

    @property
    def recolours(self) -> bool:
        """Whether it changes colours, other than by inverting them."""
        return bool(self.jitter or self.gray)
