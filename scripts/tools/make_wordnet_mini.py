"""Write sslcli/data/published/wordnet_mini.xz from WordNet 3.0's nouns (Debian: wordnet-base).

    python scripts/tools/make_wordnet_mini.py [data.noun]

The file is one xz stream of UTF-8 lines: class, lemmas joined by ", ", and definition, separated by tabs. The class is
the name of the lexicographer file; noun.Tops, which holds the roots of the others, is left out. The definition is the
text behind " | " up to the first example. Of all definitions a CRC-32 of the text takes 30 %.
"""

import argparse
import hashlib
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path

from sslcli.data.published.wordnet_mini import CLASSES, EMBEDDED

DEBIAN = Path("/usr/share/wordnet/data.noun")  # package wordnet-base
TOPS, KEPT = 3, 30  # number of the lexicographer file noun.Tops; per cent of the definitions


def rows(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield class, lemmas and definition, in the order of the file (its format: wndb(5WN))."""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("  "):  # the licence
            continue
        synset, _, gloss = line.partition(" | ")
        text = gloss.split('; "')[0].strip()
        fields = synset.split(" ")
        number, count = int(fields[1]), int(fields[3], 16)
        if number == TOPS or zlib.crc32(text.encode()) % 100 >= KEPT:
            continue
        lemmas = [fields[4 + 2 * i].replace("_", " ") for i in range(count)]
        yield CLASSES[number - TOPS - 1], ", ".join(lemmas), text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", type=Path, default=DEBIAN, help="WordNet's data.noun")
    lines = ["\t".join(row) + "\n" for row in rows(parser.parse_args().path)]
    packed = lzma.compress("".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME)
    EMBEDDED.write_bytes(packed)
    print(f"{EMBEDDED.name}: {len(lines):,} definitions, {len(packed):,} bytes, "
          f"sha256 {hashlib.sha256(packed).hexdigest()}")  # fmt: skip


if __name__ == "__main__":
    main()
