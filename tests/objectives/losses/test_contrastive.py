"""Contrastive losses against loops written from the papers, in value and gradient, for any cut into tiles."""

import inspect
import math

import pytest
import torch
from torch.nn import functional as F

from sslcli.objectives.losses import contrastive as contrast
from sslcli.objectives.losses import tiled_logsumexp as tiles

TILES = [1, 4, 5, 1000]
SIZES = [1, 2, 7, 33]


def unit(z):
    return z / z.norm(dim=1, keepdim=True)


def log_sum_exp(terms):
    """With the maximum taken out, so that the reference survives a tiny temperature."""
    top = max(term.item() for term in terms)
    return top + torch.log(sum(torch.exp(term - top) for term in terms))


def pairs(z1, z2, temperature):
    """All cosines over the temperature of the 2N views as rows of scalars, and the partner of each view."""
    z, n = unit(torch.cat([z1, z2])), len(z1)
    logits = (z @ z.T / temperature).unbind()
    return [row.unbind() for row in logits], [(i + n) % (2 * n) for i in range(2 * n)]


def nt_xent_loop(z1, z2, temperature):
    s, partner = pairs(z1, z2, temperature)
    each = range(len(s))
    return sum(log_sum_exp([s[i][j] for j in each if j != i]) - s[i][partner[i]] for i in each) / len(s)


def info_nce_loop(z1, z2, temperature):
    return (info_nce_rows_loop(z1, z2, temperature) + info_nce_rows_loop(z2, z1, temperature)) / 2


def info_nce_rows_loop(z1, z2, temperature):
    s = [row.unbind() for row in (unit(z1) @ unit(z2).T / temperature).unbind()]
    return sum(log_sum_exp(row) - row[i] for i, row in enumerate(s)) / len(s)


def decoupled_loop(z1, z2, temperature):
    s, partner = pairs(z1, z2, temperature)
    each = range(len(s))
    if len(s) == 2:
        return s[0][1] * 0
    negatives = [[s[i][j] for j in each if j not in (i, partner[i])] for i in each]
    return sum(log_sum_exp(negatives[i]) - s[i][partner[i]] for i in each) / len(s)


def supervised_loop(z1, z2, temperature, labels):
    s, _ = pairs(z1, z2, temperature)
    y, each, total = [*labels.tolist(), *labels.tolist()], range(len(s)), 0
    for i in each:
        positives = [p for p in each if p != i and y[p] == y[i]]
        others = log_sum_exp([s[i][a] for a in each if a != i])
        total = total - sum(s[i][p] - others for p in positives) / len(positives)
    return total / len(s)


def sigmoid_loop(z1, z2, scale, bias):
    total = 0
    for i, x in enumerate(unit(z1)):
        for j, y in enumerate(unit(z2)):
            total = total - F.logsigmoid((1 if i == j else -1) * (scale * (x @ y) + bias))
    return total / len(z1)


def labels_of(n):
    """Classes of one, two and many samples; numbers with holes, unsorted."""
    return torch.tensor([7, -2, 7, 100, 7, 3, 3] * 5)[:n]


# name: (ours, loop, further arguments)
LOSSES = {
    "nt_xent": (contrast.nt_xent, nt_xent_loop, (0.2,)),
    "info_nce": (contrast.info_nce, info_nce_loop, (0.2,)),
    "rows": (lambda a, b, t: contrast.info_nce(a, b, t, symmetric=False), info_nce_rows_loop, (0.2,)),
    "decoupled": (contrast.decoupled, decoupled_loop, (0.2,)),
    "sigmoid": (contrast.sigmoid, sigmoid_loop, (10.0, -5.0)),
    "supervised": (
        lambda a, b, t: contrast.supervised(a, b, labels_of(len(a)), t),
        lambda a, b, t: supervised_loop(a, b, t, labels_of(len(a))),
        (0.2,),
    ),
}
SOFTMAX = [name for name in LOSSES if name != "sigmoid"]


@pytest.fixture
def cut(monkeypatch):
    """Sets the tile of every loss."""
    return lambda size: monkeypatch.setattr(tiles, "tile_size", lambda like: size)


def views(n, d=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, d, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))


