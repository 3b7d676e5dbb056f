"""Draw what a run learned without labels: test images, each with its nearest training images.

python scripts/benchmarks/neighbours.py runs/NAME docs/neighbours.png
"""

import argparse

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

import sslcli
from sslcli.data.published.fashion_mnist import fashion_mnist_mini


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run directory, checkpoint or export")
    parser.add_argument("picture", help="the PNG file to write")
    args = parser.parse_args()
    encoder = sslcli.load(args.run)
    train = fashion_mnist_mini()
    test = train.held_out

    def embed(images: torch.Tensor) -> torch.Tensor:
        return F.normalize(torch.cat([encoder(part) for part in images.split(500)]), dim=1)

    queries = torch.arange(20, 36)  # not picked: sixteen in a row
    chosen = test.columns["image"][queries]
    nearest = (embed(chosen) @ embed(train.columns["image"]).T).topk(7).indices
    tile, gap = 28 * 2, 4
    rows = []
    for half in (slice(0, 8), slice(8, 16)):
        column = []
        for query, neighbours in zip(chosen[half], nearest[half]):
            cells = [query[0], *train.columns["image"][neighbours, 0]]
            cells = [np.kron(255 - cell.numpy(), np.ones((2, 2), np.uint8)) for cell in cells]
            spaced = [np.pad(cell, gap, constant_values=255) for cell in cells]
            spaced.insert(1, np.full((tile + 2 * gap, 2), 120, np.uint8))
            column.append(np.concatenate(spaced, axis=1))
        rows.append(np.concatenate(column, axis=0))
    space = np.full((rows[0].shape[0], 40), 255, np.uint8)
    Image.fromarray(np.concatenate([rows[0], space, rows[1]], axis=1)).save(args.picture, optimize=True)


if __name__ == "__main__":
    main()
