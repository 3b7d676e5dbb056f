"""Label-free metrics against closed forms, slow loops and spectra that are known."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sslcli.evaluation.label_free import alignment, alpha_req, collapse, dimension_std, lidar, rankme, uniformity


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spectrum(eigenvalues, n=400):
    """Features whose covariance has these eigenvalues, exactly."""
    x = normal(n, len(eigenvalues))
    orthonormal = torch.linalg.qr(x - x.mean(0))[0]
    rotation = torch.linalg.qr(normal(len(eigenvalues), len(eigenvalues), seed=1))[0]
    return orthonormal * (n * torch.as_tensor(eigenvalues, dtype=torch.float64)).sqrt() @ rotation + 2


# --- alignment, uniformity, std -------------------------------------------------------------------


def test_alignment_is_the_mean_squared_distance_on_the_sphere():
    z1, z2 = normal(7, 3), normal(7, 3, seed=1)
    loop = sum(float((a / a.norm() - b / b.norm()).norm()) ** 2 for a, b in zip(z1, z2)) / 7
    assert alignment(z1, z2) == pytest.approx(loop)
    assert alignment(z1, 5 * z1) == pytest.approx(0, abs=1e-12)
    assert alignment(z1, -z1) == pytest.approx(4)


@pytest.mark.parametrize("n", [2, 3, 12])
@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_uniformity_is_the_mean_over_pairs_however_it_is_cut(n, chunk):
    z = normal(n, 4)
    unit = [v / v.norm() for v in z]
    pairs = [math.exp(-2 * float((unit[i] - unit[j]).norm()) ** 2) for i in range(n) for j in range(i)]
    assert uniformity(z, chunk=chunk) == pytest.approx(math.log(sum(pairs) / len(pairs)))


@pytest.mark.parametrize(("d", "expected"), [(64, -3.875), (128, -3.9375)])
def test_uniformity_of_the_uniform_sphere(d, expected):
    assert uniformity(normal(3000, d)) == pytest.approx(expected, abs=0.003)


def test_uniformity_limits():
    assert uniformity(torch.ones(9, 4)) == pytest.approx(0, abs=1e-9)
    assert uniformity(torch.tensor([[1.0, 0.0], [-3.0, 0.0]])) == pytest.approx(-8)  # two opposite points


@pytest.mark.parametrize("d", [2, 16, 64])
def test_dimension_std_of_the_uniform_sphere_is_one_over_root_d(d):
    z = normal(5000, d)
    assert dimension_std(z) == pytest.approx(d**-0.5, rel=0.01)
    assert dimension_std(z + 0.5) < d**-0.5  # a shared direction takes some of it
    loop = [float(torch.stack([v / v.norm() for v in z[:50]])[:, j].std(correction=0)) for j in range(d)]
    assert dimension_std(z[:50]) == pytest.approx(sum(loop) / d)


def test_dimension_std_of_a_complete_collapse_is_zero():
    assert dimension_std(torch.outer(torch.arange(1.0, 9), torch.ones(5))) == pytest.approx(0, abs=1e-7)


# --- spectra --------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
def test_alpha_req_recovers_a_power_law(alpha):
    found = alpha_req(spectrum([j**-alpha for j in range(1, 151)]))
    assert found.slope == pytest.approx(alpha) and found.r2 == pytest.approx(1)
    assert (found.first, found.last) == (11, 100)


def test_alpha_req_is_a_least_squares_line_over_its_range():
    eigenvalues = normal(60).abs().sort(descending=True).values
    found = alpha_req(spectrum(eigenvalues), first=5, last=40)
    x, y = np.log(np.arange(5, 41)), eigenvalues[4:40].log().numpy()
    assert found.slope == pytest.approx(-np.polyfit(x, y, 1)[0])
    assert found.r2 == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    assert found.r2 < 0.99


def test_alpha_req_of_white_features_is_zero():
    assert alpha_req(spectrum([1.0] * 50)).slope == pytest.approx(0, abs=1e-9)


def test_alpha_req_takes_the_smaller_gram_matrix_and_says_what_range_was_left():
    wide = alpha_req(normal(30, 200))  # 29 directions at most, once centred
    assert (wide.first, wide.last) == (10, 29)
    narrow = alpha_req(normal(30, 200).float())
    assert (narrow.first, narrow.last) == (10, 29) and narrow.slope == pytest.approx(wide.slope, rel=1e-4)


def test_alpha_req_of_collapsed_features_has_no_slope():
    assert math.isnan(alpha_req(torch.full((50, 8), 3.7)).slope)
    line = torch.outer(torch.arange(50.0), torch.randn(8, generator=torch.Generator().manual_seed(0)))
    assert math.isnan(alpha_req(line).slope) and alpha_req(line).last == 1


@pytest.mark.parametrize("d", [1, 8, 40])
def test_rankme_of_an_identity_spectrum_is_the_dimension(d):
    assert rankme(torch.linalg.qr(normal(300, d))[0]) == pytest.approx(d, rel=1e-4)


# --- LiDAR ----------------------------------------------------------------------------------------


def lidar_as_published(groups, delta=1e-4, epsilon=1e-8):
    """The paper's definition with a symmetric square root and sums over samples and views."""
    n, q, d = groups.shape
    mean = groups.flatten(0, 1).mean(0)
    between = sum(torch.outer(g.mean(0) - mean, g.mean(0) - mean) for g in groups) / (n - 1)
    within = sum(torch.outer(v - g.mean(0), v - g.mean(0)) for g in groups for v in g) / (n * (q - 1))
    values, vectors = torch.linalg.eigh(within + delta * torch.eye(d, dtype=groups.dtype))
    root = vectors * values.rsqrt() @ vectors.T
    eigenvalues = torch.linalg.eigvalsh(root @ between @ root).clamp(min=0)
    p = eigenvalues / eigenvalues.sum() + epsilon
    return math.exp(-float((p * p.log()).sum()))


