"""The start lines about a run's data: what was found, what was left out and why, classes, and the scale of pictures."""

from __future__ import annotations

from sslcli.components import Components
from sslcli.config.composed import TrainConfig
from sslcli.data.base import Dataset, Notes, with_label
from sslcli.data.classes import class_counts, unshared
from sslcli.data.normalisation import image_columns
from sslcli.data.pictures.reading import IMAGENET
from sslcli.run_dir.formatting import listed
from sslcli.run_dir.normalisation import in_words, levels_in_words

_NAMED = 5  # classes that are named


def data_lines(config: TrainConfig, components: Components) -> Notes:
    """Return the start lines about the data as pairs of a word and a text; none about what there is nothing to say."""
    dataset, held_out = components.dataset, components.dataset.held_out
    use = "no labels in training" if components.objective.label is None else "LABELS are used in training"
    count = f"{len(dataset):,} training samples, {len(held_out) if held_out else 0:,} held out"
    return (
        ("data", f"{count}, {use}"),
        *dataset.notes,
        *_class_lines(dataset),
        *(("classes", text) for text in unshared(dataset)),
        *_scale_lines(config, components),
    )


def _class_lines(dataset: Dataset) -> Notes:
    if dataset.labels is None:
        return ()
    counts = class_counts(dataset)
    names = listed([f"{name} {count:,}" for name, count in counts.items()], _NAMED)
    missing = len(dataset) - len(with_label(dataset.labels))
    unlabelled = f"; {missing:,} training samples have no label" if missing else ""
    return (("classes", f"{len(counts):,}: {names}{unlabelled}"),)


def _scale_lines(config: TrainConfig, components: Components) -> Notes:
    """Return the mean and deviation of pictures, and the range of their deep integers."""
    columns, fitted = image_columns(components.dataset), components.normalisation
    if len(columns) != 1:
        return ()
    field = components.dataset.spec[columns[0]]
    lines = []
    if field.mean:
        own = "ImageNet's" if (field.mean, field.std) == IMAGENET else "the dataset's"
        given = own if config.dataset.normalise is None else "as configured"
        lines.append(("normalise", in_words(field.mean, field.std, fitted.source if fitted else given)))
    if field.levels:
        source = fitted.levels_source if fitted and fitted.levels else "as configured"
        lines.append(("range", levels_in_words(field.levels, source)))
    return tuple(lines)
