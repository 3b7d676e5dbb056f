"""The entry points of the commands: they read argv and return an exit code.

This module does not import torch, so that ``--help`` and the message about a typing error appear at once.
"""

# ruff: noqa: E402, I001  signals are handled from the first line on
from __future__ import annotations

from sslcli import signals

signals.leave_early()

import functools
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from sslcli.commands.job import Job, is_sweep
from sslcli.commands.sweep import check_launcher, sweep_ended
from sslcli.config.arguments import SWEEP, conf_dir, home_expanded, sweep_dir, varying
from sslcli.config.checks import check_ranges
from sslcli.config.composed import CONFIGS, EvalConfig, ExportConfig, ReportConfig, read, resolved, schema
from sslcli.config.flags import flags_first
from sslcli.config.given import Given
from sslcli.config.origin import Origin, settled
from sslcli.config.quoting import for_hydra
from sslcli.config.secrets import shown
from sslcli.config.overrides import check_overrides
from sslcli.config.paths import expand
from sslcli.distributed.local import RanksFailed, end_with_parent
from sslcli.distributed.start import LeftAlone, Start
from sslcli.errors import StartAgain, UserError, for_user
from sslcli.run_dir.streams import leave, make_lenient
from sslcli.sweeps.job_folder import job_folder

K = TypeVar("K")
LAST_WORD = 1.0  # seconds in which rank 0 says what is wrong before the others leave, at which srun ends it


def train() -> None:
    """The entry point of ``ssl-train``."""
    _main("train", functools.partial(_run, _train))


def evaluate() -> None:
    """The entry point of ``ssl-eval``."""
    _main("eval", functools.partial(_run, _evaluate))


def export() -> None:
    """The entry point of ``ssl-export``."""
    _main("export", functools.partial(_run, _export))


def report() -> None:
    """The entry point of ``ssl-report``."""
    _main("report", functools.partial(_run, _report))


def pack() -> None:
    """The entry point of ``ssl-pack``, which reads no config."""
    _main("pack", _pack)


def _pack(name: str) -> int:
    from sslcli.commands.pack import main

    main(f"ssl-{name}")
    return 0


def _train(config: Any) -> float | None:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    hydra = HydraConfig.get()
    choices = hydra.runtime.choices
    overrides: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)  # ${...} in them is not Hydra's own
    typed, automatic = settled(_plain(config, "train"), overrides, choices)
    if is_sweep(hydra):
        run_dir: Path | None = job_folder(hydra)
    else:
        run_dir = expand(typed.run_dir) if typed.run_dir else None
    if typed.replay is not None:
        from sslcli.commands.replay import replay

        replay(typed, run_dir, typed.replay)
        return None
    if typed.plan:
        from sslcli.commands.plan import plan, plan_line

        if is_sweep(hydra):
            line, seconds = plan_line(typed, overrides, run_dir, " ".join(varying(overrides, sys.argv[1:])))
            print(shown(line), flush=True)
            return seconds
        plan(typed, run_dir, Origin(choices, automatic, overrides))
        return None
    from sslcli.commands.ranks import number_of_ranks, train_on_ranks

    if num := number_of_ranks(typed):
        return train_on_ranks(typed, num, run_dir if is_sweep(hydra) else None, overrides)
    from sslcli.commands.train import run

    return run(typed, run_dir, Origin(choices, automatic, overrides))


def _plain(config: Any, name: str) -> dict[str, Any]:
    from omegaconf.errors import OmegaConfBaseException

    from sslcli.config.hydra_errors import explain

    try:
        return resolved(config, CONFIGS[name])
    except OmegaConfBaseException as error:
        raise UserError(explain(error, Given.read(name, sys.argv[1:]))) from error


def _checked(plain: dict[str, Any], kind: type[K]) -> K:
    typed = read(plain, kind)
    check_ranges(typed)
    return typed


def _evaluate(config: Any) -> None:
    from sslcli.commands.evaluate import run

    run(_checked(_plain(config, "eval"), EvalConfig))


def _export(config: Any) -> None:
    from sslcli.commands.export import run

    run(_checked(_plain(config, "export"), ExportConfig))


def _report(config: Any) -> None:
    from sslcli.commands.report import run

    run(_checked(_plain(config, "report"), ReportConfig))


