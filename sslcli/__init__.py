"""Self-supervised pretraining from the command line; in Python: ``encoder = sslcli.load("runs/x")``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sslcli.components import load as load

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # Imported on first use: importing torch takes seconds, and `ssl-train --help` must answer at once.
    if name == "load":
        from sslcli.components import load

        return load
    raise AttributeError(f"module 'sslcli' has no attribute '{name}'")
