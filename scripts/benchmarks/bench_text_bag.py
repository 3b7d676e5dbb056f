"""A training step of encoder=text_bag, whose mean is summed from the table, beside one that looks every token up first.

python scripts/benchmarks/bench_text_bag.py [--options KEY=VALUE ...] [--repeats 7] [--json FILE]

Both are steps of the trainer that ssl-train runs, on the definitions of WordNet or the data that --options names. The
baseline has the same weights and the same loss; it makes the embeddings (B, T, D) of all tokens, padding among them,
and averages those of the words. Rounds are interleaved, and a ratio compares one round.
"""

import argparse
import statistics
import sys

import torch
from bench_step import our_step, our_trainer
from figures import add_json, per_cpu_second, row, spread, write
from torch import Tensor

from sslcli.encoders.text import mean_of
from sslcli.encoders.text_bag import TextBag
from sslcli.types import Encoded, View

RUN = ("dataset=wordnet_mini", "encoder=text_bag", "views=token_crop", "train.precision=fp32")


class TokensFirst(TextBag):
    """The same mean, of tokens that are all there."""

    def forward(self, view: View, mask: Tensor | None = None) -> Encoded:
        tokens = self.tokens(view.x, view.valid)
        return Encoded(tokens, self._pooled(mean_of(tokens, view.valid)), view.valid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--bigrams", type=int, default=65536, help="rows of the table; 0 has none")
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY=VALUE", help="further options of ssl-train")
    parser.add_argument("--steps", type=int, default=2, help="of a round")
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    add_json(parser, "a look-up of every token")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [f"encoder.hidden_dim={args.width}", f"encoder.bigrams={args.bigrams or 'null'}"]
    options = [*RUN, *sizes, f"train.batch_size={args.batch_size}", *args.options]
    plain_trainer, trainer = our_trainer("cpu", *options), our_trainer("cpu", *options)
    plain_trainer.encoder.__class__ = TokensFirst
    steps = {"every token first": our_step(plain_trainer), "text_bag": our_step(trainer)}
    found = per_cpu_second(steps, repeats=args.repeats, count=args.steps, samples=args.batch_size)
    plain, ours = found.values()
    print(f"texts per CPU-second: min / median / max of {args.repeats} rounds, and the ratio to the first row")
    for name, values in found.items():
        print(f"{name:<18} {spread(values, 0):<24} {spread([value / first for value, first in zip(values, plain)])}")
    write(args.json, [row("text_bag", statistics.median(ours), "texts/CPU-s", statistics.median(plain))])


if __name__ == "__main__":
    sys.exit(main())
