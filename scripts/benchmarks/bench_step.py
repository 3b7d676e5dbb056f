"""One whole training step (data, views, forward, backward, optimizer) against the same step in other libraries.

python scripts/benchmarks/bench_step.py [--repeats 7] [--stem small] [--json FILE]  # two views, NT-Xent, ResNet-18
python scripts/benchmarks/bench_step.py --workload simmim --official DIR [--json FILE]  # masked images, a small ViT

Images are in memory as uint8, so decoding is not counted. Steps are interleaved and a ratio compares steps of one
round, so that a slow moment of the machine affects all. Ours is the trainer that ssl-train runs. DIR is a checkout of
https://github.com/microsoft/SimMIM; its model runs unchanged.
"""

import argparse
import importlib
import random
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import Row, add_json, row, spread, write
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms as T

from sslcli.cli import conf_dir
from sslcli.commands.build_trainer import make_trainer
from sslcli.components import build_components
from sslcli.config.composed import TrainConfig, resolved, schema
from sslcli.config.origin import settled
from sslcli.run_dir.console import Console
from sslcli.training.device import choose
from sslcli.training.trainer import Trainer

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LR = 1e-4  # of the ViT
Step = Callable[[], None]
QUIET = ("log.every=1000000000", "train.steps=1000000000", "checkpoint.every=1000000000", "schedule=constant")


def our_trainer(device: str, *overrides: str) -> Trainer:
    """What ``ssl-train *overrides`` trains with, at step 0."""
    ConfigStore.instance().store(name="schema", node=schema(TrainConfig))
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        words = [*QUIET, *overrides]
        config, _ = settled(resolved(compose("train", words), TrainConfig), words, {})
    compute = choose(device, config.train.precision)
    trainer = make_trainer(config, build_components(config), compute, Path(tempfile.gettempdir()), Console(silent=True))
    trainer.encoder.train()
    trainer.objective.train()
    return trainer


def our_step(trainer: Trainer) -> Step:
    batches = trainer.loader.batches(0)

    def step() -> None:
        trainer.train_step(next(batches))

    return step


