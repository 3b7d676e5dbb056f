"""Linear accuracy of a run on texts for several columns of labels, with the texts read once.

python scripts/benchmarks/labels_table.py RUN LABEL [LABEL ...] [--baselines start random_init] [--json FILE]

It prints what ``ssl-eval run=RUN dataset.pair=null dataset.label=LABEL probe=linear`` prints for each LABEL: the same
probe on the same features, beside TF-IDF and the baselines of --baselines. Features of all texts are computed once an
encoder, and not once a label and an encoder, which for a model of six layers is most of the time.
"""

import argparse
import sys

import torch
from figures import Row, add_json, row, write
from torch import Tensor

from sslcli.components import restore_components
from sslcli.config.choices import DatasetChoice
from sslcli.data.base import Dataset
from sslcli.evaluation.base import table
from sslcli.evaluation.context import ProbeContext
from sslcli.evaluation.linear import Linear
from sslcli.evaluation.measure import probe_context
from sslcli.run_dir.checkpoint import open_run
from sslcli.run_dir.layout import START
from sslcli.training.device import choose, set_threads

Read = dict[tuple[str, bool], Tensor]  # features of all texts, by encoder and whether they are held out


def context_for(run: str, label: str, baselines: list[str], read: Read) -> ProbeContext:
    """Return the context of a run's probes with the labels of one column, whose features are taken from ``read``."""
    folder, state = open_run(run)
    set_threads(state["environment"]["threads"])
    config, said = state["config"], DatasetChoice({"pair": None, "label": label})
    compute = choose("cpu", config.train.precision)
    parts = restore_components(state, torch.device("cpu"), said)
    context = probe_context(config, parts, compute, budget=15, start=folder / START)
    context.encoders = {name: context.encoders[name] for name in context.encoders if name in ("trained", *baselines)}
    once = context.embed

    def embed(name: str, dataset: Dataset, index: Tensor, column: str | None = None) -> Tensor:
        key = name, dataset is context.dataset.held_out
        if key not in read:
            read[key] = once(name, dataset, torch.arange(len(dataset)), column)
        return read[key][index]

    context.embed = embed  # type: ignore[method-assign]
    return context


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("labels", nargs="+", metavar="LABEL", help="a column of the data's file")
    parser.add_argument("--baselines", nargs="*", default=["start", "random_init"], choices=["start", "random_init"])
    add_json(parser, "TF-IDF")
    args = parser.parse_args()
    read: Read = {}
    figures: list[Row] = []
    for label in args.labels:
        context = context_for(args.run, label, args.baselines, read)
        metrics = Linear()(context)
        print("\n".join([label, *table(metrics)]), flush=True)
        for name, metric in metrics.items():
            figures.append(row(f"{label}, {name}", metric.value, metric.unit, metric.baselines["tfidf"]))
    write(args.json, figures)


if __name__ == "__main__":
    sys.exit(main())
