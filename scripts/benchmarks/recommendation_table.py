"""Ranking on the test part by recommenders whose settings were chosen on the validation part, several seeds each.

    python scripts/benchmarks/recommendation_table.py FOLDER --path ml-100k.csv [--split-from FILE.npz] [--seeds 0 1 2]
    [--rows bpr lightgcn ...] [--options KEY=VALUE ...] [--json FILE]

Each run of ``ssl-train`` stands in FOLDER/ROW-SEED, and a finished one is not made again. The error is that of the mean
over seeds, which change the initial weights, the order and the negatives; a single reading has the standard error over
users that is printed beside it. The difference to EASE is paired by user where EASE is the best baseline.
"""

import argparse
import json
import math
import resource
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

from figures import Row, add_json, row, write

METRICS = ("recall_at_10", "ndcg_at_10")
COMMON = "train.precision=fp32 device=cpu device.threads=1 log.report=false optimizer.weight_decay=0"
GRAPH = "encoder.layers=2 encoder.std=0.1 optimizer.lr=0.01 train.batch_size=2048"
ROWS = {
    "bpr": (
        "objective=bpr objective.negatives=4 objective.l2=0.01 optimizer.lr=0.005 train.batch_size=1024 train.epochs=30"
    ),
    "lightgcn": f"objective=bpr {GRAPH} train.epochs=40",
    "infonce": "objective=infonce_nodes encoder.std=0.001 optimizer.lr=0.01 train.batch_size=1024 train.epochs=10",
    "xsimgcl": (
        "objective=joint_layers views.noise=all encoder.layers=2 encoder.layer_0=false encoder.std=1.0 "
        "encoder.noise=0.1 objective.weights.user=0.03 objective.weights.item=0.03 optimizer.lr=0.01 "
        "train.batch_size=2048 train.epochs=40"
    ),
}


def trained(folder: Path, options: list[str]) -> tuple[dict, float]:
    """Train a run unless it is finished; return its metrics, and the processor seconds of the command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if not (folder / "result.json").is_file():
        words = ["dataset=interactions", *options, *COMMON.split(), f"run_dir={folder}"]
        print("$ ssl-train", shlex.join(words), flush=True)
        command = [sys.executable, "-m", "sslcli", "train", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads((folder / "result.json").read_text())["metrics"], seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the runs")
    parser.add_argument("--path", required=True, help="the table of interactions")
    parser.add_argument("--split-from", help="a split that somebody else has made; else at random, seed 0")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--options", nargs="+", default=[], help="of ssl-train, after those of each row")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add_json(parser, "EASE")
    args = parser.parse_args()
    data = [f"dataset.path={args.path}"] + ([f"dataset.split_from={args.split_from}"] if args.split_from else [])
    rows: list[Row] = []
    for name in args.rows:
        found, seconds = [], []
        for seed in args.seeds:
            folder = args.folder / f"{name}-{seed}"
            metrics, took = trained(folder, [*data, *ROWS[name].split(), *args.options, f"seed={seed}"])
            found.append(metrics)
            seconds.append(took)
        for metric in METRICS:
            values = [each[metric]["value"] for each in found]
            error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
            first = found[0][metric]
            baselines = ", ".join(f"{word} {first[word]:.4f}" for word in ("popularity", "itemknn", "ease"))
            print(
                f"{name:<9} {metric:<13} {statistics.mean(values):.4f} ± {error:.4f} over seeds, "
                f"± {first['standard_error']:.4f} over users, {values[0] - first['ease']:+.4f} ± "
                f"{first['gain_standard_error']:.4f} against the best baseline with the first seed; {baselines}; "
                f"{statistics.mean(seconds):.0f} CPU s",
                flush=True,
            )
            rows.append(row(f"{name} {metric}", statistics.mean(values), "share", first["ease"]))
    write(args.json, rows)


if __name__ == "__main__":
    main()
