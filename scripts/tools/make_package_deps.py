"""Write sslcli/data/published/package_deps.xz from the records of Debian's packages.

    apt-cache dumpavail > FILE
    python scripts/tools/make_package_deps.py FILE

A pair is a package and the first alternative of a clause of its field Depends. Packages of the sections debug and
oldlibs, which have no contents of their own, are left out. Of the pairs the largest set is taken in which each package
has at least 10 dependencies, and each dependency at least 20 packages. The file is one xz stream of sorted UTF-8
lines: the package, a tab, and its dependencies separated by blanks.
"""

import argparse
import hashlib
import lzma
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sslcli.data.published.package_deps import EMBEDDED

LEFT_OUT = {"debug", "oldlibs"}  # sections; of contrib they are called contrib/debug
PACKAGES, DEPENDENCIES = 10, 20  # the fewest dependencies of a package, and packages of a dependency

Pairs = set[tuple[str, str]]


def pairs(records: str) -> Iterator[tuple[str, str]]:
    """Yield each package with each of its dependencies (the format: deb-control(5))."""
    for record in records.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Section|Depends): (.*)$", record, re.MULTILINE))
        if fields.get("Section", "").rpartition("/")[2] in LEFT_OUT:
            continue
        for clause in filter(None, fields.get("Depends", "").split(",")):
            name = re.split(r"[\s:(|]", clause.strip(), maxsplit=1)[0]
            if name != fields["Package"]:
                yield fields["Package"], name


def core(found: Pairs) -> Pairs:
    """Take out packages and dependencies that occur too seldom until none does."""
    while True:
        packages, dependencies = (Counter(pair[i] for pair in found) for i in (0, 1))
        kept = {pair for pair in found if packages[pair[0]] >= PACKAGES and dependencies[pair[1]] >= DEPENDENCIES}
        if kept == found:
            return kept
        found = kept


def packed(found: Pairs) -> bytes:
    """Return the content of the file."""
    of: dict[str, list[str]] = {}
    for package, dependency in sorted(found):
        of.setdefault(package, []).append(dependency)
    lines = "".join(f"{package}\t{' '.join(names)}\n" for package, names in of.items())
    return lzma.compress(lines.encode(), preset=9 | lzma.PRESET_EXTREME)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="what apt-cache dumpavail prints")
    found = core(set(pairs(parser.parse_args().path.read_text("utf-8"))))
    content = packed(found)
    EMBEDDED.write_bytes(content)
    packages, dependencies = ({pair[i] for pair in found} for i in (0, 1))
    print(f"{EMBEDDED.name}: {len(packages):,} packages, {len(dependencies):,} dependencies, {len(found):,} pairs, "
          f"{len(content):,} bytes, sha256 {hashlib.sha256(content).hexdigest()}")  # fmt: skip


if __name__ == "__main__":
    main()
