"""The parts of a training step on a GPU: rate, share of the matrix rate, memory, and the same model fed by PIL workers.

python scripts/benchmarks/bench_gpu.py [--compile] [--precision fp16] [--json FILE]      # one CUDA GPU, some minutes
python scripts/benchmarks/bench_gpu.py --device cpu --tiny            # a test of the script itself

The times of the parts are device times between events in its queue; "wait" is the time between the end of a step and
the start of the next; "host waits" are the times a step that the host waits for the GPU. The matrix rate is that of a
large bf16 product measured in the same run; a step's operations are counted by torch.utils.flop_counter, without those
of the views. Images are in memory as uint8. A batch that does not fit is halved.
"""

import argparse
import gc
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import bench_infonce
import numpy as np
import torch
from bench_step import MEAN, STD, images, our_trainer
from figures import Row, add_json, row, write
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms as T

from sslcli.randomness import Randomness
from sslcli.training.device import set_determinism
from sslcli.training.trainer import Trainer
from sslcli.types import View

PARTS = ("wait", "views", "forward", "backward", "optimizer")
MODELS = {"ResNet-50": "encoder=resnet50 optimizer=sgd", "ViT-B/16": "encoder=vit_base optimizer.lr=0.0001"}
TINY = {"ResNet-50": "encoder=resnet18 optimizer=sgd", "ViT-B/16": "encoder=vit_tiny optimizer.lr=0.0001"}
OBJECTIVES = {"InfoNCE": "objective=infonce views=simclr", "SimMIM": "objective=simmim views=simmim"}


class Marks:
    """Moments of the device's queue (of the host's clock on a CPU) by name, in their order."""

    def __init__(self, device: str) -> None:
        self.on_gpu = device == "cuda"
        self.names: list[str] = []
        self.moments: list = []

    def __call__(self, name: str) -> None:
        """What went before since the last mark is ``name``."""
        moment = torch.cuda.Event(enable_timing=True) if self.on_gpu else time.perf_counter()
        if self.on_gpu:
            moment.record()
        self.names.append(name)
        self.moments.append(moment)

    def milliseconds(self) -> dict[str, list[float]]:
        """Of every part, in each step."""
        if self.on_gpu:
            torch.cuda.synchronize()
        found: dict[str, list[float]] = {name: [] for name in PARTS}
        for name, before, after in zip(self.names[1:], self.moments, self.moments[1:]):
            found[name].append(before.elapsed_time(after) if self.on_gpu else 1000 * (after - before))
        return found


def watch(trainer: Trainer, marks: Marks) -> None:
    """Mark the ends of the parts of each step."""

    def then(act: Callable, name: str) -> Callable:
        def acted(*args, **kwargs):
            result = act(*args, **kwargs)
            marks(name)
            return result

        return acted

    def after(act: Callable, name: str) -> Callable:
        def acted(*args, **kwargs):
            marks(name)
            return act(*args, **kwargs)

        return acted

    trainer.views.register_forward_hook(lambda *_: marks("views"))
    trainer.objective.loss = then(trainer.objective.loss, "forward")  # type: ignore[method-assign]
    trainer.update = after(trainer.update, "backward")  # type: ignore[method-assign]
    trainer.train_step = after(then(trainer.train_step, "optimizer"), "wait")  # type: ignore[method-assign]


class Ready(nn.Module):
    """Views that workers have made."""

    def forward(self, columns: dict[str, Tensor], randomness: Randomness) -> list[View]:
        layout = torch.channels_last
        return [View(c.contiguous(memory_format=layout), "image", target=c) for c in columns.values()]


