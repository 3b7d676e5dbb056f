"""The documents: their commands run, and the files, options and headings that they name exist."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


@pytest.mark.slow
@pytest.mark.long
def test_every_command_of_the_export_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, ROOT / "tests" / "support" / "page.py", "docs/export.md"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=580)
    assert run.returncode == 0, run.stderr
    printed = run.stdout.splitlines()
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


def python_blocks(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / document).read_text(), re.DOTALL)


def test_the_python_of_the_pages_runs(run, tmp_path, monkeypatch, capsys):
    """The way from a folder to a classifier in use, and then the page on Python in the same folder."""
    for number in range(24):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number // 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 34), (200 * (number % 2), 10 * number, 0)).save(path)
    size = ("dataset=images", "dataset.path=pictures", "dataset.size=32", "dataset.workers=0", "train.batch_size=8")
    code, _, err = run(*size, "train.steps=2", "run_dir=runs/mine", "probe=none", "log.report=false")
    assert code == 0, err
    code, _, err = run("run=runs/mine", "format=embeddings", "format.table=numpy", "output=embeddings.npy",
                       command="export")  # fmt: skip
    assert code == 0, err
    fit, classify = python_blocks("own_data.md")
    exec(fit, {})
    monkeypatch.setattr(sys, "argv", ["classify.py", "pictures/a/0.png", "pictures/b/0.png"])
    exec(classify, {})
    said = capsys.readouterr().out
    assert re.search(r"^100.0% of \d held-out pictures$", said, re.MULTILINE)
    assert re.findall(r"/0.png  (\w)  \d+%$", said, re.MULTILINE) == ["a", "b"]
    names: dict[str, object] = {}
    for block in python_blocks("python.md"):
        exec(block, names)


def test_the_messages_that_a_page_explains_are_the_tools_own():
    source = "\n".join(path.read_text() for path in ROOT.glob("sslcli/**/*.py"))
    texts = re.sub(r'"\s*\n\s*f?"', "", source)  # one text that is written on several lines
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    messages = re.findall(r"^\| `(.+?)`", page, re.MULTILINE)
    assert len(messages) > 20
    for message in messages:
        for part in message.split("…"):
            assert part.strip() in texts, f"no message has {part!r}"


def test_the_key_reference_is_up_to_date():
    page = runpy.run_path(str(ROOT / "scripts" / "tools" / "key_reference.py"))["page"]()
    kept = (ROOT / "docs" / "keys.md").read_text()
    assert page == kept, "run python scripts/tools/key_reference.py"
