"""Encoders of text: padding changes nothing, hidden tokens are words, and the transformer is BERT."""

import pytest
import torch
from support import foreign
from support.helpers import compose
from support.modalities import BEGIN, END, FIRST_WORD, MASK, PAD, padded_texts
from torch import nn
from torch.nn import functional as F

from sslcli.config.composed import restored, to_plain
from sslcli.encoders.text import by_length, mean_of
from sslcli.encoders.text_bag import TextBag
from sslcli.encoders.text_transformer import TextTransformer
from sslcli.errors import UserError
from sslcli.types import Field, Spec, View

LENGTH = 64
SPEC = padded_texts(1, LENGTH).spec
SMALL = {"hidden_dim": 32, "depth": 2, "num_heads": 2, "dropout": 0.0}
ENCODERS = {
    "bag": lambda: TextBag(SPEC, hidden_dim=16, unit=False),
    "bag with a projection": lambda: TextBag(SPEC, hidden_dim=16, projection=8, unit=False),
    "bag with bigrams": lambda: foreign.settled(TextBag(SPEC, hidden_dim=16, bigrams=61, unit=False)),
    "bag of length 1": lambda: TextBag(SPEC, hidden_dim=16, projection=8),
    "transformer": lambda: TextTransformer(SPEC, **SMALL),
    "transformer, cls": lambda: TextTransformer(SPEC, **SMALL, pool="cls"),
}


def texts(width=24, extra=0, count=9):
    """A view of the first samples, of which the second has no words, with ``extra`` more padding."""
    ids = padded_texts(count, width).columns["text"].clone()
    ids[1] = torch.tensor([BEGIN, END, *[PAD] * (width - 2)])
    ids = F.pad(ids, (0, extra), value=PAD)
    return View(ids, "text", ids != PAD)


def made(name):
    torch.manual_seed(0)
    return ENCODERS[name]()


@pytest.mark.parametrize("hides", [False, True])
@pytest.mark.parametrize("name", ENCODERS)
def test_more_padding_changes_no_feature_no_loss_and_no_gradient(name, hides):
    found = []
    for extra in (0, 32):
        encoder, view = made(name), texts(extra=extra)
        mask = torch.zeros_like(view.x, dtype=torch.bool)
        mask[:, 2:24:5] = True
        encoded = encoder(view, mask if hides else None)
        assert encoded.tokens.shape == (9, 24 + extra, encoder.token_dim) and torch.equal(encoded.valid, view.valid)
        assert encoder.grid(view) == (24 + extra,)
        loss = (F.normalize(encoded.pooled) * torch.linspace(-1, 1, encoder.dim)).sum(1).square().mean()
        loss = loss + (encoded.tokens * view.valid[..., None]).square().mean() * (24 + extra)
        loss.backward()
        found.append([encoded.pooled, loss, *(p.grad for p in encoder.parameters() if p.grad is not None)])
    for narrow, wide in zip(*found):
        torch.testing.assert_close(narrow, wide, rtol=1e-5, atol=1e-6)


