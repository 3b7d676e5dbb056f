"""Masked language modelling against a loop over texts and words; and that padding, layout and width change nothing."""

import math

import numpy as np
import pytest
import torch
from support.helpers import randomness
from support.modalities import BEGIN, END, FIRST_WORD, MASK, PAD, padded_texts
from torch.nn import functional as F

from sslcli.encoders.text_bag import TextBag
from sslcli.encoders.text_transformer import TextTransformer
from sslcli.features import Features
from sslcli.objectives.base import Masking
from sslcli.objectives.infonce import InfoNCE
from sslcli.objectives.joint import Joint
from sslcli.objectives.masked_tokens import MaskedTokens
from sslcli.randomness import Randomness
from sslcli.types import Field, Spec, View

LENGTH, VOCAB = 64, 60
SPEC = padded_texts(1, LENGTH).spec
TEXTS = padded_texts(400, 32).columns["text"]


def parts(**options):
    torch.manual_seed(0)
    encoder = TextTransformer(SPEC, hidden_dim=32, depth=2, num_heads=2, dropout=0.0)
    return encoder, MaskedTokens(encoder, **options)


def view_of(ids, extra=0):
    ids = F.pad(ids, (0, extra), value=PAD)
    return View(ids, "text", ids != PAD)


def loss_of(encoder, objective, ids, drawn=None, extra=0):
    drawn = drawn or randomness(len(ids))
    return objective.loss(objective.project(Features(encoder, [view_of(ids, extra)], drawn)))


def num_words(ids):
    return (ids >= FIRST_WORD).sum(1)


def test_the_loss_is_that_of_a_loop_over_texts_and_words():
    """Each text alone and without padding, so that nothing but its own words can reach its loss."""
    encoder, objective = parts(mask_ratio=0.3, random_share=0.3, kept_share=0.2)
    ids, errors, right = TEXTS[:12], [], 0
    drawn = objective.draw(view_of(ids), randomness(12), 0)
    for k, text in enumerate(ids):
        chosen, count = drawn.places[k][drawn.weight[k] > 0].tolist(), int(num_words(ids)[k])
        assert len(chosen) == min(count, max(1, round(0.3 * count)))
        length = int((text != PAD).sum())
        read = drawn.view.x[k, :length].clone()
        read[drawn.mask[k, :length]] = MASK
        with torch.no_grad():
            tokens = encoder(View(read[None], "text")).tokens[0]
        for place in chosen:
            hidden = objective.transform(tokens[place]).detach()
            scores = [float(hidden @ row) for row in encoder.word_embeddings.weight.detach()]
            scores = [score + float(bias) for score, bias in zip(scores, objective.bias.detach())]
            errors.append(math.log(sum(math.exp(score) for score in scores)) - scores[int(text[place])])
            right += scores.index(max(scores)) == int(text[place])
    found = loss_of(encoder, objective, ids)
    assert float(found.total.detach()) == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    assert float(found.parts["masked_accuracy"]) == pytest.approx(right / len(errors))


def test_words_are_chosen_hidden_exchanged_and_kept_at_the_published_rates():
    _, objective = parts()
    ids = TEXTS[num_words(TEXTS) > 0]
    drawn = objective.draw(view_of(ids), Randomness(0, 0, np.arange(len(ids)), torch.device("cpu")), 0)
    chosen = torch.zeros_like(drawn.mask).scatter(1, drawn.places, drawn.weight > 0)
    assert (ids[chosen] >= FIRST_WORD).all() and torch.equal(
        chosen, objective.hidden(view_of(ids), randomness(len(ids)), 0)
    )
    assert torch.equal(chosen.sum(1), (0.15 * num_words(ids)).round().clamp(min=1).long())
    exchanged = chosen & (drawn.view.x != ids)
    assert torch.equal(drawn.view.x[~chosen], ids[~chosen]) and (drawn.view.x[exchanged] >= FIRST_WORD).all()
    assert not (drawn.mask & ~chosen).any() and not (drawn.mask & exchanged).any()
    count = int(chosen.sum())
    assert int(drawn.mask.sum()) / count == pytest.approx(0.8, abs=0.04)
    assert int(exchanged.sum()) / count == pytest.approx(0.1, abs=0.03)
    assert int(drawn.view.x[exchanged].unique().numel()) > 20
    places = [(chosen[:, k] & (ids[:, k] >= FIRST_WORD)).sum() / (ids[:, k] >= FIRST_WORD).sum() for k in (1, 8)]
    assert abs(float(places[0] - places[1])) < 0.12  # no place is preferred


