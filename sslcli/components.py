"""Builds the components of a run from its config, at their initial state or restored from a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from sslcli.config.choices import DatasetChoice
from sslcli.config.composed import TrainConfig
from sslcli.config.instantiate import allow, build
from sslcli.config.paths import expand
from sslcli.data.base import Dataset
from sslcli.data.checked import Checked
from sslcli.data.corrupt import CorruptReplaced
from sslcli.data.dataloading import kept_in_memory
from sslcli.data.labelled import Labelled
from sslcli.data.pictures.levels import reading_of
from sslcli.distributed.ranks import Ranks
from sslcli.encoders.base import Encoder
from sslcli.errors import UserError
from sslcli.objectives.base import Objective
from sslcli.objectives.teacher import teacher_weights
from sslcli.pretrained.fit import check_fit
from sslcli.pretrained.importers import digest_of
from sslcli.pretrained.load import LoadReport, load_weights
from sslcli.pretrained.model import Pretrained
from sslcli.pretrained.normalisation import read_as_trained, settle
from sslcli.pretrained.safetensors_io import read_export
from sslcli.randomness import fold
from sslcli.run_dir.checkpoint import State, open_run
from sslcli.run_dir.fitted import Fitted, of_state, trained_spec
from sslcli.run_dir.foreign import data_to_read
from sslcli.run_dir.normalisation import Normalisation
from sslcli.types import Spec
from sslcli.views.base import Views


@dataclass
class Components:
    """The dataset, the encoder, the objective and the views of a run."""

    dataset: Dataset
    encoder: Encoder
    objective: Objective
    views: Views
    start: LoadReport | None = None  # which of the weights in ``encoder.weights`` were loaded
    initial_weights: str | None = None  # a digest of the file that ``encoder.weights`` named at the start of the run
    normalisation: Normalisation | None = None  # mean and std that neither the config nor the dataset names
    fitted: Fitted = field(default_factory=Fitted)  # what was fitted on the training part of the data
    weights: str = "student"  # or teacher: whose weights ``encoder`` has; heads are the student's


def build_dataset(config: TrainConfig) -> Dataset:
    """Build the training split of a run's data, with its held-out part; the first read checks its columns."""
    dataset = build(config.dataset.node, Dataset, where="dataset")
    reading = reading_of(dataset)  # all parts of the dataset share it
    if reading is not None:
        reading.max_pixels = config.dataset.max_pixels
    return Checked(dataset)


def build_encoder(config: TrainConfig, spec: Spec) -> Encoder:
    """Build a run's encoder with its random initial weights, which depend on ``config.seed`` only."""
    torch.manual_seed(fold(config.seed, "encoder") % 2**63)
    return build(config.encoder.node, Encoder, spec, where="encoder")


def build_objective(config: TrainConfig, encoder: Encoder) -> Objective:
    """Build a run's objective with its random initial weights, which depend on ``config.seed`` only."""
    torch.manual_seed(fold(config.seed, "objective") % 2**63)
    return build(config.objective.node, Objective, encoder, where="objective")


def build_views(config: TrainConfig, encoder: Encoder, objective: Objective) -> Views:
    """Build a run's views, as many as the objective reads.

    Raises:
        UserError: the objective leaves out a view.
    """
    count = max(objective.reads, default=-1) + 1
    for number in range(count):
        if number not in objective.reads:
            raise UserError(
                f"objective.reads: view {count - 1} is read, and view {number} is read by nothing. Number the views "
                "that are read from 0 on, without a gap."
            )
    views = build(config.views.node, Views, encoder.view_spec, encoder.spec, count, where="views")
    views.with_target = objective.needs_target
    objective.expect_local(views.num_local)
    return views


def build_components(
    config: TrainConfig,
    *,
    dataset: Dataset | None = None,
    afresh: bool = True,
    fitted: Fitted | None = None,
    ranks: Ranks | None = None,
) -> Components:
    """Build all components of a run before its first step: weights are random, or ``encoder.weights``.

    Args:
        config: the config of the run.
        dataset: the run's data as ``build_dataset`` returns them; None builds them.
        afresh: whether the run starts at step 0; a resumed run does not need the file in ``encoder.weights``.
        fitted: what the run has fitted on its data before; what is fitted now is added.
        ranks: the processes of the run.
    """
    fitted = Fitted() if fitted is None else fitted
    dataset = kept_in_memory((dataset or build_dataset(config)).fit(fitted), config.dataset.cache)
    numbers = settle(config, dataset, afresh=afresh, files=fitted, ranks=ranks or Ranks())
    encoder = build_encoder(config, dataset.spec)
    weights = config.encoder.weights
    start = load_weights(encoder, weights) if weights and afresh else None
    objective = build_objective(config, encoder)  # after loading weights, because a teacher copies the encoder
    views = build_views(config, encoder, objective)
    digest = digest_of(weights) if start else None
    return Components(readable(dataset, objective), encoder, objective, views, start, digest, numbers, fitted)


def readable(dataset: Dataset, objective: Objective) -> Dataset:
    """Wrap the dataset: corrupt samples are replaced, and labels are a column where the objective reads them."""
    try:
        return CorruptReplaced(dataset if objective.label is None else Labelled(dataset, objective.label))
    except ValueError as error:
        raise UserError(f"objective: {error}") from error


