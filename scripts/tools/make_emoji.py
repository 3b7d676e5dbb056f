"""Write pictures of emoji in nine classes as PNG files of 32 x 32 pixels, from an npm package that contains them.

    npm pack emoji-datasource@16.0.0
    python scripts/tools/make_emoji.py emoji-datasource-16.0.0.tgz [--to FOLDER]

Each of four fonts draws an emoji once, without its variants of skin. FOLDER has train/CLASS and val/CLASS, which
``dataset=imagenet`` reads. All drawings of an emoji are on one side: val where the CRC-32 of its code points is a
multiple of 5. Nothing of the pictures belongs to this package.
"""

import argparse
import io
import json
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

FONTS = ("apple", "facebook", "google", "twitter")
SIZE, BORDER = 32, 1  # of a picture on its sheet, in pixels
CLASSES = {
    "Activities": "activity",
    "Animals & Nature": "nature",
    "Flags": "flag",
    "Food & Drink": "food",
    "Objects": "object",
    "People & Body": "person",
    "Smileys & Emotion": "smiley",
    "Symbols": "symbol",
    "Travel & Places": "travel",
}


def pictures(sheet: Image.Image, emoji: list[dict[str, Any]], font: str) -> Iterator[tuple[Path, Image.Image]]:
    """Yield each picture that a font has, on white, and its path below the folder."""
    for one in emoji:
        if one["category"] in CLASSES and one[f"has_img_{font}"]:
            left, top = (one[key] * (SIZE + 2 * BORDER) + BORDER for key in ("sheet_x", "sheet_y"))
            cut = sheet.crop((left, top, left + SIZE, top + SIZE)).convert("RGBA")
            code = str(one["unified"]).lower()
            split = "train" if zlib.crc32(code.encode()) % 5 else "val"
            white = Image.new("RGBA", cut.size, "white")
            yield (
                Path(split, CLASSES[one["category"]], f"{code}-{font}.png"),
                Image.alpha_composite(white, cut).convert("RGB"),
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="emoji-datasource-16.0.0.tgz")
    parser.add_argument("--to", type=Path, default=Path("emoji"), help="folder of the pictures")
    given = parser.parse_args()
    counts: Counter[str] = Counter()
    with tarfile.open(given.package) as package:

        def read(name: str) -> bytes:
            file = package.extractfile(f"package/{name}")
            assert file is not None, f"{name} is no file"
            return file.read()

        emoji = json.loads(read("emoji.json"))
        for font in FONTS:
            sheet = Image.open(io.BytesIO(read(f"img/{font}/sheets/{SIZE}.png")))
            for path, picture in pictures(sheet, emoji, font):
                (given.to / path).parent.mkdir(parents=True, exist_ok=True)
                picture.save(given.to / path)
                counts[path.parts[0]] += 1
    print(f"{given.to}: {counts['train']:,} pictures in train, {counts['val']:,} in val, of {len(CLASSES)} classes")


if __name__ == "__main__":
    main()
