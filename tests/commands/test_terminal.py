"""What a run says on a terminal: a bar of 80 columns, and at the end one screen with the numbers of result.json."""

import json
import os
import pty
import re
import struct
from fcntl import ioctl
from termios import TIOCSWINSZ

from support.forked import Forked
from support.helpers import compose, percent

from sslcli import cli
from sslcli.commands.train import run
from sslcli.evaluation.base import Metric, table

COLUMNS, ROWS = 80, 24


def test_the_end_is_one_screen_with_the_numbers_of_the_result(tmp_path, capsys, monkeypatch):
    from pathlib import Path

    monkeypatch.chdir(tmp_path)
    folder = Path("runs/infonce-convnet_small-fashion_mnist_mini-eaea690c")  # the default run's
    run(compose("debug=tiny", "train.steps=3", "device=cpu", "dataset.size=16"), folder)
    said = capsys.readouterr().out.splitlines()
    end = said[next(i for i, line in enumerate(said) if line.startswith("step 3/3")) + 1 :]
    assert all(len(line) <= 100 for line in said if not line.startswith(("  python -c", "  ssl-export")))
    assert len(end) <= ROWS - 2
    assert all(len(line) <= COLUMNS for line in end if not line.startswith(("  python -c", "  ssl-export")))
    result = json.loads((folder / "result.json").read_text())["metrics"]
    label_free = [name for name in result if not name.startswith("knn_")]
    head, *rows = (line.split("  ") for line in end[1:6])
    names = [cell for cell in head if cell]
    for cells, (name, metric) in zip(rows, result.items()):
        shown = [cell.strip() for cell in cells if cell.strip()]
        assert shown[0] == name
        queries = int(re.search(r"queries ([\d,]+)", metric["protocol"])[1].replace(",", ""))
        binomial = (metric["value"] * (1 - metric["value"]) / queries) ** 0.5
        error = binomial if name.endswith("_top1") else metric["standard_error"]
        values = [percent(metric[column.strip()], error).partition(" ")[0] for column in names[1:]]
        assert shown[1:] == [f"{percent(metric['value'], error)} %", *(f"{value} %" for value in values)]
    text = " ".join(" ".join(end).split())
    first = result["knn_top1"]["protocol"]
    names = ("knn_balanced_accuracy", "knn_macro_f1", "knn_whitened_top1")
    shorter = {name: f"the same{result[name]['protocol'].removeprefix(first)}" for name in names}
    for name, protocol in {"knn_top1": first, **shorter}.items():
        best = max(("raw_input", "centred", "pca64", "random_init"), key=lambda baseline: result[name][baseline])
        gain = percent(result[name]["value"] - result[name][best], result[name]["gain_standard_error"], sign="+")
        assert f"{name}: {gain.replace('-', '−')} points against {best}; {protocol}" in text
    assert label_free == ["rankme", "alignment", "uniformity", "dimension_std"]
    assert re.search(r"without labels: rankme [\d.]+ ± [\d.]+, alignment", text)
    assert f"report {folder}/report.html" in text and (folder / "report.html").is_file()


def test_metrics_with_different_baselines_share_a_table():
    metrics = {
        "held_out_loss": Metric(1.25, "one", unit="", higher_is_better=False, baselines={"chance": 5.5}),
        "rankme": Metric(10.0, "two", unit="", higher_is_better=True, baselines={"random_init": 3.0}),
    }
    lines = table(metrics)
    assert [line.split() for line in lines[:3]] == [
        ["trained", "chance", "random_init"],
        ["held_out_loss", "1.2500", "5.5000"],
        ["rankme", "10.0000", "3.0000"],
    ]
    assert lines[2].index("3.0000") + len("3.0000") == len(lines[0]) and lines[4:] == [
        "held_out_loss: −4.2500 against chance; one",
        "rankme: +7.0000 against random_init; two",
    ]
    assert table({}) == []


def test_the_progress_bar_fits_a_terminal(tmp_path):
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    options = (
        "debug=tiny",
        "train.steps=40",
        "probe=none",
        "log.report=false",
        "device=cpu",
        f"run_dir={tmp_path / 'r'}",
    )
    process = Forked(cli.train, "ssl-train", *options, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        seen += piece
    os.close(ours)
    assert process.wait() == 0
    drawn = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", seen.decode()).replace("\n", "\r").split("\r")
    bars = [line for line in drawn if line.startswith("step ")]
    assert [line for line in bars if len(line) > COLUMNS] == []
    pattern = r"step (\d+)/40 +(\d+)%\|.*\| \d\d:\d\d<\S+, .+ samples/s, loss \d\.\d{4}, wait [\d.]+%"
    found = [match for match in (re.match(pattern, line) for line in bars) if match]
    assert found and int(found[-1][1]) == 40 and found[-1][2] == "100"
    assert all(abs(100 * int(match[1]) / 40 - int(match[2])) <= 0.51 for match in found)