def _main(name: str, command: Callable[[str], int]) -> None:
    """Run one command and exit with its code: 0, 2 (a mistake of the user), 75 or 130 (a signal), 1 (a bug)."""
    program = f"ssl-{name}"
    code = 1
    start = Start()
    try:
        make_lenient()
        start = Start.read()
        signals.install(speaks=start.first)
        end_with_parent()
        if start.size > 1 and name != "train":
            raise UserError(
                f"{start.by} started {start.size} processes, and {program} is one: srun --ntasks=1 {program}"
            )
        code = command(name)
    except signals.Stopped as stop:
        _leave_stopped(name, stop, start)
    except RanksFailed as failure:
        leave(failure.exit_code)
    except Exception as error:
        if signals.pending() and not isinstance(error, StartAgain):
            # Stopped was caught, as during an import, which then failed.
            _leave_stopped(name, signals.Stopped(signals.pending()), start)
        error = for_user(error)
        if not isinstance(error, UserError):
            print(shown(traceback.format_exc()), end="", file=sys.stderr)
            leave(1)  # a normal exit would wait for the data workers of a suspended loader
        alone = isinstance(error, LeftAlone) and start.has_parent  # which tells what has become of the other
        if (start.first and not alone) or str(error).startswith("rank "):  # else rank 0 prints it
            print(shown(f"{program}: error: {error}"), file=sys.stderr)
        elif not isinstance(error, LeftAlone):
            signals.ignore()  # such as that of rank 0, which ends the others
            time.sleep(LAST_WORD)
        code = error.exit_code
        if start.size > 1:
            leave(code)  # a thread may still try to connect to another process
    sys.exit(code)


def _leave_stopped(name: str, stop: signals.Stopped, start: Start) -> NoReturn:
    signals.ignore()  # a second one while this is printed
    if stop.told or not start.first:
        leave(stop.exit_code)
    again = "the same command resumes from the last checkpoint" if name == "train" else "nothing was changed"
    text = f"{stop.saved}; the same command continues" if stop.saved else f"stopped by {stop.name}; {again}"
    print(f"ssl-{name}: {text}", file=sys.stderr)
    leave(stop.exit_code)


def _run(task: Callable[[Any], Any], name: str) -> int:
    """Run the task of a command that is configured by Hydra."""
    program = f"ssl-{name}"
    arguments = [home_expanded(argument) for argument in flags_first(name, sys.argv[1:])]
    if {"-h", "--help"} & set(arguments):
        from sslcli.config.help_page import page

        print(page(Given.read(name, arguments)))
        return 0
    if "--version" in arguments:
        from sslcli import __version__

        print(f"{program} {__version__}")
        return 0
    given = Given.read(name, arguments)
    check_overrides(given)
    check_launcher(given.overrides, is_sweep=bool(SWEEP & set(arguments)))
    # Makes Hydra raise its errors, instead of printing them and exiting with 1, so that we can print our own message.
    trace = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    import hydra
    from hydra.core.config_store import ConfigStore

    from sslcli.config.hydra_errors import explain
    from sslcli.sweeps.plugins import register

    hydras: list[str] = []
    sweep = sweep_dir(arguments) if SWEEP & set(arguments) else None
    if sweep is not None:
        if (start := Start.read()).size > 1:
            raise UserError(f"-m: {start.by} started {start.size} processes, and a sweep is one. Use device.num=...")
        hydras = [for_hydra("hydra.sweep.dir", sweep), "hydra.sweep.subdir=."]
        register()
    ConfigStore.instance().store(name="schema", node=schema(CONFIGS[name]))
    primary = name
    if name == "train" and any(argument.startswith("resume=") for argument in arguments):
        from sslcli.commands import continued

        primary, arguments, task = continued.by_own_config(arguments, given.folders.paths, task)
    sys.argv = [sys.argv[0], *arguments, *hydras]
    job = Job(task, program, arguments, has_log=name == "train")
    entry = hydra.main(version_base="1.3", config_path=conf_dir(), config_name=primary)(job)
    try:
        entry()
    except UserError:  # of a sweeper
        raise
    except Exception as error:  # of the config's composition, or of a launcher: Job catches what jobs raise
        if trace:
            print(shown(traceback.format_exc()), end="", file=sys.stderr)
        code = 0 if sweep is None else sweep_ended(program, sweep, job.sweep)
        if not code:
            raise UserError(explain(error, Given.read(name, sys.argv[1:]))) from error
        return code
    if job.failure is not None:
        raise job.failure
    return 0 if sweep is None or job.is_plan else sweep_ended(program, sweep, job.sweep)
