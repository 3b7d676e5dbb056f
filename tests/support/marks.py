"""Marks of parametrized tests."""

import pytest


def rest_is_slow(values, *quick):
    """All ``values`` as parameters; those that are not ``quick`` run with ``pytest -m slow`` only."""
    values = list(values)
    assert set(quick) < set(values), "a quick value is none of them, or none is left to be slow"
    several = [value if isinstance(value, tuple) else (value,) for value in values]
    slow = [pytest.param(*row, marks=pytest.mark.slow) for row in several]
    return [value if value in quick else mark for value, mark in zip(values, slow)]
