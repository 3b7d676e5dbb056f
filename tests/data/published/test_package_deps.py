"""The embedded packages: what is in the file, and that a tool makes the same bytes of the same records."""

import hashlib
import lzma
import runpy
from collections import Counter
from pathlib import Path

import torch

from sslcli.data.published.package_deps import EMBEDDED, package_deps
from sslcli.graph import Graph
from sslcli.run_dir.fitted import Fitted

TOOL = runpy.run_path(str(Path(__file__).parents[3] / "scripts/tools/make_package_deps.py"))


def pairs():
    lines = [line.split("\t") for line in lzma.decompress(EMBEDDED.read_bytes()).decode().splitlines()]
    return {(package, name) for package, names in lines for name in names.split(" ")}


def test_it_is_a_core_and_the_notice_names_its_bytes():
    found = pairs()
    packages, dependencies = (Counter(pair[i] for pair in found) for i in (0, 1))
    assert (len(packages), len(dependencies), len(found)) == (2134, 411, 33_554)
    assert min(packages.values()) == 10 and min(dependencies.values()) == 20
    assert TOOL["packed"](found) == EMBEDDED.read_bytes()
    assert hashlib.sha256(EMBEDDED.read_bytes()).hexdigest() in EMBEDDED.with_suffix(".md").read_text()


def test_every_pair_is_in_one_part():
    made = package_deps().fit(Fitted())
    graph, asked = Graph.of(made.spec), made.held_out.rankings
    assert (graph.num_users, graph.num_items, len(made)) == (2134, 411, 28_190)
    assert torch.equal(made.fetch(torch.arange(len(made)))["item"], graph.edges[1])
    held_out = asked.relevant.lengths + asked.unknown
    assert int(held_out.sum()) == len(made.held_out) == 2682 and int(held_out.min()) >= 1
    assert dict(made.notes)["rows"] == "33,554 dependencies of Debian's packages"


def test_pairs_are_read_from_records():
    net = "Package: a\nSection: net\nDepends: b (>= 1), c | d:any, a, e:any\n\n"
    others = "Package: old\nSection: oldlibs\nDepends: b\n\nPackage: dbg\nSection: contrib/debug\nDepends: b\n\n"
    assert set(TOOL["pairs"](net + others + "Package: none\n")) == {("a", name) for name in "bce"}