def test_all_words_of_all_texts_can_be_hidden_and_no_more():
    encoder, objective = parts(mask_ratio=0.999, random_share=0.0, kept_share=0.0)
    drawn = objective.draw(view_of(TEXTS), randomness(400), 0)
    assert torch.equal(encoder.ids(drawn.view, drawn.mask), torch.where(TEXTS >= FIRST_WORD, MASK, TEXTS))


def test_places_that_do_not_count_change_nothing():
    """A CPU leaves them out, a GPU multiplies them by 0."""
    encoder, objective = parts()
    features = Features(encoder, [view_of(TEXTS[:16])], randomness(16))
    found, hidden = objective.project(features), objective.draw(features.views[0], features.randomness, 0)
    at = hidden.places[:, :, None].expand(-1, -1, 32)
    tokens = objective.masked_pass(features, 0).tokens.gather(1, at)
    error, right = objective._compared(tokens, TEXTS[:16].gather(1, hidden.places))
    assert error.shape == hidden.weight.shape and not hidden.weight.all()
    torch.testing.assert_close(found["error"], (error * hidden.weight).sum(1))
    torch.testing.assert_close(found["right"], (right * hidden.weight).sum(1))


def test_more_padding_changes_neither_loss_nor_gradient():
    found = []
    for extra in (0, 32):
        encoder, objective = parts()
        loss = loss_of(encoder, objective, TEXTS[:16], extra=extra).total
        loss.backward()
        found.append(
            [loss, *(p.grad for part in (encoder, objective) for p in part.parameters() if p.grad is not None)]
        )
    for narrow, wide in zip(*found):
        torch.testing.assert_close(narrow, wide, rtol=1e-5, atol=1e-6)


def test_what_is_drawn_depends_on_neither_the_width_nor_the_micro_batch():
    _, objective = parts()
    whole = objective.draw(view_of(TEXTS[:40]), randomness(40), 0)
    part = objective.draw(view_of(TEXTS[10:20, :24]), randomness(40).part(10, 20), 0)
    rows = num_words(TEXTS[10:20]) == num_words(TEXTS[10:20, :24])  # those that the narrower batch does not cut
    assert rows.any()
    assert torch.equal(whole.mask[10:20, :24][rows], part.mask[rows])
    assert torch.equal(whole.view.x[10:20, :24][rows], part.view.x[rows])


CONTINUES = torch.arange(VOCAB) % 3 == 0  # every third id goes on with a word


def parts_of_words(**options):
    spec = Spec(SPEC, facts={"tokens.continues": CONTINUES})
    torch.manual_seed(0)
    encoder = TextTransformer(spec, hidden_dim=32, depth=1, num_heads=2, dropout=0.0)
    return encoder, MaskedTokens(encoder, whole_words=True, **options)


@pytest.mark.parametrize("ratio", [0.15, 0.4])
def test_whole_words_are_chosen_one_by_one_while_they_are_not_too_many(ratio):
    _, objective = parts_of_words(mask_ratio=ratio)
    view, drawn = view_of(TEXTS), randomness(400)
    chosen = objective.hidden(view, drawn, 0)
    keys, total, most = drawn.uniform("mask", 32), 0, 0
    for text, row, key in zip(TEXTS, chosen, keys):
        groups = []
        for place, token in enumerate(text.tolist()):
            if token < FIRST_WORD:
                continue
            if CONTINUES[token] and groups and groups[-1][-1] == place - 1:
                groups[-1].append(place)
            else:
                groups.append([place])
        count = sum(len(group) for group in groups)
        budget, expected = max(1, int((torch.tensor(ratio) * count).round())), []
        for number, group in enumerate(sorted(groups, key=lambda group: float(key[group[0]]))):
            if number and len(expected) + len(group) > budget:
                break
            expected += group
        assert row.nonzero()[:, 0].tolist() == sorted(expected)
        total, most = total + len(expected), most + count
    assert 0.8 * ratio < total / most < 1.1 * ratio


def test_a_word_that_is_a_whole_text_is_chosen_up_to_its_longest_part():
    _, objective = parts_of_words()
    ids = torch.full((1, LENGTH), FIRST_WORD + 5)  # 9, which goes on
    for width in (LENGTH, 40):
        assert objective.hidden(view_of(ids[:, :width]), randomness(1), 0).nonzero()[:, 1].tolist() == list(range(16))


