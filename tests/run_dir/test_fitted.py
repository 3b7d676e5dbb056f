"""What is fitted on the training part is made once and belongs to the run: seen with a map of words to ids."""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.forked import Forked

import sslcli
from sslcli import cli
from sslcli.errors import UserError
from sslcli.run_dir import checkpoint, fitted
from sslcli.run_dir.fitted import Fitted

PLUGIN = '''
"""Words in lines, four to a line; their ids are in the order of the first occurrence, which is fitted."""

import json
from pathlib import Path

import torch

from sslcli.data.base import Columns, Dataset, with_held_out
from sslcli.encoders.base import Encoder
from sslcli.types import Encoded, Field, Spec


class Words(Dataset):
    def __init__(self, *, path: str) -> None:
        self.lines = [line.split() for line in Path(path).read_text().splitlines()]
        self.spec = Spec()

    def __len__(self):
        return len(self.lines)

    def fingerprint(self, limit=0):
        return str(self.lines)

    def fit(self, files):
        ids = json.loads(files.file("ids.json", self._make))
        facts = files.tensors("facts.safetensors", lambda: {"count": torch.tensor([len(self.lines)])})
        rows = torch.tensor([[ids.get(word, 0) for word in line] for line in self.lines])
        spec = Spec({"text": Field("tokens", (4,), torch.int64, 9, pad=8)}, facts=facts)
        return with_held_out(Columns(spec, {"text": rows}), None, 0.1)

    def _make(self):
        with open("made", "a") as file:
            file.write("x")
        words = dict.fromkeys(word for line in self.lines for word in line)
        return json.dumps({word: number for number, word in enumerate(words)}).encode()


class Lookup(Encoder):
    def __init__(self, spec: Spec, *, dim: int = 8) -> None:
        super().__init__()
        self.spec, self.dim, self.token_dim, self.stride = spec, dim, dim, 1
        self.table = torch.nn.Embedding(spec["text"].vocab, dim)
        self.register_buffer("count", spec.facts["count"].float())

    def forward(self, view, mask=None):
        tokens = self.table(view.x)
        return Encoded(tokens, tokens.mean(1), view.valid)
'''


