"""The texts of a report: neighbours by their features, and the words that a masked objective predicts."""

import re

import pytest
import torch
from support.helpers import compose
from torch.nn import functional as F

import sslcli
from sslcli.commands.restored import visuals_of
from sslcli.commands.train import run
from sslcli.components import restore_components
from sslcli.report.texts import LONGEST
from sslcli.run_dir.checkpoint import open_run
from sslcli.training.device import choose

WORDS = {"dress": "blue silk skirt long", "dog": "barks at <cats> & tail", "tree": "green leaf root wood"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of masked tokens and a contrast on 120 short texts of three classes."""
    folder = tmp_path_factory.mktemp("texts")
    rows = [
        f"{name}\tthe {name} {word} number {i}" for i in range(10) for name in WORDS for word in WORDS[name].split()
    ]
    (folder / "texts.tsv").write_text("\n".join(["label\ttext", *rows]))
    data = ("dataset=text", f"dataset.path={folder / 'texts.tsv'}", "dataset.quotes=false", "encoder=text_transformer")
    small = ("encoder.hidden_dim=16", "encoder.depth=1", "train.batch_size=16", "train.steps=3", "probe=none")
    run(compose(*data, *small, "objective=joint_tokens", "device=cpu"), folder / "run")
    _, state = open_run(str(folder / "run"))
    parts = restore_components(state, torch.device("cpu"))
    shown = visuals_of(state["config"], parts, choose("cpu", "fp32"), seconds=1e7)
    return folder / "run", parts, shown


def test_neighbours_are_the_texts_of_the_largest_cosine(trained):
    folder, _, shown = trained
    model, found = sslcli.load(folder), shown.text_neighbours
    texts = sorted({text for row in found.nearest for text in row})
    with torch.no_grad():
        similarity = F.normalize(model(found.queries), dim=1) @ F.normalize(model(texts), dim=1).T
    for query, nearest, cosines in zip(similarity, found.nearest, found.found.similarity):
        torch.testing.assert_close(query[[texts.index(text) for text in nearest]], cosines, atol=1e-4, rtol=0)
        assert cosines[0] >= query.max() - 1e-4 and cosines.diff().max() <= 0
    assert all(re.fullmatch(r"the \w+ .* number \d", text) and len(text) <= LONGEST for text in found.queries)


def test_a_guess_is_the_most_probable_word_and_words_that_are_seen_have_none(trained):
    _, parts, shown = trained
    hidden = [[token for token in row if token.guess is not None] for row in shown.guesses]
    assert all(hidden) and all(row[0].token == "[CLS]" and row[0].guess is None for row in shown.guesses)
    assert len(hidden[0]) == max(1, round(0.15 * (len(shown.guesses[0]) - 2)))
    for token in (token for row in hidden for token in row):
        assert 1 / parts.dataset.spec["text"].vocab <= token.probability <= 1 and token.guess != "[PAD]"


def test_the_page_has_both_and_nothing_in_a_text_is_markup(trained):
    page = (trained[0] / "report.html").read_text()
    assert 'id="texts"' in page and "Nearest texts" in page and 'id="guesses"' in page
    assert "<cats>" not in page and ("&lt;" in page or "cats" not in page)
    assert 'id="neighbours"' not in page