def value_and_gradients(loss, tensors, numbers, dtype=None):
    """The loss, and its gradients by the embeddings and by the numbers made tensors."""
    leaves = [t.detach().to(dtype or t.dtype).requires_grad_() for t in tensors]
    leaves += [torch.tensor(x, dtype=dtype or torch.float64, requires_grad=True) for x in numbers]
    value = loss(*leaves)
    value.backward()
    return [value.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", LOSSES)
def test_is_the_papers_formula_for_any_tile(name, n, cut):
    ours, loop, numbers = LOSSES[name]
    expected = value_and_gradients(loop, views(n), numbers)
    for size in TILES:
        cut(size)
        found = value_and_gradients(ours, views(n), numbers)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    with torch.no_grad():
        assert ours(*views(n), *numbers).item() == pytest.approx(expected[0].item())  # plain numbers, no graph


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_the_numerical_derivative(name, cut):
    cut(3)
    ours, _, numbers = LOSSES[name]
    leaves = [*views(4, 3), *(torch.tensor(x, dtype=torch.float64) for x in numbers)]
    assert torch.autograd.gradcheck(ours, [leaf.requires_grad_() for leaf in leaves])


def test_sums_take_a_weight_per_row_and_unequal_sides(cut):
    """gradcheck mixes the outputs by random weights, which a mean does not."""
    cut(3)
    (a, _), (b, _) = views(4, 3), views(7, 3, seed=1)
    a, b, scale, bias = (t.requires_grad_() for t in (a, b, *torch.tensor([3.0, -1.0], dtype=torch.float64)))
    assert torch.autograd.gradcheck(tiles.self_logsumexp, (b, scale))
    assert torch.autograd.gradcheck(lambda z, s: tiles.self_logsumexp(z, s, exclude_partner=True), (a, scale))
    assert torch.autograd.gradcheck(tiles.cross_logsumexp, (a, b, scale))
    assert torch.autograd.gradcheck(lambda *x: tiles.cross_logsumexp(*x)[1], (a, b, scale))
    assert torch.autograd.gradcheck(tiles.rows_logsumexp, (b, a, scale))
    assert torch.autograd.gradcheck(tiles.pair_softplus_sum, (a, b, scale, bias))


def test_keys_without_gradient_get_none():
    z1, z2 = views(6)
    contrast.info_nce(z1.requires_grad_(), z2, 0.2).backward()
    expected = value_and_gradients(info_nce_loop, views(6), (0.2,))
    torch.testing.assert_close(z1.grad, expected[1])
    assert z2.grad is None


@pytest.mark.parametrize("n", [1, 2, 9])
def test_a_collapsed_encoder_is_at_chance(n):
    z = torch.ones(n, 4, dtype=torch.float64)
    assert contrast.nt_xent(z, z, 0.2).item() == pytest.approx(math.log(2 * n - 1), abs=1e-12)
    assert contrast.info_nce(z, z, 0.2).item() == pytest.approx(math.log(n), abs=1e-12)
    assert contrast.supervised(z, z, labels_of(n), 0.2).item() == pytest.approx(math.log(2 * n - 1), abs=1e-12)
    assert contrast.decoupled(z, z, 0.2).item() == pytest.approx(math.log(max(2 * n - 2, 1)), abs=1e-12)


def test_orthonormal_pairs_have_closed_forms():
    z, t, n = torch.eye(6, dtype=torch.float64), 0.3, 6
    e = math.exp(1 / t)
    assert contrast.nt_xent(z, z, t).item() == pytest.approx(math.log(e + 2 * n - 2) - 1 / t)
    assert contrast.info_nce(z, z, t).item() == pytest.approx(math.log(e + n - 1) - 1 / t)
    assert contrast.decoupled(z, z, t).item() == pytest.approx(math.log(2 * n - 2) - 1 / t)
    one_class = torch.zeros(n, dtype=torch.long)
    expected = math.log(e + 2 * n - 2) - 1 / t / (2 * n - 1)
    assert contrast.supervised(z, z, one_class, t).item() == pytest.approx(expected)
    expected = math.log1p(math.exp(-(8 - 3))) + (n - 1) * math.log1p(math.exp(-3))
    assert contrast.sigmoid(z, z, 8, -3).item() == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["nt_xent", "info_nce", "decoupled", "supervised"])
def test_one_pair_has_no_loss_and_no_gradient(name, dtype):
    value, *gradients = value_and_gradients(LOSSES[name][0], views(1, dtype=dtype), (0.01,), dtype)
    torch.testing.assert_close(value, torch.zeros(()), rtol=0, atol=2e-5)  # 1/T = 100 has a unit of 8e-6
    for gradient in gradients[:2]:
        torch.testing.assert_close(gradient.float(), torch.zeros(1, 5), rtol=0, atol=1e-3)


def test_different_labels_make_supervised_nt_xent():
    z1, z2 = views(9)
    torch.testing.assert_close(contrast.supervised(z1, z2, torch.arange(9), 0.2), contrast.nt_xent(z1, z2, 0.2))


