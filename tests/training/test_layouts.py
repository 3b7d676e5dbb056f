"""1 x 64, 4 accumulated x 16, 2 processes x 32 and 2 x 2 x 16: the same loss, gradient, queue and teacher."""

import sys
from pathlib import Path

import pytest
import torch
from support import layouts
from support.helpers import start_two
from support.layouts import CASES, measure


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What two gloo processes find, by (micro-batches, rank)."""
    folder = tmp_path_factory.mktemp("layouts")
    workers = start_two([sys.executable, str(Path(layouts.__file__)), str(folder)])
    errors = [worker.communicate(timeout=400)[1] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers), errors
    return {(a, r): torch.load(folder / f"accumulate{a}-rank{r}.pt") for a in (1, 2) for r in (0, 1)}


def compare(found, expected, layout):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        largest = max(1.0, float(value.abs().max()))  # Barlow Twins' loss, a sum over dimensions, is in the hundreds
        torch.testing.assert_close(
            found[name], value, rtol=1e-5, atol=1e-5 * largest, msg=lambda m, n=name: f"{layout}, {n}: {m}"
        )


@pytest.mark.parametrize("case", CASES)
def test_every_layout_is_the_same_batch(two_processes, case):
    whole = measure(CASES[case])
    assert any(name.startswith("gradient") and value.abs().max() > 1e-4 for name, value in whole.items())
    compare(measure((*CASES[case], "train.accumulate=4")), whole, "4 x 16")
    compare(two_processes[1, 0][case], whole, "2 x 32")
    compare(two_processes[2, 0][case], whole, "2 x 2 x 16")


@pytest.mark.parametrize("case", CASES)
def test_processes_stay_alike_to_the_bit(two_processes, case):
    for accumulate in (1, 2):
        first, second = two_processes[accumulate, 0][case], two_processes[accumulate, 1][case]
        assert all(torch.equal(first[name], second[name]) for name in first)
