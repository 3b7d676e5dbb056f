"""The metrics of probe=ranking against RecBole's own, on RecBole's scores and split of MovieLens-100k.

python scripts/benchmarks/compare_recbole.py [--wheel FILE] [--model BPR] [--epochs 5] [--split FILE.npz] [--json FILE]

RecBole 1.2.1 does not run on today's NumPy, SciPy and PyTorch, so this repairs a copy of its wheel in a temporary
folder: NumPy's old names, an empty stub of ray, torch.load of its own checkpoints, and an update of SciPy's dok_matrix.
Nothing that is installed is changed. It trains a model for a few epochs, prints the CPU seconds of each, and ranks the
test part by both. --split writes RecBole's split by raw ids for dataset.split_from. It needs pandas, colorama,
colorlog, psutil and texttable, which RecBole imports.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import Row, add_json, row, write

from sslcli.evaluation.rank_metrics import NAMES, measures
from sslcli.graph import Lists

RELEASE = "recbole==1.2.1"
ALIASES = {"float_": np.float64, "complex_": np.complex128, "object_": object, "str_": str, "unicode_": str,
           "bool8": np.bool_}  # fmt: skip
REPAIRS = {  # file of the copy: what is replaced in it, and by what
    "recbole/trainer/trainer.py": [
        ("map_location=self.device)", "map_location=self.device, weights_only=False)"),
    ],
    **{
        f"recbole/model/general_recommender/{name}.py": [("A._update(data_dict)", "A._dict.update(data_dict)")]
        for name in ("lightgcn", "ngcf", "ncl")
    },
}
CUTS = (5, 10, 20)
DATA = "recbole/dataset_example"  # folder of the copy


def repaired(wheel: Path | None, folder: Path) -> None:
    """Unpack the wheel into ``folder``, repair what today's libraries have removed, and let Python import it.

    Without a wheel, pip downloads it.
    """
    if wheel is None:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), RELEASE]
        subprocess.run(command, check=True)
        (wheel,) = folder.glob("recbole-*.whl")
    with zipfile.ZipFile(wheel.resolve()) as archive:
        archive.extractall(folder)
    for name, changes in REPAIRS.items():
        text = (folder / name).read_text()
        for old, new in changes:
            assert old in text, f"{name} of {wheel} has no '{old}': is it {RELEASE}?"
            text = text.replace(old, new)
        (folder / name).write_text(text)
    (folder / "ray").mkdir()
    (folder / "ray" / "__init__.py").write_text("tune = None\n")
    sys.path.insert(0, str(folder))
    for name, kind in ALIASES.items():
        if not hasattr(np, name):
            setattr(np, name, kind)


def prepared(folder: Path, name: str, *, lr: float, epochs: int, seed: int) -> tuple[Any, Any, Any]:
    """Build a model of the repaired copy for MovieLens-100k: its trainer, the data of its three parts, the data set."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_logger, init_seed

    settings = {
        "data_path": str(folder / DATA),
        "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]},
        "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": "user", "order": "RO", "mode": "full"},
        "metrics": ["Recall", "MRR", "NDCG", "Hit", "Precision"],  # ItemCoverage ends in an error
        "topk": list(CUTS),
        "metric_decimal_place": 12,
        "epochs": epochs,
        "learning_rate": lr,
        "seed": seed,
        "stopping_step": epochs,
        "use_gpu": False,
        "show_progress": False,
        "state": "WARNING",
        "checkpoint_dir": str(folder / "saved"),
        "log_wandb": False,
    }
    settings |= {"n_layers": 2, "reg_weight": 1e-5} if name == "LightGCN" else {}
    with contextlib.chdir(folder):  # where they write their logs
        config = Config(model=name, dataset="ml-100k", config_dict=settings)
        init_seed(config["seed"], config["reproducibility"])
        init_logger(config)
        dataset = create_dataset(config)
        parts = data_preparation(config, dataset)
        model = get_model(name)(config, parts[0]._dataset).to(config["device"])
        return get_trainer(config["MODEL_TYPE"], config["model"])(config, model), parts, dataset


