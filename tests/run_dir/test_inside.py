"""A run's own files are opened by their names in its directory: no link there leads a read or a write elsewhere."""

import os
import socket
import stat

import pytest
import torch
from support.helpers import plain_state

from sslcli.errors import UserError
from sslcli.loggers.csv import CSV
from sslcli.run_dir import checkpoint, fitted, inside, normalisation
from sslcli.run_dir.bad_samples import BadSampleList
from sslcli.run_dir.checkpoint import open_run
from sslcli.run_dir.console import Console
from sslcli.run_dir.eval_json import add_metrics, settled_size
from sslcli.run_dir.fitted import Fitted
from sslcli.run_dir.layout import make_room, read_config, refuse_links
from sslcli.run_dir.lock import in_turn, locked
from sslcli.run_dir.metrics_jsonl import JsonLines, read_lines
from sslcli.run_dir.result_json import read_result, write_result

SECRET = "ssh-ed25519 AAAA victim\n"


def lock(run_dir):
    with locked(run_dir):
        pass


def take_turn(run_dir):
    with in_turn(run_dir, "eval.lock"):
        pass


def log(run_dir):
    console = Console()
    console.log_to(run_dir / "train.log")
    console.line("x")


def result(run_dir):
    write_result(run_dir, {}, headline=None, steps=1, seconds=1, seed=0, uses_labels=False)


def save(run_dir):
    checkpoint.save(run_dir, 9, plain_state(9, x=torch.zeros(3)), keep=1, keep_every=None, best=9)


def normalised(run_dir):
    numbers = normalisation.Normalisation((0.5,), (0.5,), "as measured")
    Fitted({normalisation.NAME: numbers.content()}).write(run_dir, lambda: "data")


def fit(run_dir):
    Fitted({"ids.json": b"{}"}).write(run_dir, lambda: "data")


def table(run_dir):
    logger = CSV()
    logger.start({}, run_dir, 0)
    logger.scalars(1, {"step": 1})


WRITERS = {
    "lock": lock,
    "eval.lock": take_turn,
    "train.log": log,
    "metrics.jsonl": lambda run_dir: JsonLines(run_dir / "metrics.jsonl").write({"step": 1}),
    "metrics.csv": table,
    "result.json": result,
    "eval.json": lambda run_dir: add_metrics(run_dir, {}, step=1, dataset=None),
    "bad_samples.txt": lambda run_dir: BadSampleList(run_dir / "bad_samples.txt", 10, 1.0, print).add([Bad()]),
    "preprocessor_config.json": normalised,
    "fitted": fit,
    "fitted/ids.json": fit,
    "fitted/index.json": fit,
    "checkpoints/last": save,
    "checkpoints/best": save,
    "checkpoints/step-00000009.pt": save,
    "checkpoints": save,
}
READERS = {
    "metrics.jsonl": lambda run_dir: list(read_lines(run_dir)),
    "result.json": read_result,
    "eval.json": lambda run_dir: settled_size(run_dir, None),
    "config.yaml": read_config,
    "preprocessor_config.json": fitted.read,
    "fitted/index.json": fitted.read,
    "checkpoints": checkpoint.steps,
}


class Bad:
    where, reason = "a.png", "no picture"


@pytest.fixture
def victim(tmp_path):
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "keys").write_text(SECRET)
    (folder / "step-00000001.pt").write_text(SECRET)
    (folder / ".x.tmp").write_text(SECRET)
    return folder


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_written_through_a_link(tmp_path, victim, name, relative):
    run_dir = tmp_path / "run"
    (run_dir / name).parent.mkdir(parents=True)
    target = victim if name == "checkpoints" else victim / "keys"
    (run_dir / name).symlink_to(os.path.relpath(target, (run_dir / name).parent) if relative else target)
    before = content(victim)
    for act in (WRITERS[name], refuse_links):
        with pytest.raises(UserError, match=f"{name.partition('/')[0]}.* is a link"):
            act(run_dir)
    assert content(victim) == before
    assert [p for p in run_dir.rglob("*") if ".tmp" in p.name] == []


@pytest.mark.parametrize("name", READERS)
def test_nothing_is_read_through_a_link(tmp_path, victim, name):
    (tmp_path / "run" / name).parent.mkdir(parents=True)
    (tmp_path / "run" / name).symlink_to(victim if name == "checkpoints" else victim / "keys")
    with pytest.raises(UserError, match="is a link"):
        READERS[name](tmp_path / "run")


@pytest.mark.parametrize(
    "name", [name for name in WRITERS if "/" not in name and name not in ("checkpoints", "fitted")]
)
def test_a_fifo_is_refused_and_does_not_block(tmp_path, name):
    os.mkfifo(tmp_path / name)
    for act in (WRITERS[name], READERS.get(name, refuse_links)):
        with pytest.raises(UserError, match="not a regular file"):
            act(tmp_path)


def test_a_socket_and_a_folder_are_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.log").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("metrics.jsonl")
        for name in ("train.log", "metrics.jsonl"):
            with pytest.raises(UserError, match="not a regular file"):
                WRITERS[name](tmp_path)