def images(size: int, count: int) -> np.ndarray:
    """(count, size, size, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def pil_batches(
    data: np.ndarray, transform: Callable[[Image.Image], list[Tensor]], batch: int
) -> Iterator[list[Tensor]]:
    """Batches of each view in turn, made sample by sample from PIL images and stacked, as DataLoader does."""
    order = np.random.default_rng(0)
    while True:
        for index in order.permutation(len(data)).reshape(-1, batch):
            yield [torch.stack(views) for views in zip(*(transform(Image.fromarray(data[i])) for i in index))]


def autocast(bf16: bool) -> AbstractContextManager[None]:
    return torch.autocast("cpu", torch.bfloat16, enabled=bf16)


# --- two views of an image, NT-Xent, ResNet-18 ---------------------------------------------------------------


def resnet18(stem: str) -> nn.Module:
    from torchvision.models import resnet18 as torchvision_resnet18

    model = torchvision_resnet18()
    model.fc = nn.Identity()
    if stem == "small":
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
    return model


def ours_infonce(args: argparse.Namespace, precision: str, *more: str) -> Trainer:
    overrides = f"""
        encoder=resnet18 encoder.stem={args.stem} views=simclr views.blur=0 optimizer=sgd
        objective.temperature=0.5 objective.hidden_dim=512 objective.width=128"""
    return our_trainer("cpu", *common(args, precision), *overrides.split(), *more)


def common(args: argparse.Namespace, precision: str) -> list[str]:
    return f"""
        dataset=synthetic dataset.size={args.size} dataset.num_samples={4 * args.batch_size}
        train.batch_size={args.batch_size} train.precision={precision}""".split()


def lightly_step(args: argparse.Namespace, precision: str) -> Step:
    """The SimCLR example of lightly's documentation: a transform on PIL images, a pass for each view, SGD."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform

    model = nn.Sequential(resnet18(args.stem), SimCLRProjectionHead(512, 512, 128)).train()
    criterion = NTXentLoss(temperature=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06, momentum=0.9, weight_decay=5e-4)
    transform = SimCLRTransform(input_size=args.size, gaussian_blur=0.0)
    batches = pil_batches(images(args.size, 4 * args.batch_size), transform, args.batch_size)

    def step() -> None:
        x0, x1 = next(batches)
        with autocast(precision == "bf16"):
            z0, z1 = model(x0), model(x1)
        loss = criterion(z0.float(), z1.float())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def solo_step(args: argparse.Namespace, precision: str) -> Step:
    """The pattern of solo-learn: torchvision's transforms on PIL images, channels last, a pass for each view."""
    transform = T.Compose(
        [
            T.RandomResizedCrop(args.size, (0.08, 1.0), interpolation=T.InterpolationMode.BICUBIC),
            T.RandomApply([T.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
            T.RandomGrayscale(0.2),
            T.RandomHorizontalFlip(0.5),
            T.ToTensor(),
            T.Normalize(MEAN, STD),
        ]
    )
    head = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))
    model = nn.Sequential(resnet18(args.stem), head).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06, momentum=0.9, weight_decay=5e-4)
    data = images(args.size, 4 * args.batch_size)
    batches = pil_batches(data, lambda image: [transform(image), transform(image)], args.batch_size)
    pairs = torch.eye(args.batch_size, dtype=torch.bool).repeat(2, 2)
    positive, negative = pairs ^ torch.eye(len(pairs), dtype=torch.bool), ~pairs

    def step() -> None:
        views = [x.contiguous(memory_format=torch.channels_last) for x in next(batches)]
        with autocast(precision == "bf16"):
            z = torch.cat([model(x) for x in views])
        z = nn.functional.normalize(z.float(), dim=1)
        similarity = torch.exp(z @ z.T / 0.5)
        attracted = (similarity * positive).sum(1)
        loss = -torch.log(attracted / (attracted + (similarity * negative).sum(1))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


# --- masked images, a small ViT ------------------------------------------------------------------------------


def ours_simmim(args: argparse.Namespace, precision: str, *more: str) -> Trainer:
    overrides = f"""
        objective=simmim objective.mask_ratio=0.6 objective.mask_patch=4 views=simmim
        encoder=vit_tiny encoder.patch_size=4 optimizer.lr={LR}"""
    return our_trainer("cpu", *common(args, precision), *overrides.split(), *more)


def ours_fused(args: argparse.Namespace, precision: str) -> Step:
    """Ours with torch's fused attention throughout."""
    trainer = ours_simmim(args, precision)
    trainer.encoder.attentions = []  # which are then left as timm has them
    return our_step(trainer)


def official_models(folder: Path) -> Any:
    """The package ``models`` of the published code, without its Swin: that imports names that timm has dropped."""
    import timm.layers

    sys.modules.setdefault("timm.models.layers", timm.layers)  # where timm had them in 2021
    swin = types.ModuleType("models.swin_transformer")
    swin.SwinTransformer = nn.Module  # type: ignore[attr-defined]
    package = types.ModuleType("models")
    package.__path__ = [str(folder / "models")]
    sys.modules |= {"models": package, "models.swin_transformer": swin}
    return importlib.import_module("models.simmim")


def official_simmim(args: argparse.Namespace, precision: str) -> Step:
    """The published code: its model and loss, its mask and transform for each sample, AdamW."""
    code = official_models(args.official)
    encoder = code.VisionTransformerForSimMIM(
        img_size=args.size,
        patch_size=4,
        num_classes=0,
        embed_dim=192,
        depth=12,
        num_heads=3,
        mlp_ratio=4,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    model = code.SimMIM(encoder, encoder_stride=4).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.05)
    view = T.Compose(
        [
            T.RandomResizedCrop(args.size, (0.67, 1.0), (3 / 4, 4 / 3)),
            T.RandomHorizontalFlip(),
            T.ToTensor(),
            T.Normalize(MEAN, STD),
        ]
    )
    cells, side = (args.size // 4) ** 2, args.size // 4
    places = np.random.default_rng(0)

    def sample(image: Image.Image) -> list[Tensor]:
        mask = np.zeros(cells, dtype=int)
        mask[places.permutation(cells)[: int(np.ceil(cells * 0.6))]] = 1
        return [view(image), torch.from_numpy(mask.reshape(side, side))]

    batches = pil_batches(images(args.size, 4 * args.batch_size), sample, args.batch_size)

    def step() -> None:
        x, mask = next(batches)
        with autocast(precision == "bf16"):
            loss = model(x, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


# --- the comparison ------------------------------------------------------------------------------------------

Make = Callable[[argparse.Namespace, str], Step]
OURS: dict[str, Callable[..., Trainer]] = {"infonce": ours_infonce, "simmim": ours_simmim}
OTHERS: dict[str, dict[str, Make]] = {
    "infonce": {"lightly": lightly_step, "solo-learn's pattern": solo_step},
    "simmim": {"official code": official_simmim, "ours, fused attention": ours_fused},
}


def contestants(args: argparse.Namespace) -> dict[tuple[str, str], Step]:
    ours = OURS[args.workload]
    makers: dict[str, Make] = {"ours": lambda args, precision: our_step(ours(args, precision))}
    makers |= OTHERS[args.workload]
    if args.compile:
        makers["ours, compiled"] = lambda args, precision: our_step(ours(args, precision, "train.compile=true"))
    if args.official is None:
        makers.pop("official code", None)
    if args.only:
        makers = {name: make for name, make in makers.items() if name in ("ours", args.only)}
    return {(name, precision): make(args, precision) for name, make in makers.items() for precision in args.precisions}


def timed(step: Step) -> tuple[float, float]:
    """CPU seconds and wall seconds of one step."""
    cpu, wall = time.process_time(), time.perf_counter()
    step()
    return time.process_time() - cpu, time.perf_counter() - wall


def report(args: argparse.Namespace, rounds: list[dict[tuple[str, str], tuple[float, float]]]) -> list[Row]:
    print(
        f"{args.workload}, {args.size} px, batch {args.batch_size}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}; seconds a step, min / median / max of {len(rounds)} interleaved steps"
    )
    print(f"{'':34} {'CPU time':22} wall time")
    for name, precision in rounds[0]:
        cpu, wall = ([r[name, precision][k] for r in rounds] for k in (0, 1))
        print(f"{f'{name}, {precision}':34} {spread(cpu, 3):22} {spread(wall, 3)}")
    print("how many times as fast ours is (CPU time; wall time):")
    rows = []
    names = dict.fromkeys(name for name, _ in rounds[0] if name != "ours")
    for name, mine, theirs in product(names, args.precisions, args.precisions):
        pair = [(r[name, theirs], r["ours", mine]) for r in rounds]
        cpu, wall = ([t[k] / o[k] for t, o in pair] for k in (0, 1))
        print(f"{f'ours {mine} against {name} {theirs}':50} {spread(cpu):22} {spread(wall)}")
        value, baseline = (statistics.median(p[k][0] for p in pair) for k in (1, 0))
        title = f"{args.workload} step, {mine}, beside {name} in {theirs}: CPU time"
        rows.append(row(title, value, "s", baseline))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=list(OURS), default="infonce")
    parser.add_argument("--batch-size", type=int, help="256, and 64 for simmim")
    parser.add_argument("--size", type=int, default=32, help="pixels a side")
    parser.add_argument("--stem", choices=["small", "standard"], default="small", help="of the ResNet")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true", help="also measure ours with train.compile=true")
    parser.add_argument("--only", help="compare with the library of this name only")
    parser.add_argument("--official", type=Path, help="a checkout of microsoft/SimMIM")
    add_json(parser, "the other library; both are medians")
    args = parser.parse_args()
    args.batch_size = args.batch_size or {"infonce": 256, "simmim": 64}[args.workload]
    torch.set_num_threads(args.threads)
    random.seed(0)
    torch.manual_seed(0)
    steps = contestants(args)
    for step in steps.values():  # the first steps allocate, and compile
        step()
        step()
    rounds = [{who: timed(step) for who, step in steps.items()} for _ in range(args.repeats)]
    rows = report(args, rounds)
    write(args.json, rows)


if __name__ == "__main__":
    main()
