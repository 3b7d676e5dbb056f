"""Metrics of ranked lists against every order of the ties, a loop over a table, a table by hand, and chance."""

import itertools
import math

import pytest
import torch

from sslcli.evaluation.rank_metrics import NAMES, measures
from sslcli.graph import Lists
from sslcli.pretrained.recommend import best


def lists(*rows):
    """Lists of the given rows."""
    owner = [i for i, row in enumerate(rows) for _ in row]
    return Lists.of(
        torch.tensor(owner, dtype=torch.int64), torch.tensor([v for row in rows for v in row]).long(), len(rows)
    )


def measured(table, seen, relevant, cuts, unknown=None):
    table = torch.as_tensor(table, dtype=torch.float64)
    unknown = torch.zeros(len(table), dtype=torch.int64) if unknown is None else torch.tensor(unknown)
    return measures(
        lambda part: table[part].clone(), lists(*seen), lists(*relevant), unknown, torch.arange(len(table)),
        table.shape[1], cuts,
    )  # fmt: skip


def of_order(order, relevant, total, k):
    """The metrics of one list, by their definitions."""
    ranks = [rank for rank, item in enumerate(order[:k], 1) if item in relevant]
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, total) + 1))
    return {
        "ndcg": sum(1 / math.log2(rank + 1) for rank in ranks) / ideal,
        "recall": len(ranks) / total,
        "mrr": 1 / ranks[0] if ranks else 0.0,
        "hit": float(bool(ranks)),
        "precision": len(ranks) / k,
    }


def orders(scores, seen):
    """Every order of the ranked items in which no smaller score stands before a larger one."""
    ranked = [item for item in range(len(scores)) if item not in seen]
    return [o for o in itertools.permutations(ranked) if all(scores[a] >= scores[b] for a, b in zip(o, o[1:]))]


CASES = [
    ([3, 1, 1, 1, 0, 0], [], [1, 2], 0),
    ([1, 1, 1, 1, 1, 1], [], [0, 3, 4], 0),  # constant
    ([1, 1, 1, 1, 1, 1], [0, 1, 2, 3], [5], 0),  # fewer candidates than k
    ([0, 0, 2, 2, 2, 1], [2], [3, 0, 5], 2),  # one seen, two that training never saw
    ([5, 4, 3, 2, 1, 0], [], [2], 0),
    ([5, 4, 4, 4, 4, 0], [0], [5], 1),
    ([0, 0, 0, 2, 2, 2], [], [0, 1, 3, 4, 5], 0),
]


@pytest.mark.parametrize("k", [1, 2, 3, 4, 6, 10])
def test_ties_are_the_mean_over_every_order(k):
    found, coverage = measured(
        [case[0] for case in CASES], [case[1] for case in CASES], [case[2] for case in CASES], [k],
        [case[3] for case in CASES],
    )  # fmt: skip
    in_no_list = [1.0] * 6
    for i, (scores, seen, relevant, unknown) in enumerate(CASES):
        every = orders(scores, seen)
        for name in NAMES:
            expected = sum(of_order(o, relevant, len(relevant) + unknown, k)[name] for o in every) / len(every)
            assert float(found[f"{name}_at_{k}"][i]) == pytest.approx(expected, abs=1e-12), (name, i)
        for item in range(6):
            in_no_list[item] *= 1 - sum(item in o[:k] for o in every) / len(every)
    assert coverage[f"coverage_at_{k}"] == pytest.approx(sum(1 - p for p in in_no_list) / 6)


def test_a_table_computed_by_hand():
    """Four users, six items, k = 3, as RecBole defines the metrics; items to find are at the ranks in the comments."""
    scores = [
        [0.9, 0.8, 0.7, 0.6, 0.5, 0.4],  # 1 and 3 of two: (1 + 1/2) / (1 + 1/log2(3))
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],  # 2 of one: (1/log2(3)) / 1
        [0.6, 0.5, 0.4, 0.3, 0.2, 0.1],  # 4 of one: none
        [0.9, 0.1, 0.8, 0.2, 0.7, 0.3],  # item 0 is seen, so 1 of four: 1 / (1 + 1/log2(3) + 1/2)
    ]
    found, coverage = measured(scores, [[], [], [], [0]], [[0, 2], [4], [3], [1, 2, 3, 5]], [3])
    log = 1 / math.log2(3)
    assert found["ndcg_at_3"].tolist() == pytest.approx([1.5 / (1 + log), log, 0, (1 + 0.5) / (1.5 + log)])
    assert found["recall_at_3"].tolist() == pytest.approx([1, 1, 0, 2 / 4])
    assert found["mrr_at_3"].tolist() == pytest.approx([1, 1 / 2, 0, 1])
    assert found["hit_at_3"].tolist() == pytest.approx([1, 1, 0, 1])
    assert found["precision_at_3"].tolist() == pytest.approx([2 / 3, 1 / 3, 0, 2 / 3])
    assert coverage["coverage_at_3"] == pytest.approx(1)


@pytest.mark.parametrize("items", [4, 50])
def test_constant_scores_read_what_chance_reads(items):
    """Also with fewer items than k. Chance is the mean of what drawn scores read, for which nothing ties."""
    generator = torch.Generator().manual_seed(0)
    relevant, seen, draws = [[0, 3], [2]], [[], [1]], 4000
    constant, _ = measured(torch.ones(2, items), seen, relevant, [10])
    drawn, _ = measured(torch.rand(2 * draws, items, generator=generator), seen * draws, relevant * draws, [10])
    for name, value in constant.items():
        for user in (0, 1):
            sample = drawn[name][user::2]
            error = float(sample.std()) / draws**0.5
            assert abs(float(value[user]) - float(sample.mean())) < 4 * error + 1e-9, name


def test_chunks_and_several_cuts_change_nothing(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    table = torch.randint(0, 5, (9, 12), generator=generator)
    seen, relevant = [[i, i + 1] for i in range(9)], [[i + 2, (i + 5) % 12] for i in range(9)]
    whole, covered = measured(table, seen, relevant, [2, 5])
    monkeypatch.setattr("sslcli.pretrained.recommend._ELEMENTS", 24)
    parts, covered_in_parts = measured(table, seen, relevant, [2, 5])
    alone, _ = measured(table, seen, relevant, [5])
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert all(torch.equal(whole[name], alone[name]) for name in alone)
    assert covered == pytest.approx(covered_in_parts)


def test_the_best_items_are_those_of_a_sort():
    generator = torch.Generator().manual_seed(2)
    table = torch.randint(0, 6, (20, 15), generator=generator).double()
    table[table == 5] = -torch.inf
    table[3] = -torch.inf
    rows, items = best(table, 4)
    found = [items[rows == i].tolist() for i in range(20)]
    for i, row in enumerate(table.tolist()):
        order = sorted((item for item in range(15) if row[item] > -math.inf), key=lambda item: (-row[item], item))
        assert found[i] == order[:4]
