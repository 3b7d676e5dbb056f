"""Views of texts against loops: words in their order, special ids in their places, draws that no layout changes."""

import pytest
import torch
from support.helpers import compose, randomness
from support.modalities import BEGIN, END, FIRST_WORD, MASK, PAD, padded_texts
from torch.nn import functional as F

from sslcli.config.composed import restored, to_plain
from sslcli.config.identity import differences, settings
from sslcli.config.instantiate import build
from sslcli.encoders.text_bag import TextBag
from sslcli.features import Features
from sslcli.types import Field, Spec
from sslcli.views.base import PassThrough, Views
from sslcli.views.text.whole import Dropout, Pairs
from sslcli.views.text.words import SpanMask, TokenCrop, TokenDelete

DATA = padded_texts(300, 24, pair=True)
SPEC = Spec(text=DATA.spec["text"])
RANDOM = {
    "crop": lambda spec: TokenCrop(spec, spec, 2, scale=[0.3, 0.9]),
    "delete": lambda spec: TokenDelete(spec, spec, 2, rate=0.4),
    "span": lambda spec: SpanMask(spec, spec, 2, ratio=0.3),
}
ALL = {**RANDOM, "dropout": lambda spec: Dropout(spec, spec, 2)}


def words_of(ids):
    return [token for token in ids.tolist() if token >= FIRST_WORD]


def is_part(small, large):
    """Whether the words of one list are in the other, in the same order."""
    rest = iter(large)
    return all(word in rest for word in small)


def made(name, width=24, count=300, **fields):
    ids = F.pad(DATA.columns["text"][:count], (0, width - 24), value=PAD)
    spec = Spec(text=Field("tokens", (width,), torch.int64, 60, pad=PAD, mask=MASK, special=(BEGIN, END)))
    return ids, ALL[name](spec)({"text": ids}, randomness(count))


@pytest.mark.parametrize("name", ["crop", "delete"])
def test_shorter_texts_begin_and_end_as_before_and_keep_the_order_of_words(name):
    ids, views = made(name)
    assert not torch.equal(views[0].x, views[1].x) and views[0].x.shape == views[1].x.shape
    for view in views:
        assert torch.equal(view.valid, view.x != PAD)
        for before, after in zip(ids, view.x):
            kept, length = words_of(after), int((after != PAD).sum())
            assert after[:length].tolist() == [BEGIN, *kept, END]
            assert is_part(kept, words_of(before)) and len(kept) >= min(1, len(words_of(before)))


def test_a_crop_is_a_consecutive_part_of_the_length_that_was_drawn():
    ids, views = made("crop")
    shares = []
    for before, after in zip(ids, views[0].x):
        whole, kept = words_of(before), words_of(after)
        if whole:
            assert any(whole[k : k + len(kept)] == kept for k in range(len(whole)))
            assert max(1, round(0.3 * len(whole) - 0.51)) <= len(kept) <= round(0.9 * len(whole) + 0.51)
        if len(whole) >= 15:
            shares.append(len(kept) / len(whole))
    assert abs(sum(shares) / len(shares) - 0.6) < 0.06 and max(shares) - min(shares) > 0.4


def test_words_are_left_out_at_the_rate_given():
    ids, views = made("delete")
    before, after = (sum(len(words_of(row)) for row in rows) for rows in (ids, views[0].x))
    assert after / before == pytest.approx(0.6, abs=0.03)


def test_all_words_but_one_are_left_out_at_the_highest_rate():
    ids = DATA.columns["text"]
    (view,) = TokenDelete(SPEC, SPEC, 1, rate=1.0)({"text": ids}, randomness(300))
    assert [len(words_of(row)) for row in view.x] == [min(1, len(words_of(row))) for row in ids]


def test_a_hidden_span_is_consecutive_words_and_leaves_one():
    ids, views = made("span")
    for before, after in zip(ids, views[0].x):
        hidden = (after == MASK).nonzero()[:, 0].tolist()
        count = len(words_of(before))
        assert len(hidden) == min(int(torch.tensor(0.3 * count).round()), max(count - 1, 0))
        assert hidden == list(range(hidden[0], hidden[0] + len(hidden))) if hidden else True
        rest = [k for k in range(24) if k not in hidden]
        assert torch.equal(before[rest], after[rest]) and all(before[k] >= FIRST_WORD for k in hidden)


@pytest.mark.parametrize("name", ALL)
def test_what_is_drawn_depends_on_neither_the_width_nor_the_layout(name):
    _, narrow = made(name)
    ids, wide = made(name, width=56)
    for one, other in zip(narrow, wide):
        assert torch.equal(one.x, other.x[:, : one.x.shape[1]]) and (other.x[:, one.x.shape[1] :] == PAD).all()
    views = ALL[name](SPEC)
    part = views({"text": ids[100:200, :24]}, randomness(300).part(100, 200))
    for one, other in zip(narrow, part):
        assert torch.equal(one.x[100:200, : other.x.shape[1]], other.x)


