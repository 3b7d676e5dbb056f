"""What the config in a checkpoint may not do by itself, because a checkpoint may come from anybody.

It may not fetch a URL, choose the folder in which copies are kept, download, or send: these need the words of the
command.
Parts outside this package need them, too: ``plugins=[...]``, in ``sslcli.config.instantiate``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from typing import Any

from sslcli.config.choices import Choice, DatasetChoice
from sslcli.config.paths import located
from sslcli.config.quoting import override
from sslcli.config.secrets import HIDDEN, hidden
from sslcli.errors import UserError, suggest
from sslcli.run_dir.checkpoint import State

PLACES = _PATH, _FOLDER, _DOWNLOAD = "path", "cache_dir", "download"  # keys that say where data come from and go


def data_to_read(state: State, said: DatasetChoice) -> tuple[DatasetChoice, bool]:
    """Return the data that a command reads for a checkpoint, and whether they are the run's own.

    Args:
        state: the checkpoint.
        said: the data section of the command.

    Raises:
        UserError: the run's own data are not found, or need words that the command lacks.
    """
    own = state["config"].dataset
    if not {_PATH, "_target_"} & said.node.keys():
        own = located(own, state.get("folder"))
    chosen = allowed(own, said)
    return chosen, is_own(own, chosen, said)


def allowed(own: DatasetChoice, said: DatasetChoice) -> DatasetChoice:
    """Return the data to read: those that the command chose, or the run's own as far as the command allows it.

    Args:
        own: the data section of a checkpoint.
        said: the data section of the command; without a dataset in it, its keys are words about the run's own.

    Raises:
        UserError: the run's own data need words that the command lacks; the message has them.
    """
    if "_target_" in said.node:
        return said
    if not isinstance(own.node, Mapping):
        return own
    unknown = said.node.keys() - own.node.keys()
    if unknown:
        raise UserError(f"Unknown key 'dataset.{min(unknown)}'. {suggest(min(unknown), own.node)}")
    found = {key: value for key, value in own.node.items() if key not in said.node}
    needed = {key: value for key, value in found.items() if _has_url(value) or (key == _FOLDER and value is not None)}
    if needed:
        words = " ".join(override(f"dataset.{key}", hidden(value)) for key, value in needed.items())
        secret = f", with what {HIDDEN} stands for" if HIDDEN in words else ""
        raise UserError(
            f"dataset: these data come from a URL, or are copied to a folder, that only the checkpoint names. If you "
            f"trust it, add{secret}: {words}"
        )
    if found.get(_DOWNLOAD):
        found[_DOWNLOAD] = False  # what has been downloaded before is read
    given = {f.name: getattr(said, f.name) for f in fields(said) if f.name != "node"}
    changed = {name: value for name, value in given.items() if value != getattr(DatasetChoice(), name)}
    return replace(own, node={**own.node, **found, **said.node}, **changed)


def refuse_sending(loggers: Mapping[str, Choice], said: Collection[str]) -> None:
    """Raise UserError if a run's loggers send something somewhere, and the command does not name those keys.

    Args:
        loggers: those of the run's config by name.
        said: the keys of the command.
    """
    sending = {
        f"logger.{name}.{key}": value
        for name, choice in loggers.items()
        for key, value in choice.node.items()
        if _has_url(value) or (key, value) == ("mode", "online") or (key == "tracking_uri" and value is not None)
    }
    needed = {key: value for key, value in sending.items() if key not in said}
    if needed:
        words = " ".join(override(key, hidden(value)) for key, value in needed.items())
        raise UserError(f"logger: only the run says that its metrics are sent. If you trust it, add: {words}")


def is_own(own: DatasetChoice, chosen: DatasetChoice, said: DatasetChoice) -> bool:
    """Whether the data that are read are the run's own, wherever their copies are kept."""
    if chosen is own or "_target_" in said.node:
        return chosen is own
    without = {_FOLDER: None, _DOWNLOAD: None}
    return bool(hidden({**own.node, **without}) == hidden({**chosen.node, **without}))


def _has_url(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_url, value.values()))
    return any(map(_has_url, value)) if isinstance(value, (list, tuple)) else isinstance(value, str) and "://" in value
