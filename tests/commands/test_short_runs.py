"""The start line of a run that is as short as one that did not pass random weights."""

import re
from pathlib import Path

import pytest
from support.helpers import compose

from sslcli.commands.short_runs import ERROR, MEASURED, short_run_lines

PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text().partition("\n## Short runs\n")[2]


@pytest.mark.parametrize(
    "overrides, samples, lines",
    [
        (("encoder=vit_tiny", "objective=simmim"), 3840, 1),
        (("encoder=vit_tiny", "objective=simmim"), 9599, 1),
        (("encoder=resnet18", "objective=byol"), 3200, 1),
        (("encoder=resnet18", "objective=infonce"), 3200, 0),
        (("encoder=vit_tiny", "objective=simmim"), 9600, 0),  # twice as long: nothing is known
        (("encoder=vit_tiny", "objective=simmim"), None, 0),  # a length in minutes
        (("encoder=convnet_small", "objective=simmim"), 3840, 0),
        (("encoder=vit_tiny", "objective=vicreg"), 3840, 0),
    ],
)
def test_a_run_as_short_as_a_measured_one_says_so(overrides, samples, lines):
    assert len(short_run_lines(compose(*overrides), samples)) == lines


def test_the_line_has_the_numbers():
    (line,) = short_run_lines(compose("encoder=vit_tiny", "objective=simmim"), 64)
    assert line == "4,800 samples were too few for a vit: 39.7 % kNN, random weights 46.6 % (± 1.6): train longer"


def test_every_row_stands_in_the_results():
    table = re.findall(
        r"^\| (\w+?)(?:_tiny|18) \| (\w+) \| [\d.e-]+ \| (\d+) x (\d+) \| ([\d.]+) \| ([\d.]+) \|", PAGE, re.MULTILINE
    )
    page = {(family, objective, int(steps) * int(batch), float(trained), float(random))
            for family, objective, steps, batch, trained, random in table}  # fmt: skip
    rows = {(row.family, row.objective, row.samples, row.trained, row.random) for row in MEASURED}
    assert rows and rows <= page


def test_a_gain_of_two_standard_errors_is_no_failure():
    assert all(row.trained - row.random < 2 * ERROR for row in MEASURED)
    gains = re.findall(r"^\| \w+ \| \w+ \|.*\| \*{0,2}([+−][\d.]+)\*{0,2} \| [\d.]+, [\d.]+ \|$", PAGE, re.MULTILINE)
    assert sum(float(gain.replace("−", "-")) < 2 * ERROR for gain in gains) == len(MEASURED)