def test_what_replaces_a_file_after_the_first_look_is_refused(tmp_path, victim, monkeypatch):
    """The first look finds nothing, as if the name were made a link, or a FIFO, between the look and the opening."""
    (tmp_path / "link").symlink_to(victim / "keys")
    os.mkfifo(tmp_path / "fifo")
    looks = iter([FileNotFoundError] * 2)
    lstat = os.lstat

    def late(path, **options):
        raise next(looks)

    monkeypatch.setattr(os, "lstat", late)
    with pytest.raises(OSError), inside.opened(tmp_path, "link"):
        pass
    with pytest.raises(UserError, match="regular file"), inside.opened(tmp_path, "fifo"):
        pass
    monkeypatch.setattr(os, "lstat", lstat)


def test_a_file_with_two_names_keeps_its_content_under_the_other(tmp_path, victim):
    os.link(victim / "keys", tmp_path / "train.log")
    log(tmp_path)
    assert (victim / "keys").read_text() == SECRET
    assert (tmp_path / "train.log").read_text() == f"{SECRET}x\n"
    os.link(victim / "keys", tmp_path / "lock")
    with pytest.raises(UserError, match="hard link"):
        lock(tmp_path)
    assert (victim / "keys").read_text() == SECRET


def test_the_path_to_a_run_directory_may_go_through_links(tmp_path):
    (tmp_path / "disk" / "checkpoints").mkdir(parents=True)  # the run directory itself has this name
    (tmp_path / "runs").symlink_to("disk")
    run_dir = tmp_path / "runs" / "checkpoints"
    save(run_dir)
    log(run_dir)
    refuse_links(run_dir)
    with locked(run_dir):
        assert checkpoint.steps(run_dir) == [run_dir / "checkpoints" / "step-00000009.pt"]
    assert stat.S_ISREG((tmp_path / "disk" / "checkpoints" / "train.log").lstat().st_mode)


def test_the_folders_of_loggers_may_be_links(tmp_path, victim):
    for name in ("tensorboard", "wandb", "mlflow"):
        (tmp_path / name).symlink_to(victim)
    refuse_links(tmp_path)
    (tmp_path / "train.log").touch()
    make_room(tmp_path, "never", Console())
    assert (tmp_path / "previous" / "1" / "wandb").readlink() == victim


@pytest.mark.parametrize("name", ["previous", "export", "checkpoints"])
def test_a_folder_that_is_a_link_is_refused_before_anything_is_done(tmp_path, victim, name):
    (tmp_path / name).symlink_to(victim)
    (tmp_path / "train.log").touch()
    with pytest.raises(UserError, match=f"{name} is a link"):
        refuse_links(tmp_path)
    with pytest.raises(UserError, match="is a link"):
        inside.make_folder(tmp_path, f"{name}/1")
    with pytest.raises(UserError, match="is a link"):
        inside.move(tmp_path, "train.log", f"{name}/train.log")
    assert set(content(victim)) == {"keys", "step-00000001.pt", ".x.tmp"}


def test_temporaries_are_swept_inside_only(tmp_path, victim):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".last.tmp.999999").touch()
    (tmp_path / "checkpoints" / ".best.tmp.999999").symlink_to(victim / "keys")  # goes, and not what it leads to
    checkpoint.sweep_temporaries(tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert (victim / "keys").read_text() == SECRET


@pytest.mark.parametrize(
    "text",
    ["../../victim/step-00000001.pt", "step-1.pt", "/etc/passwd", "step-00000009.pt\nmore", "", "\0", "x" * 999],
)
def test_a_pointer_names_a_checkpoint_beside_it(tmp_path, victim, text):
    (tmp_path / "run").mkdir()
    save(tmp_path / "run")
    for name in ("last", "best"):
        (tmp_path / "run" / "checkpoints" / name).write_text(text)
        with pytest.raises(UserError, match="does not name a checkpoint"):
            open_run(str(tmp_path / "run" / "checkpoints" / name))


def test_a_user_may_name_a_checkpoint_by_a_link_of_their_own(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    save(tmp_path / "run")
    (tmp_path / "mine.pt").symlink_to("run/checkpoints/step-00000009.pt")
    run_dir, state = open_run(str(tmp_path / "mine.pt"))
    assert (run_dir, state["step"]) == (tmp_path / "run", 9)
    monkeypatch.chdir(tmp_path / "run" / "checkpoints")
    assert open_run("last")[0] == tmp_path / "run"


def test_a_checkpoint_that_is_a_link_is_not_opened(tmp_path):
    for name in ("run", "other"):
        (tmp_path / name).mkdir()
        save(tmp_path / name)
    path = tmp_path / "run" / "checkpoints" / "step-00000009.pt"
    path.unlink()
    path.symlink_to(tmp_path / "other" / "checkpoints" / "step-00000009.pt")
    for given in (path, tmp_path / "run"):
        with pytest.raises(UserError, match="is a link"):
            open_run(str(given))
