"""Features that fill much of the memory: gathered without a copy, in a file above what fits, read piece by piece."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sslcli.errors import UserError
from sslcli.evaluation import pca, rows
from sslcli.evaluation.knn import nearest
from sslcli.evaluation.pca import principal_axes, whitened
from sslcli.evaluation.rows import gathered, in_pieces
from sslcli.run_dir import console

BENCHMARK = Path(__file__).parents[2] / "scripts" / "benchmarks" / "bench_probe_memory.py"


def parts():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, 7, generator=generator) for size in (64, 64, 12)]


def test_what_does_not_fit_is_a_file_that_reads_the_same(tmp_path, monkeypatch):
    in_memory = gathered(parts(), 140, "x")
    monkeypatch.setattr(rows, "free_memory", lambda: 1000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    in_file = gathered(parts(), 140, "x")
    assert str(tmp_path) in Path("/proc/self/maps").read_text()
    assert torch.equal(in_memory, torch.cat(parts())) and torch.equal(in_file, in_memory)
    assert not list(tmp_path.iterdir())  # nothing is left, also after a kill
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"^probe\.max_samples: 140 features of width 7 are 0\.0 GB, which fit neither"):
        gathered(parts(), 140, "x")


def test_pieces_read_the_same_as_the_whole(monkeypatch):
    bank = torch.randn(500, 6, generator=torch.Generator().manual_seed(1)) * torch.arange(1.0, 7.0)
    bank = bank - bank.mean(0)
    wanted = torch.linalg.eigh(bank.double().T @ bank.double() / 500)
    white = whitened(bank, bank[:9], components=4)
    found = nearest(bank, bank[:9], 3)
    monkeypatch.setattr(rows, "_PIECE", 24 * 100)
    monkeypatch.setattr("sslcli.evaluation.knn._BANK_BYTES", 24 * 100)
    assert [len(piece) for piece in in_pieces(bank)] == [100] * 5
    variance, axes = principal_axes(bank, 3)
    torch.testing.assert_close(variance.double(), wanted[0][-3:], rtol=1e-5, atol=0)
    torch.testing.assert_close((axes @ axes.T).double(), wanted[1][:, -3:] @ wanted[1][:, -3:].T, rtol=0, atol=1e-5)
    for one, other in zip(whitened(bank, bank[:9], components=4), white):
        torch.testing.assert_close(one @ one.T, other @ other.T, rtol=1e-4, atol=1e-4)
    similarity, position = nearest(bank, bank[:9], 3)
    assert torch.equal(position, found[1])
    torch.testing.assert_close(similarity, found[0])
    assert pca._EXACT == 1024


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_phase_has_a_bar_on_a_terminal_and_is_silent_elsewhere(monkeypatch):
    monkeypatch.setattr(console, "SECONDS", 0)
    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        gathered(parts(), 140, "embedding trained")
        text = stream.getvalue()
        assert ("embedding trained:" in text and "/140 [00:00<" in text) if shown else not text


def growth(probe: str, samples: int, width: int) -> float:
    """Bytes that a probe adds to the largest address space of a fresh process."""
    command = [sys.executable, BENCHMARK, "--probe", probe, "--samples", str(samples), "--width", str(width)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found["mapped"] * 4 * samples * width


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("probe", ["knn", "linear"])
def test_a_probe_takes_at_most_two_and_a_half_times_the_features(probe):
    """The difference of two sizes, a fresh process each: what does not grow, such as pieces, is left out.

    They are so far apart that a piece of 64 MiB more, as the heap happens to lie, is a sixth of the features.
    """
    width, few, many = 1024, 70_000, 165_000  # the vote takes up to 65,536 rows at a time
    more = growth(probe, many, width) - growth(probe, few, width)
    assert 1 <= more / (4 * (many - few) * width) <= 2.5
