"""Estimators of mutual information against slow loops, closed forms and known truths."""

import math

import numpy as np
import pytest
import torch
from support.helpers import TINY, compose, make_trainer, randomness
from support.marks import rest_is_slow
from torch.nn import functional as F

from sslcli.components import build_components
from sslcli.errors import UserError
from sslcli.objectives.infomax import normal, sampled
from sslcli.objectives.losses import densities as den
from sslcli.objectives.losses import estimators as est
from sslcli.objectives.losses.critics import Bilinear, Concat, Cosine, Separable
from sslcli.types import Encoded

SCORED = {"infonce": est.InfoNCE, "nwj": est.NWJ, "dv": est.DV, "mine": est.MINE, "jsd": est.JSD, "smile": est.SMILE,
          "interpolated": est.Interpolated}  # fmt: skip


def scores(n=6, seed=0, scale=2.0):
    return scale * torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pairs(nats, n, dim=20, seed=0):
    """Correlated Gaussians of that information, and rho."""
    generator = torch.Generator().manual_seed(seed)
    rho = math.sqrt(1 - math.exp(-2 * nats / dim))
    x, e = (torch.randn(n, dim, dtype=torch.float64, generator=generator) for _ in range(2))
    return x, rho * x + math.sqrt(1 - rho**2) * e, rho


def log_ratio(x, y, rho):
    """Log p(y_j | x_i) / p(y_j), (N, N)."""
    squares = rho**2 * (x.square().sum(1)[:, None] + y.square().sum(1)) - 2 * rho * x @ y.T
    return -squares / (2 * (1 - rho**2)) - 10 * math.log(1 - rho**2)


def loop(name, s, tau=5.0, alpha=0.01):
    """The formulae, entry by entry."""
    s = s.tolist()
    n = len(s)
    q = [s[i][j] for i in range(n) for j in range(n) if i != j]
    mean_p = sum(s[i][i] for i in range(n)) / n
    if name == "infonce":
        rows = sum(math.log(math.exp(s[i][i]) / (sum(map(math.exp, s[i])) / n)) for i in range(n)) / n
        columns = [[s[i][j] for i in range(n)] for j in range(n)]
        return (
            rows + sum(math.log(math.exp(c[j]) / (sum(map(math.exp, c)) / n)) for j, c in enumerate(columns)) / n
        ) / 2
    if name == "nwj":
        return mean_p - sum(math.exp(f - 1) for f in q) / (n * (n - 1))
    if name == "jsd":
        return mean_p + 1 - sum(math.exp(f) for f in q) / (n * (n - 1))
    if name in ("dv", "mine"):
        return mean_p - math.log(sum(map(math.exp, q)) / (n * (n - 1)))
    if name == "smile":
        return mean_p - math.log(sum(math.exp(min(max(f, -tau), tau)) for f in q) / (n * (n - 1)))
    total = 0.0
    for j in range(n):
        near = [math.exp(s[i][j]) for i in range(n) if i != (j + 1) % n]
        a = alpha * sum(near) / (n - 1) + (1 - alpha) * math.e
        total += 1 + math.log(math.exp(s[j][j]) / a)
        far = [math.exp(s[i][j]) for i in range(n) if i != j]
        a = alpha * sum(far) / (n - 1) + (1 - alpha) * math.e
        total -= sum(f / a for f in far) / (n - 1)
    return total / n


@pytest.mark.parametrize("n", [2, 3, 7])
@pytest.mark.parametrize("name", SCORED)
def test_values_are_the_formulae(name, n):
    s = scores(n, scale=4.0)
    assert float(SCORED[name]()(s).nats) == pytest.approx(loop(name, s))


def test_off_diagonal_is_all_but_the_diagonal():
    s = torch.arange(25.0).view(5, 5)
    assert sorted(est.off_diagonal(s).flatten().tolist()) == sorted(set(range(25)) - {0, 6, 12, 18, 24})


