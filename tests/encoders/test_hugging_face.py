"""Models of transformers from a folder: their own numbers, nothing fetched, no foreign code, weights of the folder."""

import json

import pytest
import torch
from support.modalities import END, PAD, padded_texts
from torch.nn import functional as F

from sslcli.encoders.hugging_face import HuggingFace
from sslcli.encoders.text_transformer import TextTransformer
from sslcli.errors import UserError
from sslcli.pretrained.load import load_weights
from sslcli.types import View

pytestmark = pytest.mark.slow  # transformers takes seconds to import
transformers = pytest.importorskip("transformers")
LENGTH = 64
SPEC = padded_texts(1, LENGTH).spec
SIZE = {"vocab_size": 60, "pad_token_id": PAD, "max_position_embeddings": LENGTH + 2}
WIDTH = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
CONFIGS = {
    "bert": lambda: transformers.BertConfig(**SIZE, **WIDTH),
    "roberta": lambda: transformers.RobertaConfig(**SIZE, **WIDTH),
    "distilbert": lambda: transformers.DistilBertConfig(**SIZE, dim=32, n_layers=2, n_heads=2, hidden_dim=64),
}


@pytest.fixture(params=CONFIGS)
def folder(request, tmp_path):
    torch.manual_seed(1)
    transformers.AutoModel.from_config(CONFIGS[request.param]()).save_pretrained(tmp_path)
    return tmp_path


def texts(extra=0):
    ids = F.pad(padded_texts(9, 24).columns["text"], (0, extra), value=PAD)
    return View(ids, "text", ids != PAD)


def test_features_are_those_of_transformers(folder):
    encoder = HuggingFace(SPEC, path=str(folder))
    report = load_weights(encoder, str(folder))
    assert not report.missing and not report.unexpected
    theirs = transformers.AutoModel.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True, use_safetensors=True
    ).eval()
    view = texts()
    expected = theirs(input_ids=view.x, attention_mask=view.valid.long()).last_hidden_state
    found = encoder.eval()(view)
    torch.testing.assert_close(found.tokens[view.valid], expected[view.valid])
    mean = (expected * view.valid[..., None]).sum(1) / view.valid.sum(1, keepdim=True)
    torch.testing.assert_close(found.pooled, mean)
    first = HuggingFace(SPEC, path=str(folder), pool="cls").eval()
    load_weights(first, str(folder))
    torch.testing.assert_close(first(view).pooled, expected[:, 0])
    assert encoder.word_embeddings.weight.shape == (60, 32) and encoder.dim == 32


def test_more_padding_changes_no_feature_and_no_gradient(folder):
    found = []
    for extra in (0, 32):
        torch.manual_seed(0)
        encoder = HuggingFace(SPEC, path=str(folder), dropout=0.0).train()
        pooled = encoder(texts(extra)).pooled
        pooled.square().mean().backward()
        found.append([pooled, *(p.grad for p in encoder.parameters() if p.grad is not None)])
    for narrow, wide in zip(*found):
        torch.testing.assert_close(narrow, wide, rtol=1e-5, atol=1e-6)


def test_dropout_is_the_models_own_or_that_of_the_key(folder):
    own, none = HuggingFace(SPEC, path=str(folder)).train(), HuggingFace(SPEC, path=str(folder), dropout=0.0).train()
    assert not torch.equal(own(texts()).pooled, own(texts()).pooled)
    assert torch.equal(none(texts()).pooled, none(texts()).pooled)


def test_a_text_of_nothing_but_padding_is_finite(folder):
    view = texts()
    view.x[0], view.valid[0] = PAD, False
    assert HuggingFace(SPEC, path=str(folder))(view).pooled.isfinite().all()


def test_a_folder_of_bert_loads_into_our_own_transformer(tmp_path):
    transformers.BertModel(CONFIGS["bert"]()).save_pretrained(tmp_path)
    encoder = TextTransformer(padded_texts(1, LENGTH + 2).spec, hidden_dim=32, depth=2, num_heads=2)
    report = load_weights(encoder, str(tmp_path))
    assert not report.missing and not report.unexpected
    theirs = transformers.BertModel.from_pretrained(tmp_path).eval()
    view = texts()
    expected = theirs(input_ids=view.x, attention_mask=view.valid.long()).last_hidden_state
    torch.testing.assert_close(encoder.eval()(view).tokens[view.valid], expected[view.valid], rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_said(tmp_path):
    with pytest.raises(UserError, match=r"encoder.path: there is no config.json in"):
        HuggingFace(SPEC, path=str(tmp_path))
    with pytest.raises(ValueError, match="give encoder.path"):
        HuggingFace(SPEC, path=None)
    config = CONFIGS["bert"]()
    for key, value, message in (
        ("vocab_size", 50, "set dataset.tokenizer="),
        ("pad_token_id", END, "set dataset.tokenizer="),
        ("max_position_embeddings", 40, "dataset.length=40"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config.to_dict(), "model_type": "bert", key: value}))
        with pytest.raises(ValueError, match=message):
            HuggingFace(SPEC, path=str(tmp_path))
    # code of the folder's own is refused, not run
    plain = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(plain))
    (tmp_path / "own.py").write_text("raise SystemExit('it ran')\n")
    with pytest.raises(UserError, match="transformers cannot read"):
        HuggingFace(SPEC, path=str(tmp_path))
