"""Formats measured values with their errors, in the same way in the terminal, in reports and in model cards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from sslcli.run_dir.formatting import SHARE

_NOISE = 1e-9  # an error below it is rounding, as of equal numbers


class Measurement(Protocol):
    """What a metric and its entry in a file have in common."""

    @property
    def value(self) -> float: ...
    @property
    def unit(self) -> str: ...
    @property
    def higher_is_better(self) -> bool | None: ...
    @property
    def standard_error(self) -> float | None: ...
    @property
    def gain_standard_error(self) -> float | None: ...
    @property
    def start_standard_error(self) -> float | None: ...
    @property
    def bias(self) -> float | None: ...
    @property
    def baselines(self) -> Mapping[str, float]: ...


def number(value: float, unit: str = "", error: float | None = None) -> str:
    """Format a value and its unit, a share in per cent, with as many digits as two digits of its error.

    Without an error a share has two decimals and any other value four.
    """
    scale, sign = (100, " %") if unit == SHARE else (1, f" {unit}" if unit else "")
    return f"{scale * value:.{_decimals(unit, error)}f}{sign}"


def with_error(measured: Measurement) -> str:
    """Format a measured value: ``85.52 ± 0.36 %``. A known bias that exceeds the error is marked."""
    text = _plus_minus(measured.value, measured.unit, measured.standard_error)
    bias = measured.bias
    if bias is None or abs(bias) <= (measured.standard_error or 0):
        return text
    return f"{text} (bias {bias:+.2g})"


def best_baseline(baselines: Mapping[str, float], higher_is_better: bool | None) -> str | None:
    """Return the name of the baseline that is hardest to beat; None without baselines or direction."""
    if higher_is_better is None or not baselines:
        return None
    return (max if higher_is_better else min)(baselines, key=lambda name: baselines[name])


def gain(measured: Measurement, baseline: str) -> str:
    """Format the difference to a baseline, of shares in points, with its error if that is the best baseline."""
    difference = measured.value - measured.baselines[baseline]
    is_best = baseline == best_baseline(measured.baselines, measured.higher_is_better)
    error = measured.gain_standard_error if is_best else None
    digits = error if is_best else measured.standard_error
    text = _plus_minus(difference, measured.unit, error, digits=digits, signed=True)
    return text.replace("%", "points").replace("-", "−")


def below_start(name: str, measured: Measurement) -> str:
    """Return a sentence if a metric is worse than that of the weights that the run started from; else ''.

    Worse means by more than two standard errors of the difference, over the same queries.
    """
    start, error = measured.baselines.get("start"), measured.start_standard_error
    if start is None or error is None or measured.higher_is_better is None:
        return ""
    lost = (start - measured.value) * (1 if measured.higher_is_better else -1)
    if lost <= 2 * error:
        return ""
    amount = _plus_minus(lost, measured.unit, error).replace("%", "points")
    return f"Training has made the encoder worse than its start: {name} lost {amount} against encoder.weights."


def _plus_minus(
    value: float, unit: str, error: float | None, *, digits: float | None = None, signed: bool = False
) -> str:
    error = None if error is not None and abs(error) < _NOISE else error
    text = number(value, unit, digits if error is None else error)
    if signed and not text.startswith("-"):
        text = f"+{text}"
    if not error:
        return text
    amount, space, sign = text.partition(" ")
    return f"{amount} ± {number(error, unit, error).partition(' ')[0]}{space}{sign}"


def _decimals(unit: str, error: float | None) -> int:
    if not error or not math.isfinite(error) or error < _NOISE:
        return 2 if unit == SHARE else 4
    shown = 100 * error if unit == SHARE else error
    return max(0, 1 - math.floor(math.log10(float(f"{shown:.1e}"))))  # 0.0996 is shown as 0.10
