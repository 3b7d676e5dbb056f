"""Linear classification of frozen features with 100 %, 10 % and 1 % of the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from sslcli.config.ranges import Count
from sslcli.data.selection import balanced
from sslcli.evaluation.base import BANK, QUERIES, Metric, Probe
from sslcli.evaluation.baselines import inputs
from sslcli.evaluation.classification import predicted_metrics
from sslcli.evaluation.context import ProbeContext, chosen
from sslcli.evaluation.softmax_regression import Classifiers, Setting, fit, grid
from sslcli.evaluation.sparse_rows import PENALTIES, AnyRows, SparseRows, best_classifier
from sslcli.evaluation.tfidf import in_protocol
from sslcli.randomness import fold
from sslcli.run_dir.console import progress

_BY_LBFGS = f", by L-BFGS with C {' or '.join(f'{value:g}' for value in PENALTIES)}, chosen likewise"


@dataclass(frozen=True)
class Outcome:
    """The result for one encoder and one number of labels."""

    predicted: Tensor  # (Q,) the class of each query; of several labels a sample, scores (Q, C)
    setting: Setting | None = None  # None for TF-IDF, which has another solver


class Linear(Probe):
    """Softmax regression on features of clean views, extracted once and never augmented.

    A grid of learning rates and weight decays, with and without BatchNorm, is trained in parallel (as in DINOv2,
    arXiv:2304.07193, appendix B). The setting with the smallest cross-entropy on a validation part of the training
    samples is chosen (with few samples the cross-entropy is less noisy than the accuracy). It is trained again on all
    training samples and scored once on the held-out split, on which no choice is made. The setting is chosen for the
    raw input and every baseline separately.

    Args:
        lrs: learning rates for rows of mean squared norm 1.
        weight_decays: weight decays of the classifier's weights.
        labels: shares of the labels, balanced over classes; the first is the headline, the others are named
            ``linear_top1_10pct``. Later shares with fewer than ``folds`` labels per class are left out.
        folds: one training sample in ``folds`` is used for validation.
        steps: steps of SGD.
        batch_size: rows per step, at most an eighth of the training rows.
        max_samples: largest number of training samples and of queries, balanced over classes; null takes all.
    """

    def __init__(
        self,
        *,
        lrs: Sequence[float] = (3.0, 10.0, 30.0, 100.0),
        weight_decays: Sequence[float] = (0.0, 1e-5, 1e-4, 1e-3),
        labels: Sequence[float] = (1.0, 0.1, 0.01),
        folds: Count = 5,
        steps: Count = 1000,
        batch_size: Count = 512,
        max_samples: Count | None = None,
    ) -> None:
        if not lrs or min(lrs) <= 0 or not weight_decays or min(weight_decays) < 0:
            raise ValueError(f"lrs={lrs} must be positive numbers and weight_decays={weight_decays} none below 0")
        if not labels or not all(0 < share <= 1 for share in labels):
            raise ValueError(f"labels={labels} must be shares above 0 and up to 1")
        if folds < 2 or min(steps, batch_size) < 1 or (max_samples is not None and max_samples < 1):
            raise ValueError("folds must be at least 2, and steps, batch_size and max_samples at least 1")
        self.settings = grid(lrs, weight_decays, [False, True])
        self.lrs, self.weight_decays = lrs, weight_decays
        self.shares, self.folds, self.steps, self.batch_size = labels, folds, steps, batch_size
        self.max_samples = self._num_queries = max_samples

    def cheap(self) -> Probe:
        """Return the probe with a quarter of the settings, a fifth of the steps, 2,000 labels and 1,000 queries."""
        form = Linear(
            lrs=self.lrs[1::2] or self.lrs,
            weight_decays=self.weight_decays[1::2] or self.weight_decays,
            labels=self.shares[:1],
            folds=self.folds,
            steps=max(1, self.steps // 5),
            batch_size=self.batch_size,
            max_samples=min(self.max_samples or BANK, BANK),
        )
        form._num_queries = min(self.max_samples or QUERIES, QUERIES)
        return form

    def __call__(self, context: ProbeContext) -> dict[str, Metric]:
        labelled, held_out = context.labelled(), context.dataset.held_out
        if labelled is None or held_out is None:
            return {}
        train, queries = chosen(labelled[0], self.max_samples), chosen(labelled[1], self._num_queries)
        if len(train) < 2 * self.folds:
            context.leave_out(f"linear: {len(train)} train labels are too few, it needs {2 * self.folds}")
            return {}
        labels, truth = labelled[0][train], labelled[1][queries]
        shares = self._shares(labels, context.seed)
        outcomes: dict[float, dict[str, Outcome]] = {share: {} for share in shares}
        representations = inputs(context, train, held_out, queries)
        with progress("linear", len(shares) * (1 + len(context.encoders)), "classifiers") as bar:
            for name, (rows, query_rows) in representations:
                for share, part in shares.items():
                    outcomes[share][name] = self._classify(rows, labels, part, query_rows, truth, context)
                    bar.update()
                del rows, query_rows  # released before the next are read: each may fill much of the memory
        found: dict[str, Metric] = {}
        for share, part in shares.items():
            found |= self._metrics(context, outcomes[share], truth, len(part), share)
        return found

    def _shares(self, labels: Tensor, seed: int) -> dict[float, Tensor]:
        """Return the training samples (positions in ``labels``) of each share of the labels."""
        order = _shuffled(len(labels), seed)
        least = self.folds * (len(labels.unique()) if labels.dim() == 1 else 1)
        found = {}
        for share in self.shares:
            count = round(share * len(labels))
            if count >= least or share == self.shares[0]:
                found[share] = order[balanced(labels[order], count)].sort().values
        return found

    def _classify(
        self,
        rows: AnyRows,
        labels: Tensor,
        part: Tensor,
        asked: AnyRows,
        truth: Tensor,
        context: ProbeContext,
    ) -> Outcome:
        """Choose a setting on a validation share of ``part``; classify ``asked``, of the labels ``truth``."""
        several = labels.dim() == 2
        num_classes = labels.shape[1] if several else int(torch.cat([labels, truth]).max()) + 1
        in_validation = held_back(labels[part], self.folds, context.seed)
        if isinstance(rows, SparseRows):
            logits = best_classifier(rows, labels, part, in_validation, num_classes).logits(cast(SparseRows, asked))
            return Outcome(logits if several else logits.argmax(1))
        asked = cast(Tensor, asked)
        fitted, validation = part[~in_validation], part[in_validation]
        tried: list[tuple[float, Setting]] = []
        for standardise in (False, True):
            same = [setting for setting in self.settings if setting.standardise == standardise]
            classifiers = self._fit(rows, labels, fitted, same, num_classes, context)
            _, loss = classifiers.score(rows, labels, validation)
            tried += zip(loss.tolist(), same)
        best = min(tried, key=lambda trial: trial[0])[1]
        final = self._fit(rows, labels, part, [best], num_classes, context)
        (predicted,) = final.scores(asked) if several else final.classes(asked)
        return Outcome(predicted, best)

    def _fit(
        self,
        rows: Tensor,
        labels: Tensor,
        part: Tensor,
        settings: list[Setting],
        num_classes: int,
        context: ProbeContext,
    ) -> Classifiers:
        return fit(
            rows,
            labels,
            settings,
            part=part,
            num_classes=num_classes,
            steps=self.steps,
            batch_size=min(self.batch_size, max(1, len(part) // 8)),
            seed=fold(context.seed, "linear order"),
            device=context.compute.device,
        )

    def _metrics(
        self, context: ProbeContext, outcomes: Mapping[str, Outcome], truth: Tensor, count: int, share: float
    ) -> dict[str, Metric]:
        several = truth.dim() == 2
        protocol = (
            f"{'logistic' if several else 'softmax'} regression on frozen features of clean views, {count:,} train "
            f"labels, queries {len(truth):,} held out; of {len(self.settings)} settings the best on one in "
            f"{self.folds} of the train samples, then trained on all of them ({outcomes['trained'].setting}); "
            f"{self.steps} steps of SGD{in_protocol(context, _BY_LBFGS)}"
        )
        name = "linear_map" if several else "linear_top1"
        return predicted_metrics(
            context,
            name if share == self.shares[0] else f"{name}_{100 * share:g}pct",
            {representation: outcome.predicted for representation, outcome in outcomes.items()},
            truth,
            protocol,
            headline=share == self.shares[0],
        )


def held_back(labels: Tensor, folds: int, seed: int) -> Tensor:
    """Return (N,) bool, True for one sample in ``folds``, drawn at random with the same share of every class."""
    order = _shuffled(len(labels), seed)
    by_class = order[torch.argsort(labels[order], stable=True)] if labels.dim() == 1 else order
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[by_class[folds // 2 :: folds]] = True
    return chosen


def _shuffled(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(fold(seed, "labels") % 2**63))