@pytest.mark.parametrize("name", LOSSES)
def test_duplicated_samples(name, cut):
    cut(4)
    ours, loop, numbers = LOSSES[name]
    twice = [z[[0, 1, 0, 2, 2, 0, 3]] for z in views(4)]
    found, expected = (value_and_gradients(f, twice, numbers) for f in (ours, loop))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", LOSSES)
def test_a_tiny_temperature_is_as_exact_as_float32_allows(name, cut):
    """Logits of +-1000 (e^1000 overflows even float64) against the dense loop in float64 on the same inputs."""
    cut(4)
    ours, loop, numbers = LOSSES[name]
    numbers = (1000.0, -10.0) if name == "sigmoid" else (0.001,)
    z = [unit(v).float() for v in views(9)]
    found = value_and_gradients(ours, z, numbers, torch.float32)
    expected = value_and_gradients(loop, z, numbers, torch.float64)
    assert all(x.isfinite().all() for x in found)
    torch.testing.assert_close(found[0].double(), expected[0], rtol=1e-6, atol=1e-4)  # a unit of 1000 is 6e-5
    for x, y in zip(found[1:], expected[1:]):
        torch.testing.assert_close(x.double(), y, rtol=1e-3, atol=1e-3 * y.abs().max().item())
    cut(1000)
    exact = value_and_gradients(ours, z, numbers, torch.float64)
    torch.testing.assert_close(exact, expected)


def test_rows_that_are_far_apart_in_scale(cut):
    """One maximum per row: with one for the tile, the short rows would vanish under the long one."""
    cut(4)
    z = views(9)[0].float() * torch.logspace(-3, 1.5, 9)[:, None]
    logits = (z.double() @ z.double().T).fill_diagonal_(-math.inf)
    torch.testing.assert_close(tiles.self_logsumexp(z, 1.0).double(), logits.logsumexp(1), rtol=1e-6, atol=1e-5)
    logits = z.double() @ z.flip(0).double().T
    row, column = tiles.cross_logsumexp(z, z.flip(0), 1.0)
    torch.testing.assert_close(row.double(), logits.logsumexp(1), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(column.double(), logits.logsumexp(0), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_cast_up_and_autocast_ignored(name, dtype, autocast, cut):
    """Forwards and backwards, the latter inside the context too; float16 and bfloat16 round only the gradient."""
    cut(5)
    ours, loop, numbers = LOSSES[name]
    leaves = [z.requires_grad_() for z in views(9, 16, dtype=dtype)]
    knobs = [torch.tensor(x, requires_grad=True) for x in numbers]
    with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
        value = ours(*leaves, *knobs)
        value.backward()
    expected = value_and_gradients(loop, leaves, numbers, torch.float64)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected[0], rtol=2e-6, atol=2e-6)
    for leaf, y in zip([*leaves, *knobs], expected[1:]):
        unit_of = max(torch.finfo(leaf.dtype).eps, 5e-6)
        assert leaf.grad.dtype == leaf.dtype
        torch.testing.assert_close(leaf.grad.double(), y, rtol=unit_of, atol=5e-6)


def test_a_cast_backward_outside_autocast_is_the_same():
    grads = []
    for inside in (True, False):
        z1, z2 = (z.requires_grad_() for z in views(9, 16, dtype=torch.float32))
        with torch.autocast("cpu", torch.bfloat16):
            value = contrast.nt_xent(z1, z2, 0.1)
            if inside:
                value.backward()
        if not inside:
            value.backward()
        grads.append(z1.grad)
    assert torch.equal(*grads)


def test_the_default_tile_is_crossed():
    """More rows than one tile of the size that users get."""
    z1, z2 = views(300, 8, dtype=torch.float32)
    z = unit(torch.cat([z1, z2]).double())
    logits = (z @ z.T / 0.1).fill_diagonal_(-math.inf)
    expected = F.cross_entropy(logits, torch.arange(600).roll(300))
    assert len(z) > tiles.tile_size(z1)
    torch.testing.assert_close(contrast.nt_xent(z1, z2, 0.1).double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_second_derivative_is_refused_not_wrong(name):
    z1, z2 = (z.requires_grad_() for z in views(3))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(LOSSES[name][0](z1, z2, *LOSSES[name][2]), z1, create_graph=True)


def test_every_loss_is_tested():
    public = {
        f.__name__ for _, f in inspect.getmembers(contrast, inspect.isfunction) if f.__module__ == contrast.__name__
    }
    of_ids = {"info_nce_of_ids", "counted_once"}  # tests/objectives/test_ids.py
    assert {name for name in public if not name.startswith("_")} - of_ids == set(LOSSES) - {"rows"}
