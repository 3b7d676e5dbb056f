"""Steps of BPR on a table and on LightGCN, against a plain PyTorch loop: pairs per CPU-second.

python scripts/benchmarks/bench_recommendation.py [--path FILE] [--batch-size 2048] [--steps 40] [--json FILE]

Without FILE (what dataset=interactions reads) the interactions are drawn: users and items as many as in MovieLens-100k,
and as many pairs, some items much more popular. Ours is the trainer that ssl-train runs: its order of samples,
negatives that are never items of the user, loss, AdamW. The plain loop draws pairs and negatives at random, draws those
again that are items of the user, and multiplies by a sparse COO matrix, as is usual. Rounds are interleaved, and a
ratio compares one round.
"""

import argparse
import statistics
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from bench_step import Step, our_step, our_trainer
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, help="interactions")
    parser.add_argument("--users", type=int, default=943, help="without --path")
    parser.add_argument("--items", type=int, default=1682, help="without --path")
    parser.add_argument("--pairs", type=int, default=100_000, help="without --path")
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=40, help="of a round")
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    add_json(parser, "the plain loop")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # sparse matrices warn that their invariants are not checked
    steps: dict[str, Step] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = args.path or drawn(Path(folder) / "pairs.csv", args.users, args.items, args.pairs)
        for name, options in MODELS.items():
            trainer = our_trainer(
                "cpu",
                "dataset=interactions",
                f"dataset.path={path}",
                *RUN,
                *options,
                f"train.batch_size={args.batch_size}",
            )
            graph = Graph.of(trainer.encoder.spec)
            steps[f"{name}, plain"] = plain_step(graph, trainer.encoder.layers, args.batch_size)
            steps[f"{name}, ours"] = our_step(trainer)
        found = per_cpu_second(steps, repeats=args.repeats, count=args.steps, samples=args.batch_size)
    rows: list[Row] = []
    print(f"pairs per CPU-second: min / median / max of {args.repeats} rounds, and the ratio to the plain loop")
    for name in MODELS:
        ours, plain = found[f"{name}, ours"], found[f"{name}, plain"]
        ratios = spread([a / b for a, b in zip(ours, plain)])
        print(f"{name:<10} plain {spread(plain, 0):<28} ours {spread(ours, 0):<28} {ratios}")
        rows.append(row(name, statistics.median(ours), "pairs/CPU-s", statistics.median(plain)))
    write(args.json, rows)


if __name__ == "__main__":
    sys.exit(main())