def test_views_for_dropout_are_equal_and_say_so():
    ids, (one, two) = made("dropout")
    assert torch.equal(one.x, ids) and torch.equal(two.x, ids)
    flags = {name: make(SPEC).by_dropout for name, make in ALL.items()}
    assert flags == {"crop": False, "delete": False, "span": False, "dropout": True}
    assert PassThrough(SPEC, SPEC, 2).by_dropout and not PassThrough(SPEC, SPEC, 1).by_dropout
    assert not Pairs(DATA.spec, DATA.spec, 2, columns=["text", "pair"]).by_dropout
    assert Pairs(SPEC, SPEC, 2, columns=["text"] * 2).by_dropout
    assert not Pairs(SPEC, SPEC, 2, columns=["text"] * 2, delete=0.4).by_dropout


def test_a_pair_goes_through_one_encoder_at_once_where_it_is_equally_wide():
    encoder, calls = TextBag(DATA.spec, hidden_dim=8), []
    encoder.register_forward_pre_hook(lambda module, args: calls.append(args[0].x.shape))
    views = Pairs(DATA.spec, DATA.spec, 2, columns=["text", "pair"])
    for width, expected in ((24, [(9, 24), (9, 12)]), (12, [(18, 12)])):
        columns = {"text": DATA.columns["text"][:9, :width], "pair": DATA.columns["pair"][:9]}
        features = Features(encoder, views(columns, randomness(9)), randomness(9), columns)
        text, pair = features.clean(0, 1)
        assert [tuple(shape) for shape in calls] == expected
        for encoded, name in ((text, "text"), (pair, "pair")):
            torch.testing.assert_close(encoded.pooled, encoder(views.evaluation_view(columns, name)).pooled)
        calls.clear()


def test_a_pair_loses_words_at_the_rate_given_each_text_by_its_own_draw():
    views = Pairs(DATA.spec, DATA.spec, 2, columns=["text", "pair"], delete=0.4)
    made = views(DATA.columns, randomness(300))
    for view, name in zip(made, ("text", "pair")):
        ids = DATA.columns[name]
        assert view.field == "text" and view.x.shape == ids.shape and torch.equal(view.valid, view.x != PAD)
        for before, after in zip(ids, view.x):
            kept = words_of(after)
            assert after[: len(kept) + 2].tolist() == [BEGIN, *kept, END]
            assert is_part(kept, words_of(before)) and len(kept) >= min(1, len(words_of(before)))
        assert torch.equal(views.evaluation_view(DATA.columns, name).x, ids)
    both = views({"text": DATA.columns["pair"], "pair": DATA.columns["pair"]}, randomness(300))
    assert not torch.equal(both[0].x, both[1].x)
    long = [row for row, ids in enumerate(DATA.columns["text"]) if len(words_of(ids)) > 5]
    before, after = (sum(len(words_of(rows[row])) for row in long) for rows in (DATA.columns["text"], made[0].x))
    assert after / before == pytest.approx(0.6, abs=0.03)
    part = views({name: ids[100:200] for name, ids in DATA.columns.items()}, randomness(300).part(100, 200))
    assert all(torch.equal(one.x[100:200], other.x) for one, other in zip(made, part))


def test_a_run_of_before_has_whole_pairs_and_the_name_it_had():
    now = compose("dataset=text", "dataset.path=a.csv", "encoder=text_transformer", "views=pairs")
    plain = to_plain(now)
    del plain["views"]["delete"]
    old = restored(plain, 5)
    assert differences(old, now) == ([], []) and settings(old) == settings(now)
    assert "views.delete" not in settings(now)


@pytest.mark.parametrize("name", ["dropout", "token_crop", "token_delete", "span_mask", "pairs"])
def test_every_yaml_builds_and_reads_the_column_of_texts(name):
    spec = Spec(image=Field("image", (1, 8, 8), torch.uint8), **DATA.spec)
    views = build(compose(f"views={name}").views.node, Views, spec, spec, 2, where="views")
    assert views.field == "text" and views.fields == (("text", "pair") if name == "pairs" else ("text",))
    columns = {**DATA.columns, "image": torch.zeros(300, 1, 8, 8, dtype=torch.uint8)}
    assert [view.x.dtype for view in views(columns, randomness(300))] == [torch.int64] * 2
    assert torch.equal(views.evaluation_view(columns).x, DATA.columns["text"])


def test_what_does_not_fit_is_said():
    bare = Spec(text=Field("tokens", (24,), torch.int64, 60))
    for name, message in (("crop", "fills them up"), ("delete", "fills them up"), ("span", "hides a token")):
        with pytest.raises(ValueError, match=message):
            RANDOM[name](bare)
    with pytest.raises(ValueError, match="of token ids, and the dataset has none: x"):
        Dropout(*[Spec(x=Field("vector", (3,), torch.float32))] * 2, 2)
    with pytest.raises(ValueError, match="the dataset has no column 'pair', only text"):
        Pairs(SPEC, SPEC, 2, columns=["text", "pair"])
    with pytest.raises(ValueError, match="delete=0.2: 'text' has no id that fills shorter texts up"):
        Pairs(bare, bare, 1, columns=["text"], delete=0.2)
    with pytest.raises(ValueError, match="scale="):
        TokenCrop(SPEC, SPEC, 2, scale=[0.9, 0.3])
