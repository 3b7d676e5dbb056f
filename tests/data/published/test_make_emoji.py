"""The tool that takes emoji out of an npm package, on a package with two emoji of the test's own."""

import io
import json
import runpy
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

TOOL = Path(__file__).parents[3] / "scripts/tools/make_emoji.py"


def test_each_font_s_pictures_become_files_on_white_by_class_and_split(tmp_path, monkeypatch, capsys):
    codes = {"train": "1F34E", "val": "1F413"}
    assert [bool(zlib.crc32(code.lower().encode()) % 5) for code in codes.values()] == [True, False]
    fonts = ("apple", "facebook", "google", "twitter")
    emoji = [
        {"unified": code, "category": category, "sheet_x": place, "sheet_y": 0}
        | {f"has_img_{font}": font != "facebook" for font in fonts}
        for place, (code, category) in enumerate(zip(codes.values(), ("Food & Drink", "Animals & Nature")))
    ]
    emoji.append(emoji[0] | {"category": "Component"})
    sheet = np.zeros((34, 68, 4), np.uint8)  # transparent, with a border of one pixel around each picture
    sheet[1:33, 1:33] = (255, 0, 0, 255)
    sheet[10:20, 40:50] = (0, 0, 255, 255)
    stream = io.BytesIO()
    Image.fromarray(sheet).save(stream, "png")
    files = {"emoji.json": json.dumps(emoji).encode()} | {
        f"img/{font}/sheets/32.png": stream.getvalue() for font in fonts
    }
    with tarfile.open(tmp_path / "emoji.tgz", "w:gz") as package:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            package.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(sys, "argv", ["make_emoji.py", str(tmp_path / "emoji.tgz"), "--to", str(tmp_path / "emoji")])
    runpy.run_path(str(TOOL), run_name="__main__")
    found = sorted(str(path.relative_to(tmp_path / "emoji")) for path in (tmp_path / "emoji").rglob("*.png"))
    drawn = ("apple", "google", "twitter")
    assert found == [
        *(f"train/food/1f34e-{font}.png" for font in drawn),
        *(f"val/nature/1f413-{font}.png" for font in drawn),
    ]
    red = np.asarray(Image.open(tmp_path / "emoji/train/food/1f34e-apple.png"))
    assert red.shape == (32, 32, 3) and (red == (255, 0, 0)).all()
    blue = np.asarray(Image.open(tmp_path / "emoji/val/nature/1f413-apple.png"))
    expected = np.full((32, 32, 3), 255, np.uint8)
    expected[9:19, 5:15] = (0, 0, 255)
    assert (blue == expected).all()
    assert "3 pictures in train, 3 in val" in capsys.readouterr().out
