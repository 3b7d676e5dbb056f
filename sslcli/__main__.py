"""``python -m sslcli train ...`` runs ``ssl-train ...``, where the console scripts are not installed."""

from __future__ import annotations

import sys

from sslcli import cli

_COMMANDS = {
    "train": cli.train,
    "eval": cli.evaluate,
    "export": cli.export,
    "report": cli.report,
    "pack": cli.pack,
}


def main() -> None:
    """Run the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in _COMMANDS:
        sys.exit(f"usage: python -m sslcli {{{','.join(_COMMANDS)}}} [arguments]")
    sys.argv = [f"ssl-{name}", *sys.argv[2:]]
    _COMMANDS[name]()


if __name__ == "__main__":
    main()
