"""Which mean and standard deviation a run has: the configured, the measured, those of given weights, or the data's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sslcli.config.composed import TrainConfig
from sslcli.config.paths import expand
from sslcli.data.base import Dataset
from sslcli.data.normalisation import KEY as NORMALISE
from sslcli.data.normalisation import applied, given, image_columns, measured
from sslcli.data.pictures.levels import MeasuredLevels, apply_levels, measured_levels, reading_of
from sslcli.data.pictures.reading import IMAGENET
from sslcli.distributed.ranks import Ranks
from sslcli.errors import UserError
from sslcli.pretrained.importers import KEY, content_of, read
from sslcli.pretrained.key_maps import RESNET, TORCHVISION_CONVNEXT, TORCHVISION_SWIN, TORCHVISION_VIT
from sslcli.pretrained.safetensors_io import spec_of
from sslcli.run_dir.checkpoint import is_pointer, open_run
from sslcli.run_dir.fitted import Fitted
from sslcli.run_dir.formats import with_kinds
from sslcli.run_dir.normalisation import NAME, Normalisation, parse
from sslcli.types import Spec

Numbers = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std of each channel
_TORCHVISION = (RESNET, TORCHVISION_VIT, TORCHVISION_SWIN, TORCHVISION_CONVNEXT)
_CLASSIFIERS = ("fc.weight", "heads.head.weight", "head.weight", "classifier.2.weight")  # in the same order
_CLASSES = 1000  # of ImageNet


def settle(config: TrainConfig, dataset: Dataset, *, afresh: bool, files: Fitted, ranks: Ranks) -> Normalisation | None:
    """Let the dataset have the numbers of this run; return those that are fitted and so belong to the run's files.

    Args:
        config: the config of the run.
        dataset: the training part with its held-out part, changed in place.
        afresh: whether the run starts at step 0: only then anything is fitted.
        files: what an earlier session of the run has fitted; what is fitted now is added.
        ranks: the processes of the run; the first one measures.

    Raises:
        UserError: the numbers and the pictures do not fit, or what an earlier session has measured is missing.
    """
    before = parse(files.files[NAME]) if NAME in files.files and not afresh else None
    fitted = _settled(config, dataset, afresh=afresh, fitted=before, ranks=ranks)
    if fitted is not None:
        files.files[NAME] = fitted.content()
    return fitted


def _settled(
    config: TrainConfig, dataset: Dataset, *, afresh: bool, fitted: Normalisation | None, ranks: Ranks
) -> Normalisation | None:
    levels = _settled_levels(config, dataset, afresh=afresh, fitted=fitted, ranks=ranks)  # before a picture is decoded
    wish = config.dataset.normalise
    if wish not in (None, "measured"):
        mean, std = IMAGENET if wish == "imagenet" else wish
        applied(dataset, given(dataset, mean, std, "as configured"))
        return fitted if levels is None else _with_levels(None, dataset, levels, "as configured")
    if afresh and (wish == "measured" or dataset.has_own_scale):
        fitted = ranks.by_first(lambda: measured(dataset, config.dataset.workers))
    elif afresh:
        fitted = _of_weights(config.encoder.weights, dataset)
    elif wish == "measured" and fitted is None:
        raise UserError(f"{NORMALISE}=measured: {NAME} of this run is missing. Restore it, or start with resume=never.")
    if fitted is not None:
        applied(dataset, fitted)
    return fitted if levels is None else _with_levels(fitted, dataset, levels, "ImageNet's")


def _settled_levels(
    config: TrainConfig, dataset: Dataset, *, afresh: bool, fitted: Normalisation | None, ranks: Ranks
) -> MeasuredLevels | None:
    """Let the dataset have the range of deep integers of this run; return it if it has been measured now."""
    wish = config.dataset.range
    found = ranks.by_first(lambda: measured_levels(dataset)) if afresh and wish == "auto" else None
    levels = (wish[0], wish[1]) if wish != "auto" else found.levels if found else fitted.levels if fitted else None
    if levels is not None:
        apply_levels(dataset, levels)
    return found


def _with_levels(numbers: Normalisation | None, dataset: Dataset, found: MeasuredLevels, source: str) -> Normalisation:
    """Return what was fitted with the measured range; the file has a mean and a std, fitted or not."""
    if numbers is None:
        field = dataset.spec[image_columns(dataset)[0]]
        numbers = given(dataset, field.mean, field.std, source)
    return replace(numbers, levels=found.levels, levels_source=found.source)


def read_as_trained(config: TrainConfig, dataset: Dataset, trained: Spec, *, is_other: bool) -> None:
    """Let the pictures of a dataset have the numbers of the run, so that nothing is fitted on other data.

    Raises:
        UserError: other data have integers of more than 8 bits, and the run has no range for them.
    """
    wish, reading = config.dataset.range, reading_of(dataset)
    kept = trained["image"].levels if "image" in trained and reading is not None else ()
    if wish != "auto" or kept:
        low, high = kept if wish == "auto" else wish
        apply_levels(dataset, (low, high))
    elif is_other and reading is not None and reading.deep and not reading.floats:
        raise UserError(
            "dataset.range: these pictures have more than 8 bits, and those of the run did not. Give the numbers that "
            "are black and white, such as dataset.range=[0,4095]."
        )
    for part in (dataset, dataset.held_out):
        for name, field in part.spec.items() if part is not None else ():
            if field.kind == "image" and name in trained and part is not None:
                numbers = trained[name]
                part.spec = part.spec.having(name, replace(field, mean=numbers.mean, std=numbers.std))


def _of_weights(source: str | None, dataset: Dataset) -> Normalisation | None:
    """Return the numbers of the weights that a run begins with, where they differ from the dataset's."""
    names = image_columns(dataset)
    numbers = numbers_of(source) if source and len(names) == 1 else None
    if numbers is None:
        return None
    field, about = dataset.spec[names[0]], f"those of {source}"
    if len(numbers[0]) == 3 and field.shape[0] == 1:
        numbers, about = ((sum(numbers[0]) / 3,), (sum(numbers[1]) / 3,)), f"{about}, averaged for one channel"
    if len(numbers[0]) != field.shape[0] or numbers == (field.mean, field.std):
        return None
    return given(dataset, *numbers, about)


