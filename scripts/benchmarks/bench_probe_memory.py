"""The peak memory of kNN and linear probes, as a multiple of the bytes of one encoder's features.

    python scripts/benchmarks/bench_probe_memory.py [--samples 200000] [--width 2048] [--json FILE]

Each probe runs in a fresh process on features of two encoders, trained and random, which are made from small vectors.
The figure is the growth of the largest resident set from the moment before the probe to its end (getrusage), features
included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from figures import add_json, row, write

QUERIES, CLASSES, RAW = 500, 10, 16


def measured(probe: str, samples: int, width: int) -> dict[str, float]:
    """Run one probe in this process; return the growth as a multiple of the features' bytes, and the seconds."""
    import torch
    from torch import Tensor

    from sslcli.data.base import Columns
    from sslcli.encoders.base import Encoder
    from sslcli.evaluation.context import ProbeContext
    from sslcli.evaluation.knn import KNN
    from sslcli.evaluation.linear import Linear
    from sslcli.types import Compute, Encoded, Field, Spec, View
    from sslcli.views.base import PassThrough

    class Random(Encoder):
        """Random features of a vector."""

        def __init__(self, seed: int) -> None:
            super().__init__()
            self.dim = width
            self.register_buffer("weight", torch.randn(RAW, width, generator=torch.Generator().manual_seed(seed)))

        def forward(self, view: View, mask: Tensor | None = None) -> Encoded:
            rows = torch.relu(view.x @ self.weight)
            return Encoded(rows[:, None], rows)

    def vectors(count: int, seed: int) -> Columns:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(count) % CLASSES
        x = torch.randn(count, RAW, generator=generator) + torch.nn.functional.one_hot(labels, RAW)
        return Columns(spec, {"vector": x}, labels)

    spec = Spec(vector=Field("vector", (RAW,), torch.float32))
    dataset = vectors(samples, 0)
    dataset.held_out = vectors(QUERIES, 1)
    context = ProbeContext(
        dataset,
        {"trained": Random(0), "random_init": Random(1)},
        PassThrough(spec, spec, 1),
        Compute(torch.device("cpu"), torch.float32),
        pieces=lambda part, index: (part.fetch(piece) for piece in index.split(512)),
        copied=lambda name, drop_path: Random(0),
    )
    made = KNN(max_samples="all") if probe == "knn" else Linear(steps=10, labels=[1.0])
    start, before = time.perf_counter(), peaks()
    metrics = made(context)
    assert metrics
    growth = {name: (value - before[name]) / (4 * samples * width) for name, value in peaks().items()}
    return {**growth, "seconds": time.perf_counter() - start}


def peaks() -> dict[str, int]:
    """The largest resident set and the largest address space of this process so far, in bytes.

    A system may give back what was freed some time later, so that the resident set depends on the moment.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    names = {"resident": "VmHWM", "mapped": "VmPeak"}  # ru_maxrss of a fresh process starts at that of its parent
    return {name: int(fields[field].split()[0]) * 1024 for name, field in names.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=2048)
    add_json(parser, "the bytes of one encoder's features, which is 1")
    parser.add_argument("--probe", choices=["knn", "linear"], help="only this one, in this process")
    arguments = parser.parse_args()
    if arguments.probe:
        print(json.dumps(measured(arguments.probe, arguments.samples, arguments.width)))
        return
    rows = []
    for probe in ("knn", "linear"):
        command = [sys.executable, __file__, "--probe", probe]
        command += ["--samples", str(arguments.samples), "--width", str(arguments.width)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        print(f"{probe:8} {found['resident']:.2f} x the features' bytes, {found['seconds']:.0f} s")
        rows.append(row(f"{probe}, peak growth", found["resident"], "x the bytes of one encoder's features", 1.0))
    write(arguments.json, rows)


if __name__ == "__main__":
    main()
