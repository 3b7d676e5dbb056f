"""Losses against loops that follow the papers' formulae, their limit cases and numerical derivatives."""

import math

import pytest
import torch
from support.helpers import TINY, compose
from torch.nn import functional as F

from sslcli.components import build_components
from sslcli.objectives.infonce import InfoNCE
from sslcli.objectives.losses.contrastive import nt_xent


def nt_xent_loop(z1, z2, temperature):
    """SimCLR's equation 1, one anchor at a time."""
    z = [v / v.norm() for v in torch.cat([z1, z2])]
    n = len(z1)
    losses = []
    for i in range(2 * n):
        positive = (i + n) % (2 * n)
        terms = [torch.exp(z[i] @ z[k] / temperature) for k in range(2 * n) if k != i]
        losses.append(-torch.log(torch.exp(z[i] @ z[positive] / temperature) / sum(terms)))
    return sum(losses) / (2 * n)


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_is_the_papers_formula(n, temperature):
    torch.manual_seed(0)
    z1, z2 = torch.randn(n, 5, dtype=torch.float64), torch.randn(n, 5, dtype=torch.float64)
    torch.testing.assert_close(nt_xent(z1, z2, temperature), nt_xent_loop(z1, z2, temperature))


def test_nt_xent_of_a_collapsed_encoder_is_chance():
    z = torch.ones(9, 4, dtype=torch.float64)
    assert nt_xent(z, z, 0.2).item() == pytest.approx(math.log(2 * 9 - 1))


def test_nt_xent_of_orthonormal_pairs_has_a_closed_form():
    z = torch.eye(6, dtype=torch.float64)
    expected = math.log(math.exp(1 / 0.3) + 2 * 6 - 2) - 1 / 0.3
    assert nt_xent(z, z, 0.3).item() == pytest.approx(expected)


def test_nt_xent_survives_a_tiny_temperature_and_half_precision():
    z = F.normalize(torch.randn(8, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    assert nt_xent(z, z.roll(1, 0), 0.001).isfinite()
    half = nt_xent(z.bfloat16(), z.roll(1, 0).bfloat16(), 0.07)
    exact = nt_xent(z.bfloat16().double(), z.roll(1, 0).bfloat16().double(), 0.07)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.double(), exact, rtol=1e-5, atol=1e-5)


def test_nt_xent_ignores_autocast():
    z = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        inside = nt_xent(z, z.roll(1, 0), 0.07)
    assert torch.equal(inside, nt_xent(z, z.roll(1, 0), 0.07))


def test_nt_xent_gradient_is_its_numerical_derivative():
    torch.manual_seed(0)
    z1, z2 = (torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.3), (z1, z2))


def test_simclrs_embedding_is_normalised_over_the_batch_when_asked():
    encoder = build_components(compose(*TINY)).encoder
    objective = InfoNCE(encoder, last_norm=True)
    rows = objective.head(torch.randn(64, encoder.dim))
    torch.testing.assert_close(rows.mean(0), torch.zeros(128), atol=1e-5, rtol=0)
    torch.testing.assert_close(rows.var(0, unbiased=False), torch.ones(128), atol=1e-2, rtol=0)
    assert sum(p.numel() for p in objective.head[-1].parameters()) == 0
