"""Pictures decoded and cut to 224 x 224 on one thread: sslcli's two ways against Pillow's decode, crop and resize.

python scripts/benchmarks/bench_decode.py [--size 224] [--pictures 16] [--repeats 7] [--json FILE]

The pictures are smoothed noise with the JPEG sizes of photographs. All start from the file's bytes in memory and end in
a uint8 tensor. ``worker`` cuts the same random windows as Pillow, the ones of a RandomResizedCrop; ``device`` the
centred square, which the random crop then starts from on the device. Rounds are interleaved, so that a slow moment of
the machine affects all three; a ratio compares runs of one round. Time is CPU time on one thread.
"""

import argparse
import io
import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from figures import Row, add_json, row, spread, write
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from sslcli.data.pictures.decode import Window, decode, decode_crops

KINDS = {"500x375": (375, 500, 90), "1600x1200": (1200, 1600, 75)}  # height, width, JPEG quality


def photo(height: int, width: int, quality: int, seed: int) -> bytes:
    """A JPEG of noise at several scales, strong where it is coarse, as in photographs: 48 kB and 270 kB here."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.full((1, 3, height, width), 128.0)
    for scale, strength in ((64, 60), (16, 25), (4, 12), (2, 6), (1, 3)):
        noise = strength * torch.randn(1, 3, height // scale + 2, width // scale + 2, generator=generator)
        pixels += F.interpolate(noise, size=(height, width), mode="bilinear", align_corners=False)
    file = io.BytesIO()
    Image.fromarray(pixels[0].clamp(0, 255).byte().permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    return file.getvalue()


def random_window(height: int, width: int, generator: np.random.Generator) -> Window:
    """RandomResizedCrop's with its usual numbers: 8 to 100 % of the area, aspect ratio 3/4 to 4/3."""
    while True:
        area = height * width * generator.uniform(0.08, 1)
        ratio = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1)), h, w


def pillow(data: bytes, window: Window, size: int) -> Tensor:
    top, left, height, width = window
    image = Image.open(io.BytesIO(data)).convert("RGB").crop((left, top, left + width, top + height))
    return torch.from_numpy(np.array(image.resize((size, size), Image.Resampling.BILINEAR))).permute(2, 0, 1)


def device(data: bytes, window: Window, size: int) -> Tensor:
    return decode(data, size)


def worker(data: bytes, window: Window, size: int) -> Tensor:
    return decode_crops(data, lambda height, width: [window], [(size, size)])[0]


WAYS: dict[str, Callable[[bytes, Window, int], Tensor]] = {"pillow": pillow, "device": device, "worker": worker}


def rate(way: Callable[[bytes, Window, int], Tensor], pictures: list[tuple[bytes, Window]], size: int) -> float:
    """Pictures per second of the processor's time."""
    start = time.process_time()
    for data, window in pictures:
        way(data, window, size)
    return len(pictures) / (time.process_time() - start)


def compare(kind: str, size: int, count: int, repeats: int) -> list[Row]:
    height, width, quality = KINDS[kind]
    generator = np.random.default_rng(0)
    pictures = [(photo(height, width, quality, seed), random_window(height, width, generator)) for seed in range(count)]
    for way in WAYS.values():
        rate(way, pictures[:2], size)
    rounds = [{name: rate(way, pictures, size) for name, way in WAYS.items()} for _ in range(repeats)]
    kilobytes = statistics.mean(len(data) for data, _ in pictures) / 1000
    print(
        f"{kind}, {kilobytes:.0f} kB each, to {size} x {size}; pictures per CPU-second, min / median / max of {repeats}"
    )
    rows = []
    baseline = statistics.median(r["pillow"] for r in rounds)
    for name in WAYS:
        rates = [r[name] for r in rounds]
        ratios = [r[name] / r["pillow"] for r in rounds]
        print(f"  {name:8} {spread(rates, 0):>20}" + (f"   {spread(ratios, 2)} times" if name != "pillow" else ""))
        if name != "pillow":
            title = f"decode {kind} to {size}, {name}"
            rows.append(row(title, statistics.median(rates), "pictures/CPU-s", baseline))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="pixels a side of the result")
    parser.add_argument("--pictures", type=int, default=16, help="different ones of each kind")
    parser.add_argument("--repeats", type=int, default=7)
    add_json(parser, "Pillow")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for kind in KINDS for row in compare(kind, args.size, args.pictures, args.repeats)]
    write(args.json, rows)


if __name__ == "__main__":
    main()
