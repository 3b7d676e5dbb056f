"""Which other recommenders rank better than EASE: trials on the validation part of a split, in plain PyTorch.

    python scripts/benchmarks/beside_ease.py SPLIT.npz [--only ease softmax] [--seed 0] [--json FILE]

SPLIT.npz is what dataset.split_from takes; compare_recbole.py --split writes RecBole's. These models are no parts of
sslcli. They answer whether one of their ideas would be worth a part: all users and items fit into one matrix here, so a
trial takes seconds. NDCG and recall at 10 rank all items of the training part that the user does not have there.
"""

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from figures import Row, add_json, row, write
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.evaluation.rank_metrics import measures
from sslcli.graph import Lists

Model = Callable[[Tensor, int], Tensor]  # of the matrix X (users, items) of 1 and 0, and a seed: scores of that shape


def ease(x: Tensor, seed: int, *, penalty: float, dropout: float = 0.0, by_user: float = 0.0) -> Tensor:
    """EASE; with dropout EDLAE (Steck 2020); ``by_user`` weighs a user's squared error by n^-by_user."""
    weight = x.sum(1, keepdim=True) ** -by_user
    weighted = x.double() * (weight / weight.mean()).sqrt()
    gram = weighted.T @ weighted
    gram = gram + torch.diag(penalty + dropout / (1 - dropout) * gram.diagonal())
    inverse = torch.linalg.inv(gram)
    weights = (-inverse / inverse.diagonal()).fill_diagonal_(0)
    return (x.double() @ weights).float()


def ials(
    x: Tensor, seed: int, *, dim: int = 64, penalty: float, unseen: float, power: float = 1.0, rounds: int = 10
) -> Tensor:
    """Implicit ALS with penalties that grow with how often a user or item occurs (Rendle et al. 2022, equation 4)."""
    generator = torch.Generator().manual_seed(seed)
    users, items = (torch.randn(n, dim, generator=generator) * 0.1 / dim**0.5 for n in x.shape)
    of_user = penalty * (x.sum(1) + unseen * x.shape[1]) ** power
    of_item = penalty * (x.sum(0) + unseen * x.shape[0]) ** power
    for _ in range(rounds):
        users = _solved(x, items, of_user, unseen)
        items = _solved(x.T, users, of_item, unseen)
    return users @ items.T


def _solved(x: Tensor, others: Tensor, penalties: Tensor, unseen: float) -> Tensor:
    found = []
    for have, penalty in zip(x, penalties):
        seen = others[have.bool()]
        found.append(
            torch.linalg.solve(
                unseen * others.T @ others + seen.T @ seen + penalty * torch.eye(others.shape[1]), seen.sum(0)
            )
        )
    return torch.stack(found)


def trained(
    x: Tensor, parameters: list[Tensor], loss: Callable[[Tensor], Tensor], lr: float, epochs: int, falls: bool
) -> None:
    """Adam on batches of 64 users, with a rate that ``falls`` to 0 along a cosine or stays."""
    optimizer = torch.optim.Adam(parameters, lr=lr)
    total, step = epochs * math.ceil(len(x) / 64), 0
    for _ in range(epochs):
        for users in torch.randperm(len(x)).split(64):
            optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / total)) / 2 if falls else lr
            step += 1
            optimizer.zero_grad()
            loss(users).backward()
            optimizer.step()


def softmax(
    x: Tensor,
    seed: int,
    *,
    of_id: float = 1.0,
    of_items: float = 0.0,
    dropout: float = 0.5,
    others: bool = False,
    dim: int = 64,
    temperature: float = 0.2,
    lr: float = 0.003,
    epochs: int = 60,
) -> Tensor:
    """A softmax over all items of cosines, of a user's vector with those of the items.

    Args:
        of_id: weight of the user's own embedding in the user's vector.
        of_items: weight of a mean of embeddings of the user's items, some of which are dropped (SVD++, Mult-DAE).
        dropout: their share.
        others: whether an item competes with those only that the user does not have.
    """
    torch.manual_seed(seed)
    own, items, read = (nn.Parameter(torch.randn(n, dim) * 1e-3) for n in (*x.shape, x.shape[1]))

    def scores(users: Tensor, have: Tensor) -> Tensor:
        vector = of_id * own[users]
        if of_items:
            vector = vector + of_items * (have / have.sum(1, keepdim=True).clamp(min=1).sqrt()) @ read
        return F.normalize(vector, dim=1) @ F.normalize(items, dim=1).T / temperature

    def loss(users: Tensor) -> Tensor:
        have = x[users]
        logits = scores(users, have * (torch.rand_like(have) > dropout) if of_items else have)
        if others:
            rest = logits.masked_fill(have > 0, -1e9).logsumexp(1, keepdim=True)
            return -(have * F.logsigmoid(logits - rest)).sum() / have.sum()
        return -(have * F.log_softmax(logits, 1)).sum() / have.sum()

    trained(x, [own, items, read] if of_items else [own, items], loss, lr, epochs, falls=True)
    with torch.no_grad():
        return scores(torch.arange(len(x)), x)


