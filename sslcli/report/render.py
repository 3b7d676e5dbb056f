"""Render the templates."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sslcli.config.secrets import shown
from sslcli.run_dir.formatting import in_time


def plain(value: Any) -> Any:
    """Return a text as it may be shown; markup is left as it is."""
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def breakable(word: str) -> Markup:
    """Return a word with places to break it: after its dots, slashes and underscores."""
    return Markup("<wbr>").join(re.split(r"(?<=[._/])", plain(word)))


def render(template: str, **values: Any) -> str:
    """Render a template with ``values``; everything that is not markup is escaped."""
    folder = Path(__file__).parent / "templates"
    pages = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=plain,
    )
    pages.filters |= {"breakable": breakable, "in_time": in_time}
    pages.globals["part"] = lambda name: Markup((folder / name).read_text())  # style and script, not escaped
    return pages.get_template(template).render(**values)