def trained(trainer: Any, part: Any, folder: Path) -> list[float]:
    """Train their model; returns the CPU seconds of each epoch."""
    seconds = []
    epoch = trainer._train_epoch

    def timed(*positional: Any, **named: Any) -> Any:
        start = time.process_time()
        result = epoch(*positional, **named)
        seconds.append(time.process_time() - start)
        return result

    trainer._train_epoch = timed
    with contextlib.chdir(folder):
        trainer.fit(part, None, verbose=False, saved=False, show_progress=False)
    return seconds


@torch.no_grad()
def ours(model: Any, test: Any, num_items: int) -> dict[str, float]:
    """Return the metrics by the functions of probe=ranking, on their scores and their lists of items."""
    model.eval()
    tables, seen, relevant, start = [], [], [], 0
    for interaction, history, users, items in test:
        tables.append(model.full_sort_predict(interaction).view(len(interaction), -1)[:, 1:])  # item 0 is padding
        for pairs, (rows, columns) in ((seen, history), (relevant, (users, items))):
            pairs.append(torch.stack([rows.long() + start, columns.long() - 1]))
        start += len(interaction)
    table = torch.cat(tables)
    lists = [Lists.of(*torch.cat(pairs, 1), start) for pairs in (seen, relevant)]
    unknown = torch.zeros(start, dtype=torch.int64)
    found, _ = measures(lambda part: table[part].clone(), *lists, unknown, torch.arange(start), num_items, list(CUTS))
    return {name: float(values.mean()) for name, values in found.items()}


def raw(dataset: Any, part: Any) -> np.ndarray:
    """Return the pairs (N, 2) of a part of their split by raw ids."""
    feat = part._dataset.inter_feat
    columns = [dataset.id2token(name, feat[name].numpy()) for name in (dataset.uid_field, dataset.iid_field)]
    return np.stack(columns, 1).astype(str)


def compared(theirs: Mapping[str, float], found: Mapping[str, float]) -> list[Row]:
    """Print each metric by both, with the difference; returns the rows."""
    rows, largest = [], 0.0
    for k in CUTS:
        for name in NAMES:
            value, mine = theirs[f"{name}@{k}"], found[f"{name}_at_{k}"]
            largest = max(largest, abs(mine - value))
            print(f"{name + '@' + str(k):<13} RecBole {value:.10f}  ours {mine:.10f}  difference {mine - value:+.1e}")
            rows.append(row(f"{name}_at_{k}", mine, "", value))
    print(f"largest difference: {largest:.1e}")
    return [*rows, row("largest difference", largest, "")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, help=f"the wheel of {RELEASE}; without it, pip downloads it")
    parser.add_argument("--model", default="BPR", choices=["BPR", "LightGCN"])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=0.002)
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--split", type=Path, help="write their split to this .npz file")
    add_json(parser, "RecBole's own number")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of their use of pandas and torch
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repaired(args.wheel, folder)
        trainer, parts, dataset = prepared(folder, args.model, lr=args.lr, epochs=args.epochs, seed=args.seed)
        seconds = trained(trainer, parts[0], folder)
        if args.split is not None:
            np.savez(args.split, **dict(zip(("train", "valid", "test"), (raw(dataset, part) for part in parts))))
            print(f"wrote {args.split}: {', '.join(f'{len(part._dataset):,}' for part in parts)} pairs")
        theirs = trainer.evaluate(parts[2], load_best_model=False, show_progress=False)
        rows = compared(theirs, ours(trainer.model, parts[2], dataset.item_num - 1))
    print(f"{args.model}, {args.epochs} epochs: {', '.join(f'{s:.2f}' for s in seconds)} CPU seconds an epoch")
    write(args.json, [*rows, row("CPU seconds an epoch", min(seconds), "s")])


if __name__ == "__main__":
    main()
