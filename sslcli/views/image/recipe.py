"""The augmentations of one view: their probabilities and strengths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sslcli.config.instantiate import build
from sslcli.views.image.ranges import Amount, Probability, Ratios, Shares, Sigmas, Turns, check_numbers


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The augmentations of one view, in the order in which they are applied; all are off by default.

    Each field is a keyword-only parameter of ``ImageViews`` and a key of the yaml files in ``conf/views``. A pair is a
    range (from, to) from which values are drawn uniformly, ratios log-uniformly.

    Raises:
        ValueError: a value is out of its range.
    """

    scale: Shares = (1.0, 1.0)  # share of the image's area in a crop
    ratio: Ratios = (1.0, 1.0)  # width to height of a crop
    flip: Probability = 0.0  # of a horizontal flip
    blur: Probability = 0.0  # of a Gaussian blur
    blur_sigma: Sigmas = (0.1, 2.0)  # its standard deviation in pixels of a 224 pixel view; the same in local views
    rotate: Probability = 0.0  # of a rotation with bilinear interpolation; 0 outside the image
    degrees: Amount = 0.0  # the angle is uniform in [-degrees, degrees]
    jitter: Probability = 0.0  # of colour jitter by the next four fields
    brightness: Amount = 0.0  # a factor in [1 - brightness, 1 + brightness], not below 0
    contrast: Amount = 0.0  # a factor in the same way
    saturation: Amount = 0.0  # a factor in the same way
    hue: Turns = 0.0  # a rotation of the hue in [-hue, hue] turns
    gray: Probability = 0.0  # of grayscale
    solarise: Probability = 0.0  # of inverting values of at least 0.5
    erase: Probability = 0.0  # of setting a rectangle of the normalised view to 0; not in the target
    erase_scale: Shares = (0.02, 0.33)  # area of the rectangle as a share of the view
    erase_ratio: Ratios = (0.3, 3.3)  # height to width of the rectangle
    channel_drop: Probability = 0.0  # of setting a channel of the normalised view to 0; one stays; not in the target

    def __post_init__(self) -> None:
        check_numbers(self)

    def changed(self, difference: Mapping[str, Any] | None, where: str) -> Recipe:
        """Return the recipe with some fields replaced.

        Raises:
            UserError: an unknown field or an invalid value; the message gives its config path, starting with
                ``where``.
        """
        target = f"{Recipe.__module__}.{Recipe.__qualname__}"
        return build({"_target_": target, **asdict(self), **(difference or {})}, Recipe, where=where)

    @property
    def crops(self) -> bool:
        """Whether random crops are taken."""
        return not (tuple(self.scale) == (1.0, 1.0) and self.ratio[0] == self.ratio[1])

    @property
    def recolours(self) -> bool:
        """Whether colours are changed by jitter or grayscale."""
        return bool(self.jitter or self.gray)
