"""The flags of the command line, which begin with a dash; all else is an override, ``key=value``."""

from __future__ import annotations

import difflib

from sslcli.config.arguments import FLAGS, FLAGS_WITH_VALUE
from sslcli.config.given import Given
from sslcli.config.suggestions import meant_by
from sslcli.errors import UserError


def flags_first(program: str, arguments: list[str]) -> list[str]:
    """Move flags before overrides, because Hydra 1.3 stops reading overrides at the first flag (hydra issue 3053).

    Raises:
        UserError: there is no such flag.
    """
    flags, overrides = [], []
    rest = iter(arguments)
    for argument in rest:
        name = argument.partition("=")[0]
        if not argument.startswith("-"):
            overrides.append(argument)
        elif name not in FLAGS | FLAGS_WITH_VALUE:
            raise UserError(_unknown_flag(program, name, argument.partition("=")[2] or next(rest, None)))
        else:
            flags.append(argument)
            if argument in FLAGS_WITH_VALUE:
                value = next(rest, None)
                if value is None:
                    raise UserError(f"{argument}: a value must follow. The flag stands last.")
                if argument in ("--cfg", "-c") and value not in ("job", "hydra", "all"):
                    raise UserError(f"{argument} {value}: there is no such part. Known: job, hydra, all.")
                flags.append(value)
    return flags + overrides


def _unknown_flag(program: str, flag: str, value: str | None) -> str:
    """Return the message about a flag that is not there: what other tools take as flags are keys here."""
    known = sorted(name for name in FLAGS | FLAGS_WITH_VALUE if name.startswith("--"))
    near = difflib.get_close_matches(flag, known, n=1, cutoff=0.75)
    if near:
        return f"There is no flag '{flag}'. Did you mean '{near[0]}'? Known: {', '.join(known)}."
    meant = meant_by(Given.read(program, []), flag.lstrip("-").replace("-", "_"), value)
    return f"There is no flag '{flag}'. {meant or 'Keys have no dashes: key=value. `--help` lists them.'}"