@pytest.mark.parametrize(("n", "q", "d"), [(2, 2, 1), (3, 2, 5), (20, 4, 6)])
def test_lidar_is_the_papers_formula(n, q, d):
    groups = normal(n, 1, d) + 0.3 * normal(n, q, d, seed=1)
    assert lidar(groups) == pytest.approx(lidar_as_published(groups), rel=1e-6)


def test_lidar_counts_the_directions_that_separate_the_samples():
    """Gaussians whose centres differ in 3 of 10 dimensions, the views in all of them."""
    centres = F.pad(torch.linalg.qr(normal(200, 3) - normal(200, 3).mean(0))[0] * 200**0.5, (0, 7))
    groups = centres[:, None] + 0.05 * normal(200, 20, 10, seed=1)
    assert lidar(groups) == pytest.approx(3, rel=0.05)
    noisy = centres[:, None].clone() + 0.05 * normal(200, 20, 10, seed=1)
    noisy[..., 5:] += 30 * normal(200, 20, 5, seed=2)  # views that differ a lot: RankMe counts that, LiDAR does not
    assert lidar(noisy) == pytest.approx(3, rel=0.05) and rankme(noisy.flatten(0, 1)) > 4


def test_lidar_limits():
    assert lidar(torch.ones(5, 3, 4)) == pytest.approx(1, abs=1e-4)
    identical_views = torch.linalg.qr(normal(50, 6) - normal(50, 6).mean(0))[0][:, None].expand(-1, 3, -1)
    assert lidar(identical_views) == pytest.approx(6, rel=1e-3)
    assert lidar(normal(4, 3, 20)) <= 3 + 1e-3  # n - 1 bounds it


# --- warnings -------------------------------------------------------------------------------------


def measured(features):
    """The metrics of features (N, D) by name."""
    return {
        "rankme": rankme(features),
        "uniformity": uniformity(features),
        "dimension_std": dimension_std(features),
        "alpha_req": alpha_req(features).slope,
    }


def test_healthy_features_give_no_warning():
    assert collapse(measured(spectrum([1 / j for j in range(1, 65)]) - 2), samples=400, dim=64) == []
    assert collapse({}, samples=400, dim=64) == []


def test_a_complete_collapse_is_named_with_value_and_threshold():
    lines = collapse(measured(torch.ones(400, 64) + 0.01 * normal(400, 64)), samples=400, dim=64)
    found = {line.split()[0]: line for line in lines}
    assert {"uniformity", "dimension_std"} <= set(found)
    assert "complete collapse" in found["uniformity"] and "-0.04" in found["uniformity"]
    assert "is below 0.0125" in found["dimension_std"]


def test_a_dimensional_collapse_is_named_with_value_and_threshold():
    few = normal(400, 3) @ normal(3, 64, seed=1)
    (line,) = collapse(measured(few), samples=400, dim=64)
    assert line.startswith("rankme 2.") and "is below 6.4; dimensional collapse" in line
    steep = collapse(measured(spectrum([j**-3.0 for j in range(1, 65)]) - 2), samples=400, dim=64)
    assert any(line.startswith("alpha_req 3 is above 2; dimensional collapse") for line in steep)
    assert collapse({"lidar": 1.5}, samples=400, dim=64)[0].startswith("lidar 1.5 is below 6.4")
