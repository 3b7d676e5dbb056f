"""A page of the model's input: some texts and their views, token by token, with what is hidden marked."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sslcli.components import Components
from sslcli.errors import UserError
from sslcli.randomness import Randomness
from sslcli.report.preview import first_samples, write_preview
from sslcli.report.texts import shows_texts, speller
from sslcli.run_dir.files import write_text
from sslcli.run_dir.output import check_output
from sslcli.types import Compute, Field

_STYLE = """body { font: 14px sans-serif; margin: 2em } mark { background: #ffd54f } .special { color: #999 }
td, th { text-align: left; vertical-align: top; padding: 6px 12px; border-bottom: 1px solid #ccc }"""


def write_views(components: Components, compute: Compute, path: Path, *, seed: int) -> bool:
    """Write the preview of the run's data, a picture or a page; return whether it replaces an earlier one.

    Raises:
        UserError: it cannot be written there, or the data cannot be shown.
    """
    is_text = shows_texts(components)
    replaces = check_output(path, rb"<!DOCTYPE html>" if is_text else rb"\x89PNG", "preview")
    (write_text_preview if is_text else write_preview)(components, compute, path, seed=seed)
    return replaces


def write_text_preview(components: Components, compute: Compute, path: Path, *, seed: int) -> None:
    """Write a page of the first samples of step 0: a row for each, with its texts and their views.

    Raises:
        UserError: the path does not end in .html.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"preview: texts are shown on a page. Name it {path.with_suffix('.html').name}.")
    columns = text_cells(components, compute, seed=seed)
    names = "".join(f"<th>{escape(name)}</th>" for name in columns)
    rows = "\n".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" for cells in zip(*columns.values()))
    page = f'<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n<title>views</title>\n<style>{_STYLE}</style>\n'
    write_text(path, f"{page}<table>\n<tr>{names}</tr>\n{rows}\n</table>\n</html>\n")


@torch.no_grad()
def text_cells(components: Components, compute: Compute, *, seed: int) -> dict[str, list[str]]:
    """Return the texts and views of the first samples of step 0 by name, each as HTML."""
    spec, spelled = components.dataset.spec, speller(components)
    columns = first_samples(components, compute, seed)
    positions = np.arange(len(next(iter(columns.values()))))
    randomness = Randomness(seed, 0, positions, compute.device)
    texts = {name: column for name, column in columns.items() if spec[name].kind == "tokens"}
    cells = {name: _cells(ids, None, spec[name], spelled) for name, ids in texts.items()}
    for k, view in enumerate(components.views(columns, randomness)):
        if view.field in texts:
            hidden = components.objective.hidden(view, randomness, k)
            cells[f"view {k + 1}"] = _cells(view.x, hidden, spec[view.field], spelled)
    return cells


def _cells(ids: Tensor, hidden: Tensor | None, field: Field, spelled: Callable[[int], str]) -> list[str]:
    words = field.words(ids)
    marked = torch.zeros_like(words) if hidden is None else hidden
    if field.mask is not None:
        marked = marked | (ids == field.mask)
    rows = zip(ids.tolist(), words.tolist(), marked.tolist())
    return [
        " ".join(_token(spelled(number), word, mark) for number, word, mark in zip(*row) if number != field.pad)
        for row in rows
    ]


def _token(text: str, word: bool, mark: bool) -> str:
    if mark:
        return f"<mark>{escape(text)}</mark>"
    return escape(text) if word else f'<span class="special">{escape(text)}</span>'
