"""The names of classes: what a label is called, one map for the splits of a dataset, and classes in one split only."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch

from sslcli.errors import one_line
from sslcli.run_dir.formatting import listed

if TYPE_CHECKING:
    from sslcli.data.base import Dataset

_NAMED = 5  # classes that a message names


def class_name(classes: tuple[str, ...], label: int) -> str:
    """Return the name of a label: its number where no name is known, and nothing for -1, which is no label."""
    if label < 0:
        return ""
    return classes[label] if label < len(classes) else str(label)


def class_counts(dataset: Dataset) -> dict[str, int]:
    """Return the number of samples of each class by its name, in the order of the labels; {} without labels."""
    if dataset.labels is None:
        return {}
    if dataset.labels.dim() == 2:
        return {class_name(dataset.classes, label): int(count) for label, count in enumerate(dataset.labels.sum(0))}
    labels, counts = dataset.labels[dataset.labels >= 0].unique(return_counts=True)
    found = {class_name(dataset.classes, label): count for label, count in zip(labels.tolist(), counts.tolist())}
    return {**dict.fromkeys(dataset.classes, 0), **found}


def share_classes(train: Dataset, test: Dataset) -> None:
    """Give both splits the same names of classes: those of ``train``, then those that only ``test`` has.

    The labels of ``test`` are renumbered. Nothing changes if the names are equal, or not known in one split.
    """
    if test.classes == train.classes or not test.classes or not train.classes:
        return
    names = tuple(dict.fromkeys(train.classes + test.classes))
    if test.labels is not None:
        rank = {name: i for i, name in enumerate(names)}
        number = torch.tensor([rank[name] for name in test.classes])
        if test.labels.dim() == 2:
            test.labels = test.labels.new_zeros(len(test), len(names)).index_copy(1, number, test.labels)
            more = len(names) - len(train.classes)
            train.labels = None if train.labels is None else torch.nn.functional.pad(train.labels, (0, more))
        else:
            test.labels = torch.where(test.labels < 0, -1, number[test.labels.clamp(min=0)])
    train.classes = test.classes = names


def unshared(train: Dataset) -> list[str]:
    """Return a line for each split that has classes of which the other one has no sample, with counts."""
    if train.held_out is None or train.labels is None or train.held_out.labels is None:
        return []
    counts = [Counter(class_counts(split)) for split in (train, train.held_out)]
    places = ("training samples", "held-out samples")
    lines = []
    for place, mine, theirs in zip(places, counts, reversed(counts)):
        only = {name: count for name, count in mine.items() if count and not theirs[name]}
        if only:
            named = [f"{one_line(name)} {count:,}" for name, count in only.items()]
            lines.append(f"{len(only):,} only among {place}, {sum(only.values()):,} in all: {listed(named, _NAMED)}")
    return lines
