"""What plan=true predicts against the run itself: the time of its steps, and its memory while it trains.

    python scripts/benchmarks/plan.py [--encoders convnet_small ...] [--steps 200] [--json FILE] [KEY=VALUE]

Both are as on the command line ``ssl-train encoder=...`` with the keys that are given. The plan is made first, then the
run; on a CPU nothing else should use its cores. A run's memory is its peak before its last step, read from the kernel,
on a GPU the peak that torch has counted by its end. Ratios are printed; below 1 the plan was too low. Processor time is
that of the training thread in the plan and of all threads in the run, so it compares with device.threads=1 only; it is
what is left to compare on a machine that has other work.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from figures import Row, add_json, row, write
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import open_dict

from sslcli.cli import conf_dir
from sslcli.commands.accumulate import limit_for
from sslcli.commands.fresh_process import Fresh
from sslcli.commands.plan import built, made_plan
from sslcli.config.composed import TrainConfig, resolved, schema
from sslcli.config.origin import Origin, settled

TRAIN = """
import atexit, pathlib, torch
from sslcli.cli import train
def tell():
    if torch.cuda.is_available():
        pathlib.Path({place!r}).write_text(str(torch.cuda.max_memory_allocated()))
atexit.register(tell)
train()
"""


def composed(overrides: list[str]) -> TrainConfig:
    """The config of ``ssl-train`` with these overrides."""
    ConfigStore.instance().store(name="schema", node=schema(TrainConfig))
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose("train", overrides, return_hydra_config=True)
        choices = dict(config.hydra.runtime.choices)
        with open_dict(config):
            del config["hydra"]
        plain = resolved(config, TrainConfig)
        return settled(plain, overrides, choices)[0]


class Figures(NamedTuple):
    """What a step takes."""

    seconds: float
    processor: float  # seconds of a processor; 0 if they are not known
    memory: int  # bytes


def planned(overrides: list[str]) -> Figures:
    """A step by the plan."""
    with built(composed(overrides), Path("none"), Origin()) as parts:
        fresh = Fresh(parts.config, parts.components, parts.compute, torch.get_num_threads())
        found = made_plan(parts, fresh, limit_for(parts.compute, parts.size))
    return Figures(found.step, found.step * found.cost.computing if found.cost else 0.0, found.memory)


def real(overrides: list[str], steps: int) -> Figures:
    """A step of a run."""
    with tempfile.TemporaryDirectory() as place:
        lines, run = Path(place) / "run" / "metrics.jsonl", f"run_dir={place}/run"
        of_gpu = Path(place) / "peak"
        command = [sys.executable, "-c", TRAIN.format(place=str(of_gpu)), *overrides, run]
        peak, seen = 0, {}
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                text = lines.read_text().rpartition("\n")[0] if lines.is_file() else ""
                step = json.loads(text.splitlines()[-1])["step"] if text else 0
                if 0 < step < steps:
                    peak = max(peak, high_water(process.pid))
                    seen.setdefault(step, processor_seconds(process.pid))
                time.sleep(0.02)
        if process.returncode:
            sys.exit(f"the run ended with {process.returncode}")
        result = json.loads((Path(place) / "run" / "result.json").read_text())
        if of_gpu.is_file():
            peak = int(of_gpu.read_text())
    first, last = min(seen, default=0), max(seen, default=0)
    processor = (seen[last] - seen[first]) / (last - first) if last > first else 0.0
    return Figures(result["seconds"] / result["steps"], processor, peak)


def processor_seconds(pid: int) -> float:
    """Processor time of a process so far."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def high_water(pid: int) -> int:
    """The peak of a process's memory so far, in bytes; 0 if it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
        return 1024 * int(text.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=["convnet_small", "resnet18", "vit_tiny"])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("keys", nargs="*", help="keys of ssl-train")
    add_json(parser, "the run itself")
    options = parser.parse_intermixed_args()
    rows: list[Row] = []
    for encoder in options.encoders:
        quiet = ("probe=none", "log.report=false", "log.every=1")
        overrides = [f"encoder={encoder}", f"train.steps={options.steps}", *quiet, *options.keys]
        plan, run = planned(overrides), real(overrides, options.steps)
        for name, ours, true, unit in (
            ("time", plan.seconds * options.steps, run.seconds * options.steps, "s"),
            ("processor time", plan.processor * options.steps, run.processor * options.steps, "s"),
            ("memory", plan.memory / 1e6, run.memory / 1e6, "MB"),
        ):
            rows.append(row(f"{encoder}, {options.steps} steps, {name}", ours, unit, true))
            ratio = f"{ours / true:.2f}" if true else "unknown"
            both = f"plan {ours:8.4g} {unit:<2}  run {true:8.4g} {unit:<2}"
            print(f"{encoder:<14} {name:<15} {both}  ratio {ratio}", flush=True)
    write(options.json, rows)


if __name__ == "__main__":
    main()
