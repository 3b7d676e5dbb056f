"""The probe of rankings: all items, seen ones left out, ties, unknown items, baselines and errors over users."""

from dataclasses import replace

import pytest
import torch
from support.helpers import make_context
from support.modalities import Towers, pairs_dataset, vector_dataset
from torch import nn

from sslcli.encoders.base import Encoder
from sslcli.errors import UserError
from sslcli.evaluation.base import headline, table
from sslcli.evaluation.ranking import Ranking
from sslcli.types import Encoded
from sslcli.views.base import PassThrough

USERS, ITEMS = 12, 9


class Nodes(Encoder):
    """A vector of each node from a table (N, D)."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)
        self.dim, self.token_dim, self.stride = table.shape[1], 0, 1

    def forward(self, view, mask=None):
        pooled = self.table[view.x]
        return Encoded(pooled[:, None], pooled)

    def item_vectors(self) -> torch.Tensor:
        return self.table[USERS:]


def taste(users=USERS, items=ITEMS) -> torch.Tensor:
    """Vectors that say which of the two blocks of taste a node is of, and a little of its own number."""
    block = nn.functional.one_hot(torch.cat([torch.arange(users), torch.arange(items)]) % 2, 2).float()
    own = torch.rand(users + items, 1, generator=torch.Generator().manual_seed(0))
    return torch.cat([block, 0.1 * own], 1)


def probed(trained=None, *, dataset=None, similarity="cosine", random=None, **keys):
    dataset = dataset or pairs_dataset()
    views = PassThrough(dataset.spec, dataset.spec, 2, columns=["user", "item"])
    encoders = {"trained": Nodes(taste() if trained is None else trained)}
    encoders |= {} if random is None else {"random_init": Nodes(random)}
    context = make_context(dataset, views, pieces=5, **encoders)
    context.similarity = similarity
    return Ranking(**keys)(context), context


def changed(dataset, **fields):
    dataset.held_out.rankings = replace(dataset.held_out.rankings, **fields)
    return dataset


def test_numbers_are_those_of_a_loop_over_users_and_items():
    dataset = pairs_dataset()
    vectors = torch.randn(USERS + ITEMS, 4, generator=torch.Generator().manual_seed(1))
    for similarity in ("dot", "cosine"):
        metrics, _ = probed(vectors, dataset=dataset, similarity=similarity, k=[2, 4])
        table = nn.functional.normalize(vectors, dim=1) if similarity == "cosine" else vectors
        rankings = dataset.held_out.rankings
        recalled, everything = [], set()
        for user in range(USERS):
            seen = set(rankings.seen.row(user).tolist())
            order = sorted(set(range(ITEMS)) - seen, key=lambda i: -float(table[user] @ table[USERS + i]))
            everything |= set(order[:2])
            recalled.append(float(int(rankings.relevant.row(user)[0]) in order[:2]))
        assert metrics["recall_at_2"].value == pytest.approx(sum(recalled) / USERS)
        error = torch.tensor(recalled).std(correction=0) / USERS**0.5
        assert metrics["hit_at_2"].standard_error == pytest.approx(float(error))
        assert metrics["coverage_at_2"].value == pytest.approx(len(everything) / ITEMS)
        assert metrics["recall_at_4"].value >= metrics["recall_at_2"].value


def test_taste_is_found_and_the_headline_is_ndcg_beside_its_baselines():
    metrics, context = probed(random=torch.rand(USERS + ITEMS, 3), k=[4, 2])
    assert headline(metrics) == "ndcg_at_4" and metrics["recall_at_4"].value == 1.0
    assert set(metrics["ndcg_at_4"].baselines) == {"random_init", "popularity", "itemknn", "ease"}
    assert metrics["ndcg_at_4"].gain_standard_error is not None
    assert "12 users" in metrics["ndcg_at_4"].protocol and "one item of each user" in metrics["ndcg_at_4"].protocol
    assert [note for note in context.notes if "popularity" in note and "ease" in note]
    assert "the same; the share" in "\n".join(table(metrics))


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_equal_vectors_read_what_constant_scores_read(similarity):
    """Each user finds one of n items that are not seen: among k of them with probability k / n."""
    one = torch.rand(1, 3, generator=torch.Generator().manual_seed(3)).expand(USERS + ITEMS, 3)
    metrics, context = probed(one.clone(), similarity=similarity, k=[2])
    left = ITEMS - context.queried.rankings.seen.lengths
    assert metrics["recall_at_2"].value == pytest.approx(float((2 / left.double()).clamp(max=1).mean()))


def test_items_that_training_never_saw_count_as_not_found():
    known, _ = probed(k=[4])
    unknown = torch.zeros(USERS, dtype=torch.int64)
    unknown[:3] = 1
    metrics, _ = probed(dataset=changed(pairs_dataset(), unknown=unknown), k=[4])
    assert metrics["recall_at_4"].value == pytest.approx(known["recall_at_4"].value - 3 * 0.5 / USERS)
    assert "3 held-out items that training never saw" in metrics["ndcg_at_4"].protocol


def test_users_of_unseen_items_only_count_as_0():
    known, _ = probed(k=[4], random=torch.rand(USERS + ITEMS, 3))
    metrics, _ = probed(dataset=changed(pairs_dataset(), lost=4), k=[4], random=torch.rand(USERS + ITEMS, 3))
    for name in ("ndcg", "recall", "mrr", "hit", "precision"):
        found, before = metrics[f"{name}_at_4"], known[f"{name}_at_4"]
        assert found.value == pytest.approx(before.value * USERS / (USERS + 4))
        assert found.baselines["ease"] == pytest.approx(before.baselines["ease"] * USERS / (USERS + 4))
    assert metrics["coverage_at_4"].value == known["coverage_at_4"].value
    error = torch.tensor([1.0] * USERS + [0.0] * 4).std(correction=0) / (USERS + 4) ** 0.5
    assert metrics["recall_at_4"].standard_error == pytest.approx(float(error))
    assert "for 16 users" in metrics["ndcg_at_4"].protocol and "4 users have only" in metrics["ndcg_at_4"].protocol
    some, _ = probed(dataset=changed(pairs_dataset(), lost=10**6), k=[4], max_samples=3)
    assert some["ndcg_at_4"].value == 0 and "3 of 1,000,012 users" in some["ndcg_at_4"].protocol


def test_users_without_held_out_items_are_not_asked():
    dataset = pairs_dataset()
    rankings = dataset.held_out.rankings
    kept = torch.arange(USERS) % 3 > 0
    lengths = torch.where(kept, 1, 0)
    relevant = replace(
        rankings.relevant,
        starts=torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
        values=rankings.relevant.values[kept],
    )
    metrics, _ = probed(dataset=changed(dataset, relevant=relevant), k=[4])
    assert metrics["recall_at_4"].value == 1.0 and f"{int(kept.sum())} users" in metrics["recall_at_4"].protocol


def test_some_of_the_users_are_the_same_users_for_all():
    metrics, _ = probed(max_samples=5, ease=None)
    assert "5 of 12 users" in metrics["ndcg_at_10"].protocol and "ease" not in metrics["ndcg_at_10"].baselines
    assert metrics["recall_at_10"].value == 1.0


def test_the_form_for_training_measures_no_fitted_baselines():
    dataset = pairs_dataset()
    views = PassThrough(dataset.spec, dataset.spec, 2, columns=["user", "item"])
    context = make_context(dataset, views, trained=Nodes(taste()))
    found = Ranking(k=[3]).cheap()(context)
    assert set(found["ndcg_at_3"].baselines) == {"popularity"} and not context.notes


def test_ease_is_left_out_where_its_matrix_is_large(monkeypatch):
    monkeypatch.setattr("sslcli.evaluation.ranking.MOST_ITEMS", ITEMS - 1)
    metrics, context = probed()
    assert "ease" not in metrics["ndcg_at_10"].baselines and "EASE is left out" in context.left_out[0]


def test_other_data_and_encoders_are_told_in_words():
    dataset = vector_dataset()
    context = make_context(dataset)
    assert Ranking()(context) == {} and "no held-out interactions" in context.left_out[0]
    dataset = pairs_dataset()
    views = PassThrough(dataset.spec, dataset.spec, 2, columns=["user", "item"])
    with pytest.raises(UserError, match="Towers has no vectors of items"):
        Ranking()(make_context(dataset, views, trained=Towers(dataset.spec)))
    with pytest.raises(ValueError, match="measures nothing"):
        Ranking(k=[])