def test_texts_by_length_have_the_tokens_and_the_gradient_of_one_pass():
    """Each part is as wide as its longest text, one without any word among them, and each text keeps its place."""
    encoder, view, widths, found = made("transformer").double(), texts(width=48, extra=16, count=70), [], []
    view.x[5], view.valid[5] = PAD, False

    def encode(ids, valid):
        assert valid.any(0)[1:].all(), "a column of padding"
        widths.append(ids.shape)
        return encoder._tokens(ids, valid)

    for tokens in (encoder._tokens(view.x, view.valid), by_length(encode, view.x, view.valid, together=32)):
        kept = tokens * view.valid[..., None]
        encoder.zero_grad()
        (kept * torch.linspace(-1, 1, kept.numel()).view(kept.shape)).sum().backward()
        found.append([kept, *(p.grad.clone() for p in encoder.parameters() if p.grad is not None)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    lengths = view.valid.sum(1).sort().values.tolist()
    assert widths == [(32, lengths[31]), (32, lengths[63]), (6, lengths[69])]
    assert by_length(lambda ids, valid: ids[..., None], view.x, None).shape == (70, 64, 1)


def test_a_bag_is_the_mean_of_the_embeddings_of_tokens_that_are_no_padding():
    encoder, view = made("bag with a projection"), texts()
    for ids, pooled in zip(view.x, encoder(view).pooled):
        rows = torch.stack([encoder.embed.weight[token] for token in ids.tolist() if token != PAD])
        torch.testing.assert_close(pooled, encoder.out(rows.mean(0)))


def test_a_bigram_adds_its_row_where_both_words_are_seen():
    """By hand, one text after the other, also with hidden words; int32 ids have the rows of int64 ones."""
    encoder, view = made("bag with bigrams"), texts()
    mask = torch.zeros_like(view.x, dtype=torch.bool)
    mask[:, 3:24:6] = True
    for hides in (None, mask):
        encoded = encoder(view, hides)
        seen = view.valid if hides is None else view.valid & ~(hides & (view.x >= FIRST_WORD))
        for row, (ids, kept) in enumerate(zip(view.x.tolist(), seen.tolist())):
            added = torch.zeros(16)
            for t in range(len(ids)):
                if kept[t]:
                    added += encoder.embed.weight[ids[t]]
                if kept[t] and t + 1 < len(ids) and kept[t + 1]:
                    added += encoder.bigrams.weight[(ids[t] * 116_049_371 + ids[t + 1]) % 61]
            torch.testing.assert_close(encoded.pooled[row], added / max(1, sum(kept)))
        of_int32 = encoder(View(view.x.int(), "text", view.valid), hides)
        assert torch.equal(of_int32.pooled, encoded.pooled) and torch.equal(of_int32.tokens, encoded.tokens)


def test_a_bag_with_new_bigrams_begins_as_one_without():
    plain, view = made("bag with a projection"), texts()
    torch.manual_seed(0)
    assert torch.equal(
        TextBag(SPEC, hidden_dim=16, projection=8, bigrams=64, unit=False)(view).pooled, plain(view).pooled
    )


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_bag_of_length_1_has_the_direction_of_one_without(dropout):
    plain, unit = (
        foreign.settled(TextBag(SPEC, hidden_dim=16, dropout=dropout, unit=is_unit)) for is_unit in (False, True)
    )
    view = texts()
    one, other = ([encoder.train(), torch.manual_seed(0), encoder(view)][-1] for encoder in (plain, unit))
    torch.testing.assert_close(other.pooled, one.pooled / one.pooled.pow(2).sum(1, keepdim=True).sqrt())
    assert torch.equal(one.tokens, other.tokens)


def test_a_bag_of_before_keeps_the_length_of_its_mean():
    plain = to_plain(compose("encoder=text_bag", "dataset=wordnet_mini"))
    assert plain["encoder"].pop("unit") is True
    assert restored(plain, 5).encoder.node["unit"] is False


@pytest.mark.parametrize("hides", [False, True])
@pytest.mark.parametrize("name", ["bag", "bag with bigrams", "bag with a projection"])
def test_the_mean_of_a_bag_has_the_gradient_of_the_mean_of_its_tokens(name, hides):
    encoder, view, found = made(name), texts(), []
    mask = torch.zeros_like(view.x, dtype=torch.bool)
    mask[:, 3:24:6] = True
    encoded = encoder(view, mask if hides else None)
    seen = view.valid & ~(mask & (view.x >= FIRST_WORD)) if hides else view.valid
    for pooled in (encoded.pooled, encoder.out(mean_of(encoded.tokens, seen))):
        encoder.zero_grad()
        (pooled * torch.linspace(-1, 1, pooled.numel()).view(pooled.shape)).sum().backward()
        found.append([p.grad.clone() for p in encoder.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["bag", "bag with bigrams"])
def test_a_compiled_bag_is_one_graph(name):
    encoder, view = made(name), texts()
    encoded = torch.compile(encoder, backend="eager", fullgraph=True)(view)
    assert torch.equal(encoded.pooled, encoder(view).pooled) and torch.equal(encoded.tokens, encoder(view).tokens)


@pytest.mark.parametrize("hides", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("bigrams", [None, 64])
def test_the_mean_of_a_bag_is_that_of_its_tokens_which_are_looked_up_when_asked_for(bigrams, dropout, hides):
    encoder = TextBag(SPEC, hidden_dim=16, bigrams=bigrams, dropout=dropout, unit=False)
    view = texts(count=8)
    foreign.settled(encoder).train()
    encoded = encoder(view, torch.ones_like(view.x, dtype=torch.bool) if hides else None)
    assert ("tokens" in vars(encoded)) == (dropout > 0), "tokens take most of the time of a step"
    seen = view.valid & (view.x < FIRST_WORD) if hides else view.valid
    torch.testing.assert_close(encoded.pooled, mean_of(encoded.tokens, seen))
    halves = encoded.chunks(2)
    for part, rows in zip(halves, (slice(4), slice(4, 8)), strict=True):
        assert torch.equal(part.tokens, encoded.tokens[rows]) and torch.equal(part.pooled, encoded.pooled[rows])
        assert torch.equal(part.valid, view.valid[rows])


def test_the_order_of_words_means_nothing_to_a_bag_and_something_to_others():
    view = texts()
    turned = View(view.x.clone(), "text", view.valid)
    turned.x[0, 1:3] = view.x[0, 1:3].flip(0)
    assert view.x[0, 1] != view.x[0, 2]
    for name, same in (("bag", True), ("bag with bigrams", False), ("transformer", False)):
        encoder = made(name)
        assert torch.allclose(encoder(view).pooled, encoder(turned).pooled, atol=1e-6) == same


@pytest.mark.parametrize("name", ENCODERS)
def test_a_mask_over_everything_hides_words_only(name):
    encoder, view = made(name), texts()
    found = encoder.ids(view, encoder.hidden(view, torch.ones_like(view.x, dtype=torch.bool)))
    words = view.x >= FIRST_WORD
    assert torch.equal(found, torch.where(words, MASK, view.x)) and words.any()


@pytest.mark.parametrize("name", ENCODERS)
def test_a_text_of_nothing_but_padding_is_finite(name):
    encoder, view = made(name), texts()
    view.x[0], view.valid[0] = PAD, False
    encoded = encoder(view)
    encoded.pooled.sum().backward()
    assert encoded.pooled.isfinite().all() and all(
        p.grad is None or p.grad.isfinite().all() for p in encoder.parameters()
    )


def test_hidden_tokens_are_left_out_of_the_mean():
    encoder, view = made("bag"), texts()
    mask = torch.zeros_like(view.x, dtype=torch.bool)
    mask[:, 1] = True
    kept = torch.cat([view.x[:, :1], view.x[:, 2:]], 1)
    without = encoder(View(kept, "text", kept != PAD))
    rows = view.valid[:, 1] & (view.x[:, 1] >= FIRST_WORD)
    torch.testing.assert_close(encoder(view, mask).pooled[rows], without.pooled[rows])


def test_blocks_that_are_computed_again_have_the_same_gradient():
    found = []
    for recompute in (False, True):
        encoder = made("transformer").train()
        if recompute:
            encoder.recompute_blocks()
        encoder(texts()).pooled.square().sum().backward()
        found.append([p.grad for p in encoder.parameters()])
    for one, other in zip(*found):
        torch.testing.assert_close(one, other)


def test_the_training_noise_of_two_passes_differs_and_evaluation_has_none():
    encoder, view = TextTransformer(SPEC, **{**SMALL, "dropout": 0.1}), texts()
    assert not torch.equal(encoder(view).pooled, encoder(view).pooled)
    encoder.eval()
    assert torch.equal(encoder(view).pooled, encoder(view).pooled)


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="reads token ids, and the dataset has none: x"):
        TextBag(Spec(x=Field("vector", (3,), torch.float32)))
    with pytest.raises(ValueError, match="different ones: text 60, code 9"):
        TextBag(SPEC.having("code", Field("tokens", (4,), torch.int64, 9)))
    with pytest.raises(ValueError, match="num_heads=5 does not divide hidden_dim=32"):
        TextTransformer(SPEC, hidden_dim=32, num_heads=5)
    with pytest.raises(UserError, match=r"has 65 tokens, and this encoder reads 64. Set dataset.length=64"):
        made("transformer")(texts(extra=65 - 24))
    with pytest.raises(ValueError, match="reads text, and a view is of the column 'title'"):
        made("bag")(View(texts().x, "title"))
    with pytest.raises(ValueError, match="no id that hides a token"):
        TextBag(Spec(text=Field("tokens", (24,), torch.int64, 60)))(texts(), texts().valid)


@pytest.mark.slow  # transformers takes seconds to import
def test_it_is_bert_with_the_same_weights():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128,
        max_position_embeddings=LENGTH, pad_token_id=PAD,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.BertModel(config, add_pooling_layer=False).eval()
    for parameter in theirs.parameters():  # biases and norms, too, must be in their places
        nn.init.normal_(parameter, std=0.1)
    ours = TextTransformer(SPEC, **SMALL).eval()
    ours.load_state_dict(theirs.state_dict())
    assert {name: p.shape for name, p in ours.named_parameters()} == {
        name: p.shape for name, p in theirs.named_parameters()
    }
    view = texts()
    expected = theirs(input_ids=view.x, attention_mask=view.valid.long()).last_hidden_state
    found = ours(view)
    torch.testing.assert_close(found.tokens[view.valid], expected[view.valid], rtol=1e-4, atol=1e-5)
    mean = (expected * view.valid[..., None]).sum(1) / view.valid.sum(1, keepdim=True)
    torch.testing.assert_close(found.pooled, mean, rtol=1e-4, atol=1e-5)
