"""kNN and linear accuracy of runs, mean and standard deviation over seeds.

python scripts/benchmarks/linear_table.py joint infonce simmim      # reads joint/0, joint/1, ... as table.py does

Linear: scikit-learn's logistic regression on frozen features of clean images, standardised by the training
images; C from 0.003, 0.03 and 0.3, picked on a fifth of the training images and refitted on all; scored
once on the held-out split.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from sslcli.components import restore_components
from sslcli.data.base import Dataset
from sslcli.evaluation.measure import embedder, random_init
from sslcli.training.device import choose
from sslcli.training.resume import open_run

CHOICES = (0.003, 0.03, 0.3)


def linear(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray) -> float:
    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    part = np.random.default_rng(0).permutation(len(train)) < len(train) // 5

    def fit(c: float, rows: np.ndarray) -> LogisticRegression:
        return LogisticRegression(C=c, max_iter=200, tol=1e-3).fit(train[rows], labels[rows])

    best = max(CHOICES, key=lambda c: fit(c, ~part).score(train[part], labels[part]))
    return float(fit(best, np.ones(len(train), bool)).score(test, truth))


def labelled(dataset: Dataset) -> np.ndarray:
    assert dataset.labels is not None
    return dataset.labels.numpy()


def measure(run: Path, baselines: bool) -> dict[str, float]:
    run, state = open_run(str(run))
    parts = restore_components(state, torch.device("cpu"))
    dataset = parts.dataset
    held_out = dataset.held_out
    assert held_out is not None
    compute = choose("cpu", "fp32")
    index, queries = torch.arange(len(dataset)), torch.arange(len(held_out))

    def score(embed) -> float:
        return linear(
            embed(dataset, index).numpy(), labelled(dataset), embed(held_out, queries).numpy(), labelled(held_out)
        )

    knn = json.loads((run / "result.json").read_text())
    found = {
        "knn": knn["metrics"]["knn_top1"]["value"],
        "steps": knn["steps"],
        "linear": score(embedder(parts.encoder, parts.views, compute)),
    }
    if baselines:
        untrained = random_init(state["config"], parts, compute)
        found["knn of random init"] = knn["metrics"]["knn_top1"]["random_init"]
        found["knn of raw pixels"] = knn["metrics"]["knn_top1"]["raw_input"]
        found["linear of random init"] = score(embedder(untrained, parts.views, compute))
        found["linear of raw pixels"] = score(lambda data, i: data.fetch(i)["image"].flatten(1).float() / 255)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", help="folders with one run a seed")
    args = parser.parse_args()
    print("| run | 20-NN | linear | seeds | steps |\n|---|---|---|---|---|")
    baselines: dict[str, float] = {}
    for name in args.folders:
        runs = sorted(Path(name).iterdir())
        found = [measure(run, baselines=not baselines and k == 0) for k, run in enumerate(runs)]
        baselines = baselines or {key: value for key, value in found[0].items() if " of " in key}
        cells = []
        for key in ("knn", "linear"):
            values = 100 * np.array([f[key] for f in found])
            cells.append(f"{values.mean():.2f} ± {values.std():.2f} ({', '.join(f'{v:.2f}' for v in values)})")
        print(
            f"| {name} | {' | '.join(cells)} | {len(runs)} | {', '.join(str(f['steps']) for f in found)} |", flush=True
        )
    for key, value in baselines.items():
        print(f"{key}: {100 * value:.2f}")


if __name__ == "__main__":
    main()
