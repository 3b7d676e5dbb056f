"""Does a search of 8 trials find what a grid of 12 runs finds? On a table of real results that are looked up.

The table has kNN accuracies of 12 runs of 150 steps on fashion_mnist_mini, on a CPU:

    ssl-train -m run_dir=table train.steps=150 objective.temperature=0.05,0.1,0.2,0.5 optimizer.lr=3e-4,1e-3,3e-3
    ssl-eval -m run=table/0,table/1,...,table/11 probe.max_samples=2000 probe.whiten=0

Between its points it is interpolated, by the logarithms of both keys. A search has found it if its best value is within
one standard error of the grid's best. `python scripts/benchmarks/search.py [--seeds 10] [--trials 8] [--json]`
"""

import argparse
import json
import math
import tempfile
from contextlib import ExitStack
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from sslcli.sweeps.metric import Aim
from sslcli.sweeps.search import SAMPLERS, Search
from sslcli.sweeps.space import read_space
from sslcli.sweeps.study import open_study
from sslcli.sweeps.trials import Trials
from sslcli.sweeps.workers import Workers

TEMPERATURES, RATES = (0.05, 0.1, 0.2, 0.5), (3e-4, 1e-3, 3e-3)
TABLE = (
    (0.757, 0.7655, 0.777),
    (0.759, 0.7685, 0.7765),
    (0.7595, 0.766, 0.772),
    (0.7615, 0.764, 0.7685),
)  # a row a temperature
BEST = max(max(row) for row in TABLE)
STANDARD_ERROR = 0.0093  # of the best, over its queries
SPACES = {
    "the grid's values": ["objective.temperature=0.05,0.1,0.2,0.5", "optimizer.lr=3e-4,1e-3,3e-3"],
    "intervals": ["objective.temperature=tag(log, interval(0.05, 0.5))", "optimizer.lr=tag(log, interval(3e-4, 3e-3))"],
}


def place(value: float, known: tuple[float, ...]) -> tuple[int, float]:
    """The index of the known number below a value, and the share of the way to the next one, by logarithms."""
    low = max(i for i in range(len(known) - 1) if known[i] <= value * (1 + 1e-9) or i == 0)
    share = math.log(value / known[low]) / math.log(known[low + 1] / known[low])
    return low, min(1.0, max(0.0, share))


def looked_up(temperature: float, rate: float) -> float:
    (i, s), (j, t) = place(temperature, TEMPERATURES), place(rate, RATES)
    rows = [TABLE[i][k] * (1 - s) + TABLE[i + 1][k] * s for k in (j, j + 1)]
    return rows[0] * (1 - t) + rows[1] * t


def searched(sampler: str, overrides: list[str], seed: int, trials: int) -> float:
    """The best value that a search finds."""
    space = read_space(OverridesParser.create().parse_overrides(overrides), OmegaConf.create({}))
    search, aim = Search(n_trials=trials, sampler=sampler, seed=seed), Aim(None, None, "maximize")
    found = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as held:
        study = open_study(Path(folder), None, "study", space.to_plain(), aim)
        asked = Trials(study, space, search, Workers(Path(folder), held), Path(folder))
        while taken := asked.take():
            for trial in taken:
                temperature, rate = (float(text.partition("=")[2]) for text in trial.overrides)
                found.append(looked_up(temperature, rate))
                asked.completed(trial.number, found[-1])
    return max(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = []
    for name, overrides in SPACES.items():
        for sampler in SAMPLERS:
            best = [searched(sampler, overrides, 1000 * seed, given.trials) for seed in range(given.seeds)]
            found = sum(value >= BEST - STANDARD_ERROR for value in best)
            rows.append({"space": name, "sampler": sampler, "found": found, "of": given.seeds, "worst": min(best)})
    if given.json:
        print(json.dumps(rows))
        return
    print(f"the grid's best is {BEST:.4f} +- {STANDARD_ERROR:.4f}; {given.trials} trials find it:")
    for row in rows:
        print(f"{row['space']:18} {row['sampler']:7} in {row['found']} of {row['of']} seeds; worst {row['worst']:.4f}")


if __name__ == "__main__":
    main()
