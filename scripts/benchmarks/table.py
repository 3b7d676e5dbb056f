"""A markdown table of finished runs: the mean over the seeds of each run, with its standard error.

python scripts/benchmarks/table.py DIR_OF_SEEDS [DIR_OF_SEEDS ...]
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

CONTROLS = ("random_init", "raw_input", "centred", "pca64")


def percent(rows: list[dict], key: str) -> float:
    return 100 * statistics.mean(row[key] for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="folders with one run a seed")
    args = parser.parse_args()
    titles = ["run", "20-NN", "seeds", "random init", "raw", "centred", "PCA-64"]
    titles += ["whitened: trained", "random init", "raw", "training"]
    print(f"| {' | '.join(titles)} |")
    print("|" + "---|" * len(titles))
    for folder in args.folders:
        results = [json.loads(path.read_text()) for path in sorted(folder.glob("*/result.json"))]
        plain = [result["metrics"]["knn_top1"] for result in results]
        whitened = [result["metrics"]["knn_whitened_top1"] for result in results]
        protocols = {row["protocol"] for row in plain}
        if len(protocols) > 1:  # a probe that may take a share of training only reads fewer samples after a fast run
            sys.exit(f"{folder}: the probes differ, and so no mean says anything: {'; or '.join(sorted(protocols))}")
        values = [100 * row["value"] for row in plain]
        shown = f"**{statistics.mean(values):.2f}**"
        if len(values) > 1:
            shown += f" ± {statistics.stdev(values) / len(values) ** 0.5:.2f}"
        cells = [
            folder.name,
            shown,
            ", ".join(f"{v:.2f}" for v in values),
            *(f"{percent(plain, name):.2f}" for name in CONTROLS),
            *(f"{percent(whitened, name):.2f}" for name in ("value", "random_init", "raw_input")),
            f"{results[0]['steps']} steps, " + ", ".join(f"{r['seconds']:.0f}" for r in results) + " s",
        ]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
