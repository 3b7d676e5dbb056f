"""Checkpoints: plain dicts of tensors and primitives, written atomically, read without unpickling code.

checkpoints/step-00001234.pt    the newest ones, and those at multiples of ``keep_every``
checkpoints/last                text: file name of the newest complete checkpoint
checkpoints/best                text: file name of the best checkpoint, if there is online evaluation; it is kept, too
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from sslcli.config.paths import expand
from sslcli.config.upgrade import FORMAT
from sslcli.config.value_types import fits
from sslcli.errors import UserError
from sslcli.run_dir import inside
from sslcli.run_dir.archive import BrokenArchive, ForeignArchive
from sslcli.run_dir.console import Console
from sslcli.run_dir.files import readable, writable
from sslcli.run_dir.fitted import of_checkpoint
from sslcli.run_dir.formats import upgrade
from sslcli.run_dir.formatting import first_line
from sslcli.run_dir.layout import refuse_links
from sslcli.run_dir.seal import LENGTH, write_sealed
from sslcli.run_dir.torch_file import load_archive

State = dict[str, Any]
FOLDER = "checkpoints"
_OURS = re.compile(r"step-\d{8,}\.pt", re.ASCII)
# What torch, and what converts old formats, raise for values that this tool does not write.
_UNEXPECTED = (RuntimeError, ValueError, LookupError, TypeError, AttributeError)


def save(
    run_dir: Path,
    step: int,
    state: State,
    *,
    keep: int,
    keep_every: int | None,
    best: int | None = None,
    bests: Collection[int] = (),
) -> Path:
    """Write the checkpoint of ``step``, update the files ``last`` and ``best``, and remove old checkpoints.

    Args:
        run_dir: the run directory.
        step: the step of the checkpoint.
        state: its content.
        keep: how many of the newest checkpoints to keep.
        keep_every: also keep checkpoints at multiples of this many steps.
        best: the step of the best checkpoint, for the file ``best``; None leaves the file as it is. The checkpoint
            that the file names is kept.
        bests: steps of further checkpoints to keep, the best ones by other metrics.
    """
    path = path_of(run_dir, step)
    with writable(path.parent):
        inside.make_folder(run_dir, FOLDER)
    buffer = io.BytesIO()  # if torch.save wrote to disk, a full disk would not raise OSError
    torch.save({"format": FORMAT, **state}, buffer)
    inside.write(run_dir, f"{FOLDER}/{path.name}", lambda file: write_sealed(file, buffer.getbuffer()))
    inside.write_text(run_dir, f"{FOLDER}/last", f"{path.name}\n")
    if best is not None and path_of(run_dir, best) in steps(run_dir):
        inside.write_text(run_dir, f"{FOLDER}/best", f"{path_of(run_dir, best).name}\n")
    kept = (inside.read(run_dir, f"{FOLDER}/best") or b"").decode(errors="replace").strip()
    intact = [old for old in steps(run_dir) if step_of(old) <= step]  # later ones are damaged
    for old in intact[keep:]:
        if old.name != kept and step_of(old) not in bests and (not keep_every or step_of(old) % keep_every):
            inside.remove(run_dir, f"{FOLDER}/{old.name}")
    return path


def size(state: State) -> int:
    """Return how many bytes the file of a checkpoint has, without writing it."""
    counted: Any = _Counted()
    torch.save({"format": FORMAT, **state}, counted)
    return int(counted.bytes) + LENGTH


class _Counted(io.RawIOBase):
    """A file that forgets what is written to it."""

    bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.bytes += len(content)
        return len(content)


def path_of(run_dir: Path, step: int) -> Path:
    """Return the path of the checkpoint of ``step``."""
    return run_dir / FOLDER / f"step-{step:08d}.pt"


def steps(run_dir: Path) -> list[Path]:
    """Return the paths of all checkpoints of a run, newest first."""
    found = [name for name in inside.names(run_dir, FOLDER) if _OURS.fullmatch(name)]
    return [run_dir / FOLDER / name for name in sorted(found, key=lambda name: int(name[5:-3]), reverse=True)]


def step_of(path: Path) -> int:
    """Return the step in a checkpoint's file name."""
    return int(path.stem.removeprefix("step-"))


def is_pointer(path: Path) -> bool:
    """Whether ``path`` is one of the text files ``last`` and ``best``, which name a checkpoint."""
    return path.name in ("last", "best") and path.is_file()


