"""Does every objective teach every family of encoders something in a few CPU minutes? kNN beside random weights.

    python scripts/benchmarks/family_table.py FOLDER                        # 48 runs on the embedded pictures
    python scripts/benchmarks/family_table.py FOLDER --data pictures dataset=images dataset.path=DIR dataset.size=32
    python scripts/benchmarks/family_table.py FOLDER --objectives infonce byol --encoders resnet18 --seeds 0

Each cell is a run of ``ssl-train`` with the defaults of its encoder and objective, and stands in its own folder:
finished runs are not run again. A cell's gain is the mean over the seeds of kNN accuracy minus that of the encoder's
random initialisation; its standard error treats the two accuracies as independent, so it is rather too large.
"""

import argparse
import json
import math
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import mean

from figures import Row, add_json, row, write

from sslcli.config.quoting import for_hydra

OBJECTIVES = ("infonce", "moco", "simmim", "joint", "infomax", "byol")
STEPS = {"resnet18": 100, "vit_tiny": 150, "convnext_tiny": 80, "swin_tiny": 80}  # one to three CPU minutes
COMMON = ("train.batch_size=32", "probe.max_samples=1000", "probe.whiten=0", "log.report=false", "device.threads=1")
SMALL_QUEUE = ("objective.queue=512",)


def command(encoder: str, objective: str, options: list[str], seed: int, steps: int) -> list[str]:
    """The words of one cell, without its folder."""
    queue = SMALL_QUEUE if objective == "moco" else ()
    chosen = [f"encoder={encoder}", f"objective={objective}", *options, f"seed={seed}", f"train.steps={steps}"]
    return [*chosen, *COMMON, *queue]


def measured(folder: Path, words: list[str]) -> dict[str, float] | None:
    """Run a cell unless it is finished; return accuracy, its standard error, and the accuracy of random weights."""
    result = folder / "result.json"
    if not result.is_file():
        line = ["ssl-train", *words, for_hydra("run_dir", folder)]
        print("$", shlex.join(line), flush=True)
        if subprocess.run(line, stdout=subprocess.DEVNULL).returncode:
            return None
    found = json.loads(result.read_text())["metrics"]["knn_top1"]
    return {name: found[name] for name in ("value", "random_init", "standard_error")}


def gain(cells: list[dict[str, float]]) -> tuple[float, float]:
    """The mean gain over random weights in points, and its standard error."""
    differences = [100 * (cell["value"] - cell["random_init"]) for cell in cells]
    variances = [2 * (100 * cell["standard_error"]) ** 2 for cell in cells]
    return sum(differences) / len(cells), math.sqrt(sum(variances)) / len(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the runs stand")
    parser.add_argument(
        "--data", nargs="+", default=["mini"], metavar="NAME", help="its name, and KEY=VALUE of its config"
    )
    parser.add_argument("--objectives", nargs="+", default=OBJECTIVES)
    parser.add_argument("--encoders", nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument(
        "--options",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="further options of each run, in a FOLDER of their own",
    )
    parser.add_argument("--steps", type=int, help="instead of the number for the encoder")
    add_json(parser, "random initialisation")
    args = parser.parse_args()
    name, *data = args.data
    if "=" in name or (name == "mini") != (not data):
        parser.error("--data takes a name and then the config of the data, KEY=VALUE ...; mini needs none")
    options = [*data, *args.options]
    rows: list[Row] = []
    lines = []
    for encoder in args.encoders:
        for objective in args.objectives:
            cells = []
            for seed in args.seeds:
                words = command(encoder, objective, options, seed, args.steps or STEPS[encoder])
                cell = measured(args.folder / name / f"{encoder}-{objective}-{seed}", words)
                cells += [cell] if cell else []
            if len(cells) < len(args.seeds):
                lines.append(f"| {encoder} | {objective} | failed | | |")
                continue
            points, error = gain(cells)
            trained, untrained = (100 * mean(cell[key] for cell in cells) for key in ("value", "random_init"))
            verdict = "above" if points > 2 * error else "below" if points < -2 * error else "no difference"
            numbers = f"{trained:.1f} | {untrained:.1f} | {points:+.1f} ± {error:.1f}, {verdict}"
            lines.append(f"| {encoder} | {objective} | {numbers} |")
            rows.append(row(f"{name} {encoder} {objective}", trained, "% kNN", untrained))
    print("| encoder | objective | trained | random weights | gain |\n|---|---|---|---|---|")
    print("\n".join(lines))
    write(args.json, rows)


if __name__ == "__main__":
    sys.exit(main())