class PilViews(torch.utils.data.Dataset):
    """Samples transformed one by one from PIL images, as torchvision's examples do."""

    def __init__(self, data: np.ndarray, count: int, simclr: bool, size: int) -> None:
        self.data, self.count = data, count
        jitter = [
            T.RandomApply([T.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
            T.RandomGrayscale(0.2),
            T.RandomApply([T.GaussianBlur(size // 20 * 2 + 1, (0.1, 2.0))], p=0.5),
        ]
        scale = (0.08, 1.0) if simclr else (0.67, 1.0)
        self.transform = T.Compose(
            [
                T.RandomResizedCrop(size, scale),
                T.RandomHorizontalFlip(),
                *(jitter if simclr else []),
                T.ToTensor(),
                T.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        image = Image.fromarray(self.data[i])
        return {f"view{k}": self.transform(image) for k in range(self.count)}


def feed_by_pil(trainer: Trainer, args: argparse.Namespace, batch: int) -> Iterator[list[dict[str, Tensor]]]:
    """Give the trainer finished views from workers; the batches."""
    count = len(trainer.objective.reads)
    data = PilViews(images(args.source, 4 * batch), count, simclr=count == 2, size=args.size)
    loader = DataLoader(
        data, batch, shuffle=True, drop_last=True, num_workers=args.workers, pin_memory=args.device == "cuda",
        persistent_workers=True, prefetch_factor=4,
    )  # fmt: skip
    trainer.views = Ready()  # type: ignore[assignment]
    while True:
        for columns in loader:
            yield [{name: column.to(args.device, non_blocking=True) for name, column in columns.items()}]


def operations(trainer: Trainer, batch: list[dict[str, Tensor]]) -> int:
    """Floating point operations of one step, without the views'."""
    randomness = Randomness(0, 0, trainer.loader.positions(0), trainer.compute.device)
    with FlopCounterMode(display=False) as of_views:
        trainer.views(batch[0], randomness)
    with FlopCounterMode(display=False) as of_step:
        trainer.train_step(batch)
    return of_step.get_total_flops() - of_views.get_total_flops()


def measure(args: argparse.Namespace, overrides: str, batch: int, *, pil: bool) -> dict:
    """Milliseconds of every part, images a second, operations and memory of one workload."""
    trainer = our_trainer(
        args.device,
        *f"dataset=synthetic dataset.size={args.source} dataset.num_samples={4 * batch}".split(),
        *f"encoder.image_size={args.size} train.batch_size={batch} train.precision={args.precision}".split(),
        *f"train.compile={args.compile} {overrides}".split(),
    )
    batches = feed_by_pil(trainer, args, batch) if pil else trainer.loader.batches(0)
    flops = 0 if pil or args.compile else operations(trainer, next(batches))
    for _ in range(args.warm_up):
        trainer.train_step(next(batches))
    if args.device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    marks = Marks(args.device)
    watch(trainer, marks)
    start = time.perf_counter()
    for _ in range(args.steps):
        trainer.train_step(next(batches))
    parts = marks.milliseconds()
    seconds = (time.perf_counter() - start) / args.steps
    memory = torch.cuda.max_memory_allocated() if args.device == "cuda" else 0
    middle = {name: statistics.median(values) for name, values in parts.items()}
    found = {"parts": middle, "rate": batch / seconds, "seconds": seconds, "flops": flops, "memory": memory}
    return {**found, "waits": host_waits(trainer, batches) if args.device == "cuda" and not pil else 0}


def host_waits(trainer: Trainer, batches: Iterator[list[dict[str, Tensor]]], steps: int = 3) -> float:
    """How often the host waits for the GPU in a step; with fp16 once, for the scaler."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            for _ in range(steps):
                trainer.train_step(next(batches))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in found) / steps


def fitting(run: Callable[[int], dict], batch: int) -> tuple[int, dict]:
    """``run`` at the largest of batch, batch / 2, ... that the device has room for."""
    while True:
        try:
            return batch, run(batch)
        except torch.OutOfMemoryError:
            if batch < 4:
                raise
        batch //= 2
        free()


def free() -> None:
    gc.collect()
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def matrix_rate(device: str, side: int) -> float:
    """Operations a second of the product of two square bf16 matrices; the best of ten runs of ten."""
    a, b = (torch.randn(side, side, dtype=torch.bfloat16, device=device) for _ in range(2))
    best = 0.0
    for _ in range(10):
        marks = Marks(device)
        marks("")
        for _ in range(10):
            a @ b
        marks("wait")
        best = max(best, 10 * 2 * side**3 / (marks.milliseconds()["wait"][0] / 1000))
    return best


def contrastive(args: argparse.Namespace) -> list[Row]:
    """NT-Xent of many pairs, in tiles and dense."""
    bench_infonce.DEVICE = args.device
    rows = []
    print(f"\nNT-Xent forward and backward, D = 128, float32{'':12} seconds    MB over the inputs")
    for n in (64, 128) if args.tiny else (16384, 65536):
        found: dict[str, tuple[float, float]] = {}
        for name in ("tiles", "dense"):
            free()
            loss, z = bench_infonce.build(name), bench_infonce.inputs(n, 128)
            try:
                bench_infonce.step(loss, z)
                gpu = args.device == "cuda"
                before = torch.cuda.memory_allocated() if gpu else 0
                if gpu:
                    torch.cuda.reset_peak_memory_stats()
                seconds, _, _ = bench_infonce.step(loss, z)
                memory = torch.cuda.max_memory_allocated() - before if gpu else 0
                found[name] = (seconds, memory)
                print(f"{f'N = {n}, {name}':48} {seconds:10.4f} {memory / 1e6:12.0f}")
            except torch.OutOfMemoryError:
                print(f"{f'N = {n}, {name}':48} does not fit; its logits take {(2 * n) ** 2 * 4 / 1e9:.0f} GB")
        for k, unit in enumerate(("s", "B")):
            baseline = found["dense"][k] if "dense" in found else None
            name = f"gpu: nt_xent of {n} pairs beside dense, {unit}"
            rows.append(row(name, found["tiles"][k], unit, baseline))
    return rows


def models(args: argparse.Namespace, rate: float) -> tuple[list[Row], list[str]]:
    """Every workload, a line each; the rows, and the goals with what was reached."""
    head = "".join(f"{name:>10}" for name in PARTS)
    print(f"\n{'milliseconds a step':28}{'batch':>6}{head}{'images/s':>10}{'PIL fed':>9}{'rate':>7}{'GB':>7}")
    rows, goals = [], []
    allowed = 1 if args.precision == "fp16" else 0
    for objective, ours in OBJECTIVES.items():
        for model, encoder in (TINY if args.tiny else MODELS).items():
            name, overrides = f"{objective}, {model}", f"{ours} {encoder}"
            batch, found = fitting(partial(measure, args, overrides, pil=False), args.batch_size)
            free()
            _, fed = fitting(partial(measure, args, overrides, pil=True), batch)
            free()
            parts, share = found["parts"], found["flops"] / found["seconds"] / rate
            total = sum(parts.values())
            times = "".join(f"{parts[p]:10.2f}" for p in PARTS)
            numbers = f"{found['rate']:10.0f}{fed['rate']:9.0f}{share:7.1%}{found['memory'] / 1e9:7.1f}"
            print(f"{name:28}{batch:6}{times}{numbers}", flush=True)
            rows.append(row(f"gpu: {name}", found["rate"], "images/s", fed["rate"]))
            rows += [row(f"gpu: {name}, {p}", parts[p], "ms", fed["parts"][p]) for p in PARTS]
            rows.append(row(f"gpu: {name}, memory", found["memory"], "B"))
            rows.append(row(f"gpu: {name}, host waits", found["waits"], "a step"))
            kept = "reached" if found["waits"] <= allowed else "MISSED"
            goals.append(f"{kept:8} {name}: host waits for the GPU, at most {allowed} a step: {found['waits']:.1f}")
            goals.append(
                _goal(f"{name}: views under 5 % of the step", parts["views"] / total, parts["views"] < total / 20)
            )
            goals.append(_goal(f"{name}: wait under 2 %", parts["wait"] / total, parts["wait"] < total / 50))
            if found["flops"]:
                rows.append(row(f"gpu: {name}, of the matrix rate", share, ""))
            if found["flops"] and model == "ViT-B/16":
                goals.append(_goal(f"{name}: 50 % or more of the matrix rate", share, share >= 0.5))
    return rows, goals


def _goal(name: str, value: float, reached: bool) -> str:
    return f"{'reached' if reached else 'MISSED':8} {name}: {value:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small models and images: whether the script runs")
    parser.add_argument("--batch-size", type=int, help="256")
    parser.add_argument("--steps", type=int, help="measured; 20")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="that make views by PIL")
    parser.add_argument("--precision", choices=["bf16", "fp16", "fp32"], default="bf16", help="of the steps")
    parser.add_argument("--compile", action="store_true", help="train.compile=true")
    add_json(parser, "the model fed by PIL, or the dense loss")
    args = parser.parse_args()
    args.size, args.source = (32, 40) if args.tiny else (224, 256)
    args.batch_size = args.batch_size or (8 if args.tiny else 256)
    args.steps = args.steps or (3 if args.tiny else 20)
    args.warm_up = 1 if args.tiny else 8
    if args.device == "cpu":
        torch.set_num_threads(1)
    set_determinism(False)  # as ssl-train does: cuDNN picks its fastest
    rate = matrix_rate(args.device, 256 if args.tiny else 8192)
    name = torch.cuda.get_device_name() if args.device == "cuda" else "a processor, one thread"
    how = f"{args.precision}{', compiled' if args.compile else ''}"
    print(f"{name}, torch {torch.__version__}, {args.workers} CPUs, {how}")
    print(f"product of two {'tiny ' if args.tiny else ''}bf16 matrices: {rate / 1e12:.2f} Tflop/s")
    rows, goals = models(args, rate)
    rows += contrastive(args)
    rows.append(row("gpu: matrix rate, bf16", rate / 1e12, "Tflop/s"))
    print("\n" + "\n".join(goals))
    write(args.json, rows)


if __name__ == "__main__":
    main()
