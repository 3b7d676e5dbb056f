"""Packages of Debian and what they depend on, as users and items, from a file inside the package."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np

from sslcli.config.ranges import Count
from sslcli.data.base import Dataset
from sslcli.data.interactions.ids import numbered
from sslcli.data.interactions.interactions import Interactions, Part, Sample
from sslcli.data.interactions.log import Log
from sslcli.data.interactions.parts import divided

EMBEDDED = Path(__file__).with_name("package_deps.xz")


def package_deps(*, seed: int = 0, part: Part = "test", sample: Sample = "pair", length: Count = 50) -> Dataset:
    """Make the dataset of 2,134 packages (``user``), 411 dependencies (``item``) and 33,554 pairs without times.

    Args:
        seed: of the order at random in which the dependencies of each package are divided 8:1:1.
        part: the held-out part that probes query, ``test`` or ``validation``.
        sample: ``pair``, one dependency, or ``history``, a package with its dependencies in that order.
        length: of a history; the last items of longer ones are read.
    """
    lines = [line.split("\t") for line in lzma.decompress(EMBEDDED.read_bytes()).decode().splitlines()]
    pairs = [(package, name) for package, names in lines for name in names.split(" ")]
    (users, user), (items, item) = (numbered(names, np.arange(len(names))) for names in zip(*pairs))
    log = Log(users, items, user, item, None)
    notes = (("rows", f"{len(log):,} dependencies of Debian's packages"),)
    return Interactions(divided(log, "random", seed, EMBEDDED.name), notes, [EMBEDDED], part, sample, length)
