"""``ssl-export``: write a run's encoder, or its features of a data set, to a file that another library loads."""

from __future__ import annotations

from pathlib import Path

from sslcli.commands.restored import refuse_fitting
from sslcli.components import restore_encoder
from sslcli.config.composed import ExportConfig
from sslcli.config.instantiate import allow, build
from sslcli.config.paths import expand
from sslcli.errors import UserError
from sslcli.export.base import SAMPLES, TOLERANCE, Format, Source
from sslcli.export.golden import SUFFIX, described, golden_samples, is_golden
from sslcli.export.model_card import NAME, card, check_place
from sslcli.pretrained.model import Pretrained
from sslcli.run_dir import inside
from sslcli.run_dir.checkpoint import open_run
from sslcli.run_dir.console import Console
from sslcli.run_dir.files import replacing, replacing_folder, sweep, write_text
from sslcli.run_dir.fitted import of_state, trained_spec
from sslcli.run_dir.output import folder_for
from sslcli.training.device import choose


def run(config: ExportConfig) -> Path:
    """Write the file to a temporary path, load it as a user does, compare, and only then move it to its path."""
    allow(config.plugins)
    refuse_fitting(config.dataset)
    kind = build(config.format.node, Format, where="format")
    source = _source(config, kind)
    path = _path(config, source.run_dir, kind)
    console = Console()
    if not config.output:
        _refuse_links(source.run_dir, path)
    replaces = kind.replaces(path) and bool(config.output)
    check_place(_card_path(path, config.output))
    golden_path = path.with_name(f"{path.stem}{SUFFIX}")
    had_golden = not kind.reads_data and is_golden(golden_path)
    golden = golden_samples(source) if config.golden and not kind.reads_data else None
    source.batch = golden.batch if golden else None
    with folder_for(path):
        sweep(path.parent, path.stem)
        with (replacing_folder if kind.is_folder else replacing)(path, "output") as temporary:
            kind.write(source, temporary)
            checked = kind.check(source, temporary)
    lines = kind.lines(source, path)
    card_path = _card_path(path, config.output)
    write_text(card_path, card(source, path, lines, checked, described(golden, golden_path, lines) if golden else ()))
    console.line(f"wrote {path}{', which replaces an earlier one' * replaces}: {checked}")
    console.line("load it:")
    for line in lines:
        console.line(f"  {line}")
    if golden:
        golden.write(golden_path, source)
        console.line(
            f"compare it: {golden_path} has {SAMPLES} {golden.origin} and their features, from which others differ by "
            f"less than {TOLERANCE:g} of the largest (lines in the model card; golden=false writes no samples)"
        )
    elif had_golden:
        golden_path.unlink()
        console.line(f"removed {golden_path}, which was of an earlier export")
    console.line(f"its model card: {card_path}")
    return path


def _card_path(path: Path, output: str | None) -> Path:
    """Return the path of the model card of ``path``; in a folder given by the user there may be several files."""
    return path.with_name(f"{path.stem}.{NAME}" if output else NAME)


def _refuse_links(run_dir: Path, path: Path) -> None:
    """Raise UserError if the folder of an export in a run directory holds links, which could lead anywhere."""
    inside.refuse_links(run_dir, folders=["export", path.parent.relative_to(run_dir).as_posix()])


def _source(config: ExportConfig, kind: Format) -> Source:
    """Return the run with its encoder restored on the device."""
    if config.dataset and not kind.reads_data:
        raise UserError("dataset: only format=embeddings and recommendations read data; leave it out.")
    compute = choose(config.device.name if kind.reads_data else "cpu", "fp32")
    run_dir, state = open_run(config.run)
    encoder, views = restore_encoder(state, compute.device, config.weights)
    model = Pretrained(encoder, views, trained_spec(state), of_state(state))
    return Source(run_dir, state, model, compute, config.dataset, tuple(config.plugins), config.weights)


def _path(config: ExportConfig, run_dir: Path, kind: Format) -> Path:
    """Return the path of the file: the user's, or one in a folder of the run directory."""
    if config.output:
        path = expand(config.output)
        if path.suffix != kind.suffix and not kind.is_folder:
            raise UserError(f"output: {path} must end in {kind.suffix}, the suffix of this format.")
        return path
    format_name = type(kind).__module__.rpartition(".")[2]
    folder = format_name if config.weights == "student" else f"{format_name}-{config.weights}"
    return run_dir / "export" / folder / f"{kind.name}{kind.suffix}"
