"""How numbers, names and errors are worded, wherever they are."""

from __future__ import annotations

import pytest

from sslcli.run_dir.formatting import few, first_line, is_number
from sslcli.run_dir.measurements import with_error
from sslcli.run_dir.readings import Reading


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  one"), "one"),
        (NotImplementedError(), "NotImplementedError"),  # torch.export's, where it has no words for it
        (ValueError(" \n "), "ValueError"),
        (ValueError("x" * 500), "x" * 120),
    ],
)
def test_an_errors_first_line_is_never_empty_and_never_long(error, said):
    assert first_line(error) == said


def test_names_are_shown_where_they_are_few():
    assert few([]) == "" and few(["a", "b"]) == " (a, b)" and few(list("abcde")) == ""


def test_a_bool_is_no_number():
    assert [is_number(value) for value in (1, 0.5, float("nan"), True, "1", None)] == [True] * 3 + [False] * 3


def test_an_error_that_is_rounding_is_none():
    reading = Reading(0.8275862068965519, unit="share", higher_is_better=True, standard_error=1.8e-17)
    assert with_error(reading) == "82.76 %"
