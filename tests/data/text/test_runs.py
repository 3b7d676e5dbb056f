"""Texts from the command line: trained, evaluated with other texts, and read as they are by ``sslcli.load``."""

import json
from pathlib import Path

import pytest
import torch

import sslcli
from sslcli.errors import UserError

from .test_files import RECORDS, sentences, write

TRAIN = (
    "dataset=text", "dataset.path=a.csv", "encoder=text_bag", "views=columns", "objective.width=8",
    "objective.hidden_dim=8", "train.batch_size=16", "train.steps=4", "log.report=false", "run_dir=r",
    "probe=linear", "probe.steps=5", "dataset.vocab_size=300",
)  # fmt: skip


def test_other_texts_are_read_with_the_tokenizer_of_the_run(run):
    write(Path("a.csv"))
    code, out, err = run(*TRAIN)
    assert code == 0, err
    assert "rows      60 of 1 file" in out and "no text cut" in out
    own = Path("r/fitted/tokenizer.json").read_bytes()
    records = [{"text": line, "label": str(i % 2)} for i, line in enumerate(sentences(60, seed=5))]
    records[3]["text"] += " \u0436\u0437\u0438"
    write(Path("b.csv"), records)
    code, out, err = run("run=r", "dataset=text", "dataset.path=b.csv", "probe=linear", "probe.steps=5", command="eval")
    assert code == 0, err
    assert "% unknown" in out and "the run's own" in out and Path("r/fitted/tokenizer.json").read_bytes() == own
    model = sslcli.load("r")
    ids = model.encode(["ba be", "sa"]).valid.sum(1)
    assert ids.tolist() == [4, 3]
    alone = torch.cat([model("ba be"), model(["sa"])])
    assert torch.allclose(model(["ba be", "sa"]), alone, atol=1e-6)
    by_hand = json.loads(own)["model"]["vocab"]
    assert torch.allclose(model([[2, by_hand["sa"], 3]]), model("sa"), atol=1e-6)
    for samples, said in (
        ([], "the list is empty"),
        (["a", 3], "text 1: a int"),
    ):
        with pytest.raises(UserError, match=said):
            model(samples)


def test_a_mistake_is_one_line(run):
    write(Path("a.csv"), RECORDS[:20])
    for change, said in (("dataset.text=txt", "Did you mean 'text'"), ("dataset.invalid=skip", "replace, refuse")):
        code, out, err = run(*TRAIN, change)
        assert code == 2 and said in err and len(err.splitlines()) <= 2
