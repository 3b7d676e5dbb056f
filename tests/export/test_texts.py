"""What a run on texts exports: a folder that sentence-transformers loads, and a table that names the rows."""

import json
import random
import sys

import pyarrow.parquet as pq
import pytest
import torch
from support import foreign
from support.helpers import compose, hook_of, trainer_of
from support.modalities import Bag, token_dataset
from torch import nn

import sslcli
from sslcli.components import build_components
from sslcli.config.choices import DatasetChoice
from sslcli.config.composed import TrainConfig
from sslcli.encoders.text_transformer import TextTransformer
from sslcli.errors import UserError
from sslcli.export.base import Source
from sslcli.export.sentence_transformers import SentenceTransformers
from sslcli.pretrained.model import Pretrained
from sslcli.run_dir.files import replacing_folder, sweep
from sslcli.training.checkpoints import Checkpoints
from sslcli.training.device import choose
from sslcli.views.base import PassThrough

LENGTH = 24
TEXTS = ["red", "A red dress!", "the blue shirt fits very well", "zebra 7", "", " soft ", "love-it", "[SEP] x", "Rot",
         "red dress " * 40]  # fmt: skip


def trained(folder, *options):
    """A run on 60 texts with drawn weights, as good as trained ones here."""
    words = ["red", "blue", "dress", "shirt", "fits", "well", "small", "love", "bad", "soft", "the", "a", "is", "very"]
    drawn = random.Random(0)
    texts = folder / "texts.txt"
    texts.write_text("\n".join(" ".join(drawn.choices(words, k=drawn.randint(2, 40))) for _ in range(60)))
    config = compose(
        "device=cpu", "dataset=text", f"dataset.path={texts}", f"dataset.length={LENGTH}", "encoder=text_transformer",
        "encoder.hidden_dim=32", "encoder.depth=2", "encoder.num_heads=4", "views=dropout", "train.batch_size=8",
        "train.steps=1", *options,
    )  # fmt: skip
    (folder / "r").mkdir()
    parts = build_components(config)
    parts.fitted.write(folder / "r", str)
    trainer = trainer_of(config, folder / "r", parts=parts)
    trainer.fit()
    foreign.settled(trainer.encoder)
    hook_of(trainer, Checkpoints).save(trainer)
    return folder / "r"


@pytest.fixture(scope="module")
def texts_run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("texts"))


def exported(run, path, output):
    code, out, err = run(f"run={path}", "format=sentence_transformers", f"output={output}", command="export")
    assert code == 0, err
    return out


def assert_same_vectors(path, folder):
    library = pytest.importorskip("sentence_transformers")
    theirs = library.SentenceTransformer(str(folder), device="cpu").encode(TEXTS, show_progress_bar=False)
    with torch.no_grad():
        ours = sslcli.load(str(path))(TEXTS)
    torch.testing.assert_close(torch.as_tensor(theirs), ours, rtol=1e-5, atol=1e-5)
    assert ours.std(0).min() > 1e-3  # the texts have different vectors


@pytest.mark.slow  # importing the library takes ten seconds
def test_sentence_transformers_encodes_the_same(run, tmp_path, texts_run):
    out = exported(run, texts_run, "m")
    assert "0 missing, 0 unexpected" in out and "so are those of 10 texts" in out
    assert_same_vectors(texts_run, tmp_path / "m")
    types = [module["type"] for module in json.loads((tmp_path / "m" / "modules.json").read_text())]
    assert types == ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"]
    assert "which replaces an earlier one" in exported(run, texts_run, "m")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", ["wordpiece", "bpe"])
def test_pooling_by_the_first_token_and_other_tokenizers(run, tmp_path, tokenizer):
    path = trained(tmp_path, "encoder.pool=cls", f"dataset.tokenizer={tokenizer}")
    exported(run, path, "m")
    assert_same_vectors(path, tmp_path / "m")


@pytest.mark.slow  # importing the library takes ten seconds
def test_weights_load_into_huggingfaces_class_and_nothing_is_left_over(run, tmp_path, texts_run):
    transformers = pytest.importorskip("transformers")
    exported(run, texts_run, "m")
    model, found = transformers.BertModel.from_pretrained(
        tmp_path / "m", add_pooling_layer=False, output_loading_info=True
    )
    assert not any(found.values())
    assert isinstance(model, nn.Module)


def test_a_folder_of_somebody_elses_is_not_replaced(run, tmp_path, texts_run):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "modules.json").write_text("[]")
    code, _, err = run(f"run={texts_run}", "format=sentence_transformers", "output=m", command="export")
    assert code == 2 and "m is not of this tool and would be lost" in err
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["modules.json"]


def test_a_missing_library_is_a_line_with_its_extra(run, monkeypatch, texts_run):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    code, _, err = run(f"run={texts_run}", "format=sentence_transformers", "output=m", command="export")
    assert code == 2
    needs = "format=sentence_transformers needs sentence_transformers"
    assert err == f"ssl-export: error: {needs}: pip install 'sslcli[sentence_transformers]'\n"


@pytest.mark.parametrize(
    ("encoder", "message"),
    [(Bag, "is for encoder=text_transformer"), (TextTransformer, "needs the run's tokenizer.json")],
)
def test_what_the_library_cannot_read_is_refused(tmp_path, encoder, message):
    dataset = token_dataset()
    model = Pretrained(encoder(dataset.spec), PassThrough(dataset.spec, dataset.spec, 1), dataset.spec)
    source = Source(tmp_path, {"config": TrainConfig()}, model, choose("cpu", "fp32"), DatasetChoice())
    with pytest.raises(UserError, match=message):
        SentenceTransformers().write(source, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    def write(text, error=None):
        with replacing_folder(tmp_path / "m") as folder:
            folder.mkdir()
            (folder / "file").write_text(text)
            if error:
                raise error

    write("one")
    write("two")
    with pytest.raises(ValueError):
        write("three", ValueError())
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert (tmp_path / "m" / "file").read_text() == "two"
    left = tmp_path / ".m.tmp.999999999"  # of a process that was killed
    left.mkdir()
    (left / "file").touch()
    sweep(tmp_path, "m")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_the_table_of_embeddings_names_file_and_row(run, tmp_path, texts_run):
    code, _, err = run(f"run={texts_run}", "format=embeddings", "output=t.parquet", command="export")
    assert code == 0, err
    table = pq.read_table(tmp_path / "t.parquet").to_pydict()
    lines = (texts_run.parent / "texts.txt").read_text().splitlines()
    assert sorted(table["path"]) == sorted(f"texts.txt, line {i + 1}" for i in range(60))
    names = [int(name.split()[-1]) - 1 for name in table["path"]]
    with torch.no_grad():
        ours = sslcli.load(str(texts_run))([lines[i] for i in names])
    torch.testing.assert_close(torch.tensor(table["vector"]), ours, rtol=1e-5, atol=1e-5)