def test_the_losses_of_the_divergences():
    s = scores()
    q = est.off_diagonal(s).flatten()
    expected = (1 + (-s.diagonal()).exp()).log().mean() + (1 + q.exp()).log().mean()
    for estimator in (est.JSD(), est.SMILE(tau=1.0)):
        torch.testing.assert_close(estimator(s).loss, expected)
    torch.testing.assert_close(
        est.InfoNCE()(s).loss,
        (F.cross_entropy(s, torch.arange(6)) + F.cross_entropy(s.T, torch.arange(6))) / 2,
    )


@pytest.mark.parametrize("nats", [1.0, 2.0])
@pytest.mark.parametrize("name", ["nwj", "dv", "jsd", "smile", "mine"])
def test_the_exact_log_ratio_reads_the_truth(name, nats):
    """8 batches of 1024 pairs; the standard error of E_Q[e^f] is some e^(I/2) / 10^3 here, of E_P[f] 0.03."""
    found = []
    for seed in range(8):
        x, y, rho = pairs(nats, 1024, seed=seed)
        f = log_ratio(x, y, rho) + (1 if name == "nwj" else 0)
        found.append(float((est.SMILE(tau=10.0) if name == "smile" else SCORED[name]())(f).nats))
    assert np.mean(found) == pytest.approx(nats, abs=0.15)


def test_without_the_shift_jsd_would_miss_one_nat_over_e():
    x, y, rho = pairs(2.0, 1024)
    f = log_ratio(x, y, rho)
    gap = float(est.JSD()(f).nats - est.nwj(f))
    assert gap == pytest.approx(1 / math.e, abs=0.1)


