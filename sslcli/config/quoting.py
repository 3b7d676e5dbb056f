"""Overrides in commands that are printed, written such that they can be pasted."""

from __future__ import annotations

import json
import re
import shlex


def override(key: str, value: object) -> str:
    """Return ``key=value``, quoted for the shell and for Hydra's grammar where necessary."""
    return shlex.quote(for_hydra(key, value))


def for_hydra(key: str, value: object) -> str:
    """Return ``key=value``, quoted for Hydra's grammar and for OmegaConf, but not for the shell."""
    text = str(value)
    if re.fullmatch(r"[A-Za-z_][\w.-]*|(?=.*/)[\w./-]+", text, re.ASCII) and not _is_literal(text):
        return f"{key}={text}"
    # OmegaConf: a backslash is special only before ${. Hydra, in double quotes: only before a quote and at the end.
    text = re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + "\\${", text)
    text = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), text)
    return f'{key}="{text}"'


def _is_literal(text: str) -> bool:
    return text.lower() in ("null", "true", "false", "inf", "nan")


def loading(run_dir: object) -> str:
    """Return a shell command that loads a run's encoder in Python: single quotes of the shell around double ones."""
    text = json.dumps(str(run_dir), ensure_ascii=False)
    return f"python -c {shlex.quote(f'import sslcli; encoder = sslcli.load({text})')}"
