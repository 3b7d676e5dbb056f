"""The documents: their commands run, and the files, options and headings that they name exist."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.forked import Forked

from sslcli import cli

ROOT = Path(__file__).parent.parent
commands = runpy.run_path(str(ROOT / "scripts" / "tools" / "run_readme.py"))["commands"]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


ENTRIES = {"ssl-train": cli.train, "ssl-eval": cli.evaluate, "ssl-export": cli.export}


def said_by(command: str) -> str:
    """What a command of a document prints; the project's own run in a fork, which need not import torch again."""
    program, *arguments = shlex.split(command)
    if program not in ENTRIES:
        return subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout  # noqa: S602
    process = Forked(ENTRIES[program], program, *arguments)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, f"{command}: {said[-2000:]}"
    return said


@pytest.mark.slow
def test_every_command_of_the_export_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    printed = "".join(map(said_by, commands("docs/export.md"))).splitlines()
    shown = [
        line
        for line in (ROOT / "docs" / "export.md").read_text().splitlines()
        if line.startswith(("  model", "start "))
    ]
    assert len(shown) == 7 and all(line in printed for line in shown)


def test_every_option_stands_in_the_reference():
    text = (ROOT / "docs" / "reference.md").read_text()
    for path in (ROOT / "conf").glob("*/*.yaml"):
        assert f"`{path.stem}`" in text, f"docs/reference.md does not mention {path}"


def test_no_document_names_a_machine():
    for path in DOCUMENTS:
        assert not re.search(r"/(root|home|work|tmp)/", path.read_text()), path


def test_every_file_that_a_document_names_exists():
    for path in DOCUMENTS:
        named = re.findall(r"(?<![\w./])((?:conf|docs|scripts|sslcli|tests)/[\w./]*\w)", path.read_text())
        missing = [name for name in named if not (ROOT / name).exists()]
        assert not missing, f"{path.name} names {missing}"


def anchor(heading: str) -> str:
    """GitHub's: lower case, spaces as hyphens, no punctuation."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_link_of_a_document_leads_to_a_file_and_a_heading():
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
            if "://" in target:
                continue
            name, _, part = target.partition("#")
            there = path.parent / name if name else path
            assert there.is_file(), f"{path.name} links to {target}"
            headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE) if part else []
            assert not part or part in map(anchor, headings), f"{path.name} links to {target}"
