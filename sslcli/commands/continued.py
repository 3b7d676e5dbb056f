"""``ssl-train resume=RUN`` alone: the run goes on in its own directory, by its own config.

RUN's ``config.yaml`` takes the place of ``conf/train.yaml``, and the overrides of the command are applied to it. It may
come from anybody, so it gets no more than the config in a checkpoint: see ``sslcli.run_dir.foreign``.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from sslcli.config.arguments import SWEEP, conf_dir, key_of
from sslcli.config.choices import DatasetChoice, ProbeChoice
from sslcli.config.composed import TrainConfig, restored, to_plain
from sslcli.config.paths import expand, located
from sslcli.config.quoting import for_hydra
from sslcli.config.secrets import shown
from sslcli.distributed.start import Start
from sslcli.errors import UserError
from sslcli.run_dir.checkpoint import State, open_run
from sslcli.run_dir.foreign import allowed, refuse_sending
from sslcli.run_dir.layout import CONFIG, is_run, read_config, refuse_links

NAME = "continued"  # of the primary config in Hydra's store
_CHOSEN = ("probe", "device", "logger")  # groups of which a resumed run may choose another option
_OWN_CONFIG = {"--config-name", "-cn", "--config-path", "-cp"}


Task = Callable[[Any], Any]  # what a command does with its composed config


def by_own_config(arguments: list[str], folders: Sequence[Path], task: Task) -> tuple[str, list[str], Task]:
    """Return the name of the primary config, the arguments for Hydra and the task of a command with ``resume=``.

    If the command has a config of its own, by another ``run_dir`` or by a chosen part, ``resume`` names the checkpoint
    that a run of this config starts from, and nothing changes. Else the run that it names goes on in its directory.

    Args:
        arguments: those of the command, flags first.
        folders: the folders of yaml files; their sub-folders are the groups.
        task: the task of ``ssl-train``.

    Raises:
        UserError: there is no such run, it cannot be read, or its config needs words that the command lacks.
    """
    given = _given(arguments)
    place = expand(str(given.get("resume")))
    if (
        given.get("resume") in (None, "auto", "never")
        or not place.is_dir()
        or _has_own_config(arguments, given, folders)
    ):
        return "train", arguments, task
    refuse_links(place)
    if not is_run(place):
        raise UserError(f"resume: there is no run in {place}: it has no {CONFIG}.")
    try:
        config = restored(read_config(place, "resume"))
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith("resume: ") else f"resume: {place / CONFIG}: {text}") from None
    state = open_run(str(place), "resume")[1]
    ConfigStore.instance().store(NAME, _primary(config, state, place, given))
    rest = [word for word in arguments if _key(word) not in ("resume", "run_dir")]
    whole = _whole(state["environment"]["command"], rest, place)

    def go_on(config: Any) -> Any:
        start = Start.read()
        if start.first and not start.has_parent:  # which has said it
            print(shown(f"resume={place}: this run goes on in its directory, by its own config"), flush=True)
        sys.argv[1:] = whole  # which its next checkpoint records
        return task(config)

    return NAME, rest, go_on


def _given(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the values of the command's overrides by key; nothing if Hydra cannot read them and will say so."""
    try:
        overrides = OverridesParser.create().parse_overrides([word for word in arguments if _key(word)])
    except HydraException:
        return {}
    return {override.key_or_group: override.value() for override in overrides}


def _key(word: str) -> str:
    """Return the key of an override; '' for a flag."""
    return "" if word.startswith("-") or "=" not in word else key_of(word).partition("@")[0]


def _has_own_config(arguments: Sequence[str], given: Mapping[str, Any], folders: Sequence[Path]) -> bool:
    elsewhere = (
        given.get("run_dir") is not None
        and expand(str(given["run_dir"])).resolve() != expand(str(given["resume"])).resolve()
    )
    parts = [key for key in given if key not in _CHOSEN and any((folder / key).is_dir() for folder in folders)]
    flags = {word.partition("=")[0] for word in arguments if word.startswith("-")}
    return elsewhere or bool(parts) or bool(flags & (SWEEP | _OWN_CONFIG))


def _primary(config: TrainConfig, state: State, place: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what takes the place of ``conf/train.yaml``: a run's config, and what that file says to Hydra."""
    own = located(config.dataset, state.get("folder"))
    words = {key.removeprefix("dataset."): value for key, value in given.items() if key.startswith("dataset.")}
    data = allowed(own, DatasetChoice({key: value for key, value in words.items() if key in own.node}))
    if "logger" not in given:
        refuse_sending(config.logger, given)
    plain = {**to_plain(config), "dataset": data.to_plain()}
    plain |= {"run_dir": str(place), "resume": "auto", "plugins": [], "preview": None, "plan": False, "replay": None}
    if "${" in json.dumps(plain, default=str):
        raise UserError(f"resume: {place / CONFIG} refers to something by ${{...}}, which a resolved config does not.")
    start = Start.read()
    ranks_are_there = start.size > 1 and not start.has_parent  # however the run was started before
    if ranks_are_there and "device.num" not in given:
        plain["device"]["num"] = None
    if "probe" in given:
        settings = {f.name for f in fields(ProbeChoice)}
        plain["probe"] = {key: value for key, value in plain["probe"].items() if key in settings}
    if "logger" in given:
        plain["logger"] = {}
    usual = yaml.safe_load((Path(conf_dir()) / "train.yaml").read_text())
    defaults = [entry for entry in usual["defaults"] if _stays(entry, given)]
    return {"defaults": defaults, **plain, "hydra": usual["hydra"]}


def _stays(entry: Any, given: Mapping[str, Any]) -> bool:
    """Whether an entry of the defaults list stays beside a resolved config: groups do that are chosen anew."""
    name = next(iter(entry)) if isinstance(entry, dict) else entry
    return isinstance(entry, str) or name.startswith("override ") or (name in _CHOSEN and name in given)


def _whole(recorded: str, changed: list[str], place: Path) -> list[str]:
    """Return the arguments that describe a run: those that its checkpoint recorded, with what has changed since."""
    try:
        words = shlex.split(recorded)[1:]
    except ValueError:
        words = []
    if not words or SWEEP & set(words):
        return [for_hydra("resume", place), *changed]
    keys = {_key(word) for word in changed} - {""}
    return [word for word in words if _key(word) not in keys] + [word for word in changed if _key(word)]
