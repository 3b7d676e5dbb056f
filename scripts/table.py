"""A markdown table of finished runs: mean over the jobs of each sweep, with its standard error.

python scripts/table.py SWEEP_DIR [SWEEP_DIR ...]
"""

import json
import statistics
import sys
from pathlib import Path

COLUMNS = ("value", "random_init", "raw_input", "centred", "pca64")


def main() -> None:
    print("| run | 20-NN top-1 | random init | raw | centred | PCA-64 | seeds | training seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for sweep in map(Path, sys.argv[1:]):
        results = [json.loads(path.read_text()) for path in sorted(sweep.glob("*/result.json"))]
        rows = [result["metrics"]["knn_top1"] for result in results]
        values = [100 * row["value"] for row in rows]
        error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        means = [100 * statistics.mean(row[column] for row in rows) for column in COLUMNS]
        seconds = ", ".join(f"{result['seconds']:.0f}" for result in results)
        shown = f"{means[0]:.2f} ± {error:.2f} ({', '.join(f'{v:.2f}' for v in values)})"
        print(f"| {sweep.name} | {shown} | " + " | ".join(f"{m:.2f}" for m in means[1:]), end="")
        print(f" | {', '.join(str(result['seed']) for result in results)} | {seconds} |")


if __name__ == "__main__":
    main()
