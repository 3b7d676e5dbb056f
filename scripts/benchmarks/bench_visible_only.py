"""How much faster a masked autoencoder's step is that encodes the visible patches only (objective.visible_only).

python scripts/benchmarks/bench_visible_only.py [--encoder NAME] [--size PIXELS] [--batch N] [--runs N] [--json FILE]

Both forms hide 75 % of the patches and take a whole step: masks, forward, backward, AdamW. They run by turns,
and each turn gives one ratio, so that a machine whose speed drifts does not decide the answer.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sslcli.encoders.timm import Timm
from sslcli.features import Features
from sslcli.objectives.simmim import SimMIM
from sslcli.randomness import Randomness
from sslcli.types import Field, Spec, View


def make_step(name: str, size: int, batch: int, device: torch.device, visible_only: bool) -> Callable[[], float]:
    """A function that takes one step and returns its seconds."""
    encoder = Timm(Spec(image=Field((3, size, size))), name=name)
    objective = SimMIM(encoder, mask="random", mask_ratio=0.75, visible_only=visible_only)
    modules = torch.nn.ModuleList([encoder, objective]).to(device).train()
    optimizer = torch.optim.AdamW(modules.parameters(), lr=1e-4)
    x = torch.randn(batch, 3, size, size, device=device)
    steps = iter(range(10**9))

    def step() -> float:
        begin = time.perf_counter()
        randomness = Randomness(0, next(steps), np.arange(batch), device)
        features = Features(encoder, [View(x, "image", target=x)], randomness)
        objective.loss(objective.project(features)).total.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="vit_small_patch16_224")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    full, visible = (make_step(args.encoder, args.size, args.batch, device, only) for only in (False, True))
    full(), visible()  # the first steps allocate
    pairs = [(full(), visible()) for _ in range(args.runs)]
    ratios = sorted(a / b for a, b in pairs)
    slow, fast = (statistics.median(times) for times in zip(*pairs))
    print(f"{args.encoder}, {args.size} px, batch {args.batch}, {args.threads} threads, {args.device}")
    print(f"full sequence {slow:.3f} s, visible only {fast:.3f} s a step (medians of {args.runs})")
    print(f"ratio: min {ratios[0]:.2f}, median {statistics.median(ratios):.2f}, max {ratios[-1]:.2f}")
    if args.json:
        seconds = {"name": "visible_only_step", "value": fast, "unit": "s", "baseline": slow}
        speedup = {"name": "visible_only_speedup", "value": statistics.median(ratios), "unit": "x", "baseline": 1.0}
        args.json.write_text(json.dumps([seconds, speedup], indent=1) + "\n")


if __name__ == "__main__":
    main()
