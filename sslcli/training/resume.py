"""Decide whether a run starts afresh or resumes, and from which checkpoint."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from sslcli.config.arguments import SWEEP, key_of
from sslcli.config.composed import TrainConfig
from sslcli.config.identity import differences
from sslcli.config.quoting import override
from sslcli.data.base import Dataset
from sslcli.encoders.batchnorm import batch_norms
from sslcli.encoders.dropout import drops
from sslcli.errors import UserError
from sslcli.pretrained.fit import check_fit
from sslcli.pretrained.importers import digest_of
from sslcli.run_dir import checkpoint
from sslcli.run_dir.checkpoint import State, open_run
from sslcli.run_dir.console import Console
from sslcli.run_dir.formatting import first_line, wrapped
from sslcli.run_dir.result_json import finished
from sslcli.training.length import Length
from sslcli.training.trainer import Trainer
from sslcli.types import Spec

CONTENT = 3  # the first format of checkpoints with a digest of the data's content, or of pieces of it


def starts_afresh(config: TrainConfig, run_dir: Path) -> bool:
    """Return whether ``choose_start`` will find no checkpoint; this is known before the components are built."""
    return config.resume == "never" or (config.resume == "auto" and not checkpoint.steps(run_dir))


def run_before(config: TrainConfig, run_dir: Path) -> Path:
    """Return the run directory of the checkpoint that a run goes on from.

    Raises:
        UserError: ``resume`` names no checkpoint.
    """
    return run_dir if checkpoint.steps(run_dir) else open_run(config.resume, "resume")[0]


def finished_before(config: TrainConfig, run_dir: Path) -> dict[str, Any] | None:
    """Return the result of a run that is finished according to this config, without reading its data.

    None if it is not finished, and if a setting has changed that may make it longer: ``choose_start`` decides then.
    """
    saved = checkpoint.steps(run_dir)
    if config.resume != "auto" or config.preview or config.plan or not saved:
        return None
    result = finished(run_dir, checkpoint.step_of(saved[0]))
    if result is None:
        return None
    try:
        refused, allowed = differences(checkpoint.load(saved[0])["config"], config)
    except checkpoint.DamagedCheckpoint:
        return None
    other_data = ("dataset.path", "dataset.split_folders", "encoder.weights")
    to_check = ("train.", "probe.", "checkpoint.keep_best", *other_data)  # the first may make the run longer
    longer = [text for text in allowed if text.startswith(to_check)]
    return None if refused or longer else result


def free_keys(*modules: nn.Module) -> tuple[str, ...]:
    """Return the keys of the mathematics that change nothing but rounding in a run of these modules."""
    return () if batch_norms(*modules) or drops(*modules) else ("train.accumulate",)


def choose_start(
    config: TrainConfig,
    run_dir: Path,
    length: Length,
    dataset: Dataset,
    console: Console,
    command: Sequence[str] = (),
    free: Collection[str] = (),
) -> State | None:
    """Return the state to resume from, or None to start afresh.

    Args:
        config: the config of the command.
        run_dir: its run directory.
        length: the length of the run.
        dataset: the data.
        console: prints warnings and what has changed.
        command: the arguments of the command, for the one that a refusal offers.
        free: keys that may change because of the model, see ``free_keys``.

    Raises:
        UserError: the checkpoint has another config or other data, or its run is already longer.
    """
    if config.resume == "never":
        return None
    found, source = checkpoint.newest(run_dir, console.warn), str(run_dir)
    if found is None:
        if config.resume == "auto":
            return None
        found, source = open_run(config.resume, "resume"), config.resume
    elif config.resume != "auto":
        console.warn(f"{run_dir} has checkpoints of its own and goes on from them, not from {config.resume}.")
    path, state = found
    refused, allowed = differences(state["config"], config, free)
    if refused:
        raise UserError(
            f"run_dir: {path} was trained with another config ({'; '.join(refused[:4])}). Use the same, or another "
            f"run_dir=..., or start afresh with resume=never.{_onward(source, refused, command)}"
        )
    if not _has_data(state, dataset):
        changed = [text for text in allowed if text.startswith("dataset.")]
        since = f" Changed since: {'; '.join(changed)}." if changed else ""
        raise UserError(
            f"dataset: {path} was trained on {state['data']}, and these are {dataset.fingerprint()}.{since} "
            "Restore the data, or start afresh with resume=never."
        )
    _check_numbers(path, Spec.from_plain(state["spec"]), dataset.spec)
    _check_weights(path, state, config.encoder.weights)
    before = Length(**state["length"])
    shorter_steps = before.steps and length.steps and length.steps < before.steps
    done = before.minutes or state["seconds"] / 60
    shorter_minutes = length.minutes and length.minutes < done
    if shorter_steps or shorter_minutes:
        was = f"{before.steps} steps" if before.steps else f"{before.minutes} minutes"
        raise UserError(f"train: the run in {run_dir} is {was} long and can only be made longer.")
    if allowed:
        for text in wrapped(f"changed since the checkpoint: {'; '.join(allowed)}"):
            console.line(text)
    return state


def _onward(source: str, refused: Sequence[str], command: Sequence[str]) -> str:
    """Return a line with the command that continues from the weights of a run in a new one, if they fit into it."""
    if not command or SWEEP & set(command) or any(text.startswith("encoder.") for text in refused):
        return ""
    own = ("run_dir", "resume", "encoder.weights")
    words = [word for word in command if key_of(word) not in own]
    new = f"{shlex.join(['ssl-train', *words])} {override('encoder.weights', source)}"
    return f"\nFrom its weights a new run goes on with these settings: {new}"


def jump(trainer: Trainer, state: State) -> tuple[str, ...]:
    """Return what a new length does to the learning rate of a resumed run, as lines; none if that stays as it is."""
    before, after = Length(**state["length"]), trainer.length
    old, new = (trainer.schedule(length.progress(trainer.step, trainer.seconds)) for length in (before, after))
    if old == new:
        return ()
    rate = trainer.full_lr
    is_end = before.progress(trainer.step, trainer.seconds) >= 1
    length = f"{after.steps} steps" if after.steps else f"{after.minutes} minutes"
    return (
        f"longer    the learning rate jumps from {old * rate:.3g}{', its old end,' * is_end} to {new * rate:.3g};",
        f"          the result is not that of a run that has {length} from its start",
    )


def go_on(trainer: Trainer, state: State) -> None:
    """Restore the state of a checkpoint in the trainer of its run.

    Raises:
        UserError: it is not that of the run's config.
    """
    check_fit(trainer.encoder, state["encoder"], "encoder")
    check_fit(trainer.objective, state["objective"], "objective")
    try:
        trainer.load_state_dict(state)
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"resume: the state of the optimizer or of a hook in this checkpoint is not that of its own config "
            f"({first_line(error)}). Start afresh with resume=never."
        ) from error


def is_trained_on(state: State, dataset: Dataset, weights: str | None) -> bool:
    """Return whether a run was trained on these data, and from these weights, which is as in ``encoder.weights``."""
    return _has_data(state, dataset) and _has_weights(state, weights)


def _has_data(state: State, dataset: Dataset) -> bool:
    """Whether the run was trained on these data; old checkpoints know less about theirs."""
    before = state["data"]
    return bool(before == dataset.fingerprint() or (state["format"] < CONTENT and before == dataset.old_fingerprint()))


def _has_weights(state: State, weights: str | None) -> bool:
    """Whether the run started from these weights, under the same path or, if the checkpoint knows it, by content."""
    known = state.get("initial_weights")
    return state["config"].encoder.weights == weights or bool(known and known == digest_of(weights))


def _check_weights(path: Path, state: State, weights: str | None) -> None:
    """Raise UserError if the run started from other weights."""
    if not _has_weights(state, weights):
        raise UserError(
            f"encoder.weights: {path} was trained from {state['config'].encoder.weights or 'random weights'}, and not "
            f"from {weights or 'random weights'}. Use the same, or another run_dir=..., or resume=never."
        )


def _check_numbers(path: Path, before: Spec, now: Spec) -> None:
    """Raise UserError if the mean or std of a column is another one now."""
    for name, field in before.items():
        if name in now and (field.mean, field.std) != (now[name].mean, now[name].std):
            raise UserError(
                f"dataset: {path} was trained with mean {list(field.mean)} and std {list(field.std)} of '{name}', and "
                f"these data have {list(now[name].mean)} and {list(now[name].std)}. Restore them, or start afresh with "
                "resume=never."
            )
