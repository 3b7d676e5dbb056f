"""Checkpoints: plain dicts of tensors and primitives, written whole, read without unpickling code.

checkpoints/step-00001234.pt    the newest few, and every ``keep_every``-th
checkpoints/last                text: the file name of the newest whole one
checkpoints/best                text: that of the best one, where a run is evaluated while it trains; it is kept, too
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from sslcli.config.paths import expand
from sslcli.config.upgrade import FORMAT
from sslcli.errors import UserError
from sslcli.run_dir.console import Console
from sslcli.run_dir.files import sweep, write_atomically, write_text
from sslcli.run_dir.formats import upgrade
from sslcli.run_dir.seal import broken_seal, sealed

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
    """Write the checkpoint of ``step``, point ``last`` at it and ``best`` at that of ``best``, then remove old ones.

    What ``best`` names stays, also when it is not given any more, and so do those of ``bests``: by other metrics.
    """
    folder = run_dir / "checkpoints"
    folder.mkdir(exist_ok=True)
    path = path_of(run_dir, step)
    buffer = io.BytesIO()  # torch.save would turn a full disk's OSError into something else
    torch.save({"format": FORMAT, **state}, buffer)
    write_atomically(path, lambda file: file.writelines(sealed(buffer.getbuffer())))
    write_text(folder / "last", f"{path.name}\n")
    if best is not None and path_of(run_dir, best).is_file():
        write_text(folder / "best", f"{path_of(run_dir, best).name}\n")
    pointer = folder / "best"
    kept = pointer.read_text().strip() if pointer.is_file() else None
    mine = [old for old in steps(run_dir) if step_of(old) <= step]  # a later one is damaged and was passed over
    for old in mine[keep:]:
        if old.name != kept and step_of(old) not in bests and (not keep_every or step_of(old) % keep_every):
            old.unlink()
    return path


def path_of(run_dir: Path, step: int) -> Path:
    """The checkpoint file of ``step``."""
    return run_dir / "checkpoints" / f"step-{step:08d}.pt"


def steps(run_dir: Path) -> list[Path]:
    """All checkpoint files of a run, newest first."""
    found = (run_dir / "checkpoints").glob("step-*.pt")
    return sorted((path for path in found if re.fullmatch(r"step-\d+", path.stem)), reverse=True)


def step_of(path: Path) -> int:
    """The step in a checkpoint's file name."""
    return int(path.stem.removeprefix("step-"))


def is_pointer(path: Path) -> bool:
    """Whether it is one of the text files beside checkpoints, which name one of them."""
    return path.name in ("last", "best") and path.is_file()


def open_run(path: str | None, key: str = "run") -> tuple[Path, State]:
    """The run directory and the newest whole checkpoint of a run, or the one checkpoint that ``path`` names.

    Raises:
        UserError: nothing there, or nothing whole; ``key`` is the config path that the message names.
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
    """The newest whole checkpoint of a run; damaged ones are passed over with a warning.

    Raises:
        UserError: there are checkpoints and none of them is whole.
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
    """A file that is cut short, altered, or no checkpoint at all."""


def load(path: Path) -> State:
    """The content of one checkpoint, on the CPU, brought to the present format; its ``config`` is a ``TrainConfig``.

    Raises:
        DamagedCheckpoint: truncated or altered (the file's digest is checked, or every zip member's CRC in files of
            format 1, which have none), or not one of ours.
        UserError: missing, or written by a newer version.
    """
    if not path.is_file():
        raise UserError(f"resume: there is no checkpoint {path}.")
    try:
        broken = broken_seal(path)
        if broken is None:
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
        if broken:
            raise DamagedCheckpoint(f"{path} is damaged ({broken}).")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        reason = f": it asks for {found[1]}" if found else ""
        raise DamagedCheckpoint(f"{path} holds more than tensors and is not opened{reason}.") from None
    except (zipfile.BadZipFile, RuntimeError, EOFError, KeyError, OSError) as error:
        raise DamagedCheckpoint(f"{path} is cut short or not a checkpoint ({error}).") from None
    if not isinstance(state, dict) or not isinstance(state.get("format"), int):
        raise DamagedCheckpoint(f"{path} is not a checkpoint of this tool.")
    if state["format"] > FORMAT:
        raise UserError(
            f"{path} was written by sslcli {state.get('version')} in format {state['format']}, "
            f"and this one reads up to {FORMAT}. Update sslcli."
        )
    return upgrade(state)


def sweep_temporaries(run_dir: Path) -> None:
    """Remove what a killed writer left behind; only the lock's holder may call this."""
    for folder in (run_dir, run_dir / "checkpoints"):
        sweep(folder)
