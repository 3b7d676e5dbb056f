"""The transformer over histories: what each state knows, that padding changes nothing, and what a user's vector is."""

import pytest
import torch
from support.modalities import histories, pairs_dataset, token_dataset
from torch.nn import functional as F

from sslcli.encoders.base import Recommends
from sslcli.encoders.history import History
from sslcli.errors import UserError
from sslcli.graph import Graph
from sslcli.training.optim import parameter_groups
from sslcli.types import Spec, View

DATA = histories()
GRAPH, FIELD = Graph.of(DATA.spec), DATA.spec["history"]
SMALL = {"hidden_dim": 16, "depth": 2, "num_heads": 2, "dropout": 0.0}
LONGEST = int((DATA.columns["history"] != FIELD.pad).sum(1).argmax())


def made(**options):
    torch.manual_seed(0)
    encoder = History(DATA.spec, **{**SMALL, **options})
    for parameter in encoder.parameters():  # weights that are large enough to be seen
        torch.nn.init.normal_(parameter, std=0.5)
    return encoder


def view_of(ids=None, room=0, count=12):
    """A view of the first histories, the first of which is empty."""
    ids = DATA.columns["history"][:count, : 12 - room] if ids is None else ids
    return View(ids, "history", ids != FIELD.pad)


def row_of(*items):
    """A history of one user."""
    return torch.tensor([[GRAPH.num_users + item for item in items]])


@pytest.mark.parametrize("place", [0, 4, 11])
def test_a_state_knows_the_items_before_it_and_none_after(place):
    ids = DATA.columns["history"][LONGEST : LONGEST + 1]
    changed = ids.clone()
    changed[0, place] = GRAPH.num_users + 29 if ids[0, place] != GRAPH.num_users + 29 else GRAPH.num_users
    for causal in (True, False):
        encoder = made(causal=causal)
        before, after = (encoder(view_of(row)).tokens[0] for row in (ids, changed))
        differs = (before - after).abs().amax(1) > 1e-6
        assert differs.tolist() == [k >= place if causal else True for k in range(12)]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("hides", [True, False])
def test_padding_changes_no_state_and_no_gradient(causal, hides):
    found, short = [], (DATA.columns["history"] != FIELD.pad).sum(1) <= 8
    for room in (4, 0):
        encoder, view = made(causal=causal), view_of(DATA.columns["history"][short][:, : 12 - room])
        mask = torch.zeros_like(view.x, dtype=torch.bool)
        mask[:, 1:12:3] = True
        encoded = encoder(view, mask if hides else None)
        assert encoded.tokens.shape == (*view.x.shape, 16) and torch.equal(encoded.valid, view.valid)
        kept = encoded.tokens[:, :8] * view.valid[:, :8, None]
        (kept.square().sum() + (encoded.pooled * torch.arange(16)).sum()).backward()
        found.append([kept, encoded.pooled, *(p.grad for p in encoder.parameters())])
    for narrow, wide in zip(*found):
        torch.testing.assert_close(narrow, wide, rtol=1e-4, atol=1e-4)


def test_a_user_is_the_state_at_the_last_item():
    encoder = made()
    encoded = encoder(view_of(count=96))
    lengths = encoded.valid.sum(1)
    assert sorted(set(lengths.tolist())) == list(range(13))
    for ids, length, pooled in zip(view_of(count=96).x, lengths.tolist(), encoded.pooled):
        expected = encoder(view_of(ids[None, :length])).tokens[0, -1] if length else torch.zeros(16)
        torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-5)


def test_without_causality_a_user_is_the_state_at_a_mask_behind_the_last_item():
    """As BERT4Rec predicts; also of the longest history, which needs one place more, and of an empty one."""
    encoder = made(causal=False)
    encoded = encoder(view_of(count=96))
    bare = made(causal=False)
    bare.length = 13
    for ids, pooled in zip(view_of(count=96).x, encoded.pooled):
        asked = torch.cat([ids[ids != FIELD.pad], torch.tensor([FIELD.mask])])[None]
        at_mask = torch.zeros_like(asked, dtype=torch.bool)  # an item that is hidden already: nothing is appended
        expected = bare(view_of(asked), at_mask).tokens[0, -1]
        torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-5)


def test_hidden_items_are_the_mask_and_padding_cannot_be_hidden():
    for causal in (True, False):
        encoder, view = made(causal=causal), view_of()
        everything = torch.ones_like(view.x, dtype=torch.bool)
        asked = torch.where(view.valid, FIELD.mask, view.x)
        torch.testing.assert_close(
            encoder(view, everything).tokens, encoder(view_of(asked), torch.zeros_like(everything)).tokens
        )


@pytest.mark.parametrize("causal", [True, False])
def test_an_empty_history_is_defined(causal):
    encoder = made(causal=causal)
    ids = torch.full((2, 12), FIELD.pad)
    encoded = encoder(view_of(ids))
    (encoded.pooled.sum() + encoded.tokens.sum()).backward()
    assert encoded.pooled.isfinite().all() and torch.equal(encoded.pooled[0], encoded.pooled[1])
    assert encoded.pooled.any() != causal  # a mask alone knows which items are frequent
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


def test_it_reads_histories_of_anybody_and_no_user():
    """A user that training never saw has a history of known items; the table has no rows of users."""
    encoder = made()
    assert isinstance(encoder, Recommends)
    assert encoder.items.num_embeddings == GRAPH.num_items + 2
    assert torch.equal(encoder.item_vectors(), encoder.items.weight[:30])
    one, two = row_of(3, 4, 5), row_of(3, 4, 5)
    torch.testing.assert_close(encoder(view_of(one)).pooled, encoder(view_of(torch.cat([two, one]))).pooled[:1])
    with pytest.raises(ValueError, match="reads the column 'history', and a view is of 'user'"):
        encoder(View(torch.arange(3), "user"))


def test_tables_are_not_decayed():
    encoder = made()
    decayed = {p for group in parameter_groups([encoder])[:1] for p in group["params"]}
    assert encoder.items.weight not in decayed and encoder.places.weight not in decayed
    assert len(decayed) == 2 * 6  # the linear layers of two blocks


def test_blocks_that_are_computed_again_have_the_same_gradient():
    found = []
    for recompute in (False, True):
        encoder = made().train()
        if recompute:
            encoder.recompute_blocks()
        encoder(view_of()).pooled.square().sum().backward()
        found.append([p.grad for p in encoder.parameters()])
    for one, other in zip(*found):
        torch.testing.assert_close(one, other)


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"column 'history', and the dataset has user, item; set dataset.sample=hist"):
        History(pairs_dataset().spec)
    with pytest.raises(ValueError, match="column 'history', and the dataset has text"):
        History(token_dataset().spec)
    with pytest.raises(ValueError, match="has no users and items"):
        History(Spec(history=FIELD))
    with pytest.raises(ValueError, match="num_heads=5 does not divide hidden_dim=64"):
        History(DATA.spec, num_heads=5)
    with pytest.raises(ValueError, match="depth=0 must be at least 1"):
        History(DATA.spec, depth=0)
    with pytest.raises(UserError, match=r"has 13 items, and this encoder reads 12. Set dataset.length=12"):
        made()(view_of(F.pad(DATA.columns["history"], (0, 1), value=FIELD.pad)))
