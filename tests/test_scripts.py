"""The scripts: each starts from the repository root, and the benchmarks write their figures as JSON."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "scripts" / "benchmarks"
SCRIPTS = sorted(path for path in (ROOT / "scripts").rglob("*.py") if path.name != "figures.py")
SLOW = ("bench_views", "bench_infonce", "bench_probe_memory", "bench_simcse", "bench_text_bag")
# Arguments that keep a benchmark small, and the unit of its first row.
SMALL = {
    "bench_ddp": ("--encoder test_vit --size 160 --batch 4 --repeats 1", "s"),
    "bench_decode": ("--size 32 --pictures 1 --repeats 1", "pictures/CPU-s"),
    "bench_views": ("--repeats 1 --seconds 0.01 --without kornia compiled", "images/CPU-s"),
    "bench_infonce": ("--n 512 --d 64 --repeats 1", "s"),
    "bench_visible_only": ("--encoder vit_tiny_patch16_224 --size 32 --batch 2 --runs 1", "s"),
    "bench_probe_memory": ("--samples 3000 --width 64", "x the bytes of one encoder's features"),
    "bench_recommendation": ("--users 12 --items 30 --pairs 120 --batch-size 8 --steps 1 --repeats 1", "pairs/CPU-s"),
    "bench_simcse": ("--batch-size 4 --width 8 --depth 1 --steps 1 --repeats 1", "pairs/CPU-s"),
    "bench_text_bag": ("--batch-size 4 --width 8 --bigrams 64 --steps 1 --repeats 1", "texts/CPU-s"),
    "bench_step": ("--workload simmim --batch-size 4 --repeats 1 --precisions fp32", "s"),
}


@pytest.fixture
def start(monkeypatch, capsys):
    """Run a script with arguments in this process; what it printed."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(FOLDER))
    threads, loaded = torch.get_num_threads(), set(sys.modules)

    def call(path: Path, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as stop:
            assert not stop.code
        return capsys.readouterr().out

    yield call
    torch.set_num_threads(threads)
    for name in {path.stem for path in FOLDER.glob("*.py")} - loaded:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_starts_and_a_benchmark_writes_json(start, path):
    usage = start(path, "--help")
    assert "usage:" in usage
    assert "--json FILE" in usage or not path.name.startswith("bench_")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in SMALL])
def test_the_rows_of_a_benchmark_have_a_name_a_value_a_unit_and_a_baseline(start, tmp_path, name):
    arguments, unit = SMALL[name]
    start(FOLDER / f"{name}.py", *arguments.split(), "--json", str(tmp_path / "figures.json"))
    rows = json.loads((tmp_path / "figures.json").read_text())
    assert rows and rows[0]["unit"] == unit
    for row in rows:
        assert list(row) == ["name", "value", "unit", "baseline"]
        assert isinstance(row["name"], str) and row["value"] >= 0 and row["baseline"] > 0
    assert len({row["name"] for row in rows}) == len(rows)
