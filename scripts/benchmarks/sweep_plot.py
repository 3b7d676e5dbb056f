"""Draw a sweep over one key and several seeds: the headline against the key, and against RankMe.

    ssl-train -m experiment=tune_temperature run_dir=temperature
    python scripts/benchmarks/sweep_plot.py temperature docs/temperature.png

On the left a bar is one standard error of the mean over seeds; on the right each run is a point. The correlation
between headline and RankMe, over all runs and over the means of the settings, is printed.
"""

import argparse
import statistics
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from figures import Row, add_json, row, write

from sslcli.sweeps.results import SEED, Setting, SweepResult, read_sweep


def values(setting: Setting, metric: str) -> list[float]:
    """The values of a metric, one a finished job."""
    return [job.run.metrics[metric].value for job in setting.jobs if job.run is not None and job.headline]


def draw(sweep: SweepResult, key: str, path: Path) -> None:
    settings = sorted(sweep.settings, key=lambda setting: setting.jobs[0].number)
    names = [setting.jobs[0].overrides[key] for setting in settings]
    metric = settings[0].metric
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
    means = [100 * setting.reading.value for setting in settings if setting.reading]
    errors = [100 * (setting.reading.standard_error or 0) for setting in settings if setting.reading]
    left.errorbar(names, means, errors, fmt="o", capsize=4, color="black")
    left.set(xlabel=key, ylabel=f"{metric}, %", title=f"mean of {len(settings[0].jobs)} seeds ± standard error")
    for name, setting in zip(names, settings):
        measured = [100 * value for value in values(setting, metric)]
        right.plot(values(setting, "rankme"), measured, "o", label=name)
    right.set(xlabel="RankMe, effective rank", title="one point a run")
    figure.legend(title=key.rpartition(".")[2], fontsize=8, loc="outside right upper")
    figure.savefig(path, dpi=110)


def correlation(x: list[float], y: list[float]) -> float:
    return statistics.correlation(x, y) if len(set(x)) > 1 and len(set(y)) > 1 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, help="the folder of the sweep")
    parser.add_argument("picture", type=Path, help="the PNG to write")
    add_json(parser, "random initialisation")
    args = parser.parse_args()
    sweep = read_sweep(args.sweep)
    if sweep is None:
        raise SystemExit(f"{args.sweep} is no sweep")
    (key,) = [name for name in sweep.varied if name != SEED]
    draw(sweep, key, args.picture)
    rows: list[Row] = []
    print(f"| {key} | seeds | mean, % | standard error of the mean | RankMe |\n|---|---|---|---|---|")
    for setting in sweep.settings:
        reading, name = setting.reading, setting.jobs[0].overrides[key]
        if reading is None:
            continue
        error = 100 * (reading.standard_error or 0)
        rank = statistics.fmean(values(setting, "rankme"))
        print(f"| {name} | {len(setting.jobs)} | {100 * reading.value:.2f} | {error:.2f} | {rank:.0f} |")
        untrained = 100 * reading.baselines["random_init"]
        rows.append(row(f"{key}={name} {setting.metric}", 100 * reading.value, "%", untrained))
    metric = sweep.settings[0].metric
    ranks = [values(setting, "rankme") for setting in sweep.settings]
    measured = [values(setting, metric) for setting in sweep.settings]
    over_runs = correlation(sum(ranks, []), sum(measured, []))
    over_means = correlation([*map(statistics.fmean, ranks)], [*map(statistics.fmean, measured)])
    print(f"correlation of {metric} with RankMe: {over_runs:.2f} over runs, {over_means:.2f} over settings")
    write(args.json, rows)


if __name__ == "__main__":
    sys.exit(main())
