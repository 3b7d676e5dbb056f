"""Write sslcli/data/published/fashion_mnist_mini.xz from Fashion-MNIST's idx files (Debian: dataset-fashion-mnist).

    python scripts/tools/make_fashion_mnist_mini.py [FOLDER]

The file is one xz stream of 20,000 label bytes (10,000 train, 10,000 test) and then 20,000 28 x 28 uint8 images.
The train part is the first 1,000 images of each class, in file order; the test part is the whole test split.
"""

import argparse
import hashlib
import lzma
from pathlib import Path

import torch

from sslcli.data.published.fashion_mnist import DEBIAN, EMBEDDED
from sslcli.data.published.idx import read_idx


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=DEBIAN, help="where the idx files are")
    folder = parser.parse_args().folder
    train, test = (
        (read_idx(folder, f"{split}-labels-idx1-ubyte"), read_idx(folder, f"{split}-images-idx3-ubyte"))
        for split in ("train", "t10k")
    )
    first = torch.cat([(train[0] == label).nonzero()[:1000, 0] for label in range(10)]).sort().values
    labels = torch.cat([train[0][first], test[0]])
    images = torch.cat([train[1][first], test[1]])
    packed = lzma.compress(labels.numpy().tobytes() + images.numpy().tobytes(), preset=9 | lzma.PRESET_EXTREME)
    EMBEDDED.write_bytes(packed)
    print(f"{EMBEDDED.name}: {len(packed):,} bytes, sha256 {hashlib.sha256(packed).hexdigest()}")


if __name__ == "__main__":
    main()
