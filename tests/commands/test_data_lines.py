"""The start lines about the data: what was found, and what was left out."""

import numpy as np
from PIL import Image


def started(out):
    """The start lines by their first word, and their number."""
    lines = out.partition("step ")[0].replace("\n" + " " * 10, " ").splitlines()
    return {line[:9].strip(): line[10:] for line in lines}, len(lines)


def test_the_start_lines_say_what_was_found_and_left_out(run, tmp_path):
    rng = np.random.default_rng(0)
    for k in range(24):
        folder = tmp_path / "p" / "ab"[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 4096, (8, 8), dtype=np.uint16)).save(folder / f"{k}.png")
        (folder / f"{k}.txt").touch()
    (tmp_path / "p" / "b" / "1.png").rename(folder / "again")
    (tmp_path / "p" / "a" / "link.png").symlink_to(tmp_path / "p" / "b" / "3.png")
    common = ("dataset=images", "dataset.path=p", "dataset.size=8", "train.batch_size=4", "train.steps=1", "run_dir=r",
              "encoder.width=2", "log.report=false", "probe=none", "device=cpu", "log.quality=none")  # fmt: skip
    code, out, err = run(*common)
    assert code == 0, err
    lines, count = started(out)
    assert lines["data"].startswith("19 training samples, 5 held out")
    assert lines["pictures"] == "25 files: 24 .png, 1 without extension, 1 of them by their first bytes"
    assert lines["left out"] == "no pictures are 24 files: 24 .txt"
    assert lines["links"].startswith("1 more name of files") and "1 of them lie in another class" in lines["links"]
    assert lines["classes"].startswith("2: a ") and lines["normalise"].startswith("mean 0.4850 0.4560 0.4060, std ")
    assert "4,095 is white" in lines["range"] and lines["auto"] and count == 12
    code, _, err = run(*common, "train.batch_size=4096", "run_dir=other")
    assert code == 2 and "no pictures are 24 files: 24 .txt" in err


def test_data_of_which_there_is_nothing_to_say_have_no_lines(run):
    code, out, err = run("debug=tiny", "train.steps=1", "log.report=false", "probe=none", "run_dir=r")
    assert code == 0, err
    lines, _ = started(out)
    assert lines["normalise"].endswith("(the dataset's)")
    assert not {"pictures", "left out", "links", "labels", "range"} & set(lines)
    assert lines["classes"].startswith("10: 0 ")
