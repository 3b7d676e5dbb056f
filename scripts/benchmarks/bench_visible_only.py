"""How much faster a masked autoencoder's step is if it encodes the visible patches only (objective.visible_only).

python scripts/benchmarks/bench_visible_only.py [--encoder NAME] [--size PIXELS] [--batch N] [--runs N] [--json FILE]

Both forms hide 75 % of the patches and take a whole step: masks, forward, backward, AdamW. Their steps alternate,
and each pair gives one ratio, so that a drift of the machine's speed does not decide the answer.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from figures import add_json, row, write

from sslcli.encoders.timm import Timm
from sslcli.features import Features
from sslcli.objectives.simmim import SimMIM
from sslcli.randomness import Randomness
from sslcli.types import Field, Spec, View


def make_step(name: str, size: int, batch: int, device: torch.device, visible_only: bool) -> Callable[[], float]:
    """A function that takes one step and returns its seconds."""
    encoder = Timm(Spec(image=Field("image", (3, size, size), torch.uint8)), name=name)
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
    add_json(parser, "the encoder that reads the full sequence; both are medians")
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
    seconds = row("visible_only_step", fast, "s", slow)
    write(args.json, [seconds, row("visible_only_speedup", statistics.median(ratios), "x", 1.0)])


if __name__ == "__main__":
    main()
