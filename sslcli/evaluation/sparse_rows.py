"""Rows of which almost all entries are 0, and logistic regression on them by L-BFGS."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

PENALTIES = (10.0, 100.0)  # values of C that are tried
_STEPS, _HISTORY = 50, 5  # of L-BFGS
_TOLERANCE = 1e-6
_PIECE = 2**26  # bytes of the rows that are dense at a time


@dataclass(frozen=True)
class SparseRows:
    """N rows of ``width`` entries in the compressed format of SciPy's ``csr_matrix``."""

    starts: Tensor  # (N + 1,) int64, where each row begins in the others
    columns: Tensor  # (nonzeros,) int64
    values: Tensor  # (nonzeros,) float32
    width: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    def take(self, index: Tensor) -> SparseRows:
        """Return the rows at ``index`` (B,)."""
        counts = self.starts[index + 1] - self.starts[index]
        starts = F.pad(counts.cumsum(0), (1, 0))
        inside = torch.arange(int(starts[-1])) - starts[:-1].repeat_interleave(counts)
        places = self.starts[index].repeat_interleave(counts) + inside
        return SparseRows(starts, self.columns[places], self.values[places], self.width)

    def matrix(self) -> Tensor:
        """Return a sparse tensor (N, width)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that these tensors are in beta state
            shape = (len(self), self.width)
            return torch.sparse_csr_tensor(self.starts, self.columns, self.values, shape, check_invariants=False)

    def transposed(self) -> SparseRows:
        """Return the columns as rows."""
        order = torch.from_numpy(np.argsort(self.columns.numpy(), kind="stable"))
        rows = torch.arange(len(self)).repeat_interleave(self.starts.diff())
        starts = F.pad(torch.bincount(self.columns, minlength=self.width).cumsum(0), (1, 0))
        return SparseRows(starts, rows[order], self.values[order], len(self))


@dataclass(frozen=True)
class SparseClassifier:
    """A linear classifier of C classes."""

    weight: Tensor  # (width, C)
    bias: Tensor  # (C,)

    def logits(self, rows: SparseRows) -> Tensor:
        """Return the logits (N, C) of the rows."""
        return rows.matrix() @ self.weight + self.bias


def logistic_regression(
    rows: SparseRows,
    labels: Tensor,
    num_classes: int,
    inverse_penalty: float,
    start: SparseClassifier | None = None,
    *,
    steps: int = _STEPS,
) -> SparseClassifier:
    """Minimise C * (sum of cross-entropies) + |W|^2 / 2, scikit-learn's objective, by L-BFGS; the biases are free.

    Args:
        rows: the samples.
        labels: (N,) classes; or (N, C) bool, several labels a sample, each with a logistic regression of its own.
        num_classes: number of classes.
        inverse_penalty: C.
        start: where to begin; None is 0.
        steps: largest number of steps.
    """
    forward, backward = rows.matrix(), rows.transposed().matrix()
    decay = 1 / (inverse_penalty * len(rows))  # of the mean instead of the sum
    weight = torch.zeros(rows.width, num_classes) if start is None else start.weight.clone()
    bias = torch.zeros(num_classes) if start is None else start.bias.clone()
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=steps,
        history_size=_HISTORY,
        tolerance_grad=_TOLERANCE,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )

    @torch.no_grad()
    def loss() -> Tensor:
        logits = forward @ weight + bias
        if labels.dim() == 2:
            value = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="sum") / len(rows)
            error = logits.sigmoid() - labels.float()
        else:
            value = F.cross_entropy(logits, labels)
            error = logits.softmax(1)
            error[torch.arange(len(rows)), labels] -= 1
        error /= len(rows)
        weight.grad = (backward @ error).add_(weight, alpha=decay)
        bias.grad = error.sum(0)
        return value + decay / 2 * weight.pow(2).sum()

    optimizer.step(loss)
    return SparseClassifier(weight.detach(), bias.detach())


def best_classifier(
    rows: SparseRows, labels: Tensor, part: Tensor, in_validation: Tensor, num_classes: int
) -> SparseClassifier:
    """Choose C by the cross-entropy of a validation part, as for other features, and train on all of ``part``.

    Args:
        rows: the training samples.
        labels: (N,) classes, or (N, C) bool.
        part: (P,) the samples to train on.
        in_validation: (P,) bool, those of them that choose.
        num_classes: number of classes.
    """
    fitted, validation = part[~in_validation], part[in_validation]
    asked, several = rows.take(validation), labels.dim() == 2
    tried: list[tuple[float, float, SparseClassifier]] = []
    found = None
    for penalty in PENALTIES:
        found = logistic_regression(rows.take(fitted), labels[fitted], num_classes, penalty, found)
        logits, truth = found.logits(asked), labels[validation]
        loss = F.binary_cross_entropy_with_logits(logits, truth.float()) if several else F.cross_entropy(logits, truth)
        tried.append((float(loss), penalty, found))
    _, penalty, start = min(tried, key=lambda trial: trial[:2])
    return logistic_regression(rows.take(part), labels[part], num_classes, penalty, start)


AnyRows = Tensor | SparseRows


def nearest_rows(bank: SparseRows, queries: SparseRows, k: int) -> tuple[Tensor, Tensor]:
    """Return the inner products (Q, k) of each query's nearest bank rows, descending, and their positions (Q, k).

    Rows of length 1 have their cosines as inner products.
    """
    matrix, chunk = bank.matrix(), max(1, _PIECE // (4 * max(bank.width, len(bank))))
    found = []
    for index in torch.arange(len(queries)).split(chunk):
        dense = queries.take(index).matrix().to_dense()
        found.append((matrix @ dense.T).T.contiguous().topk(min(k, len(bank))))
    similarities, positions = zip(*found)
    return torch.cat(similarities), torch.cat(positions)
