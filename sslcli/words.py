"""Numbers as people read them, the same in a terminal and in a report."""

from __future__ import annotations

_SHARES = ("top1", "top5", "accuracy")


def is_share(name: str) -> bool:
    """Whether the metric called ``name`` is a share, which is read in per cent."""
    return any(word in name for word in _SHARES)


def number(name: str, value: float) -> str:
    """The metric's value: a share in per cent, anything else with four decimals."""
    return f"{100 * value:.2f} %" if is_share(name) else f"{value:.4f}"
