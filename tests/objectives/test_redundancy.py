"""VICReg, Barlow Twins and SimSiam against loops from the papers, closed forms and numerical derivatives."""

import math

import pytest
import torch
from support.helpers import TINY, compose
from torch.nn import functional as F

from sslcli.components import build_components
from sslcli.encoders.mlp import MLP
from sslcli.objectives.barlow_twins import BarlowTwins, barlow_twins
from sslcli.objectives.simsiam import SimSiam, negative_cosine
from sslcli.objectives.vicreg import VICReg, vicreg
from sslcli.types import Field, Spec


def pair(n, d, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(n, d, generator=generator, dtype=dtype)
    return first, first + 0.5 * torch.randn(n, d, generator=generator, dtype=dtype)


def decorrelated(n, d):
    """Rows whose columns are centred, of biased variance 1 and uncorrelated."""
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.linalg.qr(x - x.mean(0))[0] * n**0.5


def total(z1, z2):
    invariance, variance, covariance = vicreg(z1, z2)
    return 25 * invariance + 25 * variance + covariance


def vicreg_loop(z1, z2):
    """Equations 1 to 5, one number at a time; the variance terms averaged over the views, as in the official code."""
    n, d = z1.shape
    invariance = sum(float(z1[i, j] - z2[i, j]) ** 2 for i in range(n) for j in range(d)) / (n * d)
    variance = covariance = 0.0
    for z in (z1, z2):
        mean = [sum(float(z[i, j]) for i in range(n)) / n for j in range(d)]
        c = [
            [sum((float(z[i, j]) - mean[j]) * (float(z[i, k]) - mean[k]) for i in range(n)) / (n - 1) for k in range(d)]
            for j in range(d)
        ]
        variance += sum(max(0.0, 1 - math.sqrt(c[j][j] + 1e-4)) for j in range(d)) / d / 2
        covariance += sum(c[j][k] ** 2 for j in range(d) for k in range(d) if j != k) / d
    return invariance, variance, covariance


@pytest.mark.parametrize(("n", "d"), [(2, 1), (2, 3), (3, 7), (9, 4)])
def test_vicreg_is_the_papers_formula(n, d):
    z1, z2 = pair(n, d)
    z1, z2 = 0.6 * z1, 0.6 * z2  # some stds above 1, some below
    assert [float(term) for term in vicreg(z1, z2)] == pytest.approx(vicreg_loop(z1, z2))


def test_vicreg_of_equal_rows_has_the_largest_variance_term_and_no_other():
    z = torch.full((8, 5), 3.0)
    assert [float(term) for term in vicreg(z, z)] == pytest.approx([0, 0.99, 0], abs=1e-6)


def test_vicreg_of_decorrelated_rows_of_enough_variance_is_zero():
    z = 1.1 * decorrelated(32, 6)
    assert [float(term) for term in vicreg(z, z)] == pytest.approx([0, 0, 0], abs=1e-12)
    repeated = torch.cat([z, z], dim=1)  # every dimension twice: one covariance of 1.21 * 32 / 31 in each row
    assert float(vicreg(repeated, repeated)[2]) == pytest.approx(2 * (1.21 * 32 / 31) ** 2)


def test_vicreg_ignores_where_both_views_lie():
    z1, z2 = pair(9, 4)
    assert total(z1 + 7, z2 + 7).item() == pytest.approx(total(z1, z2).item())


def barlow_loop(z1, z2, redundancy):
    """Equation 1 on columns standardised with biased variance (a BatchNorm's epsilon included)."""
    n, d = z1.shape

    def standardised(z):
        columns = []
        for j in range(d):
            column = [float(v) for v in z[:, j]]
            mean = sum(column) / n
            variance = sum((v - mean) ** 2 for v in column) / n
            columns.append([(v - mean) / math.sqrt(variance + 1e-5) for v in column])
        return columns

    a, b = standardised(z1), standardised(z2)
    loss = 0.0
    for i in range(d):
        for j in range(d):
            c = sum(a[i][m] * b[j][m] for m in range(n)) / n
            loss += (1 - c) ** 2 if i == j else redundancy * c**2
    return loss


@pytest.mark.parametrize(("n", "d"), [(1, 3), (2, 3), (3, 7), (9, 4)])
@pytest.mark.parametrize("redundancy", [0.0, 0.005, 1.0])
def test_barlow_twins_is_the_papers_formula(n, d, redundancy):
    z1, z2 = pair(n, d)
    assert barlow_twins(z1, z2, redundancy)[0].item() == pytest.approx(barlow_loop(z1, z2, redundancy))


def test_barlow_twins_standardises_as_batch_norm_does():
    z1, z2 = pair(16, 5)
    norm = torch.nn.BatchNorm1d(5, affine=False, dtype=torch.float64)
    c = norm(z1).T @ norm(z2) / 16
    expected = (c.diagonal() - 1).pow(2).sum() + 0.1 * (c - c.diagonal().diag()).pow(2).sum()
    torch.testing.assert_close(barlow_twins(z1, z2, 0.1)[0], expected)


def test_barlow_twins_limits():
    z = decorrelated(32, 6)
    loss, correlation = barlow_twins(z, z, 1.0)
    assert float(loss) == pytest.approx(0, abs=1e-8) and float(correlation) == pytest.approx(1, abs=1e-4)
    assert float(barlow_twins(z, -z, 1.0)[0]) == pytest.approx(4 * 6, rel=1e-4)  # every correlation is -1
    repeated = z[:, :1].expand(-1, 6)  # identical but all dimensions are one: 30 correlations of 1
    assert float(barlow_twins(repeated, repeated, 0.1)[0]) == pytest.approx(0.1 * 30, rel=1e-4)
    assert float(barlow_twins(torch.ones(8, 6), torch.ones(8, 6), 1.0)[0]) == pytest.approx(6)  # nothing correlates


def test_barlow_twins_ignores_scale_and_place():
    z1, z2 = pair(20, 4)
    expected = float(barlow_twins(z1, z2, 0.1)[0])
    assert float(barlow_twins(50 * z1 + 3, 20 * z2 - 1, 0.1)[0]) == pytest.approx(expected, rel=1e-4)


def test_negative_cosine_is_the_papers_formula_and_stops_the_gradient():
    p, z = pair(6, 4)
    p.requires_grad_(), z.requires_grad_()
    loss = negative_cosine(p, z)
    loop = -sum((a @ b / (a.norm() * b.norm())).item() for a, b in zip(p, z)) / 6
    assert loss.item() == pytest.approx(loop)
    loss.backward()
    assert p.grad.abs().sum() > 0 and z.grad is None


def test_negative_cosine_limits():
    z, _ = pair(6, 4)
    assert float(negative_cosine(3 * z, z)) == pytest.approx(-1)
    assert float(negative_cosine(-z, z)) == pytest.approx(1)
    assert float(negative_cosine(torch.eye(4), torch.eye(4).roll(1, 0))) == 0
    assert float(negative_cosine(torch.zeros(3, 4), torch.ones(3, 4))) == 0


LOSSES = {
    "vicreg": total,
    "barlow_twins": lambda a, b: barlow_twins(a, b, 0.1)[0],
    "negative_cosine": negative_cosine,
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_the_numerical_derivative(name):
    z1, z2 = (0.4 * z for z in pair(5, 3))
    z1.requires_grad_(), z2.requires_grad_(name != "negative_cosine")
    assert torch.autograd.gradcheck(LOSSES[name], (z1, z2))


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_in_single_precision_whatever_comes_in(name):
    z1, z2 = pair(64, 32, dtype=torch.float32)
    exact = LOSSES[name](z1.bfloat16().double(), z2.bfloat16().double())
    half = LOSSES[name](z1.bfloat16(), z2.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.double(), exact, rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        inside = LOSSES[name](z1, z2)
    assert torch.equal(inside, LOSSES[name](z1, z2))


# --- the objectives -------------------------------------------------------------------------------


def encoder():
    return MLP(Spec(x=Field("vector", (4,), torch.float32)), hidden_dim=8)


def test_vicreg_weighs_its_terms_and_names_the_collapsed_level():
    z1, z2 = pair(9, 4, dtype=torch.float32)
    objective = VICReg(encoder(), invariance=2.0, variance=3.0, covariance=5.0)
    loss = objective.loss({"z1": z1, "z2": z2})
    invariance, variance, covariance = vicreg_loop(z1, z2)
    assert loss.total.item() == pytest.approx(2 * invariance + 3 * variance + 5 * covariance, rel=1e-5)
    constant = torch.ones(9, 4)
    assert objective.loss({"z1": constant, "z2": constant}).total.item() == pytest.approx(objective.chance(9))


def test_barlow_twins_names_the_collapsed_level():
    objective = BarlowTwins(encoder(), width=16)
    constant = torch.ones(9, 16)
    assert objective.loss({"z1": constant, "z2": constant}).total.item() == pytest.approx(objective.chance(9))


def test_simsiam_averages_both_directions_and_crosses_the_views():
    p1, z1 = pair(9, 4, seed=1, dtype=torch.float32)
    p2, z2 = pair(9, 4, seed=2, dtype=torch.float32)
    loss = SimSiam(encoder()).loss({"p1": p1, "p2": p2, "z1": z1, "z2": z2})
    crossed = -(F.cosine_similarity(p1, z2).mean() + F.cosine_similarity(p2, z1).mean()) / 2
    assert loss.total.item() == pytest.approx(crossed.item())


def test_simsiams_spread_is_one_on_the_sphere_and_zero_after_a_collapse():
    z = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    objective = SimSiam(encoder())
    assert float(objective.loss(dict.fromkeys(("p1", "p2", "z1", "z2"), z)).parts["spread"]) == pytest.approx(1, 0.01)
    collapsed = objective.loss(dict.fromkeys(("p1", "p2", "z1", "z2"), torch.ones(8, 16)))
    assert float(collapsed.parts["spread"]) == pytest.approx(0, abs=1e-6)
    assert collapsed.total.item() == pytest.approx(-1)  # the loss alone looks perfect


@pytest.mark.parametrize(("norm", "kind"), [("batch", torch.nn.BatchNorm1d), ("layer", torch.nn.LayerNorm)])
def test_simsiams_projector_ends_with_a_norm_without_scale_and_shift(norm, kind):
    objective = SimSiam(encoder(), norm=norm)
    assert isinstance(objective.head[-1], kind) and not list(objective.head[-1].parameters())
    assert isinstance(objective.predictor[-1], torch.nn.Linear)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [(VICReg, {"covariance": -1.0}), (BarlowTwins, {"redundancy": -1.0}), (SimSiam, {"bottleneck": 0})],
)
def test_a_wrong_setting_is_refused(kind, wrong):
    with pytest.raises(ValueError, match="must"):
        kind(encoder(), **wrong)


@pytest.mark.parametrize("name", ["vicreg", "barlow_twins", "simsiam"])
def test_the_yaml_builds_with_the_constructors_defaults(name):
    """One source of truth, said twice: the yaml lists every key with the default of the code."""
    node = compose(*TINY, f"objective={name}").objective.node
    objective = build_components(compose(*TINY, f"objective={name}")).objective
    defaults = type(objective).__init__.__kwdefaults__
    assert {key: value for key, value in node.items() if key != "_target_"} == defaults
