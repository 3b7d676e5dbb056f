"""A step of SimCSE on one small BERT, against the library sentence-transformers: pairs per CPU-second.

python scripts/benchmarks/bench_simcse.py [--batch-size 128] [--repeats 7] [--json FILE]

Both train the same weights on the definitions of WordNet with the same loss (each text twice under dropout, the others
of the batch as negatives), with AdamW and gradients clipped to a norm of 1, in fp32. Ours is the trainer that ssl-train
runs, without and with length buckets. Theirs is the loop of their documentation: tokenise the texts of the batch, which
pads them to the longest, MultipleNegativesRankingLoss, step. Rounds are interleaved, and a ratio compares one round.
It needs the extra sentence_transformers.
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch
from bench_step import Step, our_step, our_trainer
from figures import Row, add_json, per_cpu_second, row, spread, write

from sslcli.data.published.wordnet_mini import Definitions

RUN = (
    "dataset=wordnet_mini", "encoder=text_transformer", "views=dropout", "objective.form=cross_view",
    "objective.symmetric=false", "objective.temperature=0.05", "objective.depth=0", "train.precision=fp32",
    "train.clip=1.0", "optimizer.lr=1e-4",
)  # fmt: skip


def sizes(args: argparse.Namespace) -> list[str]:
    model = [f"encoder.hidden_dim={args.width}", f"encoder.depth={args.depth}", "encoder.num_heads=4"]
    return [*RUN, *model, f"train.batch_size={args.batch_size}"]


def exported(args: argparse.Namespace, folder: Path) -> Path:
    """The folder of a model of this size, for their library."""
    run = f"run_dir={folder / 'run'}"
    train = ["train", *sizes(args), "train.steps=1", "probe=none", "log.report=false", "device.threads=1", run]
    export = ["export", f"run={folder / 'run'}", "format=sentence_transformers", f"output={folder / 'model'}"]
    for words in (train, export):
        subprocess.run([sys.executable, "-m", "sslcli", *words], check=True, stdout=subprocess.DEVNULL)
    return folder / "model"


def their_step(path: Path, batch: int) -> Step:
    """The loop of their documentation."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    model = SentenceTransformer(str(path), device="cpu").train()
    loss = MultipleNegativesRankingLoss(model)  # its scale is one over the temperature, 20
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    read = getattr(model, "preprocess", None) or model.tokenize  # its name before 6.0
    sentences = [row.text for row in Definitions().rows(Counter()) if row.part == "train"]
    order = random.Random(0)

    def step() -> None:
        chosen = order.sample(sentences, batch)
        features = [read(chosen) for _ in range(2)]
        loss(features, torch.zeros(batch)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--width", type=int, default=256, help="of the BERT")
    parser.add_argument("--depth", type=int, default=4, help="of the BERT")
    parser.add_argument("--steps", type=int, default=4, help="of a round")
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    add_json(parser, "sentence-transformers")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        steps = {
            "sentence-transformers": their_step(exported(args, Path(folder)), args.batch_size),
            "ours": our_step(our_trainer("cpu", *sizes(args))),
            "ours, dataset.buckets=50": our_step(our_trainer("cpu", *sizes(args), "dataset.buckets=50")),
        }
        found = per_cpu_second(steps, repeats=args.repeats, count=args.steps, samples=args.batch_size)
    theirs = found["sentence-transformers"]
    rows: list[Row] = []
    print(f"pairs per CPU-second: min / median / max of {args.repeats} rounds, and the ratio to sentence-transformers")
    for name, values in found.items():
        ratios = [ours / baseline for ours, baseline in zip(values, theirs)]
        print(f"{name:<26} {spread(values, 0):<22} {spread(ratios)}")
        if values is not theirs:
            rows.append(row(name, statistics.median(values), "pairs/CPU-s", statistics.median(theirs)))
    write(args.json, rows)


if __name__ == "__main__":
    sys.exit(main())
