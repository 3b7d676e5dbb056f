"""Two SimCLR views of images in memory (uint8): sslcli's batched views against those of torchvision and kornia.

python scripts/benchmarks/bench_views.py [--repeats 7] [--json FILE]

Two settings: 32 px views of 32 px images without blur, and 224 px views of 256 px images with blur. All run the same
pipeline (random resized crop, flip, colour jitter, grayscale, blur, normalisation) and return a normalised float batch.
PIL's and torchvision's work sample by sample, kornia's and ours on the whole batch. Rounds are interleaved, so that a
slow moment of the machine affects all; a ratio compares runs of one round. Time is CPU time on one thread. What is
"compiled" is ours under torch.compile, after the batches in which it compiles.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count

import numpy as np
import torch
from figures import Row, add_json, row, spread, write
from PIL import Image
from torch import Tensor
from torchvision import transforms as v1
from torchvision.transforms import v2

from sslcli.randomness import Randomness
from sslcli.types import Field, Spec
from sslcli.views.image.pipeline import ImageViews

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROP, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
JITTER = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
SIGMA = (0.1, 2.0)
Make = Callable[[], list[Tensor]]
COMPILED = "compiled"  # ours
WARM_UP = 12  # batches; torch.compile gives up on a function that it has compiled eight times


@dataclass(frozen=True)
class Setting:
    name: str
    source: int  # pixels a side
    view: int
    batch: int
    blur: float


SETTINGS = (Setting("32 px", 32, 32, 128, 0.0), Setting("224 px, blur", 256, 224, 16, 0.5))


def images(setting: Setting) -> Tensor:
    """(B, 3, S, S) uint8, smooth as photographs are."""
    noise = torch.randn(setting.batch, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(noise, setting.source, mode="bicubic")
    return (128 + 50 * smooth).clamp(0, 255).byte()


def ours(setting: Setting, *, compiled: bool = False) -> Make:
    spec = Spec(image=Field("image", (3, setting.view, setting.view), torch.uint8, mean=MEAN, std=STD))
    options = {"scale": CROP, "ratio": RATIO, "flip": 0.5, "jitter": 0.8, "gray": 0.2, "blur": setting.blur, **JITTER}
    views = ImageViews(spec, spec, 2, blur_sigma=SIGMA, **options)
    views.with_target = False
    if compiled:
        torch._dynamo.reset()
        views.compile()
    x, steps = {"image": images(setting)}, count()
    positions = np.arange(setting.batch)

    def make() -> list[Tensor]:
        return [view.x for view in views(x, Randomness(0, next(steps), positions, torch.device("cpu")))]

    return make


def per_sample(transform: Callable, samples: list) -> Make:
    return lambda: [torch.stack([transform(sample) for sample in samples]) for _ in range(2)]


def blur(module: type, setting: Setting) -> Iterator[Callable]:
    if setting.blur:
        kernel = setting.view // 20 * 2 + 1
        yield module.RandomApply([module.GaussianBlur(kernel, SIGMA)], p=setting.blur)


def torchvision_on_pil(setting: Setting) -> Make:
    """The published way, and that of most code bases: one PIL image at a time."""
    transform = v1.Compose(
        [
            v1.RandomResizedCrop(setting.view, CROP, RATIO),
            v1.RandomHorizontalFlip(),
            v1.RandomApply([v1.ColorJitter(**JITTER)], p=0.8),
            v1.RandomGrayscale(0.2),
            *blur(v1, setting),
            v1.ToTensor(),
            v1.Normalize(MEAN, STD),
        ]
    )
    return per_sample(transform, [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in images(setting)])


def torchvision_on_tensors(setting: Setting) -> Make:
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(setting.view, CROP, RATIO, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(**JITTER)], p=0.8),
            v2.RandomGrayscale(0.2),
            *blur(v2, setting),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    return per_sample(transform, list(images(setting)))


def kornia(setting: Setting) -> Make:
    from kornia import augmentation as K

    kernel = setting.view // 20 * 2 + 1
    transform = torch.nn.Sequential(
        K.RandomResizedCrop((setting.view, setting.view), CROP, RATIO),
        K.RandomHorizontalFlip(p=0.5),
        K.ColorJitter(*JITTER.values(), p=0.8),
        K.RandomGrayscale(p=0.2),
        *([K.RandomGaussianBlur((kernel, kernel), SIGMA, p=setting.blur)] if setting.blur else []),
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    )
    x = images(setting)
    return lambda: [transform(x.float() / 255) for _ in range(2)]


OTHERS: dict[str, Callable[[Setting], Make]] = {
    COMPILED: partial(ours, compiled=True),
    "torchvision on PIL": torchvision_on_pil,
    "torchvision v2 on tensors": torchvision_on_tensors,
    "kornia": kornia,
}


@torch.no_grad()
def rate(make: Make, batch: int, seconds: float) -> float:
    """Images (each as two views) per second of the processor's time."""
    start, done = time.process_time(), 0
    while done == 0 or time.process_time() - start < seconds:
        make()
        done += batch
    return done / (time.process_time() - start)


def compare(setting: Setting, repeats: int, seconds: float, names: list[str]) -> list[Row]:
    ways = {"ours": ours(setting), **{name: OTHERS[name](setting) for name in names}}
    measure = partial(rate, batch=setting.batch, seconds=seconds)
    for name, make in ways.items():
        start = time.perf_counter()
        for _ in range(WARM_UP if name == COMPILED else 1):
            make()
        if name == COMPILED:
            print(f"{setting.name}: compiled in the first {WARM_UP} batches, {time.perf_counter() - start:.0f} s")
    rounds = [{name: measure(make) for name, make in ways.items()} for _ in range(repeats)]
    print(f"{setting.name}: images per CPU-second, min / median / max of {repeats}; how many times as fast ours is")
    rows = []
    for name in ways:
        rates, ratios = [r[name] for r in rounds], [r["ours"] / r[name] for r in rounds]
        print(f"  {name:26}{spread(rates, 0):>24}" + (f"    {spread(ratios, 1)}" if name != "ours" else ""))
        if name != "ours":
            value, baseline = (statistics.median(r[who] for r in rounds) for who in ("ours", name))
            title = f"two views, {setting.name}, beside {name}"
            rows.append(row(title, value, "images/CPU-s", baseline))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each library in each round")
    parser.add_argument("--without", nargs="*", default=[], choices=list(OTHERS), help="to leave out")
    add_json(parser, "the other library; both are medians")
    args = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for name in OTHERS if name not in args.without]
    rows = [row for setting in SETTINGS for row in compare(setting, args.repeats, args.seconds, names)]
    write(args.json, rows)


if __name__ == "__main__":
    main()
