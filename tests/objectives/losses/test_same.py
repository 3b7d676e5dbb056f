"""``same``: samples of one batch that are one thing twice are no negatives, against loops, for any cut into tiles."""

import pytest
import torch
from torch.nn import functional as F

from sslcli.objectives.losses import contrastive as contrast
from sslcli.objectives.losses import tiled_logsumexp as tiles
from sslcli.objectives.losses.equal_samples import num_equal

SAME = [3, -1, 3, 3, 5, -1, 2**62]  # three, two, one and one
TEMPERATURE = 0.2


def unit(z):
    return F.normalize(z, dim=1)


def softmax_loop(anchors, candidates, positive, allowed):
    """The mean over anchors of -log(exp s_ip / sum over the allowed candidates); without any an anchor counts as 0."""
    total = 0
    for i, anchor in enumerate(anchors):
        scores = candidates @ anchor / TEMPERATURE
        among = [scores[j] for j in range(len(candidates)) if allowed(i, j)]
        if among:
            total = total + torch.stack(among).logsumexp(0) - scores[positive(i)]
    return total / len(anchors)


def nt_xent(z1, z2):
    z, n = unit(torch.cat([z1, z2])), len(z1)
    partner = lambda i: (i + n) % (2 * n)  # noqa: E731
    return softmax_loop(z, z, partner, lambda i, j: j == partner(i) or SAME[i % n] != SAME[j % n])


def decoupled(z1, z2):
    z, n = unit(torch.cat([z1, z2])), len(z1)
    return softmax_loop(z, z, lambda i: (i + n) % (2 * n), lambda i, j: SAME[i % n] != SAME[j % n])


def rows(z1, z2):
    return softmax_loop(unit(z1), unit(z2), lambda i: i, lambda i, j: i == j or SAME[i] != SAME[j])


def sigmoid(z1, z2):
    logits, n = 5 * unit(z1) @ unit(z2).T - 2, len(z1)
    signs = [(i, j, 1 if i == j else -1) for i in range(n) for j in range(n) if i == j or SAME[i] != SAME[j]]
    return -sum(F.logsigmoid(sign * logits[i, j]) for i, j, sign in signs) / n


LOSSES = {
    "nt_xent": (lambda a, b, same: contrast.nt_xent(a, b, TEMPERATURE, same), nt_xent),
    "decoupled": (lambda a, b, same: contrast.decoupled(a, b, TEMPERATURE, same), decoupled),
    "rows": (lambda a, b, same: contrast.info_nce(a, b, TEMPERATURE, False, same), rows),
    "both": (
        lambda a, b, same: contrast.info_nce(a, b, TEMPERATURE, same=same),
        lambda a, b: (rows(a, b) + rows(b, a)) / 2,
    ),
    "sigmoid": (lambda a, b, same: contrast.sigmoid(a, b, 5.0, -2.0, same), sigmoid),
}


def value_and_gradients(loss, *rest):
    leaves = [z.requires_grad_() for z in torch.randn(2, 7, 4, dtype=torch.float64).unbind()]
    value = loss(*leaves, *rest)
    return [value.detach(), *torch.autograd.grad(value, leaves)]


@pytest.mark.parametrize("tile", [1, 3, 4, 1000])
@pytest.mark.parametrize("name", LOSSES)
def test_is_the_loop_for_any_tile(name, tile, monkeypatch):
    monkeypatch.setattr(tiles, "tile_size", lambda like: tile)
    ours, loop = LOSSES[name]
    torch.manual_seed(0)
    found = value_and_gradients(ours, torch.tensor(SAME))
    torch.manual_seed(0)
    torch.testing.assert_close(found, value_and_gradients(loop), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", LOSSES)
def test_different_numbers_change_no_bit(name):
    ours, _ = LOSSES[name]
    z1, z2 = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(0))
    plain, different = ours(z1, z2, None), ours(z1, z2, torch.arange(9))
    # decoupled takes the mean of differences instead of the difference of means
    torch.testing.assert_close(different, plain, rtol=1e-6 if name == "decoupled" else 0, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_of_one_thing_has_no_negatives(name):
    ours, _ = LOSSES[name]
    torch.manual_seed(0)
    value, *gradients = value_and_gradients(ours, torch.full((7,), 4))
    if name == "sigmoid":
        assert 0 < value < float("inf")  # of the positive pairs alone
    else:
        assert value.abs() < 1e-12
        assert all(gradient.abs().max() < 1e-12 for gradient in gradients)


def test_the_number_of_equals():
    assert num_equal(torch.tensor(SAME)).tolist() == [3, 2, 3, 3, 1, 2, 1]
