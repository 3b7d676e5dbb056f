"""The interval of mutual information on pairs whose information is known."""

import math

import pytest
import torch
from support.helpers import Flat, make_context
from support.modalities import Noisy

from sslcli.data.base import Columns
from sslcli.evaluation.geometry import Geometry
from sslcli.evaluation.mutual_information import MutualInformation
from sslcli.types import Field, Spec, View
from sslcli.views.base import Views

DIM = 6


class Half(Flat):
    """Keeps half of the numbers, mixed."""

    def __init__(self):
        super().__init__(DIM // 2)
        mix = torch.linalg.qr(torch.randn(DIM // 2, DIM // 2, generator=torch.Generator().manual_seed(0)))[0]
        self.register_buffer("mix", mix)

    def forward(self, view, mask=None):
        return super().forward(View(view.x[:, : DIM // 2] @ self.mix, view.field))


def gaussians(n=3000):
    spec = Spec(vector=Field("vector", (DIM,), torch.float32))
    parts = [torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    dataset = Columns(spec, {"vector": parts[0]})
    dataset.held_out = Columns(spec, {"vector": parts[1]})
    return dataset


@pytest.fixture(scope="module")
def metrics():
    context = make_context(gaussians(), Noisy(0.5), trained=Half(), random_init=Flat(DIM))
    return MutualInformation(components=8, batch_size=500, steps=200, hidden_dim=64)(context)


def truth(dim):
    """Of dim pairs (x + e1, x + e2): each has the correlation 1 / (1 + sigma^2)."""
    return -dim / 2 * math.log(1 - (1 / 1.25) ** 2)


@pytest.mark.parametrize(("name", "dim"), [("trained", DIM // 2), ("random_init", DIM), ("raw_input", DIM)])
def test_the_truth_lies_in_the_interval(metrics, name, dim):
    def value(title):
        metric = metrics[title]
        return metric.value if name == "trained" else metric.baselines[name]

    assert 0.75 * truth(dim) < value("mi_floor") < truth(dim) + 0.1
    assert truth(dim) < value("mi_ceiling") < 4 * truth(dim)
    assert value("mi_gaussian") == pytest.approx(truth(dim), rel=0.05)  # these are Gaussians


def test_protocols_say_what_bounds_what(metrics):
    assert "a lower bound in expectation, at most log 500" in metrics["mi_floor"].protocol
    assert "upper bound as far as its Gaussian q is right" in metrics["mi_ceiling"].protocol
    assert "no bound" in metrics["mi_gaussian"].protocol
    for metric in metrics.values():
        assert "held-out pairs" in metric.protocol and metric.split == "held out" and metric.seed == 0


@pytest.mark.slow
def test_views_that_share_nothing_read_nothing():
    dataset = gaussians(3000)
    context = make_context(dataset, Noisy(100.0), trained=Flat(DIM))
    metrics = MutualInformation(components=8, batch_size=500, steps=300, hidden_dim=32)(context)
    assert abs(metrics["mi_floor"].value) < 0.1 and abs(metrics["mi_ceiling"].value) < 0.1


@pytest.mark.slow
def test_the_floor_stays_below_log_n_where_views_are_nearly_equal():
    dataset = gaussians(600)
    context = make_context(dataset, Noisy(1e-3), trained=Flat(DIM))
    metrics = MutualInformation(components=8, batch_size=50, steps=200, hidden_dim=32)(context)
    assert 0.9 * math.log(50) < metrics["mi_floor"].value <= math.log(50)


@pytest.mark.slow
def test_twice_gives_the_same_bits():
    def measure():
        context = make_context(gaussians(300), Noisy(0.5), trained=Half(), random_init=Flat(DIM))
        return MutualInformation(components=4, batch_size=50, steps=100, hidden_dim=16)(context)

    assert measure() == measure()


# --- heavy tails ----------------------------------------------------------------------------------


class Pair(Views):
    """Two views that are the two halves of a vector."""

    field = "vector"

    def forward(self, columns, randomness):
        return [View(half, "vector") for half in columns["vector"].chunk(2, 1)]

    def evaluation_view(self, columns):
        return View(columns["vector"], "vector")


def correlated(rho, seed, n):
    generator = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, n, 1, generator=generator, dtype=torch.float64)
    return torch.cat([x, rho * x + math.sqrt(1 - rho**2) * noise], 1), generator


def lognormal(rho, seed, n):
    return correlated(rho, seed, n)[0].mul(1.5).exp()


def cauchy(rho, seed, n):
    """Pairs of Cauchy numbers with the dependence of Gaussians."""
    return torch.tan(math.pi * (torch.special.ndtr(correlated(rho, seed, n)[0]) - 0.5))


def bivariate_cauchy(rho, seed, n):
    """Both divided by the same normal number: they have information also where they do not correlate."""
    pair, generator = correlated(rho, seed, n)
    return pair / torch.randn(n, 1, generator=generator, dtype=torch.float64).abs()


def pairs_of(draw, width):
    spec = Spec(vector=Field("vector", (2 * width,), torch.float32))
    train, held_out = (Columns(spec, {"vector": draw(seed).float()}) for seed in (0, 1))
    train.held_out = held_out
    return make_context(train, Pair(), trained=Flat(width))


@pytest.mark.parametrize(
    ("draw", "more"),
    # The information of a bivariate Cauchy beyond that of Gaussians, a multivariate t of one degree of freedom:
    # log(8 pi) - 3 (Guerrero-Cusumano 1996).
    [
        (bivariate_cauchy, math.log(8 * math.pi) - 3),
        pytest.param(lognormal, 0.0, marks=pytest.mark.slow),
        pytest.param(cauchy, 0.0, marks=pytest.mark.slow),
    ],
)
def test_the_ceiling_of_heavy_tails_lies_above_the_truth(draw, more):
    context = pairs_of(lambda seed: draw(0.8, seed, 1500), 1)
    metrics = MutualInformation(components=1, batch_size=300, steps=100, hidden_dim=32)(context)
    truth = -math.log(1 - 0.8**2) / 2 + more
    assert truth < metrics["mi_ceiling"].value < 6 * truth
    assert metrics["mi_floor"].value < truth + 0.1


@pytest.mark.slow
def test_no_ceiling_is_printed_where_it_falls_below_the_floor():
    """The sign of x is that of the correlation of y's two numbers, which a Gaussian without correlations cannot say."""

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        a, c = torch.randn(2, 1500, generator=generator)
        sign = torch.randint(2, (1500,), generator=generator) * 2 - 1
        return torch.stack([3 * sign, c, 3 * a, a * sign], 1)

    metrics = MutualInformation(components=2, batch_size=500, steps=150, hidden_dim=32)(pairs_of(draw, 2))
    assert 0.3 < metrics["mi_floor"].value < math.log(2) + 0.1
    assert "mi_ceiling" not in metrics and "no mi_ceiling: CLUB fell below this floor" in metrics["mi_floor"].protocol


# --- geometry -------------------------------------------------------------------------------------


def test_geometry_has_the_raw_input_and_the_random_initialisation_beside_it():
    context = make_context(gaussians(500), Noisy(0.5), trained=Half(), random_init=Flat(DIM))
    metrics = Geometry(max_samples=400, lidar_samples=100, lidar_views=8)(context)
    assert {"rankme", "lidar", "alignment", "uniformity", "dimension_std"} <= metrics.keys()
    rank = metrics["rankme"]
    assert rank.value == pytest.approx(DIM / 2, rel=0.02)  # white Gaussians: as many directions as there are
    assert rank.baselines == pytest.approx({"raw_input": DIM, "random_init": DIM}, rel=0.02)
    assert metrics["lidar"].value == pytest.approx(DIM / 2, rel=0.05)
    # |z1 - z2|^2 = 2 - 2 cos, and the cosine of two noisy copies is about their correlation
    assert metrics["alignment"].baselines["raw_input"] == pytest.approx(2 - 2 / 1.25, rel=0.1)
    assert "400 held out" in rank.protocol and "100 held out samples by 8 random views" in metrics["lidar"].protocol
    assert all(metric.split == "held out" and math.isfinite(metric.value) for metric in metrics.values())


def test_a_view_is_a_function_of_the_sample_and_its_number():
    dataset = gaussians(100)
    context = make_context(dataset, Noisy(1.0), trained=Half(), random_init=Flat(DIM))
    whole = context.draw(dataset, torch.arange(100), 3)
    few = context.draw(dataset, torch.tensor([70, 5]), 3)
    torch.testing.assert_close(few["trained"], whole["trained"][[70, 5]])  # products of two rows may round otherwise
    assert not torch.equal(context.draw(dataset, torch.tensor([70, 5]), 2)["trained"], few["trained"])
    assert torch.equal(context.draw(dataset, torch.arange(5), None)["raw_input"], dataset.columns["vector"][:5])