def test_texts_without_words_add_nothing():
    encoder, objective = parts()
    bare = torch.full((4, 32), PAD)
    bare[:3, 0], bare[:2, 1] = BEGIN, END
    some = TEXTS[:16]
    together = loss_of(encoder, objective, torch.cat([some, bare]))
    torch.testing.assert_close(together.total, loss_of(encoder, objective, some).total, rtol=1e-6, atol=1e-6)
    alone = loss_of(encoder, objective, bare)
    alone.total.backward()
    assert alone.total.item() == 0
    assert all(p.grad is None or not p.grad.any() for part in (encoder, objective) for p in part.parameters())


def test_an_output_that_tells_nothing_is_at_chance():
    encoder, objective = parts()
    torch.nn.init.zeros_(encoder.word_embeddings.weight)
    found = loss_of(encoder, objective, TEXTS[:16])
    assert found.total.item() == pytest.approx(math.log(VOCAB)) == pytest.approx(found.chance)


def test_the_output_layer_is_the_encoders_table():
    encoder, objective = parts()
    assert {name for name, _ in objective.named_parameters()} == {
        *("bias", "transform.0.weight", "transform.0.bias", "transform.2.weight", "transform.2.bias"),
    }
    tokens = torch.randn(3, 32)
    expected = objective.transform(tokens) @ encoder.word_embeddings.weight.T + objective.bias
    torch.testing.assert_close(objective.logits(tokens), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert objective.logits(tokens).dtype == torch.float32
    words = torch.arange(FIRST_WORD, VOCAB)
    loss_of(encoder, objective, TEXTS[:4]).total.backward()  # as an output each word has a gradient, also unseen ones
    assert (encoder.word_embeddings.weight.grad[words].abs().sum(1) > 0).all()


def test_a_teacher_s_contrast_shares_the_pass_over_hidden_words():
    """``share=masked`` asks for ``masked_pass``, whoever has it."""
    encoder, _ = parts()
    calls = []
    encoder.register_forward_hook(lambda module, args, out: calls.append(args[1] if len(args) > 1 else None))
    nodes = {
        "moco": {"_target_": "sslcli.objectives.moco.moco", "version": 3, "norm": "layer"},
        "masked_tokens": {"_target_": "sslcli.objectives.masked_tokens.MaskedTokens"},
    }
    joint = Joint(encoder, parts=nodes, weights={"moco": 1, "masked_tokens": 1}, share="masked")
    assert isinstance(joint.parts["masked_tokens"], Masking) and joint.reads == (0, 1)
    calls.clear()
    views = [view_of(TEXTS[:8]), view_of(TEXTS[:8])]
    found = joint.loss(joint.project(Features(encoder, views, randomness(8))))
    found.total.backward()
    assert found.total.isfinite()
    assert [mask is not None for mask in calls] == [True, True, False, False]  # the teacher, a copy, sees all words
    with pytest.raises(ValueError, match="needs one masked part"):
        Joint(encoder, parts={"moco": nodes["moco"]}, weights={"moco": 1}, share="masked")


@pytest.mark.slow
def test_it_learns_what_follows_a_word():
    """Texts in which each word says the next one: only a model of the context can do better than the words' shares."""
    generator = torch.Generator().manual_seed(0)
    ids = FIRST_WORD + (torch.randint(0, 8, (256, 1), generator=generator) + 3 * torch.arange(12)) % 8
    ids = F.pad(F.pad(ids, (1, 0), value=BEGIN), (0, 1), value=END)
    encoder, objective = parts()
    optimizer = torch.optim.AdamW([*encoder.parameters(), *objective.parameters()], 3e-3)
    for step in range(300):
        rows = torch.arange(64) + 64 * (step % 4)
        loss = loss_of(encoder, objective, ids[rows], randomness(64, step)).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.5 * math.log(8)


def test_what_does_not_fit_is_said():
    encoder, _ = parts()
    with pytest.raises(ValueError, match="use encoder=text_transformer"):
        MaskedTokens(TextBag(SPEC))
    bare = Spec(text=Field("tokens", (8,), torch.int64, VOCAB, pad=PAD))
    with pytest.raises(ValueError, match="no column has an id for it"):
        MaskedTokens(TextTransformer(bare, hidden_dim=8, depth=1, num_heads=1))
    with pytest.raises(ValueError, match="do not say which tokens go on with a word"):
        MaskedTokens(encoder, whole_words=True)
    for options in ({"mask_ratio": 0.0}, {"mask_ratio": 1.0}, {"random_share": 0.6, "kept_share": 0.5}):
        with pytest.raises(ValueError, match="mask_ratio must be"):
            MaskedTokens(encoder, **options)
    assert not isinstance(InfoNCE(encoder), Masking)
