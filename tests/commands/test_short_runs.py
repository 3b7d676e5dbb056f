"""The start line of a run that is as short as one that did not pass random weights."""

import re
from pathlib import Path

import pytest
from support.helpers import compose

from sslcli.commands.short_runs import EMOJI, ERRORS, FASHION, MEASURED, short_run_lines

PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text().partition("\n## Short runs\n")[2]


@pytest.mark.parametrize(
    "overrides, samples, lines",
    [
        (("encoder=vit_tiny", "objective=simmim"), 3840, 1),
        (("encoder=vit_tiny", "objective=simmim"), 9599, 1),
        (("encoder=resnet18", "objective=byol"), 3200, 1),
        (("encoder=resnet18", "objective=infonce"), 3200, 1),  # of emoji; on the embedded pictures it is above
        (("encoder=vit_tiny", "objective=simmim"), 9600, 0),  # twice as long: nothing is known
        (("encoder=vit_tiny", "objective=simmim"), None, 0),  # a length in minutes
        (("encoder=convnet_small", "objective=simmim"), 3840, 0),
        (("encoder=vit_tiny", "objective=vicreg"), 3840, 0),
    ],
)
def test_a_run_as_short_as_a_measured_one_says_so(overrides, samples, lines):
    assert len(short_run_lines(compose(*overrides), samples)) == lines


def test_the_line_has_the_numbers_of_both_data_sets():
    (line,) = short_run_lines(compose("encoder=vit_tiny", "objective=simmim"), 64)
    assert line == (
        "4,800 samples were too few for a vit: Fashion-MNIST 39.7 % kNN, random weights 46.6 % (± 1.6); "
        "emoji 31.8 % kNN, random weights 31.7 % (± 2.2). Train longer"
    )


def table(heading):
    """The rows of the first table behind a line that begins so: encoder, objective, samples, trained, random, gain."""
    rows = re.findall(
        r"^\| (\w+?)(?:_tiny|18) \| (\w+) \| [\d.e-]+ \| (\d+) x (\d+) \| ([\d.]+) \| ([\d.]+) \|.*?"
        r"\*{0,2}([+−]?[\d.]+)\*{0,2} \|(?: [\d.]+, [\d.]+ \|)?$",
        PAGE.partition(f"\n{heading}")[2].partition("\n```")[0],
        re.MULTILINE,
    )
    return [
        (family, objective, int(steps) * int(batch), float(trained), float(random), float(gain.replace("−", "-")))
        for family, objective, steps, batch, trained, random, gain in rows
    ]


@pytest.mark.parametrize("data, heading", [(FASHION, "The table of families:"), (EMOJI, "The same on emoji")])
def test_the_rows_are_those_of_the_results_that_gain_less_than_two_errors(data, heading):
    page = table(heading)
    assert len(page) == 24
    failed = {row[:5] for row in page if row[5] < 2 * ERRORS[data]}
    rows = {(row.family, row.objective, row.samples, row.trained, row.random) for row in MEASURED if row.data == data}
    assert rows == failed
