"""The linear probe against scikit-learn's logistic regression on the same features, labels and regulariser.

python scripts/benchmarks/linear_check.py runs/NAME

The probe picks its setting; scikit-learn then minimises the same objective to convergence, with the probe's weight
decay (at least 1e-6, because without weight decay there may be no minimum).
"""

import argparse

import torch
from sklearn.linear_model import LogisticRegression

from sslcli.components import restore_components
from sslcli.evaluation.baselines import raw
from sslcli.evaluation.linear import Linear
from sslcli.evaluation.measure import probe_context
from sslcli.evaluation.softmax_regression import Scale
from sslcli.training.device import choose
from sslcli.training.resume import open_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run directory or checkpoint")
    _, state = open_run(parser.parse_args().run)
    compute = choose("cpu", "auto")
    measured = probe_context(state["config"], restore_components(state, compute.device), compute, budget=15.0)
    train, held_out, labelled = measured.dataset, measured.queried, measured.labelled()
    assert labelled is not None
    index, queries = torch.arange(len(train)), torch.arange(len(held_out))
    readings = {"raw_input": raw(measured, index, held_out, queries)}
    readings |= {
        name: (measured.features(name, train, index), measured.features(name, held_out, queries))
        for name in measured.encoders
    }
    probe = Linear()
    print("| labels | features | probe | scikit-learn | setting |\n|---|---|---|---|---|")
    for part in probe._shares(labelled[0], measured.seed).values():
        for name, (rows, asked) in readings.items():
            labels, truth = labelled[0][part], labelled[1]
            found = probe._classify(rows, labelled[0], part, (asked, truth), measured)
            scale = Scale.of(rows[part], standardise=found.setting.standardise)
            x, y = (scale(values, compute.device).double().numpy() for values in (rows[part], asked))
            decay = max(found.setting.weight_decay, 1e-6)
            model = LogisticRegression(C=1 / (decay * len(part)), max_iter=3000).fit(x, labels.numpy())
            theirs = 100 * model.score(y, truth.numpy())
            print(
                f"| {len(part):,} | {name} | {100 * found.accuracy:.2f} | {theirs:.2f} | {found.setting} |", flush=True
            )


if __name__ == "__main__":
    main()
