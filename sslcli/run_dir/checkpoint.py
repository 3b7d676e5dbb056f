"""Checkpoints: plain dicts of tensors and primitives, written atomically, read without unpickling code.

checkpoints/step-00001234.pt    the newest ones, and those at multiples of ``keep_every``
checkpoints/last                text: file name of the newest complete checkpoint
checkpoints/best                text: file name of the best checkpoint, if there is online evaluation; it is kept, too
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from sslcli.config.paths import expand
from sslcli.config.upgrade import FORMAT
from sslcli.errors import UserError
from sslcli.run_dir.archive import BrokenArchive, ForeignArchive
from sslcli.run_dir.console import Console
from sslcli.run_dir.files import readable, sweep, write_atomically, write_text
from sslcli.run_dir.formats import upgrade
from sslcli.run_dir.formatting import first_line
from sslcli.run_dir.seal import sealed
from sslcli.run_dir.torch_file import load_archive

State = dict[str, Any]


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
    folder = run_dir / "checkpoints"
    folder.mkdir(exist_ok=True)
    path = path_of(run_dir, step)
    buffer = io.BytesIO()  # if torch.save wrote to disk, a full disk would not raise OSError
    torch.save({"format": FORMAT, **state}, buffer)
    write_atomically(path, lambda file: file.writelines(sealed(buffer.getbuffer())))
    write_text(folder / "last", f"{path.name}\n")
    if best is not None and path_of(run_dir, best).is_file():
        write_text(folder / "best", f"{path_of(run_dir, best).name}\n")
    pointer = folder / "best"
    kept = pointer.read_text().strip() if pointer.is_file() else None
    intact = [old for old in steps(run_dir) if step_of(old) <= step]  # later ones are damaged
    for old in intact[keep:]:
        if old.name != kept and step_of(old) not in bests and (not keep_every or step_of(old) % keep_every):
            old.unlink()
    return path


def path_of(run_dir: Path, step: int) -> Path:
    """Return the path of the checkpoint of ``step``."""
    return run_dir / "checkpoints" / f"step-{step:08d}.pt"


def steps(run_dir: Path) -> list[Path]:
    """Return the paths of all checkpoints of a run, newest first."""
    found = (run_dir / "checkpoints").glob("step-*.pt")
    return sorted((path for path in found if re.fullmatch(r"step-\d+", path.stem)), reverse=True)


def step_of(path: Path) -> int:
    """Return the step in a checkpoint's file name."""
    return int(path.stem.removeprefix("step-"))


def is_pointer(path: Path) -> bool:
    """Whether ``path`` is one of the text files ``last`` and ``best``, which name a checkpoint."""
    return path.name in ("last", "best") and path.is_file()


def open_run(path: str | None, key: str = "run") -> tuple[Path, State]:
    """Load a run's newest intact checkpoint, or the checkpoint that ``path`` names; return the run directory, too.

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
        place = place.with_name(place.read_text().strip())
    if place.is_file():
        folder = place.resolve().parent
        return folder.parent if folder.name == "checkpoints" else folder, load(place)
    found = newest(place, Console().warn) if place.is_dir() else None
    if found is None:
        raise UserError(f"{key}: there is no run with a checkpoint in {place}.")
    return place, found[1]


def newest(run_dir: Path, warn: Callable[[str], None]) -> tuple[Path, State] | None:
    """Load the newest intact checkpoint of a run; damaged ones are skipped with a warning. None if there are none.

    Raises:
        UserError: there are checkpoints, and all of them are damaged.
    """
    found = steps(run_dir)
    for path in found:
        try:
            return path, load(path)
        except DamagedCheckpoint as error:
            warn(f"{error} Falling back to the one before.")
    if found:
        raise UserError(f"run_dir: no checkpoint in {run_dir / 'checkpoints'} can be read. Start afresh: resume=never")
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
    try:
        with readable(path, "run"), path.open("rb") as file:
            state = load_archive(file)
    except FileNotFoundError:
        raise UserError(f"run: there is no checkpoint {path}.") from None
    except BrokenArchive as error:
        raise DamagedCheckpoint(f"{path} is damaged ({error}).") from None
    except UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        reason = f": it asks for {found[1]}" if found else ""
        raise UserError(f"run: {path} holds more than tensors and is not opened{reason}.") from None
    except (ForeignArchive, RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:  # of torch
        raise UserError(f"run: {path} is not a checkpoint of this tool ({first_line(error)}).") from None
    if not isinstance(state, dict) or not isinstance(state.get("format"), int):
        raise UserError(f"run: {path} is not a checkpoint of this tool.")
    if state["format"] > FORMAT:
        raise UserError(
            f"{path} was written by sslcli {state.get('version')} in format {state['format']}, "
            f"and this one reads up to {FORMAT}. Update sslcli."
        )
    return upgrade(state)


def sweep_temporaries(run_dir: Path) -> None:
    """Remove temporary files of killed processes; the caller must hold the lock of the run directory."""
    for folder in (run_dir, run_dir / "checkpoints"):
        sweep(folder)