def autoencoder(
    x: Tensor,
    seed: int,
    *,
    hidden: bool = True,
    linear: bool = False,
    dim: int = 200,
    lr: float = 0.001,
    epochs: int = 40,
) -> Tensor:
    """Mult-DAE (Liang et al. 2018): half of a user's items, a layer, a softmax; ``hidden``: of the other half."""
    torch.manual_seed(seed)
    read = nn.Parameter(torch.randn(x.shape[1], dim) * 0.1)
    items = nn.Parameter(torch.randn(x.shape[1], dim) * 0.1)
    bias, inner = nn.Parameter(torch.zeros(x.shape[1])), nn.Parameter(torch.zeros(dim))

    def scores(have: Tensor) -> Tensor:
        vector = F.normalize(have, dim=1) @ read + inner
        return (vector if linear else torch.tanh(vector)) @ items.T + bias

    def loss(users: Tensor) -> Tensor:
        have = x[users]
        kept = have * (torch.rand_like(have) > 0.5)
        truth = have - kept if hidden else have
        logits = scores(kept).masked_fill(kept > 0, -1e9) if hidden else scores(kept)
        each = (truth * F.log_softmax(logits, 1)).sum(1) / truth.sum(1).clamp(min=1)
        return -each.mean()

    trained(x, [read, bias, inner, items], loss, lr, epochs, falls=False)
    with torch.no_grad():
        return scores(x)


TRIALS: dict[str, list[tuple[str, Model]]] = {
    "ease": [
        *((f"EASE, lambda {p}", partial(ease, penalty=p)) for p in (100, 200, 300, 400, 600, 800)),
        *((f"EASE, lambda 300, error by n^-{u}", partial(ease, penalty=300, by_user=u)) for u in (0.25, 0.5)),
        *(
            (f"EDLAE, lambda {p}, dropout {d}", partial(ease, penalty=p, dropout=d))
            for p, d in ((100, 0.2), (100, 0.5), (200, 0.2), (200, 0.33), (30, 0.5), (10, 0.5))
        ),
    ],
    "ials": [
        (f"iALS, penalty {p}, unseen {u}", partial(ials, penalty=p, unseen=u))
        for p, u in ((0.003, 0.1), (0.01, 0.1), (0.03, 0.1), (0.003, 0.3), (0.01, 0.3), (0.03, 0.3))
    ],
    "softmax": [
        ("softmax, 100 epochs", partial(softmax, epochs=100)),
        ("softmax of the others, 100 epochs", partial(softmax, epochs=100, others=True)),
        ("softmax of the others, 128 wide, 100 epochs", partial(softmax, epochs=100, others=True, dim=128)),
        ("softmax, items only", partial(softmax, of_id=0.0, of_items=1.0, dropout=0.3)),
        *((f"softmax, id and items, dropout {d}", partial(softmax, of_items=1.0, dropout=d)) for d in (0.3, 0.5, 0.7)),
        ("softmax of the others, id and items", partial(softmax, of_items=1.0, others=True)),
        ("softmax, id and items, 128 wide", partial(softmax, of_items=1.0, dim=128)),
        *(
            (f"softmax, id and items, temperature {t}", partial(softmax, of_items=1.0, temperature=t))
            for t in (0.15, 0.25)
        ),
    ],
    "autoencoder": [
        ("Mult-DAE, all items, 20 epochs", partial(autoencoder, hidden=False, epochs=20)),
        ("Mult-DAE, hidden items", autoencoder),
        ("Mult-DAE, hidden items, linear, 60 epochs", partial(autoencoder, linear=True, epochs=60)),
    ],
}


def matrices(path: Path) -> tuple[Tensor, Tensor, Lists, Lists]:
    """Return X of the training part, unknown held-out items a user, and the items that are seen and to be found."""
    parts = np.load(path, allow_pickle=False)
    pairs = parts["train"].astype(str)
    places = [{word: i for i, word in enumerate(np.unique(pairs[:, side]).tolist())} for side in (0, 1)]
    users, items = (
        torch.tensor([place[word] for word in pairs[:, side].tolist()]) for side, place in enumerate(places)
    )
    asked = [(places[0][u], places[1].get(i, -1)) for u, i in parts["valid"].astype(str).tolist() if u in places[0]]
    held = torch.tensor(asked).T
    known, count = held[:, held[1] >= 0], len(places[0])
    x = torch.zeros(count, len(places[1])).index_put_((users, items), torch.ones(()))
    unknown = torch.bincount(held[0, held[1] < 0], minlength=count)
    return x, unknown, Lists.of(users, items, count), Lists.of(*known, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("split", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(TRIALS), default=list(TRIALS))
    parser.add_argument("--seed", type=int, default=0)
    add_json(parser, "EASE with lambda 300")
    args = parser.parse_args()
    torch.set_num_threads(1)
    x, unknown, seen, relevant = matrices(args.split)
    asked = torch.nonzero(relevant.lengths + unknown)[:, 0]

    def ndcg_and_recall(table: Tensor) -> tuple[float, float]:
        found, _ = measures(lambda part: table[part].clone(), seen, relevant, unknown, asked, x.shape[1], [10])
        return float(found["ndcg_at_10"].mean()), float(found["recall_at_10"].mean())

    baseline, _ = ndcg_and_recall(ease(x, 0, penalty=300))
    rows: list[Row] = []
    for name, model in (trial for kind in args.only for trial in TRIALS[kind]):
        start = time.process_time()
        table = model(x, args.seed)
        took = time.process_time() - start
        ndcg, recall = ndcg_and_recall(table)
        print(f"{name:<48} recall {recall:.4f}  NDCG {ndcg:.4f}  {took:.1f} CPU s", flush=True)
        rows.append(row(name, ndcg, "NDCG@10", baseline))
    write(args.json, rows)


if __name__ == "__main__":
    main()
