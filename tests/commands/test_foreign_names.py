"""Whole runs: no password of a URL ends up in a file or on the terminal, and no name of a file drives the terminal."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image
from support.webserver import serving

FAST = ("dataset=shards", "dataset.size=16", "dataset.workers=0", "dataset.holdout=0.1", "train.batch_size=16",
        "log.every=1", "encoder.width=2", "objective.width=4", "objective.hidden_dim=4")  # fmt: skip
EVIL = "003\x1b]0;owned\x07\x1b[31mEVIL\nstep 99"


def pack(path, names):
    pixels = np.random.default_rng(0).integers(0, 255, (len(names), 16, 16, 3), dtype=np.uint8)
    with tarfile.open(path, "w") as tar:
        for name, picture in zip(names, pixels):
            file = io.BytesIO()
            if name.startswith(EVIL):
                file.write(b"no picture")
            else:
                Image.fromarray(picture).save(file, "PNG")
            member = tarfile.TarInfo(f"{name}.png")
            member.size = file.tell()
            file.seek(0)
            tar.addfile(member, file)


def holding(folder, secret):
    return [path for path in folder.rglob("*") if path.is_file() and secret in path.read_bytes()]


@pytest.fixture
def server(tmp_path):
    pytest.importorskip("aiohttp")
    (tmp_path / "www").mkdir()
    pack(tmp_path / "www" / "x.tar", [f"{i:03}" for i in range(40)])
    with serving(tmp_path / "www") as (address, asked):
        yield address.removeprefix("http://"), asked


def test_a_password_stays_in_the_command(run, server, tmp_path):
    host, asked = server

    def url(word):
        return f"dataset.path='http://user:S3CRET{word}@{host}/x.tar?token=S3CRET{word}'"

    said, quick = [], ("logger=csv", "probe=none", "log.report=false", "run_dir=r")
    for steps, word in ((2, "one"), (4, "two")):  # a link that was signed anew is that of the same data
        code, *out = run(*FAST, url(word), f"train.steps={steps}", *quick)
        assert code == 0, out
        said += out
    assert "resuming r at step 2" in said[2] and "dataset.path" not in said[2]
    assert len([line for line in asked if line.startswith("GET /x.tar?token=S3CRETone")]) == 1
    code, *out = run("run=r", command="eval")
    assert code == 2 and "dataset.path=" in out[1] and "token=***" in out[1]
    code, *out = run("run=r", command="export")
    assert code == 0
    said += out
    code, *out = run(*FAST, f"dataset.path='http://user:S3CRET@{host}/none.tar?token=S3CRET'", "run_dir=s")
    assert code == 2 and f"http://***@{host}/none.tar?token=***" in out[1]
    assert "S3CRET" not in "".join((*said, *out))
    assert (tmp_path / "r" / "metrics.csv").is_file() and not holding(tmp_path / "r", b"S3CRET")


def test_the_password_may_come_from_the_environment(run, server, monkeypatch, tmp_path):
    monkeypatch.setenv("PICTURES", f"http://user:S3CRET@{server[0]}/x.tar")
    options = ("dataset.path=${oc.env:PICTURES}", "train.steps=1", "probe=none", "log.report=false", "run_dir=r")
    code, out, err = run(*FAST, *options)
    assert code == 0, err
    assert not holding(tmp_path / "r", b"S3CRET")


def test_the_name_of_a_member_is_escaped(run, tmp_path):
    pack(tmp_path / "x.tar", [*(f"{i:03}" for i in range(40)), *(f"{EVIL}{k}" for k in range(3))])
    code, out, err = run(*FAST, "dataset.path=x.tar", "train.steps=6", "probe=none", "log.report=false", "run_dir=r")
    assert code == 0, err
    assert r"003\x1b]0;owned\x07\x1b[31mEVIL\nstep 99" in err
    files = [tmp_path / "r" / name for name in ("bad_samples.txt", "train.log", "config.yaml")]
    assert all("EVIL" in line for line in files[0].read_text().splitlines())
    assert not any("\x1b" in text for text in (out, err, *(file.read_text() for file in files)))
