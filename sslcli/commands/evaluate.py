"""``ssl-eval``: measure a checkpoint and its baselines."""

from __future__ import annotations

from dataclasses import replace

from sslcli.commands.restored import budget, compute_for, refuse_fitting
from sslcli.components import restore_components
from sslcli.config.composed import EvalConfig, TrainConfig
from sslcli.config.instantiate import allow, build
from sslcli.data.classes import unshared
from sslcli.errors import UserError
from sslcli.evaluation.base import Metric, Probe, table
from sslcli.evaluation.context import labels_of
from sslcli.evaluation.measure import measure
from sslcli.run_dir.checkpoint import open_run
from sslcli.run_dir.console import Console
from sslcli.run_dir.eval_json import NAME as EVALUATIONS
from sslcli.run_dir.eval_json import add_metrics, is_newest, settled_size
from sslcli.run_dir.foreign import data_to_read
from sslcli.run_dir.layout import START
from sslcli.run_dir.output import check_writable


def run(config: EvalConfig) -> dict[str, Metric]:
    """Probe a run's newest checkpoint and write ``eval.json`` into its directory."""
    allow(config.plugins)
    refuse_fitting(config.dataset)
    run_dir, state = open_run(config.run)
    check_writable(run_dir / EVALUATIONS, "run")
    newest = is_newest(run_dir, state["step"])  # checked now: a run in progress may write others meanwhile
    compute = compute_for(config.device, state)
    trained: TrainConfig = state["config"]
    chosen, is_own = data_to_read(state, config.dataset)
    other = None if is_own else chosen
    components = restore_components(state, compute.device, config.dataset, config.weights)
    measured = measure(
        replace(trained, dataset=chosen),
        components,
        compute,
        build(config.probe.node, Probe, where="probe"),
        budget=budget(state["seconds"]),
        start=run_dir / START,
        settled=settled_size(run_dir, other),
        seed=config.seed,
    )
    metrics = measured.metrics
    if not metrics:
        raise UserError(f"probe: nothing was measured. {'; '.join(measured.left_out)}".rstrip())
    console = Console()
    console.line(f"{run_dir}, step {state['step']}" + (", the teacher" if config.weights == "teacher" else ""))
    for word, text in () if is_own else components.dataset.notes:
        console.line(f"{word:<9} {text}")
    if labels_of(components.dataset) is None:
        console.line("labels are missing in one split of these data, or in both: metrics that need them are left out")
    for text in unshared(components.dataset):
        console.line(f"classes {text}")
    for text in (*measured.left_out, *table(metrics)):
        console.line(text)
    rows = {name: metric.to_json() for name, metric in metrics.items()}
    add_metrics(run_dir, rows, step=state["step"], dataset=other, newest=newest, weights=config.weights)
    return metrics
