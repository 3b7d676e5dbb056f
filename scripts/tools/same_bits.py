"""Check that a change of the code changes no bit of a run, by fingerprints of short runs before and after it.

    git worktree add /tmp/before HEAD~1
    python scripts/tools/same_bits.py record before.json --tree /tmp/before
    python scripts/tools/same_bits.py record after.json
    python scripts/tools/same_bits.py compare before.json after.json

A case is a command line of ``ssl-train`` with one thread, in fp32 or bf16: the default run, and 30 steps of every yaml
in conf/objective, without interruption, with two micro-batches, and killed half-way and resumed. Its fingerprint has
digests of the encoder, the objective and the optimizer in the last checkpoint, and every number of metrics.jsonl and
result.json except times.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

COMMON = ("device.threads=1", "log.report=false", "run_dir=run")
SHORT = ("train.steps=30", "train.batch_size=64", "log.every=10", "checkpoint.every=10", "probe.max_samples=500")
TIMES = ("samples_per_second", "data_wait")
KILL_AFTER = 10  # steps: a run is killed when the checkpoint of this step exists


def cases(tree: Path, steps: int) -> Iterator[tuple[str, list[str], bool]]:
    """Yield for every run its name, its command line, and whether it is killed half-way."""
    for precision in ("fp32", "bf16"):
        numeric = [*COMMON, f"train.precision={precision}"]
        yield f"default {precision}", [*numeric, f"train.steps={steps}", "probe.max_samples=2000"], False
        for yaml in sorted((tree / "conf" / "objective").glob("*.yaml")):
            words = [*numeric, *SHORT, f"objective={yaml.stem}"]
            if yaml.read_text().startswith("# texts"):
                words += ["dataset=wordnet_mini", "encoder=text_transformer"]
            yield f"{yaml.stem} {precision}", words, False
            yield f"{yaml.stem} {precision} accumulate=2", [*words, "train.accumulate=2"], False
            yield f"{yaml.stem} {precision} killed", words, True


def digest(value: Any) -> str:
    """Return a hash of nested containers of tensors and plain values."""
    import torch

    found = hashlib.sha256()

    def add(node: Any) -> None:
        if isinstance(node, dict):
            for key in sorted(node, key=str):
                found.update(str(key).encode())
                add(node[key])
        elif isinstance(node, (list, tuple)):
            for item in node:
                add(item)
        elif isinstance(node, torch.Tensor):
            found.update(f"{node.dtype} {tuple(node.shape)}".encode())
            found.update(node.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            found.update(repr(node).encode())

    add(value)
    return found.hexdigest()[:16]


def fingerprint(run_dir: Path) -> dict[str, Any]:
    """Return the values that must be equal in two runs of the same case."""
    import torch

    name = (run_dir / "checkpoints" / "last").read_text().strip()
    state = torch.load(run_dir / "checkpoints" / name, map_location="cpu", weights_only=True)
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((run_dir / "result.json").read_text())
    return {
        **{part: digest(state[part]) for part in ("encoder", "objective", "optimizer")},
        "lines": [{key: value for key, value in line.items() if key not in TIMES} for line in lines],
        "metrics": {name: metric["value"] for name, metric in result["metrics"].items()},
    }


def forked(work: Callable[[], None], log: Path) -> int:
    """Run ``work`` in a forked child process, which needs not import modules again; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    code = 1
    try:
        work()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.stdout.flush()
        os._exit(code)


def train(words: list[str], folder: Path) -> Callable[[], None]:
    def work() -> None:
        os.chdir(folder)
        sys.argv = ["ssl-train", *words]
        from sslcli.cli import train as entry

        entry()

    return work


def measure(name: str, words: list[str], killed: bool, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True)
    log = folder / "log"
    if killed:
        pid = forked(train(words, folder), log)
        half_way = folder / "run" / "checkpoints" / f"step-{KILL_AFTER:08d}.pt"
        while not half_way.is_file() and os.waitpid(pid, os.WNOHANG) == (0, 0):
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    _, status = os.waitpid(forked(train(words, folder), log), 0)
    if status:
        raise SystemExit(f"{name}: ended with {os.waitstatus_to_exitcode(status)}\n{log.read_text()}")
    return fingerprint(folder / "run")


def record(tree: Path, only: str, steps: int) -> dict[str, Any]:
    """Return the fingerprints of all cases whose name contains ``only``, two at a time."""
    sys.path.insert(0, str(tree))
    os.environ["OMP_NUM_THREADS"] = "1"  # before importing torch, as OpenMP threads do not survive a fork
    import hydra  # noqa: F401
    import timm  # noqa: F401
    import torch
    import torchvision  # noqa: F401

    import sslcli

    assert Path(sslcli.__file__ or "").resolve().is_relative_to(tree.resolve()), sslcli.__file__
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(2) as pool:
        chosen = [case for case in cases(tree, steps) if only in case[0]]
        jobs = [
            (name, pool.submit(measure, name, words, killed, Path(place, str(k))))
            for k, (name, words, killed) in enumerate(chosen)
        ]
        found = {}
        for name, job in jobs:
            found[name] = job.result()
            print(f"{name:<40} {found[name]['encoder']}", flush=True)
        return found


def compare(before: dict[str, Any], after: dict[str, Any]) -> int:
    """Print the differences; return the number of cases that differ."""
    differing = 0
    for name in sorted({*before, *after}):
        one, two = before.get(name), after.get(name)
        if one is None or two is None:
            print(f"{name}: only {'after' if one is None else 'before'}")
            differing += 1
            continue
        parts = [part for part in one if one[part] != two[part]]
        if parts:
            print(f"{name}: {', '.join(parts)} differ")
            differing += 1
    print(f"{len({*before, *after}) - differing} cases with the same bits, {differing} without")
    return differing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="run all cases and write their fingerprints")
    recording.add_argument("file", type=Path)
    recording.add_argument("--tree", type=Path, default=Path(__file__).resolve().parents[2], help="the checkout to run")
    recording.add_argument("--only", default="", help="run only cases whose name contains this text")
    recording.add_argument("--steps", type=int, default=300, help="steps of the default run")
    comparing = commands.add_parser("compare", help="print what differs between two files")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    options = parser.parse_args()
    if options.command == "compare":
        before, after = (json.loads(path.read_text()) for path in (options.before, options.after))
        sys.exit(min(1, compare(before, after)))
    options.file.write_text(json.dumps(record(options.tree, options.only, options.steps), indent=1) + "\n")


if __name__ == "__main__":
    main()
