"""The mutual information between the features of two views, in nats: a lower, an upper and a Gaussian estimate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sslcli.config.ranges import Count, NotNegative
from sslcli.data.base import Dataset
from sslcli.data.selection import drawn
from sslcli.evaluation.base import BANK, Metric, Probe, compared
from sslcli.evaluation.context import ProbeContext
from sslcli.evaluation.information_scores import club_scores, gaussian_bias, gaussian_scores, info_nce_scores
from sslcli.evaluation.pca import whitening
from sslcli.evaluation.standard_errors import standard_error
from sslcli.objectives.losses.critics import Separable
from sslcli.objectives.losses.densities import ConditionalGaussian
from sslcli.objectives.losses.estimates import info_nce
from sslcli.randomness import fold
from sslcli.run_dir.console import progress

_BATCH = 512  # pairs per step of fitting
_EVERY = 50  # steps between validations
_PATIENCE = 4  # validations without improvement before fitting stops
_FEWEST = 20  # pairs


@dataclass(frozen=True)
class Interval:
    """Estimates for one encoder, in nats: a score of each held-out pair, whose mean is the estimate."""

    floor: Tensor
    floor_std: float  # over the batches of held-out pairs
    ceiling: Tensor
    ceiling_std: float
    gaussian: Tensor | float
    components: int  # number of principal components of the features

    @property
    def has_ceiling(self) -> bool:
        """Whether the ceiling is not below the floor by more than two standard errors, where it is certainly none."""
        error = standard_error(self.ceiling - self.floor) or 0.0
        return float((self.ceiling - self.floor).mean()) >= -2 * error


class MutualInformation(Probe):
    """The information between ``components`` whitened principal components of the features of two random views.

    Where views are equal, they differ by the encoder's dropout; without dropout nothing is measured.

    - ``mi_floor`` is InfoNCE, a lower bound in expectation on this information, and therefore on the information
      between the whole features, and on that between a sample and the features of one random view. At most log N.
    - ``mi_ceiling`` is CLUB with a learned Gaussian q, after each component was mapped to a standard normal by its
      ranks, which leaves the information as it is and gives q no heavy tails to fail on. If q is the true conditional
      density, it is an upper bound on the information between the components (not between the whole features). With
      a poor q it is no bound; where it falls below ``mi_floor``, it is left out.
    - ``mi_gaussian`` is the information between Gaussians with these covariances: exact for Gaussians, a lower bound
      if both marginals are Gaussian, and otherwise no bound.

    Components, critic and q are fitted to views of training samples, a tenth of which is used for early stopping. All
    estimates are computed on views of held-out samples.

    Args:
        components: number of principal components.
        max_samples: largest number of training samples, and of held-out samples; null takes all.
        batch_size: N, the number of pairs of one estimate.
        hidden_dim: width of the hidden layers of critic and q.
        steps: largest number of steps to fit each of them.
        lr: learning rate of AdamW.
    """

    def __init__(
        self,
        *,
        components: int = 32,
        max_samples: Count | None = 10_000,
        batch_size: Count = 1000,
        hidden_dim: Count = 256,
        steps: Count = 2000,
        lr: NotNegative = 1e-3,
    ) -> None:
        if min(components, hidden_dim, steps) < 1 or lr <= 0:
            raise ValueError("components, hidden_dim and steps must be at least 1 and lr positive")
        if batch_size < 2 or (max_samples is not None and max_samples < _FEWEST):
            raise ValueError(f"batch_size must be at least 2 and max_samples at least {_FEWEST}")
        self.components, self.max_samples, self.batch_size = components, max_samples, batch_size
        self.hidden_dim, self.steps, self.lr = hidden_dim, steps, lr

    def __call__(self, context: ProbeContext) -> dict[str, Metric]:
        held_out = context.dataset.held_out
        fewest = 0 if held_out is None else min(len(context.dataset), len(held_out))
        if held_out is None or fewest < _FEWEST:
            context.leave_out(f"mutual information: {fewest} held-out pairs are too few, it needs {_FEWEST}")
            return {}
        pairs = [self._pairs(context, dataset) for dataset in (context.dataset, held_out)]
        different = [name for name, (one, two) in pairs[1].items() if not context.nothing_differs(one, two)]
        if "trained" not in different:
            context.leave_out("mutual information: the views of a sample are equal, and the encoder has no dropout")
            return {}
        found = {name: self._interval(pairs[0][name], pairs[1][name], context) for name in different}
        trained = found["trained"]
        count, queried = (len(part["trained"][0]) for part in pairs)
        size = min(self.batch_size, queried)
        between = f"between {trained.components} principal components of two {context.kind_of_views}"
        fitted = f"fitted to {count:,} train pairs, mean over batches of {size:,} of {queried:,} held-out pairs"
        ceilings = {name: interval.ceiling for name, interval in found.items() if interval.has_ceiling}
        no_ceiling = "" if "trained" in ceilings else "; no mi_ceiling: CLUB fell below this floor, so its q is wrong"
        metrics = {
            "mi_floor": compared(
                context,
                {name: interval.floor for name, interval in found.items()},
                f"{between}: InfoNCE, a lower bound in expectation, at most log {size:,}; critic {fitted}{no_ceiling}",
                unit="nats",
                higher_is_better=True,
                headline=True,
                std=trained.floor_std,
            ),
            **self._gaussian(context, found, between, queried),
        }
        if "trained" in ceilings:
            metrics["mi_ceiling"] = compared(
                context,
                ceilings,
                f"{between}, each mapped to a normal by its ranks: CLUB, an upper bound as far as its Gaussian q is "
                f"right; q {fitted}",
                unit="nats",
                higher_is_better=None,
                std=trained.ceiling_std,
            )
        return metrics

    def _gaussian(
        self, context: ProbeContext, found: Mapping[str, Interval], between: str, queried: int
    ) -> dict[str, Metric]:
        """Return ``mi_gaussian`` with its bias; {} if there are too few pairs for an estimate."""
        dim = found["trained"].components
        bias = gaussian_bias(queried, dim)
        if bias == math.inf:
            least = 2 * dim + 1
            context.leave_out(f"mi_gaussian: {queried} pairs of 2 x {dim} components are too few, it needs {least}")
            return {}
        metric = compared(
            context,
            {name: interval.gaussian for name, interval in found.items()},
            f"{between}: of Gaussians with these covariances, no bound; {queried:,} held-out pairs",
            unit="nats",
            higher_is_better=None,
            bias=bias,
        )
        return {"mi_gaussian": metric}

    def cheap(self) -> Probe:
        """Return the probe on 2,000 samples, with a tenth of the steps."""
        return MutualInformation(
            components=self.components,
            max_samples=min(self.max_samples or BANK, BANK),
            batch_size=self.batch_size,
            hidden_dim=self.hidden_dim,
            steps=max(1, self.steps // 10),
            lr=self.lr,
        )

    def _pairs(self, context: ProbeContext, dataset: Dataset) -> dict[str, tuple[Tensor, Tensor]]:
        index = drawn(len(dataset), len(dataset) if self.max_samples is None else self.max_samples)
        one, two = (context.draw(dataset, index, number) for number in (0, 1))
        return {name: (one[name], two[name]) for name in one}

    def _interval(self, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], context: ProbeContext) -> Interval:
        device = context.compute.device
        reduce = whitening(torch.cat(train), self.components)
        x, y = (reduce(rows).to(device) for rows in train)
        seed = fold(context.seed, "mutual information")
        with torch.random.fork_rng():
            torch.manual_seed(seed % 2**63)
            critic = Separable(x.shape[1], hidden_dim=self.hidden_dim).to(device)
            density = ConditionalGaussian(x.shape[1], hidden_dim=self.hidden_dim).to(device)
        self._fit(critic, lambda a, b: -info_nce(critic(a, b)), x, y, seed)
        to_normal = _normal_marginals(torch.cat([x, y]))
        self._fit(density, lambda a, b: -density(a, b).mean(), to_normal(x), to_normal(y), seed)
        x, y = (reduce(rows).to(device) for rows in test)
        u, v = to_normal(x), to_normal(y)
        size = min(self.batch_size, len(x))
        batches = [slice(start, start + size) for start in range(0, len(x) - size + 1, size)]
        with torch.no_grad():
            floors = [critic(x[part], y[part]) for part in batches]
            ceilings = [density.pairs(u[part], v[part]) for part in batches]
        floor, ceiling = [info_nce_scores(each) for each in floors], [club_scores(each) for each in ceilings]
        return Interval(
            torch.cat(floor), _std(floor), torch.cat(ceiling), _std(ceiling), gaussian_scores(x, y), x.shape[1]
        )

    def _fit(
        self, module: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, seed: int
    ) -> None:
        """Minimise ``loss`` on pairs (x, y), and keep the weights with the smallest loss on a validation tenth."""
        count = len(x) - len(x) // 10
        optimizer = torch.optim.AdamW(module.parameters(), self.lr)
        generator = torch.Generator().manual_seed(seed % 2**63)
        least, best, worse = float("inf"), module.state_dict(), 0
        bar = progress(f"fitting {type(module).__name__}", self.steps, "steps")
        for step in range(self.steps):
            if step % _EVERY == 0:
                with torch.no_grad():
                    validation = float(loss(x[count:], y[count:]))
                worse = 0 if validation < least else worse + 1
                if worse == _PATIENCE:
                    break
                if not worse:
                    least, best = validation, {name: value.clone() for name, value in module.state_dict().items()}
            index = torch.randperm(count, generator=generator)[:_BATCH].to(x.device)
            optimizer.zero_grad(set_to_none=True)
            loss(x[index], y[index]).backward()
            optimizer.step()
            bar.update()
        bar.close()
        module.load_state_dict(best)


def _std(batches: Sequence[Tensor]) -> float:
    """Return the standard deviation of the estimates of batches."""
    return float(torch.stack([each.mean() for each in batches]).std(correction=0))


def _normal_marginals(rows: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the map of each column to a standard normal, by its rank among ``rows`` (N, D), linear between two rows.

    It increases strictly within the range of the rows, and a map that does so in every column leaves the mutual
    information as it is (Cover and Thomas 2006, section 8.6).
    """
    known = rows.T.sort(1).values.contiguous()  # (D, N)
    count = known.shape[1]

    def apply(part: Tensor) -> Tensor:
        columns = part.T.contiguous()
        above = torch.searchsorted(known, columns)
        low, high = (above - 1).clamp(min=0), above.clamp(max=count - 1)
        start, stop = known.gather(1, low), known.gather(1, high)
        share = ((columns - start) / (stop - start).clamp(min=1e-30)).clamp(0, 1)
        rank = low + share.double() * (high - low)
        return torch.special.ndtri((rank + 0.5) / count).to(part.dtype).T

    return apply
