"""Time and memory of NT-Xent, forwards and backwards: tiles against lightly's NTXentLoss and the dense form in torch.

python scripts/benchmarks/bench_infonce.py [--n 8192] [--d 128] [--repeats 5] [--json FILE]
python scripts/benchmarks/bench_infonce.py --large        # 65,536 pairs, tiles only

Rounds are interleaved, so that a slow moment of the machine affects all three; a ratio compares runs of one round. On a
CPU one thread. Extra memory is the rise of the peak above the inputs, each measured in its own process.
"""

import argparse
import importlib.util
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from figures import Row, add_json, row, spread, write
from torch import Tensor
from torch.nn import functional as F

from sslcli.objectives.losses.contrastive import nt_xent

TEMPERATURE = 0.2
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def dense(z1: Tensor, z2: Tensor) -> Tensor:
    """The usual few lines: all 2N x 2N logits, cross entropy."""
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    logits = (z @ z.T / TEMPERATURE).fill_diagonal_(-math.inf)
    return F.cross_entropy(logits, torch.arange(len(z), device=z.device).roll(len(z1)))


def tiles(z1: Tensor, z2: Tensor) -> Tensor:
    return nt_xent(z1, z2, TEMPERATURE)


def lightly() -> Callable[[Tensor, Tensor], Tensor]:
    from lightly.loss import NTXentLoss

    return NTXentLoss(temperature=TEMPERATURE)


def build(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    return {"tiles": lambda: tiles, "dense": lambda: dense, "lightly": lightly}[name]()


def inputs(n: int, d: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, d, generator=generator).to(DEVICE).requires_grad_() for _ in range(2)]


def step(loss: Callable[[Tensor, Tensor], Tensor], z: list[Tensor]) -> tuple[float, float, float]:
    """(seconds, value, norm of the gradient) of one forward and backward."""
    for leaf in z:
        leaf.grad = None
    start = time.perf_counter()
    value = loss(*z)
    value.backward()
    norm = torch.cat([leaf.grad for leaf in z]).norm().item()  # .item() waits for the device
    return time.perf_counter() - start, value.item(), norm


def peak() -> int:
    """Bytes: of the device, or resident on a processor."""
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss of a fresh process starts at that of its parent there
        (kilobytes,) = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(kilobytes) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure_alone(name: str, n: int, d: int) -> None:
    """Print what one step takes in this process. A small step first: libraries load and allocate their own."""
    loss = build(name)
    step(loss, inputs(16, d))
    z = inputs(n, d)
    if DEVICE == "cpu" and sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again, else what imports took hides a part
    before = peak()
    seconds, value, norm = step(loss, z)
    print(json.dumps({"seconds": seconds, "value": value, "norm": norm, "extra": peak() - before, "peak": peak()}))


def alone(name: str, n: int, d: int) -> dict[str, float]:
    """``measure_alone`` in a fresh process."""
    command = [sys.executable, __file__, "--alone", name, "--n", str(n), "--d", str(d)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def large(n: int, d: int) -> list[Row]:
    found = alone("tiles", n, d)
    where = "peak memory of the device" if DEVICE == "cuda" else "peak memory of the process, torch and inputs included"
    print(f"{n} pairs of dimension {d}: {found['seconds']:.1f} s, {found['peak'] / 1e6:.0f} MB {where}")
    print(
        f"extra over the inputs: {found['extra'] / 1e6:.0f} MB; logits alone would be {(2 * n) ** 2 * 4 / 1e9:.0f} GB"
    )
    return [
        row(f"nt_xent, {n} pairs: time", found["seconds"], "s"),
        row(f"nt_xent, {n} pairs: peak memory", found["peak"], "B"),
    ]


def compare(n: int, d: int, repeats: int) -> list[Row]:
    names = ["tiles", "dense"]
    if importlib.util.find_spec("lightly"):
        names.append("lightly")
    else:
        print("lightly is not installed and is left out; pip install lightly")
    losses, z = {name: build(name) for name in names}, inputs(n, d)
    for loss in losses.values():
        step(loss, inputs(256, d))
    rounds = [{name: step(losses[name], z) for name in names} for _ in range(repeats)]
    memory = {name: alone(name, n, d)["extra"] for name in names}
    print(f"{n} pairs, dimension {d}, float32, {DEVICE}, torch {torch.__version__}; min / median / max of {repeats}")
    rows = []
    for name in names:
        seconds = [r[name][0] for r in rounds]
        _, value, norm = rounds[0][name]
        took = f"{spread(seconds)} s"
        print(f"{name:8} {took:24} {memory[name] / 1e6:7.0f} MB   loss {value:.6f}, |grad| {norm:.6f}")
    for name in names[1:]:
        times = [r[name][0] / r["tiles"][0] for r in rounds]
        less = memory[name] / memory["tiles"]
        print(f"tiles are {spread(times)} times as fast as {name} and take {less:.0f} times less memory")
        title = f"nt_xent, {n} pairs, beside {name}"
        median = {who: statistics.median(r[who][0] for r in rounds) for who in ("tiles", name)}
        rows.append(row(f"{title}: time", median["tiles"], "s", median[name]))
        rows.append(row(f"{title}: memory", memory["tiles"], "B", memory[name]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, help="pairs; 8192, with --large 65536")
    parser.add_argument("--d", type=int, default=128, help="dimension of the embedding")
    parser.add_argument("--repeats", type=int, default=5)
    add_json(parser, "the dense form or lightly, median; none with --large")
    parser.add_argument("--large", action="store_true", help="tiles only, where no dense form fits into memory")
    parser.add_argument("--alone", choices=["tiles", "dense", "lightly"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    n = args.n or (65536 if args.large else 8192)
    if args.alone:
        measure_alone(args.alone, n, args.d)
        return
    rows = large(n, args.d) if args.large else compare(n, args.d, args.repeats)
    write(args.json, rows)


if __name__ == "__main__":
    main()
