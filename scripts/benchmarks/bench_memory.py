"""Whether memory stays constant: train on a folder with workers and print the memory of all processes over time.

    python scripts/benchmarks/bench_memory.py --steps 2000 --workers 2

Proportional set size (shared pages are divided among those who share them), summed over the training
process and its workers, at a tenth of the run and at its end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from figures import add_json, row, write
from PIL import Image


def megabytes(pid: int) -> float:
    """Proportional set size of a process and its descendants."""
    total = 0.0
    for process in [pid, *descendants(pid)]:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return total


def descendants(pid: int) -> list[int]:
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return [found for child in children for found in (child, *descendants(child))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=2000)
    add_json(parser, "the memory after a tenth of the steps")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "pictures"
        folder.mkdir()
        generator = np.random.default_rng(0)
        for i in range(options.pictures):
            Image.fromarray(generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{i}.jpg")
        command = ["dataset=images", f"dataset.path={folder}", "dataset.size=32", f"dataset.workers={options.workers}",
                   "dataset.cache=none", f"train.steps={options.steps}", "train.batch_size=64", "log.every=10",
                   "probe=none", f"run_dir={place}/run", "device=cpu", "device.threads=1"]  # fmt: skip
        code = "from sslcli.cli import train; train()"
        process = subprocess.Popen([sys.executable, "-c", code, *command], stdout=subprocess.DEVNULL)
        seen: dict[int, float] = {}
        lines = Path(place) / "run" / "metrics.jsonl"
        while process.poll() is None:
            if lines.is_file() and (text := lines.read_text().splitlines()):
                seen[json.loads(text[-1])["step"]] = megabytes(process.pid)
            time.sleep(0.5)
        if process.returncode or len(seen) < 5:
            sys.exit(f"the run failed, or it was too short: {len(seen)} readings of its memory, 5 are needed")
    early = [value for step, value in seen.items() if options.steps / 10 <= step <= options.steps / 5]
    late = [value for step, value in seen.items() if options.steps * 0.9 <= step < options.steps]
    before, after = float(np.median(early)), float(np.median(late))
    print(f"memory after a tenth   {before:8.1f} MB\nmemory at the end      {after:8.1f} MB")
    print(f"ratio {after / before:.3f} over {options.steps} steps, {options.workers} workers")
    rows = [row("memory after a tenth", before, "MB"), row("memory at the end", after, "MB", before)]
    write(options.json, rows)


if __name__ == "__main__":
    main()
