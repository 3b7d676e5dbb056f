"""The examples in the documents are run, not believed."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def test_contributings_objective_trains(tmp_path):
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg" / "__init__.py").write_text("")
    (tmp_path / "mypkg" / "align.py").write_text(blocks("CONTRIBUTING.md", "python")[0])
    (tmp_path / "my" / "objective").mkdir(parents=True)
    (tmp_path / "my" / "objective" / "align.yaml").write_text(blocks("CONTRIBUTING.md", "yaml")[0])
    (command,) = [b for b in blocks("CONTRIBUTING.md", "bash") if b.startswith("ssl-train")]
    _, *arguments = shlex.split(command)
    code = "from sslcli.cli import train; train()"
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments, "train.accumulate=4", "probe=none"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "align" in found.stdout and "objective Align" in found.stdout


@pytest.mark.slow
def test_every_command_of_the_export_page_runs(tmp_path):
    paths = {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [
        sys.executable,
        str(ROOT / "scripts" / "tools" / "run_readme.py"),
        str(tmp_path / "here"),
        "docs/export.md",
    ]
    found = subprocess.run(command, env={**os.environ, **paths}, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-2000:]
    shown = [
        line
        for line in (ROOT / "docs" / "export.md").read_text().splitlines()
        if line.startswith(("  model", "start "))
    ]
    assert len(shown) == 7 and all(line in found.stdout.splitlines() for line in shown)


def test_every_option_stands_in_the_reference():
    text = (ROOT / "docs" / "reference.md").read_text()
    for path in (ROOT / "conf").glob("*/*.yaml"):
        assert f"`{path.stem}`" in text, f"docs/reference.md does not mention {path}"


def test_no_document_names_a_machine():
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        assert not re.search(r"/(root|home|work|tmp)/", path.read_text()), path