@pytest.fixture
def words(tmp_path, monkeypatch):
    """A folder with the plug-in, its configs and two files with the same words in different orders."""
    monkeypatch.chdir(tmp_path)
    Path("wordpkg.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    for group, name, keys in (("dataset", "words", "Words\npath: a.txt"), ("encoder", "lookup", "Lookup\ndim: 8")):
        Path("my", group).mkdir(parents=True)
        Path("my", group, f"{name}.yaml").write_text(f"_target_: wordpkg.{keys}\n")
    generator = torch.Generator().manual_seed(0)
    rows = [[f"w{i}" for i in torch.randint(0, 8, (4,), generator=generator).tolist()] for _ in range(40)]
    Path("a.txt").write_text("\n".join(map(" ".join, rows)))
    Path("b.txt").write_text("\n".join(map(" ".join, reversed(rows))))
    yield
    sys.modules.pop("wordpkg", None)


TRAIN = (
    "--config-dir", "my", "plugins=[wordpkg]", "dataset=words", "encoder=lookup", "views=columns", "objective.width=4",
    "objective.hidden_dim=4", "train.batch_size=8", "train.steps=6", "checkpoint.every=2", "probe=none",
    "log.report=false", "run_dir=r",
)  # fmt: skip


def test_it_is_made_once_and_its_digest_is_in_every_checkpoint(words, run):
    code, _, err = run(*TRAIN)
    assert code == 0, err
    content = Path("r/fitted/ids.json").read_bytes()
    for path in checkpoint.steps(Path("r")):
        files = checkpoint.load(path)["files"]
        assert files["ids.json"] == hashlib.sha256(content).hexdigest() and "facts.safetensors" in files
    assert run(*TRAIN, "train.steps=8")[0] == 0  # goes on
    assert Path("made").read_text() == "x"


def test_other_data_are_read_with_the_ids_of_the_run(words, run):
    run(*TRAIN)
    own = sslcli.load("r", plugins=("wordpkg",)).fitted.file("ids.json", lambda: pytest.fail("made again"))
    assert json.loads(own) == {word: i for i, word in enumerate(dict.fromkeys(Path("a.txt").read_text().split()))}
    vectors = {}
    for name in ("a.txt", "b.txt"):
        words = ("run=r", "plugins=[wordpkg]", f"dataset.path={name}", "format.table=numpy", f"output={name}.npy")
        code, _, err = run(*words, "format=embeddings", command="export")
        assert code == 0, err
        vectors[name] = {tuple(row) for row in np.load(f"{name}.npy")["vector"].tolist()}
    assert vectors["a.txt"] == vectors["b.txt"] and len(vectors["a.txt"]) > 30
    assert Path("made").read_text() == "x"


def test_an_export_has_it_too(words, run):
    run(*TRAIN)
    code, _, err = run("run=r", "plugins=[wordpkg]", "format=safetensors", command="export")
    assert code == 0, err
    path = next(Path("r/export/safetensors").glob("*.safetensors"))
    model = sslcli.load(path, plugins=("wordpkg",))
    assert model.fitted.files == {name: Path("r/fitted", name).read_bytes() for name in model.fitted.files}
    assert set(model.fitted.files) == {"ids.json", "facts.safetensors"} and model.encoder.count.item() == 40


@pytest.mark.parametrize("change", ["missing", "changed"])
def test_a_run_does_not_go_on_with_other_files(words, run, change):
    run(*TRAIN)
    path = Path("r/fitted/ids.json")
    path.unlink() if change == "missing" else path.write_text(
        json.dumps(dict.fromkeys(json.loads(path.read_text()), 1))
    )
    code, _, err = run(*TRAIN, "train.steps=8")
    said = (
        "the run has no fitted/ids.json" if change == "missing" else "r/fitted/ids.json is not that of its checkpoints"
    )
    assert code == 2 and said in err and len(err.splitlines()) <= 2
    code, _, err = run("run=r", "plugins=[wordpkg]", "probe=none", command="eval")
    assert code == 2 and "the run has no fitted/ids.json" in err
    assert Path("made").read_text() == "x"
    assert run(*TRAIN, "resume=never")[0] == 0  # sets it aside
    assert Path("made").read_text() == "xx" and Path("r/previous/1/fitted/index.json").is_file()


def test_a_start_before_the_first_checkpoint_reads_it_unless_the_data_have_changed(words, run):
    run(*TRAIN)
    before = Path("r/fitted/ids.json").read_bytes()
    for path in checkpoint.steps(Path("r")):
        path.unlink()
    Path("r/result.json").unlink()
    assert run(*TRAIN)[0] == 0 and Path("made").read_text() == "x"
    for path in checkpoint.steps(Path("r")):
        path.unlink()
    Path("r/result.json").unlink()
    assert run(*TRAIN, "dataset.path=b.txt")[0] == 0
    assert Path("made").read_text() == "xx" and Path("r/fitted/ids.json").read_bytes() != before


def test_a_killed_run_ends_in_the_same_bits_with_what_it_had_fitted(words, run):
    longer = (*TRAIN, "train.steps=300")
    assert run(*longer, "run_dir=whole", "checkpoint.every=300")[0] == 0
    killed = Forked(cli.train, "ssl-train", *longer)
    while not checkpoint.steps(Path("r")):
        assert killed.poll() is None, killed.communicate()
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert checkpoint.step_of(checkpoint.steps(Path("r"))[0]) < 300
    assert run(*longer)[0] == 0
    whole, again = (checkpoint.newest(Path(name), print)[1] for name in ("whole", "r"))
    assert whole["step"] == again["step"] == 300
    assert whole["files"] == again["files"] and Path("made").read_text() == "xx"
    for part in ("encoder", "objective"):
        assert all(torch.equal(tensor, again[part][name]) for name, tensor in whole[part].items())


def test_files_of_a_trained_run_are_never_made():
    with pytest.raises(UserError, match=r"the run has no fitted/ids\.json"):
        Fitted(complete=True).file("ids.json", lambda: pytest.fail("made"))
    assert Fitted().file("ids.json", lambda: b"x") == b"x"


@pytest.mark.parametrize("index", ["{", "[]", '{"data": "d", "files": ["../x"]}', '{"data": 3, "files": []}'])
def test_a_damaged_list_is_a_line(tmp_path, index):
    Fitted({"ids.json": b"{}"}).write(tmp_path, lambda: "d")
    (tmp_path / "fitted" / "index.json").write_text(index)
    with pytest.raises(UserError, match=r"index\.json cannot be read"):
        fitted.read(tmp_path)
