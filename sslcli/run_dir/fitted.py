"""What a run has fitted on the training part of its data: files in its directory, made once and never again.

A tokenizer, a map of ids, means, a sample of values: each is a file in its usual format in the folder ``fitted`` of the
run. The first process makes it before the first step. Its digest stands in every checkpoint. Resuming, evaluation,
export and ``sslcli.load`` read it again, also when another dataset is evaluated.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from sslcli.errors import UserError
from sslcli.run_dir import inside, normalisation
from sslcli.run_dir.json_files import JsonFile, loads
from sslcli.types import Spec

FOLDER = "fitted"
FACTS = "facts.safetensors"  # the tensors in ``Spec.facts``
_INDEX = f"{FOLDER}/index.json"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
_WAY_OUT = "Restore it, or start afresh with resume=never."


class Fitted:
    """Files that were fitted on the training part of a run's data, by name.

    Args:
        files: the files that the run has already.
        complete: whether the run has been trained, so that nothing may be fitted any more.
        by_first: calls a function in the first process only, and returns its result in all of them.
    """

    def __init__(
        self,
        files: Mapping[str, bytes] | None = None,
        *,
        complete: bool = False,
        by_first: Callable[[Callable[[], Any]], Any] = lambda act: act(),
    ) -> None:
        self.files = dict(files or {})
        self.complete = complete
        self._by_first = by_first

    def file(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Return the content of a file. ``make`` makes it, unless the run has it.

        Raises:
            UserError: the run has been trained without this file.
        """
        if name not in self.files:
            if self.complete:
                raise UserError(
                    f"dataset: the run has no {path_of(name)}, which is fitted on its training data. Restore it, or "
                    "choose data of the kind that the run was trained on."
                )
            self.files[name] = self._by_first(make)
        return self.files[name]

    def tensors(self, name: str, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the tensors in a safetensors file, as ``file`` does."""
        return load(self.file(name, lambda: save({key: value.contiguous() for key, value in make().items()})))

    def facts(self) -> dict[str, Tensor]:
        """Return the tensors of ``Spec.facts``; none if the run has none."""
        return load(self.files[FACTS]) if FACTS in self.files else {}

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 digest of each file, for checkpoints."""
        return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(self.files.items())}

    def write(self, run_dir: Path, data: Callable[[], str]) -> None:
        """Write all files into a run directory, with what ``data`` returns, the identity of the data they are of."""
        own = sorted(name for name in self.files if path_of(name) != name)
        if own:
            inside.make_folder(run_dir, FOLDER)
        for name, content in self.files.items():
            if inside.read(run_dir, path_of(name)) != content:
                inside.write_bytes(run_dir, path_of(name), content)
        if own:
            inside.write_text(run_dir, _INDEX, f"{json.dumps({'data': data(), 'files': own}, indent=2)}\n")


def path_of(name: str) -> str:
    """Return the path of a file in its run directory."""
    return name if name == normalisation.NAME else f"{FOLDER}/{name}"


@dataclass(kw_only=True)
class _Index(JsonFile):
    """The schema of the folder's list of files."""

    data: str
    files: list[str]


def read(run_dir: Path, data: Callable[[], str] | None = None) -> dict[str, bytes]:
    """Read the files of a run that has a checkpoint; those that are missing are left out.

    Args:
        run_dir: the run directory.
        data: for a run without a checkpoint, returns the identity of its data, which may read all of them. Files of
            other data are left out.

    Raises:
        UserError: the list of the files is damaged.
    """
    listed = inside.read(run_dir, _INDEX)
    try:
        index = loads(listed, _Index) if listed is not None else {"data": "", "files": []}
        if not all(_NAME.fullmatch(name) for name in index["files"]):
            raise ValueError("it names other files than those in its folder")
    except (ValueError, LookupError) as error:
        raise UserError(f"run_dir: {run_dir / _INDEX} cannot be read ({error}). {_WAY_OUT}") from None
    names = index["files"] if not index["files"] or data is None or data() == index["data"] else []
    found = {name: inside.read(run_dir, path_of(name)) for name in (*names, normalisation.NAME)}
    if data is not None:  # mean and std are measured again, as exactly
        del found[normalisation.NAME]
    return {name: content for name, content in found.items() if content is not None}


def of_checkpoint(run_dir: Path, digests: Mapping[str, str]) -> Fitted:
    """Return those files of a trained run that are as its checkpoint knows them."""
    found = Fitted(read(run_dir), complete=True)
    intact = {name for name, digest in found.digests().items() if digests.get(name) == digest}
    return Fitted({name: found.files[name] for name in intact}, complete=True)


def of_state(state: Mapping[str, Any]) -> Fitted:
    """Return what a trained run has fitted, from the state that ``open_run`` or ``read_export`` returned."""
    fitted: Fitted = state.get("fitted") or Fitted(complete=True)
    return fitted


def trained_spec(state: Mapping[str, Any]) -> Spec:
    """Return the columns of a trained run's data, with the facts that were fitted on them."""
    return Spec.from_plain(state["spec"], of_state(state).facts())


def check(run_dir: Path, fitted: Fitted, known: Mapping[str, str]) -> None:
    """Check that the files of a run are those whose digests its checkpoint has.

    Raises:
        UserError: one is not, is missing, or is too many.
    """
    found = fitted.digests()
    for name in sorted({*found, *known}):
        if found.get(name) != known.get(name):
            both = name in found and name in known
            fault = (
                "is not that of its checkpoints" if both else "is missing" if name in known else "is not of this run"
            )
            raise UserError(f"run_dir: {run_dir / path_of(name)} {fault}. {_WAY_OUT}")
