"""What a report shows of texts: neighbours as texts, and the words that a masked objective predicts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sslcli.components import Components
from sslcli.data.base import Dataset
from sslcli.data.interactions import ids
from sslcli.data.text.vocabulary import NAME, Vocabulary
from sslcli.report.predictions import first_prediction
from sslcli.report.visuals import Guess, Nearest, TextNeighbours
from sslcli.types import Compute

LONGEST = 200  # characters of a text that are shown


def shows_texts(components: Components) -> bool:
    """Whether the encoder reads texts."""
    return components.dataset.spec[components.views.field].kind == "tokens"


def speller(components: Components) -> Callable[[int], str]:
    """Return what spells an id: the run's tokenizer, or its ids of users and items; without both, its number."""
    files = components.fitted.files
    if NAME in files:
        tokenizer = Vocabulary(files[NAME]).tokenizer
        return lambda number: str(tokenizer.id_to_token(number))
    if ids.NAME in files:
        known = ids.Ids.of_file(files[ids.NAME])
        nodes = [*known.users, *known.items, "[pad]", "[hidden]"]
        return lambda number: nodes[number]
    return str


def text_neighbours(components: Components, shown: Dataset, found: Nearest) -> TextNeighbours:
    """Return held-out texts with the training texts of the most similar features."""
    texts = _texts(components, components.dataset, found.rows.flatten())
    width = found.rows.shape[1]
    nearest = [texts[start : start + width] for start in range(0, len(texts), width)]
    kind = "histories" if ids.NAME in components.fitted.files else "texts"
    return TextNeighbours(_texts(components, shown, found.queries), nearest, found, kind)


@torch.no_grad()
def guesses(
    components: Components, shown: Dataset, index: Tensor, compute: Compute, seed: int
) -> list[list[Guess]] | None:
    """Return the texts at ``index`` word by word, with the guess of each hidden one; None if no words are predicted."""
    found = first_prediction(components, shown, index, compute, seed, components.objective.guesses)
    if found is None:
        return None
    view, made = found
    spelled, pad = speller(components), shown.spec[view.field].pad
    rows = zip(*(part.tolist() for part in (made.ids, made.hidden, made.guess, made.probability)))
    return [
        [
            Guess(spelled(truth), spelled(guess) if hidden else None, probability)
            for truth, hidden, guess, probability in zip(*row)
            if truth != pad
        ]
        for row in rows
    ]


def _texts(components: Components, dataset: Dataset, index: Tensor) -> list[str]:
    """Return the texts at ``index`` as the encoder reads them, shortened."""
    field = components.views.field
    rows = dataset.fetch(index)[field].tolist()
    content = components.fitted.files.get(NAME)
    if content is None:
        spelled, pad = speller(components), dataset.spec[field].pad
        found = [" ".join(spelled(number) for number in row if number != pad) for row in rows]
    else:
        found = Vocabulary(content).tokenizer.decode_batch(rows, skip_special_tokens=True)
    return [text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..." for text in found]
