"""Steps of BPR on a table and on LightGCN, against a plain PyTorch loop: pairs per CPU-second.

python scripts/benchmarks/bench_recommendation.py [--path FILE] [--recbole WHEEL] [--batch-size 2048] [--steps 40]
[--json FILE]

Without FILE (what dataset=interactions reads) the interactions are drawn: users and items as many as in MovieLens-100k,
and as many pairs, some items much more popular. Ours is the trainer that ssl-train runs: its order of samples,
negatives that are never items of the user, loss, AdamW. The plain loop draws pairs and negatives at random, draws those
again that are items of the user, and multiplies by a sparse COO matrix, as is usual. Rounds are interleaved, and a
ratio compares one round.

With --recbole, the wheel of RecBole 1.2.1, a third in each round is an epoch of RecBole's own trainer (40 batches of
2,048) in a repaired copy, and all three train on its MovieLens-100k. See compare_recbole.py for what it needs.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from bench_step import Step, our_step, our_trainer
from compare_recbole import DATA, prepared, repaired
from figures import Row, add_json, per_cpu_second, row, spread, write
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.graph import Graph

MODELS = {"BPR": ("encoder.layers=0",), "LightGCN": ("encoder.layers=2",)}
RUN = ("encoder=nodes", "objective=bpr", "views=nodes", "probe=none", "train.precision=fp32", "optimizer.lr=2e-3")


def drawn(path: Path, users: int, items: int, pairs: int) -> Path:
    """A file of different pairs; the popularity of items falls as one over their rank."""
    generator = torch.Generator().manual_seed(0)
    weight = 1 / (torch.arange(items) + 20.0)
    chosen = torch.multinomial(weight.expand(users, -1), pairs // users, generator=generator)
    lines = [f"{u},{i}" for u, row_of in enumerate(chosen.tolist()) for i in row_of]
    path.write_text("\n".join(["user,item", *lines]) + "\n")
    return path


class Plain(nn.Module):
    """Embeddings, and LightGCN's layers by a sparse matrix."""

    def __init__(self, graph: Graph, layers: int, dim: int = 64) -> None:
        super().__init__()
        self.table, self.layers = nn.Embedding(graph.num_nodes, dim), layers
        nn.init.normal_(self.table.weight, std=0.1)
        both = torch.cat([graph.edges, graph.edges.flip(0)], 1)
        degree = torch.bincount(both[0], minlength=graph.num_nodes).clamp(min=1).float()
        size = (graph.num_nodes, graph.num_nodes)
        self.matrix = torch.sparse_coo_tensor(both, (degree[both[0]] * degree[both[1]]).rsqrt(), size).coalesce()

    def forward(self) -> Tensor:
        each = [self.table.weight]
        for _ in range(self.layers):
            each.append(torch.sparse.mm(self.matrix, each[-1]))
        return torch.stack(each, 1).mean(1) if self.layers else each[0]


def plain_step(graph: Graph, layers: int, batch: int) -> Step:
    torch.manual_seed(0)
    model = Plain(graph, layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    have = torch.zeros(graph.num_users, graph.num_nodes, dtype=torch.bool)
    have[graph.edges[0], graph.edges[1]] = True

    def step() -> None:
        user, item = graph.edges[:, torch.randint(graph.edges.shape[1], (batch,))]
        negative = torch.randint(graph.num_users, graph.num_nodes, (batch,))
        while (wrong := have[user, negative]).any():
            negative[wrong] = torch.randint(graph.num_users, graph.num_nodes, (int(wrong.sum()),))
        vectors = model()
        users, items, others = (F.embedding(ids, vectors) for ids in (user, item, negative))
        optimizer.zero_grad()
        (-F.logsigmoid((users * (items - others)).sum(1)).mean()).backward()
        optimizer.step()

    return step


def recbole_epoch(folder: Path, name: str) -> tuple[Callable[[], None], int]:
    """An epoch of RecBole's own trainer, and its pairs."""
    trainer, (train, _, _), _ = prepared(folder, name, lr=2e-3, epochs=1, seed=2020)

    def epoch() -> None:
        with contextlib.chdir(folder):
            trainer._train_epoch(train, 0, show_progress=False)

    return epoch, len(train._dataset)


def rounds(args: argparse.Namespace, folder: Path) -> dict[str, tuple[Callable[[], None], int]]:
    """What a round runs, by the names of the model and the library, and the pairs of each."""
    path = args.path
    if args.recbole is not None:
        repaired(args.recbole, folder)
        path = folder / DATA / "ml-100k" / "ml-100k.inter"
    elif path is None:
        path = drawn(folder / "pairs.csv", args.users, args.items, args.pairs)
    made: dict[str, tuple[Callable[[], None], int]] = {}
    for name, options in MODELS.items():
        data = ("dataset=interactions", f"dataset.path={path}", f"train.batch_size={args.batch_size}")
        trainer = our_trainer("cpu", *data, *RUN, *options)
        plain = plain_step(Graph.of(trainer.encoder.spec), trainer.encoder.layers, args.batch_size)
        for who, step in (("a plain loop", plain), ("ours", our_step(trainer))):
            made[f"{name}, {who}"] = repeated(step, args.steps), args.steps * args.batch_size
        if args.recbole is not None:
            made[f"{name}, RecBole"] = recbole_epoch(folder, name)
    return made


def repeated(step: Step, count: int) -> Callable[[], None]:
    def steps() -> None:
        for _ in range(count):
            step()

    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, help="interactions")
    parser.add_argument("--recbole", type=Path, metavar="WHEEL", help="compare with RecBole 1.2.1, too, on its data")
    parser.add_argument("--users", type=int, default=943, help="without --path")
    parser.add_argument("--items", type=int, default=1682, help="without --path")
    parser.add_argument("--pairs", type=int, default=100_000, help="without --path")
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=40, help="of a round")
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    add_json(parser, "the other loop")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # sparse matrices warn that their invariants are not checked, RecBole of much
    with tempfile.TemporaryDirectory() as folder:
        made = rounds(args, Path(folder))
        runs = {name: run for name, (run, _) in made.items()}
        found = per_cpu_second(runs, repeats=args.repeats, count=1, samples=1)  # rounds, not pairs
    speed = {name: [pairs * each for each in found[name]] for name, (_, pairs) in made.items()}
    print(f"pairs per CPU-second: min / median / max of {args.repeats} rounds, and the ratio of ours to the others'")
    rows: list[Row] = []
    for model in MODELS:
        ours = speed[f"{model}, ours"]
        print(f"{model + ', ours':<24} {spread(ours, 0)}")
        for name in (name for name in speed if name.startswith(f"{model}, ") and speed[name] is not ours):
            ratios = spread([a / b for a, b in zip(ours, speed[name])])
            print(f"{name:<24} {spread(speed[name], 0):<30} {ratios}")
            rows.append(row(name, statistics.median(ours), "pairs/CPU-s", statistics.median(speed[name])))
    write(args.json, rows)


if __name__ == "__main__":
    sys.exit(main())
