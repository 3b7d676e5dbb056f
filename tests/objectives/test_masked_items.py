"""Masked items of histories (BERT4Rec): the error of a loop over places, and training and ranking ask the same."""

import math

import pytest
import torch
from support.helpers import randomness
from support.modalities import histories

from sslcli.encoders.history import History
from sslcli.features import Features
from sslcli.objectives.masked_tokens import MaskedTokens
from sslcli.types import View

DATA = histories()
FIELD, USERS, ITEMS = DATA.spec["history"], 96, 30
IDS = DATA.columns["history"]


def parts(**options):
    torch.manual_seed(0)
    encoder = History(DATA.spec, hidden_dim=16, depth=1, num_heads=2, dropout=0.0, causal=False)
    torch.nn.init.normal_(encoder.items.weight)
    return encoder, MaskedTokens(encoder, **{"mask_ratio": 0.3, **options})


def view_of(ids):
    return View(ids, "history", ids != FIELD.pad)


def test_the_loss_is_that_of_a_loop_over_items():
    encoder, objective = parts(random_share=0.3, kept_share=0.2)
    drawn, errors, right = objective.draw(view_of(IDS), randomness(96), 0), [], 0
    for k, row in enumerate(IDS):
        length = int((row != FIELD.pad).sum())
        if not length:
            continue
        read = torch.where(drawn.mask[k], FIELD.mask, drawn.view.x[k])[None, :length]
        with torch.no_grad():
            states = encoder(view_of(read), torch.zeros_like(read, dtype=torch.bool)).tokens[0]
        for place in drawn.places[k][drawn.weight[k] > 0].tolist():
            scores = [float(states[place] @ encoder.items.weight[item].detach()) for item in range(ITEMS)]
            truth = int(row[place]) - USERS
            errors.append(math.log(sum(map(math.exp, scores))) - scores[truth])
            right += scores.index(max(scores)) == truth
    found = objective.loss(objective.project(Features(encoder, [view_of(IDS)], randomness(96))))
    assert float(found.total.detach()) == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    assert float(found.parts["masked_accuracy"]) == pytest.approx(right / len(errors))
    assert found.chance == pytest.approx(math.log(ITEMS))


def test_items_are_exchanged_for_items_only_and_padding_is_never_chosen():
    _, objective = parts(random_share=1.0, kept_share=0.0)
    drawn = objective.draw(view_of(IDS), randomness(96), 0)
    changed = drawn.view.x != IDS
    assert changed.sum() > 50 and not drawn.mask.any()
    assert drawn.view.x[changed].min() >= USERS and drawn.view.x[changed].max() < USERS + ITEMS
    assert (IDS[changed] != FIELD.pad).all()
    guesses = objective.guesses(Features(parts()[0], [view_of(IDS)], randomness(96)), 0)
    assert guesses.guess.min() >= USERS and guesses.guess.max() < USERS + ITEMS


def test_an_item_is_scored_in_training_as_it_is_ranked():
    """The last item, hidden, has the scores that the history without it has, whose user is the state at a mask."""
    encoder, objective = parts()
    assert objective.similarity == "dot" and not list(objective.parameters())
    ids = IDS[2:3]
    mask = torch.zeros_like(ids, dtype=torch.bool)
    mask[0, -1] = True
    in_training = objective.logits(encoder(view_of(ids), mask).tokens[0, -1])
    before = torch.where(mask, FIELD.pad, ids)
    ranked = encoder(view_of(before)).pooled[0] @ encoder.item_vectors().T
    torch.testing.assert_close(in_training, ranked, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_it_learns_what_follows():
    encoder, objective = parts(random_share=0.0, kept_share=0.0)
    optimizer = torch.optim.AdamW(encoder.parameters(), 1e-2)
    for step in range(300):
        drawn = randomness(96, step)
        loss = objective.loss(objective.project(Features(encoder, [view_of(IDS)], drawn))).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    encoder.eval()
    scores = encoder(view_of(IDS)).pooled @ encoder.item_vectors().T
    right = scores.argmax(1) == DATA.held_out.rankings.relevant.values
    length = view_of(IDS).valid.sum(1)
    assert right[(length > 3) & (length < 12)].float().mean() > 0.6


def test_a_causal_encoder_is_refused():
    with pytest.raises(ValueError, match="items from those on both sides; set encoder.causal=false"):
        MaskedTokens(History(DATA.spec))
