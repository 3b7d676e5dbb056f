"""Estimators of mutual information where the truth is known: 20 correlated Gaussian pairs, and their cubes.

python scripts/benchmarks/mi_benchmark.py [--quick] [--steps N] [--critics NAME ...] [--picture FILE] [--json FILE]

x ~ N(0, 1), y = rho x + sqrt(1 - rho^2) e in each of 20 dimensions, I = -10 log(1 - rho^2) nats; y^3 has the
same information (Poole et al. 2019, Song and Ermon 2020). One critic a row climbs the stairs 2, 4, 6, 8, 10
nats. Every batch is new, so each estimate before its update is on held-out pairs; the last fifth of a stair counts.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.objectives.losses import estimators as est
from sslcli.objectives.losses.critics import Concat, Separable
from sslcli.objectives.losses.densities import (
    ConditionalGaussian,
    club,
    gaussian_entropy,
    gaussian_information,
    leave_one_out,
)

DIM = 20
STAIRS = (2.0, 4.0, 6.0, 8.0, 10.0)
CRITICS = {"separable": Separable, "concat": Concat}
TRAINED = {"infonce": est.InfoNCE, "nwj": est.NWJ, "dv": est.DV, "mine": est.MINE, "jsd": est.JSD,
           "interpolated": est.Interpolated}  # fmt: skip
Draw = Callable[[int], tuple[Tensor, Tensor]]
Trace = dict[str, list[float]]  # estimates by name, one a step


def gaussians(nats: float, dim: int = DIM, power: int = 1) -> Draw:
    """Draws n pairs with that information."""
    rho = math.sqrt(1 - math.exp(-2 * nats / dim))

    def draw(n: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(n, dim)
        return x, (rho * x + math.sqrt(1 - rho**2) * torch.randn(n, dim)) ** power

    return draw


def climb(name: str, critic: str, stairs: list[Draw], args: argparse.Namespace) -> Trace:
    """Train one critic over the stairs; JSD's also gives SMILE's reading."""
    torch.manual_seed(args.seed)
    estimator = TRAINED[name]()
    f = CRITICS[critic](stairs[0](1)[0].shape[1], hidden_dim=args.hidden_dim)
    optimizer = torch.optim.Adam(f.parameters(), lr=5e-4)
    read = {name: estimator, **({"smile": est.SMILE()} if name == "jsd" else {})}
    trace: Trace = {reading: [] for reading in read}
    for draw in stairs:
        for _ in range(args.steps):
            scores = f(*draw(args.batch_size))
            for reading, reader in read.items():
                trace[reading].append(float(reader(scores.detach()).nats))
            loss = estimator(scores).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            estimator.update([scores.detach()])
    return trace


def climb_densities(stairs: list[Draw], args: argparse.Namespace) -> Trace:
    """One Gaussian q(y|x) and three readings, and the closed form on as many samples as ten batches hold."""
    torch.manual_seed(args.seed)
    dim = stairs[0](1)[0].shape[1]
    q = ConditionalGaussian(dim, hidden_dim=args.hidden_dim)
    optimizer = torch.optim.Adam(q.parameters(), lr=5e-4)
    trace: Trace = {"barber_agakov": [], "club": [], "leave_one_out": [], "gaussian": []}
    for draw in stairs:
        many = draw(10 * args.batch_size)
        for step in range(args.steps):
            x, y = draw(args.batch_size)
            log_q = q(x, y)
            with torch.no_grad():
                pairs = q.pairs(x, y)
                if step % 50 == 0:
                    many = draw(10 * args.batch_size)
                    closed, entropy = float(gaussian_information(*many, 0.0)), gaussian_entropy(many[1], 0.0)
                trace["barber_agakov"].append(float(entropy + log_q.mean()))
                trace["club"].append(float(club(pairs)))
                trace["leave_one_out"].append(float(leave_one_out(pairs)))
                trace["gaussian"].append(closed)
            optimizer.zero_grad()
            (-log_q.mean()).backward()
            optimizer.step()
    return trace


def settled(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation of the last fifth; not a number where e^f overflowed."""
    last = values[-max(len(values) // 5, 2) :]
    if not all(map(math.isfinite, last)):
        return math.nan, math.nan
    return statistics.mean(last), statistics.stdev(last)


def table(title: str, traces: Trace, args: argparse.Namespace) -> list[dict]:
    """Print estimator x truth, and give the rows for a file."""
    print(f"\n{title}\n\n| estimate in nats (bias) ± sd | " + " | ".join(f"I = {i:g}" for i in STAIRS) + " |")
    print("|" + "---|" * (len(STAIRS) + 1), flush=True)
    rows = []
    for name, trace in traces.items():
        cells = []
        for k, truth in enumerate(STAIRS):
            mean, sd = settled(trace[k * args.steps : (k + 1) * args.steps])
            if abs(mean) < 1e3:
                cells.append(f"{mean:.2f} ({mean - truth:+.2f}) ± {sd:.2f}")
            else:
                cells.append("diverged" if math.isnan(mean) else f"{mean:.1e} ± {sd:.1e}")
            value = None if math.isnan(mean) else mean
            rows.append({"name": f"{title}: {name} at {truth:g}", "value": value, "unit": "nats", "baseline": truth})
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return rows


def consistency(args: argparse.Namespace) -> list[dict]:
    """Independence, data processing and additivity (Song and Ermon 2020, section 5.2), separable critic, d = 10."""
    half = DIM // 2
    one, none, two = gaussians(2.0, half), gaussians(0.0, half), gaussians(4.0, DIM)

    def doubled(n: int) -> tuple[Tensor, Tensor]:
        x, y = one(n)
        return F.pad(x, (0, half)), torch.cat([y, y**3], 1)  # padded: critics take x and y of one width

    print("\nself-consistency\n\n| | I = 0 | I(X;[Y,Y^3]) / I(X;Y) | I of two pairs / I of one |\n|---|---|---|---|")
    rows = []
    for name in TRAINED:
        traces = [climb(name, "separable", [draw], args) for draw in (none, one, doubled, two)]
        for reading in traces[0]:
            zero, base, more, twice = (settled(trace[reading])[0] for trace in traces)
            cells = {"independence": (zero, 0, "nats"), "data processing": (more / base, 1, "ratio"),
                     "additivity": (twice / base, 2, "ratio")}  # fmt: skip
            print(f"| {reading} | {zero:.3f} | {more / base:.2f} | {twice / base:.2f} |", flush=True)
            rows += [{"name": f"{check}: {reading}", "value": None if math.isnan(value) else value,
                      "unit": unit, "baseline": truth}
                     for check, (value, truth, unit) in cells.items()]  # fmt: skip
    return rows


def draw_picture(panels: dict[str, Trace], path: Path, steps: int) -> None:
    """The staircases: one panel a setting, one line an estimator, the truth in black."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        print("No picture: matplotlib is missing; pip install matplotlib")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(panels), figsize=(4 * len(panels), 4), sharey=True, squeeze=False)
    width = max(steps // 20, 1)
    for axis, (title, traces) in zip(axes[0], panels.items()):
        for name, trace in traces.items():
            smooth = torch.tensor(trace).clamp(-2, 14)[None].unfold(1, width, 1).mean(2)[0]
            axis.plot(range(width - 1, len(trace)), smooth, label=name, linewidth=1)
        axis.step([k * steps for k in range(len(STAIRS) + 1)], [STAIRS[0], *STAIRS], color="black", linewidth=1)
        axis.legend(fontsize=7, loc="upper left")
        axis.set(title=title, xlabel="step", ylim=(-1, 13))
    axes[0][0].set_ylabel("nats")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4000, help="per stair")
    parser.add_argument("--quick", action="store_true", help="300 steps a stair, separable critic")
    parser.add_argument("--critics", nargs="+", choices=CRITICS, default=list(CRITICS))
    parser.add_argument("--estimators", nargs="+", choices=TRAINED, default=list(TRAINED))
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--hidden-dim", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.steps, args.critics = 300, ["separable"]
    began = time.time()
    rows, panels = [], {}
    for transform, power in (("gaussian", 1), ("cubic", 3)):
        stairs = [gaussians(nats, power=power) for nats in STAIRS]
        for critic in args.critics:
            title = f"{transform}, {critic}, {args.steps} steps a stair"
            panels[title] = {}
            for name in args.estimators:
                panels[title] |= climb(name, critic, stairs, args)
            rows += table(title, panels[title], args)
        title = f"{transform}, density models, {args.steps} steps a stair"
        panels[title] = climb_densities(stairs, args)
        rows += table(title, panels[title], args)
    rows += consistency(args)
    print(f"\n{time.time() - began:.0f} s")
    if args.picture:
        draw_picture(panels, args.picture, args.steps)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
