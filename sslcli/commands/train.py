"""``ssl-train``: build the components, check that they fit together, start or resume, train, and report results."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from sslcli.commands.accumulate import as_before, settle_pieces
from sslcli.commands.build_trainer import identity, make_collapse_monitor, make_loggers, make_trainer
from sslcli.commands.checks import check_fit, enough_memory, facts, warn_of_batch_norm
from sslcli.commands.find_run import find_run
from sslcli.commands.restored import budget, visuals_of
from sslcli.commands.stopping import telling_what_is_saved
from sslcli.commands.summary import announce, say_finished, say_result
from sslcli.components import build_components, build_dataset
from sslcli.config.composed import TrainConfig, to_plain
from sslcli.config.instantiate import allow, build
from sslcli.config.origin import Origin
from sslcli.config.paths import expand
from sslcli.config.quoting import override
from sslcli.data.base import Dataset
from sslcli.distributed.ranks import Ranks, joined
from sslcli.distributed.start import Start
from sslcli.evaluation.base import Metric, Probe, flat
from sslcli.evaluation.measure import measure
from sslcli.pretrained.safetensors_io import write_weights
from sslcli.report.preview import first_views, shows_pictures
from sslcli.report.text_preview import write_views
from sslcli.report.visuals import Visuals
from sslcli.report.write import write_report
from sslcli.run_dir import checkpoint, fitted, inside
from sslcli.run_dir.checkpoint import State, open_run
from sslcli.run_dir.console import Console
from sslcli.run_dir.layout import START, make_room, refuse_links, write_config
from sslcli.run_dir.lock import locked
from sslcli.run_dir.metrics_jsonl import NAME, JsonLines
from sslcli.run_dir.result_json import finished, headline_value, write_result
from sslcli.training.device import choose, set_determinism, set_threads
from sslcli.training.environment import restore_environment
from sslcli.training.fitted_before import fitted_before, identity_of_data
from sslcli.training.pruning import is_pruned
from sslcli.training.resume import choose_start, finished_before, free_keys, go_on, jump, run_before, starts_afresh
from sslcli.types import Compute


def run(config: TrainConfig, run_dir: Path | None, origin: Origin | None = None) -> float | None:
    """Train by ``config`` and return the headline metric, for sweepers.

    Args:
        config: the config of the run.
        run_dir: the run directory; None for the default one.
        origin: where the values of the config come from, for the name of the run and for its start lines.

    Raises:
        UserError: any error that the user can correct.
        Stopped: a signal came and a checkpoint was written.
    """
    started = time.perf_counter()
    allow(config.plugins)
    set_threads(config.device.threads)
    set_determinism(config.train.deterministic)
    start = Start.read()
    with start.naming_this_rank():
        compute = choose(config.device.name, config.train.precision, start)
    with ExitStack() as held:
        with joined(start, compute.device, facts=facts(config), seconds=config.device.meet_s) as ranks:
            console = Console(silent=not ranks.first)
            dataset = None
            if run_dir is None:
                run_dir, dataset = find_run(config, origin.choices if origin else {}, ranks)
            ranks.by_first(lambda: refuse_links(run_dir))
            config = as_before(config, run_dir, ranks)
            result = ranks.by_first(lambda: finished_before(config, run_dir))
            if result is not None:
                say_finished(console, run_dir, result)
                return headline_value(result)
            session = _Session(config, run_dir, compute, console, ranks, dataset)
            check_fit(session.config, session.components, compute, ranks)
            for hook in session.trainer.hooks:
                hook.check(session.trainer)
            if config.preview:
                return ranks.by_first(session.preview)
            state = ranks.by_first(lambda: session.claim(held))
            result = session.resume(state) if state is not None else None
            if result is not None:
                say_finished(console, run_dir, result)
                return headline_value(result)
            ranks.by_first(lambda: session.open_records(origin or Origin(), resumed=state is not None))
            held.callback(session.loggers.finish, {})  # for a stopped run; a finished run has called it already
            with telling_what_is_saved(session.trainer):
                session.train()
        with telling_what_is_saved(session.trainer):
            return session.report(started) if ranks.first and not is_pruned(session.trainer.hooks) else None


class _Session:
    """One session of a run, from building its components to its report."""

    def __init__(
        self,
        config: TrainConfig,
        run_dir: Path,
        compute: Compute,
        console: Console,
        ranks: Ranks,
        dataset: Dataset | None = None,
    ) -> None:
        self.run_dir, self.compute, self.console, self.ranks = run_dir, compute, console, ranks
        afresh = starts_afresh(config, run_dir)
        dataset = dataset or build_dataset(config)
        files = fitted_before(config, run_dir, dataset, ranks)
        self.components = build_components(config, dataset=dataset, afresh=afresh, fitted=files, ranks=ranks)
        config, self.found = settle_pieces(config, self.components, compute, ranks)
        self.config = config
        self.probe = build(config.probe.node, Probe, where="probe")
        self.loggers = make_loggers(config, console, ranks)
        self.monitor = make_collapse_monitor(config, self.components, compute, console)
        self.lines = JsonLines(run_dir / NAME)
        self.jump: tuple[str, ...] = ()  # what a new length does to the learning rate of a resumed run
        self.trainer = make_trainer(
            config, self.components, compute, run_dir, console, ranks, record=self._record, monitor=self.monitor
        )

    def _record(self, line: Mapping[str, Any]) -> None:
        self.lines.write(line)
        self.loggers.scalars(line)

    def preview(self) -> None:
        """Write the picture or page that ``preview`` requests instead of training."""
        path = expand(str(self.config.preview))
        replaces = write_views(self.components, self.compute, path, seed=self.config.seed)
        self.console.line(
            f"{path}{', which replaces an earlier one,' * replaces} shows what the model will see; nothing was trained"
        )

    def claim(self, held: ExitStack) -> State | None:
        """Lock the run directory until ``held`` is closed; return the state to resume from, or None to start afresh."""
        if self.config.resume not in ("auto", "never"):
            open_run(self.config.resume, "resume")  # raise an error before anything is written
        held.enter_context(locked(self.run_dir, seconds=self.config.device.meet_s))
        checkpoint.sweep_temporaries(self.run_dir)
        length, dataset = self.trainer.length, self.components.dataset
        free = free_keys(self.components.encoder, self.components.objective)
        state = choose_start(self.config, self.run_dir, length, dataset, self.console, sys.argv[1:], free)
        if state is not None:
            fitted.check(run_before(self.config, self.run_dir), self.components.fitted, state["files"])
            self.components.initial_weights = state.get("initial_weights")
        return state

    def resume(self, state: State) -> dict[str, Any] | None:
        """Restore a checkpoint; return the result of the run if it is finished already."""
        go_on(self.trainer, state)
        self.jump = jump(self.trainer, state)
        result = finished(self.run_dir, self.trainer.step) if self.trainer.done else None
        if result is None:
            restore_environment(state, self.compute, self.ranks, self.config.device.threads, self.console)
        return result

    def open_records(self, origin: Origin, *, resumed: bool) -> None:
        """Open the log and the metrics in the run directory, write the config, and start the loggers."""
        config, run_dir, console = self.config, self.run_dir, self.console
        if not resumed:
            make_room(run_dir, config.resume, console)
        lost = self.lines.cut_back(self.trainer.step)
        if lost:
            console.warn(f"{self.lines.path}: {lost} damaged lines are left out.")
        console.log_to(run_dir / "train.log")
        if resumed:
            source = run_before(config, run_dir) if config.resume != "auto" else run_dir
            elsewhere = "" if source == run_dir else f", from {config.resume}, which stays as it is"
            console.line(f"resuming {run_dir} at step {self.trainer.step}{elsewhere}")
            for text in self.jump:
                console.line(text)
        else:
            origin = replace(origin, automatic=(*origin.automatic, *self.found))
            announce(console, config, self.components, self.trainer, origin)
            inside.remove(run_dir, START)  # of an earlier session that ended before its first checkpoint
            if self.components.start is not None:
                console.line(f"start     {self.components.start}")
                write_weights(self.components.encoder, run_dir, START)
        self.components.fitted.write(run_dir, lambda: identity_of_data(config, self.components.dataset))
        write_config(run_dir, config)
        self.loggers.each(lambda logger: logger.start(to_plain(config), run_dir, self.trainer.step))
        if not resumed and shows_pictures(self.components):
            first = functools.partial(first_views, self.components, self.compute, seed=config.seed)
            self.loggers.pictures(0, "views", first)

    def train(self) -> None:
        """Train to the end of the run, unless it has been reached already."""
        if not self.trainer.done:
            warn_of_batch_norm(self.config, self.components, self.ranks, self.console)
            with enough_memory(self.config):
                self.trainer.fit()

    def report(self, started: float) -> float | None:
        """Measure the encoder, write and print the result, and write the report; return the headline metric."""
        trainer = self.trainer
        with enough_memory(self.config):
            measured = measure(
                self.config,
                self.components,
                self.compute,
                self.probe,
                budget=budget(trainer.seconds),
                start=self.run_dir / START,
                with_label_free=True,
            )
        everything = {**measured.metrics, **measured.label_free}
        self.monitor.judge({name: metric.value for name, metric in everything.items()}, self.components.encoder.dim)
        write_result(
            self.run_dir,
            {name: metric.to_json() for name, metric in everything.items()},
            headline=measured.headline,
            steps=trainer.step,
            seconds=trainer.seconds,
            seed=self.config.seed,
            uses_labels=self.components.objective.label is not None,
        )
        page = self._show(everything)
        say_result(self.console, trainer, measured, page, time.perf_counter() - started)
        return None if measured.headline is None else everything[measured.headline].value

    def _show(self, metrics: Mapping[str, Metric]) -> str:
        """Send the visuals of the trained model to the loggers and to the report; return the path of the report."""

        @functools.cache
        def visuals() -> Visuals:
            return visuals_of(
                self.config,
                self.components,
                self.compute,
                seconds=self.trainer.seconds,
                thumbnails=self.loggers.take_pictures,
            )

        step = self.trainer.step
        self.loggers.pictures(step, "reconstruction", lambda: visuals().reconstructions)
        self.loggers.embedding(step, lambda: visuals().embedding.logged)
        self.loggers.finish(flat(metrics))
        if not self.config.log.report:
            return f"none: log.report=false; ssl-report {override('run', self.run_dir)} writes it"
        facts = identity(self.config, self.components, self.compute, self.ranks)
        return write_report(self.run_dir, facts, visuals, self.console)
