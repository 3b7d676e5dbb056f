"""The documents: their commands run, and the files, options and headings that they name exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


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
