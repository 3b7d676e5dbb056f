"""A step of two processes (gloo) with the run's own sums of gradients against torch's DistributedDataParallel.

    python scripts/benchmarks/bench_ddp.py [--encoder resnet50_gn] [--repeats 20] [--json FILE]

Both train the same model on the same batch with InfoNCE over the rows of both processes, and have the same gradients,
which is checked first. Steps are interleaved, and a ratio compares the two steps of one round, each of them as slow as
its slower process. Every process computes in one thread.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable

import timm
import torch
import torch.distributed as dist
from figures import add_json, row, spread, write
from torch import Tensor, nn
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel

from sslcli.distributed.ranks import Ranks
from sslcli.objectives.losses.contrastive import info_nce
from sslcli.training.grad_cache import backward
from sslcli.training.strategy import DDP
from sslcli.types import Loss

SIZE = 2  # processes
Step = Callable[[], None]


def make_model(encoder: str) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(encoder, num_classes=0)
    return nn.Sequential(model, nn.Linear(model.num_features, 512), nn.ReLU(), nn.Linear(512, 128))


def loss_of(rows: Tensor) -> Tensor:
    """InfoNCE of (N, 2, 128), the projections of two views."""
    return info_nce(rows[:, 0], rows[:, 1], 0.2)


def our_gradients(model: nn.Module, views: Tensor, ranks: Ranks) -> Step:
    strategy = DDP(ranks)
    strategy.prepare([model])

    def step() -> None:
        backward(
            lambda m: {"z": model(views.flatten(0, 1)).unflatten(0, views.shape[:2])},
            lambda rows: Loss(loss_of(rows["z"]), {}),
            1,
            modules=[model],
            scale=lambda loss: loss,
            strategy=strategy,
        )

    return step


def gradients_of_torch(model: nn.Module, views: Tensor, ranks: Ranks) -> Step:
    wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True)

    def step() -> None:
        mine = wrapped(views.flatten(0, 1)).unflatten(0, views.shape[:2])
        rows = list(ranks.gather(mine).chunk(ranks.size))
        rows[ranks.rank] = mine
        (ranks.size * loss_of(torch.cat(rows))).backward()  # it takes the mean over the processes

    return step


def slower(step: Step, optimizer: torch.optim.Optimizer) -> float:
    """Seconds of a whole step in the slower process."""
    dist.barrier()
    started = time.perf_counter()
    step()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    taken = torch.tensor(time.perf_counter() - started)
    dist.all_reduce(taken, dist.ReduceOp.MAX)
    return float(taken)


def largest_difference(ours: nn.Module, theirs: nn.Module) -> float:
    """Of the gradients, as a share of the largest gradient of its parameter."""
    pairs = [(a.grad, b.grad) for a, b in zip(ours.parameters(), theirs.parameters())]
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-12)) for a, b in pairs if a is not None)


def measure(rank: int, args: argparse.Namespace, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=SIZE)
    ranks = Ranks(rank, SIZE)
    views = torch.randn(args.batch // SIZE, 2, 3, args.size, args.size, generator=torch.Generator().manual_seed(rank))
    steps: list[Step] = []
    models = [make_model(args.encoder) for _ in range(2)]
    for model, make in zip(models, (our_gradients, gradients_of_torch)):
        steps.append(make(model, views, ranks))
        steps[-1]()
    difference = largest_difference(*models)
    optimizers = [torch.optim.SGD(model.parameters(), 1e-4, 0.9, fused=True) for model in models]
    for _ in range(2):  # torch lays its buckets out anew after the first step
        seconds = [slower(step, optimizer) for step, optimizer in zip(steps, optimizers)]
    rounds = []
    for n in range(args.repeats):
        for k in (0, 1) if n % 2 else (1, 0):
            seconds[k] = slower(steps[k], optimizers[k])
        rounds.append(tuple(seconds))
    if rank == 0:
        report(args, models[0], rounds, difference)
    dist.destroy_process_group()


def report(args: argparse.Namespace, model: nn.Module, rounds: list[tuple[float, ...]], difference: float) -> None:
    ours, theirs = ([seconds[k] for seconds in rounds] for k in (0, 1))
    ratios = [a / b for a, b in rounds]
    size = sum(p.numel() for p in model.parameters()) / 1e6
    name = f"{args.encoder}, {size:.1f} M parameters, {args.size} px, batch {args.batch}"
    print(f"{name}; gradients differ by at most {difference:.1e} of the largest")
    print(f"seconds a step (min / median / max): ours {spread(ours, 3)}, DDP {spread(theirs, 3)}")
    print(f"ratio (min / median / max): {spread(ratios)}")
    rows = [row(f"step, {name}", statistics.median(ours), "s", statistics.median(theirs))]
    found = {"minimum": min(ratios), "median": statistics.median(ratios), "maximum": max(ratios)}
    write(args.json, rows + [row(f"ratio, {word}, {name}", value, "x DDP", 1.0) for word, value in found.items()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--encoder",
        default="resnet50_gn",
        help="a timm model without BatchNorm",
    )
    parser.add_argument("--size", type=int, default=32, help="pixels a side")
    parser.add_argument("--batch", type=int, default=32, help="samples a step, in both processes together")
    parser.add_argument("--repeats", type=int, default=20, help="pairs of steps")
    add_json(parser, "torch's DistributedDataParallel")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        start_processes(measure, (args, f"{folder}/store"), SIZE, start_method="fork")


if __name__ == "__main__":
    main()
