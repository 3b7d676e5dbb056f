"""Where results are written: found out before anything is computed, and no other file is lost."""

import os

import pytest

from sslcli.config.paths import expand
from sslcli.errors import UserError
from sslcli.run_dir.lock import locked
from sslcli.run_dir.output import check_output, check_writable, folder_for

PAGE = rb"\s*<(!doctype )?html"


def test_what_can_be_written_leaves_nothing_behind(tmp_path):
    check_writable(tmp_path / "eval.json", "run")
    assert not check_output(tmp_path / "new" / "inner" / "page.html", PAGE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content, replaced", [(b"", False), (b"<!DOCTYPE HTML>\n", True), (b"\n <html>", True)])
def test_a_file_of_that_format_is_replaced(tmp_path, content, replaced):
    (tmp_path / "page.html").write_bytes(content)
    assert check_output(tmp_path / "page.html", PAGE) is replaced


def a_file(folder):
    (folder / "thesis.html").write_text("My thesis, in plain text")
    return folder / "thesis.html"


def a_folder(folder):
    (folder / "page.html").mkdir()
    return folder / "page.html"


def a_fifo(folder):
    os.mkfifo(folder / "page.html")
    return folder / "page.html"


def below_a_file(folder):
    return a_file(folder) / "inner" / "page.html"


REFUSED = {
    "another kind": a_file,
    "is a folder": a_folder,
    "no regular file": a_fifo,
    "Not a directory": below_a_file,
    "File name too long": lambda folder: folder / f"{'x' * 300}.html",
    "cannot be written": lambda folder: folder.joinpath(*["x" * 200] * 30, "page.html"),
    "No such file|No such device|Permission|cannot be written": lambda folder: expand("/proc/page.html"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_refused_is_a_line_that_names_the_key(tmp_path, why):
    path = REFUSED[why](tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=f"^output: .*({why})") as refused:
        check_output(path, PAGE)
    assert len(str(refused.value).splitlines()) == 1 and sorted(tmp_path.rglob("*")) == before


def test_folders_that_were_made_for_nothing_are_removed(tmp_path):
    with pytest.raises(UserError), folder_for(tmp_path / "a" / "b" / "page.html"):
        raise UserError("the format is not for this encoder")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError), folder_for(tmp_path / "a" / "b" / "page.html"):
        (tmp_path / "a" / "kept").touch()
        raise UserError("the format is not for this encoder")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "kept"]


@pytest.mark.parametrize("path", ["a\0b", "~nobody-of-this-name/x", "\ud800"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(UserError, match="is not a path"):
        expand(path)


def test_a_refused_run_leaves_no_lock_and_no_folder(tmp_path):
    (tmp_path / "mine").mkdir()
    for run_dir in (tmp_path / "runs" / "a", tmp_path / "mine"):
        with pytest.raises(UserError), locked(run_dir):
            assert (run_dir / "lock").is_file()
            raise UserError("run_dir: it is not a run's")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]
    with locked(tmp_path / "mine"):
        pass
    with pytest.raises(UserError), locked(tmp_path / "mine"):
        raise UserError("the lock is that of a run")
    assert (tmp_path / "mine" / "lock").read_bytes() == b""