def numbers_of(source: str) -> Numbers | None:
    """Return the numbers of ``timm:NAME``, of a run or its files, or of a file of torchvision's; None for other files.

    torchvision's weights are known by the names of their tensors and by the 1,000 classes of their classifier.
    """
    if source.startswith("timm:"):
        import timm

        config = timm.get_pretrained_cfg(source.removeprefix("timm:"))
        return (tuple(config.mean), tuple(config.std)) if config else None
    path = expand(source)
    if path.is_dir() or is_pointer(path):
        return _of_spec(open_run(source, KEY)[1]["spec"])
    if path.suffix == ".safetensors":
        spec = spec_of(path)
    else:
        content = content_of(path) if path.is_file() else None  # of a missing file it is said when it is loaded
        spec = content.get("spec") if isinstance(content, Mapping) else None
    if isinstance(spec, Mapping):
        return _of_spec(with_kinds(spec))
    return IMAGENET if path.is_file() and _is_torchvision(read(source)) else None


def _is_torchvision(tensors: Mapping[str, Any]) -> bool:
    heads = [tensors[name] for name in _CLASSIFIERS if name in tensors]
    return any(len(head) == _CLASSES for head in heads) and any(kind.recognises(tensors) for kind in _TORCHVISION)


def _of_spec(spec: Mapping[str, Mapping[str, Any]]) -> Numbers | None:
    images = [field for field in spec.values() if field["kind"] == "image" and field["mean"]]
    return (tuple(images[0]["mean"]), tuple(images[0]["std"])) if len(images) == 1 else None
