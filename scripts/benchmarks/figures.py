"""What the benchmark scripts share: a row of figures, the file that --json names, and a printed spread."""

import argparse
import json
import statistics
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
