"""Linear accuracy of vectors from tables by the share of the labels, beside the table itself and boosted trees.

python scripts/benchmarks/vector_table.py FOLDER [--sets digits wine breast_cancer] [--seeds 3] [--json FILE]
    [--options views.corruption_rate=0.3 views=scarf ...]

For each set of scikit-learn and each seed a run is trained in FOLDER/SET-SEED, or found there, on the training part
without its labels. Then 1, 10 and 100 % of the labels, drawn for each class by the seed, at least one of each, fit (the
mean of three draws of 1 and 10 %)

- a logistic regression on the trained encoder's features, on those of its random initialisation, and on the
  standardised table, each standardised by the labelled rows; C from 0.01 to 10 by cross-validation on the labelled rows
  in up to five folds, and 1 where a class has one row;
- scikit-learn's HistGradientBoostingClassifier on the table, with min_samples_leaf a tenth of the labelled rows, at
  least 1 and at most its default of 20, because its default can divide no fewer than 40.

All are scored once on the held-out rows, which nothing else reads. The error is that of the mean over seeds, which draw
the labels and the initial weights; a single reading has the binomial error that stands beside the set.
"""

import argparse
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from figures import Row, add_json, row, write
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sslcli.components import restore_components
from sslcli.data.base import Dataset
from sslcli.evaluation.measure import embedder, random_init
from sslcli.run_dir.checkpoint import open_run
from sslcli.training.device import choose

SHARES = (0.01, 0.1, 1.0)
C = (0.01, 0.1, 1.0, 10.0)
DRAWS = 3  # of a share of the labels
RAW, TREES = "standardised table", "boosted trees"
Rows = tuple[np.ndarray, np.ndarray]  # training rows, held-out rows


def train(folder: Path, name: str, seed: int, options: list[str]) -> Path:
    """Train a run, or find it; return its directory."""
    run = folder / f"{name}-{seed}"
    words = ["dataset=vectors", f"dataset.name={name}", "encoder=mlp", "train.batch_size=128", f"seed={seed}"]
    words += ["probe=none", "log.report=false", "device=cpu", "device.threads=1", *options, f"run_dir={run}"]
    command = [sys.executable, "-m", "sslcli", "train", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return run


def labelled(dataset: Dataset) -> np.ndarray:
    assert dataset.labels is not None
    return dataset.labels.numpy()


def representations(run: Path) -> tuple[dict[str, Rows], np.ndarray, np.ndarray]:
    """Return the rows of each representation by name, the training labels and the held-out labels."""
    run, state = open_run(str(run))
    parts = restore_components(state, torch.device("cpu"))
    dataset, held_out, compute = parts.dataset, parts.dataset.held_out, choose("cpu", "fp32")
    assert held_out is not None
    encoders = {"trained": parts.encoder, "random init": random_init(state["config"], parts, compute)}
    index, queries = torch.arange(len(dataset)), torch.arange(len(held_out))
    found = {RAW: (dataset.fetch(index)["vector"].numpy(), held_out.fetch(queries)["vector"].numpy())}
    for name, encoder in encoders.items():
        embed = embedder(encoder, parts.views, compute)
        found[name] = (embed(dataset, index).numpy(), embed(held_out, queries).numpy())
    return found, labelled(dataset), labelled(held_out)


def drawn(labels: np.ndarray, share: float, *seed: int) -> np.ndarray:
    """Return positions of a share of each class, at least one."""
    order = np.random.default_rng(list(seed)).permutation(len(labels))
    by_class = [order[labels[order] == label] for label in np.unique(labels)]
    return np.concatenate([rows[: max(1, round(share * len(rows)))] for rows in by_class])


def linear(rows: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray, np.ndarray], float]:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    folds = min(5, int(np.bincount(labels)[np.unique(labels)].min()))
    if folds > 1:
        split = StratifiedKFold(folds, shuffle=True, random_state=0)
        return GridSearchCV(model, {"logisticregression__C": C}, cv=split).fit(rows, labels).score
    return model.fit(rows, labels).score


def boosted(rows: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray, np.ndarray], float]:
    leaf = max(1, min(20, len(rows) // 10))
    return HistGradientBoostingClassifier(min_samples_leaf=leaf, random_state=0).fit(rows, labels).score


def measure(run: Path, seed: int) -> tuple[dict[tuple[str, float], float], int]:
    """Return the accuracy by representation and share of the labels, and the number of held-out rows."""
    found, labels, truth = representations(run)
    scores: dict[tuple[str, float], list[float]] = {}
    for share in SHARES:
        for draw in range(DRAWS if share < 1 else 1):
            chosen = drawn(labels, share, seed, draw)
            for name, (bank, queries) in found.items():
                score = linear(bank[chosen], labels[chosen])(queries, truth)
                scores.setdefault((name, share), []).append(score)
            score = boosted(found[RAW][0][chosen], labels[chosen])(found[RAW][1], truth)
            scores.setdefault((TREES, share), []).append(score)
    return {key: float(np.mean(values)) for key, values in scores.items()}, len(truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the runs")
    parser.add_argument("--sets", nargs="+", default=["digits", "wine", "breast_cancer"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--options", nargs="*", default=[], help="further words of the command that trains")
    add_json(parser, RAW)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of classes with fewer rows than folds
    print(f"| set | features | {' | '.join(f'{share:.0%}' for share in SHARES)} |\n|---|---|{'---|' * len(SHARES)}")
    figures: list[Row] = []
    for name in args.sets:
        measured = [measure(train(args.folder, name, s, args.options), s) for s in range(args.seeds)]
        count = measured[0][1]
        means = {key: float(np.mean([scores[key] for scores, _ in measured])) for key in measured[0][0]}
        for features in ("trained", "random init", RAW, TREES):
            cells = []
            for share in SHARES:
                values = np.array([scores[features, share] for scores, _ in measured])
                error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
                cells.append(f"{100 * values.mean():.1f} ± {100 * error:.1f}")
                title = f"{name}, {features}, {share:.0%} of the labels"
                figures.append(row(title, means[features, share], "share", means[RAW, share]))
            binomial = (means[RAW, 1.0] * (1 - means[RAW, 1.0]) / count) ** 0.5
            about = f"{name}, {count} held out ± {100 * binomial:.1f}" if features == "trained" else ""
            print(f"| {about} | {features} | {' | '.join(cells)} |", flush=True)
    write(args.json, figures)


if __name__ == "__main__":
    main()
