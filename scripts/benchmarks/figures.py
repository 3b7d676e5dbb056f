"""What the benchmark scripts share: a row of figures, the file that --json names, and a printed spread."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

Row = dict[str, str | float | None]


def row(name: str, value: float | None, unit: str, baseline: float | None = None) -> Row:
    """One figure, and the figure of what it is compared with in the same unit; None where there is no such figure."""
    return {"name": name, "value": value, "unit": unit, "baseline": baseline}


def add_json(parser: argparse.ArgumentParser, baseline: str) -> None:
    """The option --json, whose help says what stands under ``baseline``."""
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"write the figures to FILE; baseline: {baseline}")


def write(path: Path | None, rows: list[Row]) -> None:
    """Write the list of rows to the file that --json named, if it named one."""
    if path is not None:
        path.write_text(json.dumps(rows, indent=1) + "\n")


def spread(values: list[float], digits: int = 2) -> str:
    """Minimum, median and maximum."""
    return " / ".join(f"{v:,.{digits}f}" for v in (min(values), statistics.median(values), max(values)))


def per_cpu_second(
    steps: Mapping[str, Callable[[], object]], *, repeats: int, count: int, samples: int
) -> dict[str, list[float]]:
    """Samples per processor second of steps of ``samples`` each, by name: interleaved rounds of ``count`` steps."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(repeats):
        for name, step in steps.items():
            start = time.process_time()
            for _ in range(count):
                step()
            found[name].append(count * samples / (time.process_time() - start))
    return found
