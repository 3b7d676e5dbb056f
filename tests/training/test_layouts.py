"""1 x 64, 4 accumulated x 16, 2 processes x 32 and 2 x 2 x 16: the same loss, gradient, queue and teacher."""

import functools

import pytest
import torch
from support.forked import Forked
from support.helpers import TINY, make_trainer, randomness, two_ranks
from support.layouts import CASES, EXACT, MASKED, MEASURED, OF_VARIANTS, OF_YAMLS, UNEQUAL, config_of, one_of_two
from support.masks import unequal_masks

from sslcli.features import Features

CUT = ("4 x 16", "2 x 32", "2 x 2 x 16")
WRONG = ("wrong", "wrong, unequal masks")


def by_two_processes(folder, cases):
    """What each of two gloo processes finds, by layout and case."""
    for case in cases:
        config_of(MEASURED[case])  # composed here, once, it is kept in both
    entry = functools.partial(one_of_two, cases, folder)
    workers = [Forked(entry, "layouts", environment=ranks) for ranks in two_ranks()]
    said = [worker.communicate(timeout=400)[0] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers), said
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return by_two_processes(tmp_path_factory.mktemp("layouts"), OF_YAMLS)


@pytest.fixture(scope="module")
def ranks_of_variants(tmp_path_factory):
    return by_two_processes(tmp_path_factory.mktemp("layouts"), OF_VARIANTS)


def joined(ranks):
    """What is found of every case, by layout: by either process alone, or by the first of both together."""
    return {layout: ranks[1][layout] | ranks[0][layout] for layout in ranks[0]}


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


def assert_every_layout_is_the_same(measured, case):
    whole = measured["1 x 64"][case]
    assert any(name.startswith("gradient") and value.abs().max() > 1e-4 for name, value in whole.items())
    for layout in CUT:
        compare(measured[layout][case], whole, layout)


def assert_alike_to_the_bit(ranks, case):
    for layout in ("2 x 32", "2 x 2 x 16"):
        first, second = (rank[layout][case] for rank in ranks)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("case", [case for case in OF_YAMLS if case not in WRONG])
def test_every_layout_is_the_same_batch(measured, case):
    assert_every_layout_is_the_same(measured, case)


@pytest.mark.parametrize("case", OF_YAMLS)
def test_processes_stay_alike_to_the_bit(ranks, case):
    assert_alike_to_the_bit(ranks, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", OF_VARIANTS)
def test_every_layout_of_a_variant_is_the_same_batch(ranks_of_variants, case):
    assert_every_layout_is_the_same(joined(ranks_of_variants), case)
    assert_alike_to_the_bit(ranks_of_variants, case)


def test_the_masked_objectives_are_among_them():
    assert {"simmim", "joint", "joint_masked", "simmim of a ViT"} <= set(MASKED) <= set(CASES)
    assert {f"{name}, unequal masks" for name in MASKED} <= set(UNEQUAL)


@pytest.mark.parametrize("layout", CUT)
def test_a_mean_of_means_fails_the_comparison_where_masks_are_unequal(measured, layout):
    whole, cut = measured["1 x 64"], measured[layout]
    with pytest.raises(AssertionError, match=f"{layout}, loss"):
        compare(cut["wrong, unequal masks"], whole["wrong, unequal masks"], layout)
    compare(cut["wrong"], whole["wrong"], layout)  # equal masks, alone, would not find it out


@pytest.mark.parametrize("layout", CUT)
@pytest.mark.parametrize("name", ["loss", "gradient of encoder.trunk.0.weight", "objective.queue"])
def test_a_small_error_in_any_tensor_fails_the_comparison(measured, layout, name):
    whole = measured["1 x 64"]["moco"]
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
