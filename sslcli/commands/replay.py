"""``ssl-train replay=STEP run_dir=RUN``: run one step of a run again, and say what in it is not finite.

Order, views and random draws of a step are functions of the seed and the step's number, so the step is the same one.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from sslcli.commands.build_trainer import make_trainer
from sslcli.commands.restored import compute_of
from sslcli.components import build_components
from sslcli.config.choices import DatasetChoice
from sslcli.config.composed import TrainConfig, read
from sslcli.config.instantiate import allow
from sslcli.distributed.ranks import Ranks
from sslcli.errors import UserError
from sslcli.run_dir import checkpoint, fitted
from sslcli.run_dir.console import Console
from sslcli.run_dir.foreign import PLACES, allowed
from sslcli.run_dir.layout import is_run, read_config
from sslcli.training.anatomy import Anatomy, examine
from sslcli.training.device import set_threads
from sslcli.training.environment import restore_environment
from sslcli.training.resume import is_trained_on
from sslcli.training.trainer import Trainer


def replay(config: TrainConfig, run_dir: Path | None, step: int) -> None:
    """Train from the checkpoint before ``step`` up to it and print its anatomy; nothing is written.

    Args:
        config: the command's config, of which the device and the plug-ins are used, and data and weights if the run's
            must be said. The rest is the run's.
        run_dir: the run directory.
        step: the number of the step, from 1 on, as log lines count.

    Raises:
        UserError: there is no such run or step, or its data have changed.
    """
    allow(config.plugins)
    if run_dir is None or not is_run(run_dir):
        raise UserError(f"run_dir: replay={step} needs a run: give run_dir=..., a directory with a config.yaml.")
    console = Console()
    earlier = (path for path in checkpoint.steps(run_dir) if checkpoint.step_of(path) < step)
    path, state = checkpoint.first_intact(earlier, console.warn) or (None, None)  # None: the run is begun again
    run_config = state["config"] if state else read(read_config(run_dir), TrainConfig)
    train = dataclasses.replace(run_config.train, compile=False)  # so that every module can be looked into
    device, run_config = config.device, _with_words(run_config, config, afresh=state is None)
    config = dataclasses.replace(run_config, device=device, train=train)
    set_threads(config.device.threads)
    compute = compute_of(config.device, config.train.precision)
    kept = fitted.Fitted(fitted.read(run_dir), complete=True) if state else None
    components = build_components(config, afresh=state is None, fitted=kept)
    if state and not is_trained_on(state, components.dataset, config.encoder.weights):
        raise UserError(f"dataset: {path} was trained on other data, so step {step} cannot be run again.")
    with tempfile.TemporaryDirectory() as elsewhere:  # where samples that cannot be read are listed
        trainer = make_trainer(config, components, compute, Path(elsewhere), Console(silent=True))
        trainer.hooks.clear()
        if state:
            trainer.load_state_dict(state)
            restore_environment(state, compute, Ranks(), config.device.threads, console)
        if trainer.length.steps and step > trainer.length.steps:
            raise UserError(f"replay={step}: this run has {trainer.length.steps} steps.")
        console.line(f"step {step} of {run_dir}, from {path.name if path else 'its beginning'}")
        _reach(trainer, step, console)


def _with_words(own: TrainConfig, said: TrainConfig, *, afresh: bool) -> TrainConfig:
    """Return the run's config with its data and initial weights as far as the words of the command allow them.

    Raises:
        UserError: the data or the weights are fetched, and the command does not name them.
    """
    weights = own.encoder.weights
    if afresh and weights and weights.startswith("timm:") and said.encoder.weights != weights:
        raise UserError(f"encoder.weights: only the run names these. If you trust it, add: encoder.weights={weights}")
    words = said.dataset.node if said.dataset.name == own.dataset.name else {}  # else it is the default dataset
    places = {key: words[key] for key in PLACES if words.get(key) is not None}
    try:
        return dataclasses.replace(own, dataset=allowed(own.dataset, DatasetChoice(places)))
    except UserError as error:
        raise UserError(f"{error} and the run's dataset=...") from None


def _reach(trainer: Trainer, step: int, console: Console) -> None:
    trainer.encoder.train()
    trainer.objective.train()
    batches = trainer.loader.batches(trainer.step)
    while trainer.step < step - 1:
        trainer.train_step(next(batches))
    index = trainer.loader.index(trainer.step)
    anatomy = examine(trainer, next(batches))
    for line in _lines(anatomy):
        console.line(line)
    dataset = trainer.loader.dataset
    for row, i in enumerate(index.tolist()):
        mark = "  not finite" if row in anatomy.rows else ""
        console.line(f"sample      {i}  {dataset.name_of(i)}{mark}")


def _lines(anatomy: Anatomy) -> list[str]:
    lines = [f"{name:<11} {value:.6g}" for name, value in anatomy.values.items()]
    for what, found in (("input", anatomy.columns), ("output", anatomy.outputs), ("gradient", anatomy.gradients)):
        shown = [f"{name}: {text}" for name, text in found.items()]
        lines += [f"{what:<11} {text}" for text in shown[:3]]
        if len(shown) > 3:
            lines.append(f"{'':<11} and {len(shown) - 3} more")
    if anatomy.backward:
        lines.append(f"{'backward':<11} {anatomy.backward}")
    if anatomy.is_finite:
        lines.append("everything in this step is finite")
    return lines
