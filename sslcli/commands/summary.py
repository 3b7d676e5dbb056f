"""The summary that a run prints: some lines before training, and the table of metrics after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from sslcli.commands.data_lines import data_lines
from sslcli.commands.recipe_lines import recipe_lines
from sslcli.commands.short_runs import short_run_lines
from sslcli.components import Components
from sslcli.config.composed import TrainConfig
from sslcli.config.origin import Origin
from sslcli.config.quoting import loading, override
from sslcli.encoders.base import Recommends
from sslcli.errors import one_line
from sslcli.evaluation.base import in_short, table
from sslcli.evaluation.measure import Measured
from sslcli.run_dir.console import Console
from sslcli.run_dir.formatting import wrapped
from sslcli.training.trainer import Trainer


def announce(console: Console, config: TrainConfig, components: Components, trainer: Trainer, origin: Origin) -> None:
    """Print what is about to be trained, on which data, and where its settings come from."""
    weights = sum(p.numel() for p in components.encoder.parameters())
    steps, minutes = trainer.length.steps, trainer.length.minutes
    chance = components.objective.chance(trainer.loader.batch_size)
    rate = trainer.full_lr
    rows = (
        ("run_dir", str(trainer.run_dir)),
        *data_lines(config, components),
        ("encoder", f"{config.encoder.name}, {weights:,} parameters, features of width {components.encoder.dim}"),
        *((("", words),) if (words := components.encoder.in_words(config.train.num_micro)) else ()),
        ("objective", config.objective.name + (f", loss at chance {chance:.4f}" if chance else "")),
        (
            "training",
            f"{f'{steps} steps' if steps else f'{minutes} minutes'}, batch {trainer.loader.batch_size}, "
            f"learning rate {rate:.3g}, {trainer.compute.precision} on {trainer.compute.name}, "
            f"{torch.get_num_threads()} threads"
            + (f", {trainer.ranks.size} processes" if trainer.ranks.size > 1 else ""),
        ),
        *((("auto", ", ".join(origin.automatic)),) if origin.automatic else ()),
        *(("recipe", text) for text in recipe_lines(config, origin.recipe, trainer.loader.batch_size, rate)),
        *(("short", text) for text in short_run_lines(config, steps and steps * trainer.loader.batch_size)),
    )
    for name, text in (*rows, *_first_steps(config, trainer), *rates(trainer)):
        for line in wrapped(f"{name:<9} {one_line(text)}", indent=10):
            console.line(line)


def _first_steps(config: TrainConfig, trainer: Trainer) -> Iterator[tuple[str, str]]:
    count, total = trainer.frozen.steps, trainer.length.steps
    if count and total and count >= total:
        yield "frozen", f"the encoder, in all {total} steps (encoder.freeze_steps): only the heads are trained"
    elif count:
        yield "frozen", f"the encoder, in the first {count} steps: only the heads are trained in them"


def rates(trainer: Trainer) -> Iterator[tuple[str, str]]:
    """Yield a row with the learning rates of all groups of parameters, if they are not all the same."""
    counts: dict[tuple[float, str], int] = {}
    for group in trainer.optimizer.param_groups:
        layer = group.get("layer", "")  # which optimizer.layer_decay has added
        of = "heads" if layer is None else f"layer {layer}" if layer != "" else ""
        key = group["full_lr"], of
        counts[key] = counts.get(key, 0) + sum(parameter.numel() for parameter in group["params"])
    texts = [f"{rate:.3g} ({of or f'{count:,} parameters'})" for (rate, of), count in counts.items() if count]
    if len({rate for (rate, _), count in counts.items() if count}) > 1:
        yield "rates", ", ".join(texts)


def say_result(console: Console, trainer: Trainer, measured: Measured, page: str, seconds: float) -> None:
    """Print the metrics, the path of the report and the next commands."""
    run = override("run", trainer.run_dir)
    kind = "recommendations" if isinstance(trainer.encoder, Recommends) else "safetensors"
    for text in (
        "",
        *measured.left_out,
        *table(measured.metrics),
        *in_short("without labels", measured.label_free),
        "",
        f"trained {trainer.step} steps in {trainer.seconds:.0f} s; this command took {seconds:.0f} s",
        f"report  {page}",
        "next:",
        f"  ssl-eval {run}",
        f"  ssl-export {run} format={kind}",
        f"  {loading(trainer.run_dir)}",
    ):
        console.line(text)


def say_finished(console: Console, run_dir: Path, result: Mapping[str, Any]) -> None:
    """Print that a run is finished, how to make it longer and how to start it afresh."""
    steps = result["steps"]
    console.line(f"{run_dir} is finished ({steps} steps): nothing to do.")
    console.line(f"Make it longer: ssl-train {override('resume', run_dir)} train.steps={2 * steps}")
    console.line(f"Start it afresh: its command with resume=never. Evaluate it: ssl-eval {override('run', run_dir)}")