@pytest.mark.parametrize("name", SCORED)
def test_independence_reads_nothing(name):
    """A critic that knows it: constant at the level where the estimator is best."""
    level = 1.0 if name in ("nwj", "interpolated") else 0.0
    estimator, n = SCORED[name](), 9
    found = estimator(torch.full((n, n), level))
    assert float(found.nats) == pytest.approx(0, abs=1e-6)
    assert float(found.loss) == pytest.approx(estimator.chance(n), abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_ceilings_are_never_exceeded(seed):
    """By scores of any size, nor by cosines over any temperature."""
    rng = np.random.default_rng(seed)
    n, dim, temperature = int(rng.integers(2, 30)), int(rng.integers(1, 40)), float(rng.uniform(0.05, 2))
    s = scores(n, seed, scale=float(rng.uniform(0, 50))) + torch.eye(n) * float(rng.uniform(0, 100))
    z, w = (torch.tensor(rng.standard_normal((n, dim))) for _ in range(2))
    cosines = [Cosine(temperature=temperature, offset=False)(z, v) for v in (w, z, z + 0.1 * w)]
    for make in SCORED.values():
        estimator = make()
        if (limit := estimator.ceiling(n)) is not None:
            assert estimator(s).nats <= limit + 1e-9
        if (limit := estimator.cosine_ceiling(n, temperature)) is not None:
            assert all(estimator(c).nats <= limit + 1e-9 for c in cosines)


@pytest.mark.parametrize("temperature", [0.07, 0.5, 1.0])
def test_a_simplex_attains_the_ceiling_of_cosines(temperature):
    n = 12
    corners = F.normalize(torch.eye(n, dtype=torch.float64) - 1 / n, dim=1)
    s = Cosine(temperature=temperature, offset=False)(corners, corners)
    for make in (est.InfoNCE, est.DV):
        assert float(make()(s).nats) == pytest.approx(make().cosine_ceiling(n, temperature), abs=1e-12)
    level = est.log_mean_exp(est.off_diagonal(s))
    assert float(est.NWJ()(s - level + 1).nats) == pytest.approx(est.NWJ().cosine_ceiling(n, temperature), abs=1e-12)


def test_the_ceiling_of_cosines_in_numbers():
    assert est.InfoNCE().cosine_ceiling(256, 0.5) == pytest.approx(1.98, abs=0.005)
    assert est.InfoNCE().cosine_ceiling(256, 0.07) == pytest.approx(5.545, abs=0.0005)


def test_interpolated_ends():
    s = scores(7)
    assert float(est.interpolated(s, 1e-12)) == pytest.approx(float(est.nwj(s)), abs=1e-9)
    sure = torch.full((7, 7), -80.0, dtype=torch.float64).fill_diagonal_(80)
    for alpha in (0.01, 0.5, 1.0):
        assert float(est.interpolated(sure, alpha)) == pytest.approx(est.Interpolated(alpha=alpha).ceiling(7))


@pytest.mark.parametrize("name", SCORED)
def test_gradients_are_numerical_derivatives(name):
    """MINE apart: its gradient is not its loss's, as the average is held."""
    estimator = SCORED[name]()
    if name == "mine":
        s = scores().requires_grad_()
        fresh = torch.autograd.grad(estimator(s).loss, s)[0]
        torch.testing.assert_close(fresh, torch.autograd.grad(-est.donsker_varadhan(s), s)[0])  # first step: DV's
        return
    assert torch.autograd.gradcheck(lambda s: estimator(s).loss, scores(5).requires_grad_())


def test_mine_moves_once_a_step_and_evaluates_without_moving():
    estimator = est.MINE(momentum=0.9)
    batches = [scores(5, seed, scale=1.0) for seed in range(3)]
    average = weight = 0.0
    for s in batches:
        before = [estimator(s).loss.item() for _ in range(2)]
        assert before[0] == before[1]
        value = float(est.off_diagonal(s).exp().mean())
        average, weight = 0.9 * average + 0.1 * value, 0.9 * weight + 0.1
        a = average / weight
        assert before[0] == pytest.approx(value / a + math.log(a) - 1 - float(est.joint(s)), abs=1e-6)
        estimator.update([s])
        assert float(estimator.log_mean) == pytest.approx(math.log(a), abs=1e-6)
        assert all(b.isfinite() for b in estimator.buffers())


def test_scores_of_half_precision_are_widened():
    s = scores().bfloat16()
    for make in SCORED.values():
        torch.testing.assert_close(make()(s).nats, make()(s.float()).nats)


def exact_pairs(rho, n=60):
    """Samples whose sample covariance is exactly 1, rho."""
    d = len(rho)
    raw = torch.randn(n, 2 * d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    white, _ = torch.linalg.qr(raw - raw.mean(0))
    white = white * math.sqrt(n - 1)
    x, e = white.chunk(2, 1)
    return x, rho * x + (1 - rho**2).sqrt() * e


def test_gaussian_is_the_canonical_correlations():
    rho = torch.tensor([0.9, 0.5, 0.0, -0.3], dtype=torch.float64)
    x, y = exact_pairs(rho)
    mixed = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = float(-(1 - rho**2).log().sum() / 2)
    assert float(den.gaussian_information(x, y, 0.0)) == pytest.approx(expected)
    assert float(den.gaussian_information(3 * x + 1, y @ mixed, 0.0)) == pytest.approx(expected)


def test_gaussian_with_shrinkage_is_that_of_the_shrunk_joint_covariance():
    x, y = exact_pairs(torch.tensor([0.9, 0.5], dtype=torch.float64))
    joint = 0.9 * torch.cov(torch.cat([x, y], 1).T) + 0.1 * torch.eye(4)
    expected = (joint[:2, :2].logdet() + joint[2:, 2:].logdet() - joint.logdet()) / 2
    torch.testing.assert_close(den.gaussian_information(x, y, 0.1), expected)
    few = torch.randn(5, 16)
    assert den.Gaussian(shrinkage=0.1)(few, few).loss.isfinite()  # fewer samples than dimensions


def test_gaussian_gradient_is_its_numerical_derivative():
    x, y = (torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    call = lambda a, b: den.gaussian_information(a, b, 0.1)  # noqa: E731
    assert torch.autograd.gradcheck(call, (x.requires_grad_(), y.requires_grad_()))


class Known(torch.nn.Module):
    """The true conditional as the network of a ConditionalGaussian."""

    def __init__(self, rho):
        super().__init__()
        self.rho = rho

    def forward(self, x):
        return torch.cat([self.rho * x, torch.full_like(x, math.log(1 - self.rho**2))], 1)


@pytest.mark.parametrize("nats", [2.0, 12.0])
def test_a_true_conditional_reads_the_truth(nats):
    """Also above 10 nats, where a squashed variance could not follow. CLUB is I + KL(Q || P) in the mean."""
    x, y, rho = pairs(nats, 800)
    estimator = den.BarberAgakov(20, hidden_dim=4, shrinkage=0.0)
    estimator.q.net = Known(rho)
    assert float(estimator(x, y).nats) == pytest.approx(nats, abs=0.4)
    log_q = estimator.q.pairs(x, y)
    torch.testing.assert_close(log_q.diagonal(), estimator.q(x, y))
    normal = torch.distributions.Normal(rho * x[3], math.sqrt(1 - rho**2))
    torch.testing.assert_close(log_q[3, 5], normal.log_prob(y[5]).sum())
    upper = 20 * rho**2 / (1 - rho**2)  # E_P - E_Q of the quadratic forms
    assert float(den.club(log_q)) == pytest.approx(upper, rel=0.05)
    assert float(den.leave_one_out(log_q)) > nats - 0.4


def test_upper_bounds_are_their_loops():
    log_q = scores(5)
    s, n = log_q.tolist(), 5
    q = [s[i][j] for i in range(n) for j in range(n) if i != j]
    assert float(den.club(log_q)) == pytest.approx(sum(s[i][i] for i in range(n)) / n - sum(q) / len(q))
    out = [s[i][i] - math.log(sum(math.exp(s[j][i]) for j in range(n) if j != i) / (n - 1)) for i in range(n)]
    assert float(den.leave_one_out(log_q)) == pytest.approx(sum(out) / n)


@pytest.mark.parametrize(
    "critic",
    [Separable(3, hidden_dim=8), Bilinear(3), Concat(3, hidden_dim=8), Cosine(temperature=0.3, offset=True)],
    ids=lambda c: type(c).__name__,
)
def test_critics_score_pair_by_pair(critic):
    critic = critic.double()
    x, y = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    whole = critic(x, y)
    for i in range(4):
        for j in range(4):
            torch.testing.assert_close(whole[i, j], critic(x[i : i + 1], y[j : j + 1])[0, 0])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(critic(x, y), whole)


def test_concat_is_an_mlp_on_the_concatenation():
    critic = Concat(3, hidden_dim=8)
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    weight = torch.cat([critic.from_x.weight, critic.from_y.weight], 1)
    first = (torch.cat([x[0], y[1]]) @ weight.T + critic.from_x.bias).relu()
    torch.testing.assert_close(critic(x, y)[0, 1], critic.rest(first)[0])


@pytest.mark.parametrize("make", rest_is_slow([est.InfoNCE, est.SMILE], est.SMILE))
@pytest.mark.parametrize("nats", rest_is_slow([2.0, 4.0], 2.0))
def test_a_trained_critic_approaches_the_truth(make, nats):
    """The benchmark in small: 300 steps, then 20 new batches of 128; InfoNCE stays below, both within 25 %."""
    torch.manual_seed(0)
    rho = math.sqrt(1 - math.exp(-2 * nats / 20))
    critic, estimator = Separable(20, hidden_dim=256), make()
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3)
    found = []
    for step in range(320):
        x = torch.randn(128, 20)
        result = estimator(critic(x, rho * x + math.sqrt(1 - rho**2) * torch.randn(128, 20)))
        if step < 300:
            optimizer.zero_grad()
            result.loss.backward()
            optimizer.step()
        else:
            found.append(float(result.nats))
    assert np.mean(found) == pytest.approx(nats, rel=0.25)
    if make is est.InfoNCE:
        assert np.mean(found) < nats + 0.1


@pytest.mark.parametrize(
    "make", [lambda: est.SMILE(tau=0), lambda: est.Interpolated(alpha=0), lambda: est.MINE(momentum=1)]
)
def test_impossible_values_are_refused(make):
    with pytest.raises(ValueError):
        make()


INFOMAX = ("objective=infomax", "encoder.norm=layer", "objective.norm=layer", "train.precision=fp32")


@pytest.mark.parametrize(
    "options",
    [
        ("pairs=local", "estimator=jsd"),
        ("pairs=noise", "critic=separable"),
        ("estimator=mine", "critic=concat"),
        ("estimator=interpolated", "critic=bilinear"),
        ("estimator=gaussian",),
        ("estimator=barber_agakov", "pairs=noise"),
    ],
    ids="-".join,
)
def test_infomax_is_the_same_however_the_batch_is_cut(tmp_path, options):
    """Loss, parts and the encoder after two steps; mine's average moves along."""
    found = []
    for accumulate in (1, 4):
        arguments = (*TINY, *INFOMAX, *(f"objective.{o}" for o in options), f"train.accumulate={accumulate}")
        trainer = make_trainer(tmp_path / str(accumulate), *arguments)
        batches = trainer.loader.batches(0)
        losses = [trainer.train_step(next(batches))[0] for _ in range(2)]
        found.append([*(float(loss.total.detach()) for loss in losses), *map(float, losses[1].parts.values())])
        if "estimator=mine" in options:
            assert float(trainer.objective.estimator.weight) == pytest.approx(1 - 0.9**2)
            found[-1].append(float(trainer.objective.estimator.log_mean))
    assert found[0] == pytest.approx(found[1], rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(
    "options, message",
    [
        (("objective.estimator=gaussian", "objective.critic=concat"), "leave critic=null"),
        (("objective.sigma=0",), "sigma=0"),
        (("objective.temperature=-1",), "temperature=-1"),
        (("objective.pairs=local", "encoder=mlp"), "no image tokens"),
    ],
)
def test_infomax_refuses_what_does_not_fit(options, message):
    with pytest.raises(UserError, match=message):
        build_components(compose(*TINY, "objective=infomax", *options))


def test_noise_is_standard_normal_and_finite():
    z = normal(randomness(4096), "noise", 16)
    assert z.isfinite().all()
    assert float(z.mean()) == pytest.approx(0, abs=0.02) and float(z.std()) == pytest.approx(1, abs=0.02)
    assert float(z.abs().lt(1.96).float().mean()) == pytest.approx(0.95, abs=0.005)


def test_sampled_tokens_are_never_padding():
    valid = torch.tensor([[True, False, True, False], [False, False, False, True], [True] * 4]).repeat(50, 1)
    tokens = torch.arange(4.0)[None, :, None].expand(150, 4, 2)
    found = sampled(Encoded(tokens, torch.zeros(150, 2), valid), randomness(150), "tokens", 8)
    assert found.shape == (150, 8, 2)
    assert set(found[0::3].flatten().tolist()) == {0, 2} and set(found[1::3].flatten().tolist()) == {3}
    assert set(found[2::3].flatten().tolist()) == {0, 1, 2, 3}


def test_a_matrix_that_is_not_positive_definite_has_nan_for_its_factor():
    """An error would wait for the device; the run's guard reports the nan."""
    good = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(den.lower_factor(good) @ den.lower_factor(good).T, good)
    assert den.lower_factor(torch.tensor([[1.0, 2.0], [2.0, 1.0]])).isnan().all()
