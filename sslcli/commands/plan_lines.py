"""What ``plan=true`` prints: what a run would cost, in lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from sslcli.components import Components
from sslcli.config.composed import TrainConfig
from sslcli.config.sections import CheckpointSection
from sslcli.run_dir.formatting import in_bytes, in_time
from sslcli.training.busy_processor import LEAST
from sslcli.training.length import Length
from sslcli.training.plan_memory import Cost, Line
from sslcli.training.trainer import Trainer
from sslcli.types import Compute

_REPORT = 500_000  # bytes of a report.html, whose pictures and charts do not grow with the run


@dataclass(frozen=True)
class Parts:
    """What a plan builds of a run, as the run would."""

    config: TrainConfig
    components: Components
    trainer: Trainer
    compute: Compute
    size: int  # processes of the run
    run_dir: Path
    starts_from_weights: bool
    notes: tuple[tuple[str, str], ...]  # what the run would write before its first step, and the plan did not

    @property
    def own(self) -> int:
        """Samples of a step in each process."""
        return self.config.train.batch_size // self.size


@dataclass(frozen=True)
class Plan:
    """What a run would cost; memory and time are those of each process and of the whole run.

    Args:
        pieces: the micro-batches of a process.
        limit: bytes that a process may take.
        line: its memory as a function of the micro-batch.
        memory: its memory at this batch.
        cost: of steps at this batch; None if they were not made, as it does not fit or they would take long.
        step: seconds of a step.
        checkpoint: bytes of a checkpoint.
        most: the largest batch of the run that fits.
        tried: the cost of that batch, if it was tried.
    """

    pieces: int
    limit: int
    line: Line
    memory: int
    cost: Cost | None
    step: float
    checkpoint: int
    most: int
    tried: Cost | None


def plan_lines(parts: Parts, plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield a word and a text for each line of a plan."""
    threads = f"{torch.get_num_threads()} threads"
    where = f"{parts.compute.precision} on {parts.compute.name}, {threads}"
    yield "plan", f"{parts.run_dir}: nothing is written; measured with {where}"
    yield "parameters", ", ".join(f"{name} {number:,}" for name, number in _parameters(parts.components).items())
    yield from _memory_lines(parts, plan)
    yield from _time_lines(parts, plan)
    size = disk(parts, plan.checkpoint, number_of_steps(parts.trainer.length, plan.step))
    count = size["checkpoints"] // plan.checkpoint
    texts = [f"{count} checkpoint{'s' * (count != 1)} of {in_bytes(plan.checkpoint)}"]
    texts += [f"{name} of {in_bytes(number)}" for name, number in size.items() if name != "checkpoints"]
    yield "disk", f"{in_bytes(sum(size.values()))}: {', '.join(texts)}"
    yield from parts.notes


def _parameters(components: Components) -> dict[str, int]:
    """Return the numbers of parameters: of the encoder, of the trained heads, and of the teacher's copies of both."""
    encoder = {id(p): p.numel() for p in components.encoder.parameters()}
    others = {id(p): p for p in components.objective.parameters() if id(p) not in encoder}
    heads = sum(p.numel() for p in others.values() if p.requires_grad)
    copies = sum(p.numel() for p in others.values() if not p.requires_grad)
    return {"encoder": sum(encoder.values()), "heads": heads} | ({"teacher": copies} if copies else {})


def _memory_lines(parts: Parts, plan: Plan) -> Iterator[tuple[str, str]]:
    batch, by_formula = parts.config.train.batch_size, ""
    if parts.size > 1:
        by_formula = f"; by formula from one process, for each of {parts.size}"
    cut = f" in {plan.pieces} micro-batches" if plan.pieces > 1 else ""
    fits = plan.memory <= plan.limit
    how = "measured" if plan.cost is not None else "predicted by two small batches"
    yield (
        "memory",
        f"{in_bytes(plan.memory)} at batch {batch:,}{cut} ({how}), of {in_bytes(plan.limit)} that a run may take; "
        f"a sample more in a micro-batch takes {in_bytes(plan.line.each)}{by_formula}",
    )
    if not fits:
        yield (
            "",
            "it does not fit: raise train.accumulate (auto finds the number), or lower train.batch_size",
        )
    tried = "predicted by two small batches"
    if plan.tried is not None:
        fits = plan.tried.peak <= plan.limit
        tried = f"tried: {in_bytes(plan.tried.peak)}{'' if fits else ', more than predicted'}"
    if not plan.most:
        yield "largest", "no batch fits"
        return
    is_all = plan.most > len(parts.components.dataset) - parts.size * plan.pieces
    yield "largest", f"batch {plan.most:,}{', which is all samples' * is_all}{cut} ({tried})"


def _time_lines(parts: Parts, plan: Plan) -> Iterator[tuple[str, str]]:
    batch, length = parts.config.train.batch_size, parts.trainer.length
    by_formula = "; by formula from one process, without what they send each other" if parts.size > 1 else ""
    how = f"{plan.cost.steps} steps measured" if plan.cost is not None else "predicted by a smaller batch"
    yield "speed", f"{batch / plan.step:,.0f} samples/s, {in_time(plan.step)} a step ({how}{by_formula})"
    if plan.cost is not None and parts.compute.device.type == "cpu" and plan.cost.computing < LEAST:
        had = f"{plan.cost.computing:.0%} of the time"
        yield "", f"the steps had a processor for {had}: other work on this machine takes it"
    steps = number_of_steps(length, plan.step)
    share = parts.config.probe.share
    online = f", probe.every up to {100 * share:.0f} % more" if parts.config.probe.every and share else ""
    yield "time", f"{in_time(steps * plan.step)} for {steps:,} steps{online}; the evaluation at the end is not in it"


def number_of_steps(length: Length, seconds: float) -> int:
    """Return the steps of a run; of one that has a length in minutes, by the seconds of a step."""
    return length.steps or max(1, round(60 * (length.minutes or 0) / seconds))


def kept_checkpoints(steps: int, options: CheckpointSection) -> int:
    """Return how many checkpoints a run of so many steps keeps at its end."""
    saved = sorted({*range(options.every, steps + 1, options.every), steps})
    kept = set(saved[-options.keep :]) | {s for s in saved if options.keep_every and s % options.keep_every == 0}
    return len(kept) + (options.keep_best is not None)


def disk(parts: Parts, checkpoint: int, steps: int) -> dict[str, int]:
    """Return the bytes on disk of a whole run, by what they are of."""
    options = parts.config.checkpoint
    found = {"checkpoints": kept_checkpoints(steps, options) * checkpoint}
    if parts.starts_from_weights:
        tensors = parts.components.encoder.state_dict().values()
        found["initial weights"] = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if parts.config.log.report:
        found["report"] = _REPORT
    return found