def open_run(path: str | None, key: str = "run") -> tuple[Path, State]:
    """Load a run's newest intact checkpoint, or the checkpoint that ``path`` names; return the run directory, too.

    The state's ``fitted`` has what the run has fitted on its data.

    Args:
        path: a run directory, a checkpoint, or a text file ``last`` or ``best``.
        key: the config path that error messages name.

    Raises:
        UserError: there is no checkpoint, or none that can be read.
    """
    if not path:
        raise UserError(f"{key} is needed: name a run directory, such as {key}=runs/infonce-...")
    place = expand(path)
    if is_pointer(place):
        place = place.with_name(_target(place))
    if place.is_symlink() and place.parent.name != FOLDER:  # a name that the user gave to a checkpoint
        place = place.resolve()
    if place.exists() and not place.is_dir():
        folder, name = inside_run(place)
        if name != place.name:
            refuse_links(folder)
        state = load(place)
        return folder, {**state, "fitted": of_checkpoint(folder, state["files"])}
    if place.is_dir():
        refuse_links(place)
    found = newest(place, Console().warn) if place.is_dir() else None
    if found is None:
        raise UserError(f"{key}: there is no run with a checkpoint in {place}.")
    return place, {**found[1], "fitted": of_checkpoint(place, found[1]["files"])}


def _target(pointer: Path) -> str:
    """Return the name of the checkpoint that ``last`` or ``best`` names.

    Raises:
        UserError: it names something else, which may lie anywhere.
    """
    found = (inside.read(*inside_run(pointer)) or b"")[:100].decode(errors="replace").strip()
    if not _OURS.fullmatch(found):
        raise UserError(f"run: {pointer} does not name a checkpoint, such as step-00001234.pt. Name one in its place.")
    return found


def inside_run(path: Path) -> tuple[Path, str]:
    """Return the run directory of a checkpoint or pointer and its name there; for a file elsewhere, its folder."""
    path = path.absolute()
    if path.parent.name == FOLDER:
        return path.parent.parent, f"{FOLDER}/{path.name}"
    return path.parent, path.name


def newest(run_dir: Path, warn: Callable[[str], None]) -> tuple[Path, State] | None:
    """Load the newest intact checkpoint of a run; damaged ones are skipped with a warning. None if there are none.

    Raises:
        UserError: there are checkpoints, and all of them are damaged.
    """
    paths = steps(run_dir)
    found = first_intact(paths, warn)
    if paths and found is None:
        raise UserError(f"run_dir: no checkpoint in {run_dir / FOLDER} can be read. Start afresh: resume=never")
    return found


def first_intact(paths: Iterable[Path], warn: Callable[[str], None]) -> tuple[Path, State] | None:
    """Load the first of some checkpoints that is not damaged, with a warning for each before it; None if all are."""
    for path in paths:
        try:
            return path, load(path)
        except DamagedCheckpoint as error:
            warn(f"{error} Falling back to the one before.")
    return None


class DamagedCheckpoint(UserError):
    """The bytes of the file are not those that were written: it is cut short or altered."""


def load(path: Path) -> State:
    """Load a checkpoint to the CPU and convert it to the current format; its ``config`` becomes a ``TrainConfig``.

    Raises:
        DamagedCheckpoint: the file is truncated or altered. Its SHA-256 digest is checked; files of format 1
            have none, so the structure of the zip file and the CRC of every member are checked instead.
        UserError: the file is missing, cannot be read, was not written by this tool, or by a newer version.
    """
    content = _content(path)
    if not isinstance(content, dict) or not fits(content.get("format"), int) or content["format"] < 1:
        raise UserError(f"run: {path} is not a checkpoint of this tool.")
    if content["format"] > FORMAT:
        version = str(content.get("version"))[:20]
        raise UserError(
            f"run: {path} was written by sslcli {version!r} in format {content['format']}, and this one reads up to "
            f"{FORMAT}. Update sslcli."
        )
    try:
        return upgrade(content)
    except KeyError as error:
        raise UserError(f"run: {path} is not a checkpoint of this tool: {error.args[0]} is missing.") from None
    except (UserError, *_UNEXPECTED) as error:
        raise UserError(f"run: {path} is not a checkpoint of this tool: {first_line(error)}") from None


def _content(path: Path) -> Any:
    """Return what is stored in a file, after checking that it is whole."""
    try:
        with readable(path, "run"), inside.opened(*inside_run(path)) as file:
            return load_archive(file)
    except FileNotFoundError:
        raise UserError(f"run: there is no checkpoint {path}.") from None
    except BrokenArchive as error:
        raise DamagedCheckpoint(f"{path} is damaged, or no checkpoint ({error}).") from None
    except UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        reason = f": it asks for {found[1]}" if found else ""
        raise UserError(f"run: {path} holds more than tensors and is not opened{reason}.") from None
    except (ForeignArchive, *_UNEXPECTED) as error:
        raise UserError(f"run: {path} is not a checkpoint of this tool: {first_line(error)}") from None


def sweep_temporaries(run_dir: Path) -> None:
    """Remove temporary files of killed processes; the caller must hold the lock of the run directory."""
    for name in ("", FOLDER):
        inside.sweep(run_dir, name)
