"""A batch of 64 whole, in 4 micro-batches, and on 2 and 4 processes: the same loss, gradient, queue and teacher."""

import functools

import pytest
import torch
from support.forked import Forked
from support.helpers import TINY, each_rank, make_trainer, randomness
from support.layouts import (
    CASES,
    EXACT,
    MASKED,
    MEASURED,
    OF_VARIANTS,
    OF_YAMLS,
    UNEQUAL,
    config_of,
    one_rank,
    shared_by,
)
from support.masks import unequal_masks

from sslcli.features import Features

CUT = ("4 micro-batches", *shared_by(2))
WRONG = ("wrong", "wrong, unequal masks")
# Of the yamls' objectives, those that between them have a queue, a teacher, statistics of the batch, masks, several
# terms, texts and a graph; the others and the variants are slow tests.
QUICK = ("infonce", "moco", "byol", "barlow_twins", "joint_masked, unequal masks", "simmim, unequal masks",
         "joint_layers", "masked_tokens", *WRONG)  # fmt: skip
REST = [case for case in (*OF_YAMLS, *OF_VARIANTS) if case not in QUICK]


def by_processes(folder, cases, size=2):
    """What each of several gloo processes finds, by layout and case."""
    for case in cases:
        config_of(MEASURED[case])  # composed here, once, it is kept in both
    entry = functools.partial(one_rank, cases, folder)
    workers = [Forked(entry, "layouts", environment=ranks) for ranks in each_rank(size)]
    said = [worker.communicate(timeout=400)[0] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers), said
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(size)]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return by_processes(tmp_path_factory.mktemp("layouts"), QUICK)


@pytest.fixture(scope="module")
def ranks_of_the_rest(tmp_path_factory):
    return by_processes(tmp_path_factory.mktemp("layouts"), REST)


def joined(ranks):
    """What is found of every case, by layout: by one process alone, or by the first of all together."""
    found = {layout: {} for layout in ranks[0]}
    for rank in reversed(ranks):
        for layout, cases in rank.items():
            found[layout] |= cases
    return found


@pytest.fixture(scope="module")
def measured(ranks):
    return joined(ranks)


def compare(found, expected, layout):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        largest = max(1.0, float(value.abs().max()))  # Barlow Twins' loss, a sum over dimensions, is in the hundreds
        torch.testing.assert_close(
            found[name], value, rtol=1e-5, atol=1e-5 * largest, msg=lambda m, n=name: f"{layout}, {n}: {m}"
        )


def assert_every_layout_is_the_same(measured, case, layouts=CUT):
    whole = measured["whole"][case]
    assert any(name.startswith("gradient") and value.abs().max() > 1e-4 for name, value in whole.items())
    for layout in layouts:
        compare(measured[layout][case], whole, layout)


def assert_alike_to_the_bit(ranks, case):
    for layout in shared_by(len(ranks)):
        first, *others = (rank[layout][case] for rank in ranks)
        for other in others:
            assert first.keys() == other.keys()
            assert all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("case", [case for case in QUICK if case not in WRONG])
def test_every_layout_is_the_same_batch(measured, case):
    assert_every_layout_is_the_same(measured, case)


@pytest.mark.parametrize("case", QUICK)
def test_processes_stay_alike_to_the_bit(ranks, case):
    assert_alike_to_the_bit(ranks, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", REST)
def test_every_layout_of_the_rest_is_the_same_batch(ranks_of_the_rest, case):
    assert_every_layout_is_the_same(joined(ranks_of_the_rest), case)
    assert_alike_to_the_bit(ranks_of_the_rest, case)


@pytest.mark.slow
def test_four_processes_are_one(tmp_path):
    ranks = by_processes(tmp_path, OF_YAMLS, 4)
    measured = joined(ranks)
    for case in OF_YAMLS:
        assert_alike_to_the_bit(ranks, case)
        if case not in WRONG:
            assert_every_layout_is_the_same(measured, case, shared_by(4))


def test_the_masked_objectives_are_among_them():
    assert {"simmim", "joint", "joint_masked", "simmim of a ViT"} <= set(MASKED) <= set(CASES)
    assert {f"{name}, unequal masks" for name in MASKED} <= set(UNEQUAL)


@pytest.mark.parametrize("layout", CUT)
def test_a_mean_of_means_fails_the_comparison_where_masks_are_unequal(measured, layout):
    whole, cut = measured["whole"], measured[layout]
    with pytest.raises(AssertionError, match=f"{layout}, loss"):
        compare(cut["wrong, unequal masks"], whole["wrong, unequal masks"], layout)
    compare(cut["wrong"], whole["wrong"], layout)  # equal masks, alone, would not find it out


@pytest.mark.parametrize("layout", CUT)
@pytest.mark.parametrize("name", ["loss", "gradient of encoder.trunk.0.weight", "objective.queue"])
def test_a_small_error_in_any_tensor_fails_the_comparison(measured, layout, name):
    whole = measured["whole"]["moco"]
    with pytest.raises(AssertionError, match=f"{layout}, {name}"):
        compare({**whole, name: whole[name] + 1e-3 * whole[name].abs().max()}, whole, layout)


def test_of_unequal_masks_every_hidden_pixel_counts_alike(tmp_path):
    """The loss is one sum over all hidden pixels of the batch over their number, here added up sample by sample."""
    with unequal_masks():
        trainer = make_trainer(tmp_path, *TINY, *EXACT, "objective=simmim")
    batch = next(trainer.loader.batches(0))
    loss, _ = trainer.gradients(batch)
    drawn = randomness(64)
    with torch.no_grad():
        made = trainer.objective.reconstruction(Features(trainer.encoder, trainer.views(batch[0], drawn), drawn), 0)
    error, count, counts = 0.0, 0, set()
    for prediction, target, hidden in zip(made.prediction, made.target, made.hidden):
        error += float((prediction - target)[:, hidden].abs().double().sum())
        count += len(target) * int(hidden.sum())
        counts.add(int(hidden.sum()))
    assert len(counts) > 1
    assert float(loss.total.detach()) == pytest.approx(error / count, rel=1e-5)