def restore_encoder(state: State, device: torch.device, weights: str = "student") -> tuple[Encoder, Views]:
    """Restore the encoder of a checkpoint, in eval mode on ``device``, and its views. The dataset is not needed.

    Args:
        state: the checkpoint.
        device: the device of the encoder.
        weights: ``student``, or ``teacher`` for the objective's momentum copy of the encoder.

    Raises:
        UserError: the objective of this run has no teacher.
    """
    encoder, _, views = _rebuilt(state, weights)
    return encoder.to(device).eval(), views.to(device)


def restore(state: State, device: torch.device, weights: str = "student") -> tuple[Encoder, Objective, Views]:
    """Restore the encoder and the objective of a checkpoint, in eval mode on ``device``, and the views."""
    encoder, objective, views = _rebuilt(state, weights)
    check_fit(objective, state["objective"], "objective")
    objective.load_state_dict(state["objective"])
    return encoder.to(device).eval(), objective.to(device).eval(), views.to(device)


def _rebuilt(state: State, weights: str) -> tuple[Encoder, Objective, Views]:
    """Build the encoder with weights of a checkpoint, the objective with its initial weights, and the views."""
    if weights not in ("student", "teacher"):
        raise UserError(f"weights={weights} is neither student nor teacher.")
    config: TrainConfig = state["config"]
    encoder = build_encoder(config, trained_spec(state))
    check_fit(encoder, state["encoder"], "encoder")
    encoder.load_state_dict(state["encoder"])
    objective = build_objective(config, encoder)
    if weights != state.get("weights", "student"):
        found = teacher_weights(objective, state.get("objective", {})) if weights == "teacher" else None
        if not found:
            raise UserError(
                f"weights={weights}: {_lacks(state, weights)}. Use weights={state.get('weights', 'student')}."
            )
        check_fit(encoder, found, "teacher")
        encoder.load_state_dict(found)
    return encoder, objective, build_views(config, encoder, objective)


def _lacks(state: State, weights: str) -> str:
    """Return why a checkpoint or an export does not have these weights."""
    if "objective" not in state:
        return f"this export holds the {state.get('weights', 'student')}'s weights only"
    return f"the objective {state['config'].objective.name} of this run has no teacher"


def restore_components(
    state: State, device: torch.device, said: DatasetChoice | None = None, weights: str = "student"
) -> Components:
    """Restore all components of a run from a checkpoint.

    Args:
        state: the checkpoint.
        device: the device of the encoder and the objective.
        said: what the user says of the data: another dataset, or what the run's own needs to be read.
        weights: ``student`` or ``teacher``.

    Raises:
        UserError: the encoder cannot read the columns of these data, or the run's own need words of the user.
    """
    encoder, objective, views = restore(state, device, weights)
    chosen, dataset = restore_dataset(state, said or DatasetChoice(), encoder, views.field)
    dataset = kept_in_memory(dataset, chosen.cache)
    return Components(readable(dataset, objective), encoder, objective, views, weights=weights, fitted=of_state(state))


def restore_dataset(state: State, said: DatasetChoice, encoder: Encoder, field: str) -> tuple[DatasetChoice, Dataset]:
    """Build the data that a command reads for a checkpoint, with the numbers that the encoder was trained with.

    Args:
        state: the checkpoint.
        said: what the user says of the data: another dataset, or what the run's own needs to be read.
        encoder: the restored encoder.
        field: the column that it reads.

    Returns:
        What was chosen, and the training split.

    Raises:
        UserError: the encoder cannot read the columns of these data, or the run's own need words of the user.
    """
    chosen, is_own = data_to_read(state, said)
    config: TrainConfig = replace(state["config"], dataset=chosen)
    dataset = build_dataset(config).fit(of_state(state))
    dataset.spec.check_readable(field, encoder.spec)
    read_as_trained(config, dataset, trained_spec(state), is_other=not is_own)
    return chosen, dataset


def load(
    run: str | Path, *, weights: str | None = None, device: str = "cpu", plugins: tuple[str, ...] = ()
) -> Pretrained:
    """Load the encoder of a run directory, a checkpoint or a safetensors export, with its preprocessing.

    The result takes PIL images, NumPy arrays (H, W), (H, W, C) or (B, H, W, C), uint8 or floats in [0, 1], lists of
    these, and tensors (B, C, H, W); ``help(sslcli.load(run))`` says how each is read::

        encoder = sslcli.load("runs/x")
        features = encoder([Image.open("a.png"), Image.open("b.jpg")])  # (2, encoder.dim)

    Args:
        run: the path.
        weights: ``student`` or ``teacher``; None is the student, or what an export holds.
        device: the device of the encoder.
        plugins: your own packages that the run's config names.

    Raises:
        UserError: the run does not exist, a file is damaged, the objective of the run has no teacher, or the config
            names a class of a package that is not in ``plugins``.
    """
    allow(plugins)
    exported = Path(run).suffix == ".safetensors"
    state = read_export(expand(str(run))) if exported else open_run(str(run))[1]
    encoder, views = restore_encoder(state, torch.device(device), weights or state.get("weights", "student"))
    return Pretrained(encoder, views, trained_spec(state), of_state(state))
