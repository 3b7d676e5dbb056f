"""Columns of any kind and dtype: kept as they are by every cache, and refused where they are not what their field says.

The datasets come from this file as a user's own would, by ``plugins``.
"""

import importlib
import pickle

import numpy as np
import pytest
import torch
from support.helpers import compose, trainer_of

from sslcli.config.instantiate import allow
from sslcli.data.base import Columns, CorruptSample, CorruptSamples, Dataset, Subset, Wrapper
from sslcli.data.checked import Checked
from sslcli.data.corrupt import CorruptFlagged
from sslcli.data.dataloading import kept_in_memory
from sslcli.data.ram_cache import RamCache, num_bytes
from sslcli.errors import UserError
from sslcli.types import Field, Spec

DTYPES = ["float32", "float16", "uint16", "int64", "bool"]
SHAPES = {"vector": (16,), "image": (1, 4, 4), "tokens": (6,)}
CASES = [(kind, dtype) for kind in ("vector", "image") for dtype in DTYPES] + [
    ("tokens", "int64"),
    ("tokens", "uint16"),
]
OPTIONS = ("encoder=mlp", "encoder.hidden_dim=8", "objective.hidden_dim=8", "objective.width=4", "train.batch_size=8",
           "train.steps=20", "probe=none", "checkpoint.every=1000", "log.every=1000", "dataset.workers=0")  # fmt: skip


class Read(Dataset):
    """Columns that are read when they are fetched, as from files."""

    def __init__(self, spec, columns):
        self.spec, self.columns = spec, columns
        self.num_reads = 0

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def fetch(self, index):
        self.num_reads += len(index)
        return {name: torch.stack([column[i] for i in index]) for name, column in self.columns.items()}


def make(*, kind: str, dtype: str, in_memory: bool) -> Dataset:
    generator = np.random.default_rng(0)
    shape = SHAPES[kind]
    largest = 300 if kind == "tokens" else 60_000  # neither fits into a byte
    values = (
        generator.uniform(-2, 2, (40, *shape)) if "float" in dtype else generator.integers(0, largest, (40, *shape))
    )
    values = values > 30_000 if dtype == "bool" else values.astype(dtype)
    spec = Spec({kind: Field(kind, shape, getattr(torch, dtype), vocab=300 if kind == "tokens" else 0)})
    return (Columns if in_memory else Read)(spec, {kind: torch.from_numpy(values)})


@pytest.fixture
def plugin():
    """This file as a package of the user's."""
    allow([__name__, "support"])
    importlib.import_module(__name__)
    yield f"{__name__}.make"
    allow([])


def weights_after_20_steps(tmp_path, plugin, kind, dtype, in_memory, cache):
    config = compose("device=cpu", f"views={'none' if kind == 'image' else 'columns'}", *OPTIONS)
    if kind == "tokens":
        config.encoder.node = {"_target_": "support.modalities.Bag", "field": "tokens"}
    config.dataset.node = {"_target_": plugin, "kind": kind, "dtype": dtype, "in_memory": in_memory}
    config.dataset.cache = cache
    trainer = trainer_of(config, tmp_path)
    batches = trainer.loader.batches(0)
    for _ in range(20):
        trainer.train_step(next(batches))
    return torch.cat([p.detach().flatten() for p in trainer.encoder.parameters()])


@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_a_run_ends_in_the_same_bits_wherever_its_columns_are_kept(tmp_path, plugin, kind, dtype):
    weights = {
        (in_memory, cache): weights_after_20_steps(tmp_path, plugin, kind, dtype, in_memory, cache)
        for in_memory, cache in ((True, "auto"), (False, "auto"), (False, "none"))
    }
    plain = weights[False, "none"]
    assert plain.isfinite().all()
    for where, found in weights.items():
        assert torch.equal(found, plain), where


@pytest.mark.parametrize("dtype", [*DTYPES, "bfloat16", "int32"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_the_ram_cache_gives_back_the_same_bytes(dtype, shape):
    column = (torch.rand(20, *shape) * 100).to(getattr(torch, dtype))
    source = Read(Spec(x=Field("vector", shape, column.dtype)), {"x": column})
    cached = RamCache(source)
    index = torch.tensor([3, 3, 19, 0])
    for _ in range(2):
        found = cached.fetch(index)["x"]
        assert found.dtype == column.dtype and torch.equal(found, column[index])
    assert source.num_reads == 4


def test_columns_that_are_not_pictures_are_kept_too():
    spec = Spec(ids=Field("tokens", (6,), torch.int64, 90), user=Field("id", (), torch.int32, 9))
    source = Read(spec, {"ids": torch.randint(90, (10, 6)), "user": torch.randint(9, (10,), dtype=torch.int32)})
    assert isinstance(kept_in_memory(source, "auto"), RamCache)
    assert num_bytes(spec, 10) == 10 * (6 * 8 + 4)


def test_a_cache_that_does_not_fit_by_its_bytes_is_not_made(monkeypatch):
    """100 token ids are 800 bytes: a quarter of 3,100 bytes is too little, a quarter of 3,300 enough."""
    source = Read(Spec(ids=Field("tokens", (10,), torch.int64, 90)), {"ids": torch.randint(90, (10, 10))})
    for free, kept in ((3_100, False), (3_300, True)):
        monkeypatch.setattr("sslcli.data.dataloading.free_memory", lambda free=free: free)
        assert isinstance(kept_in_memory(source, "auto"), RamCache) == kept


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (torch.zeros(5, 3, dtype=torch.float64), r"'x' is float64 of shape \[3\], .* float32 of shape \[3\]"),
        (torch.zeros(5, 4), r"'x' is float32 of shape \[4\], .* float32 of shape \[3\]"),
    ],
)
def test_a_column_that_is_not_its_field_is_a_mistake_that_names_both(column, message):
    dataset = Checked(Read(Spec(x=Field("vector", (3,), torch.float32)), {"x": column}))
    with pytest.raises(UserError, match=message):
        dataset.fetch(torch.arange(2))


def test_a_missing_and_a_surplus_column_are_named():
    for name, message in (("y", "no column 'x'"), ("x", "'y'")):
        columns = {"x": torch.zeros(5, 3), "y": torch.zeros(5, 3)}
        spec = Spec(x=Field("vector", (3,), torch.float32))
        dataset = Checked(Read(spec, {"y": columns["y"]} if name == "y" else columns))
        with pytest.raises(UserError, match=message):
            dataset.fetch(torch.arange(2))


def test_the_command_names_the_column_and_its_field(run, plugin, tmp_path):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "wrong.yaml").write_text(f"_target_: {plugin.replace('.make', '.wrong')}\n")
    arguments = ("dataset=wrong", "views=columns", "encoder=mlp", "--config-dir", str(tmp_path))
    code, _, err = run(*arguments, f"plugins=[{__name__}]")
    assert code == 2 and "'x' is float64" in err and "float32 of shape [3]" in err and err.count("\n") == 1


def wrong() -> Dataset:
    return Read(Spec(x=Field("vector", (3,), torch.float32)), {"x": torch.zeros(2000, 3, dtype=torch.float64)})


def test_wrappers_pass_a_datasets_own_attributes_on():
    source = Read(Spec(x=Field("vector", (), torch.float32)), {"x": torch.arange(9.0)})
    source.licence = "CC0"
    wrapped = Subset(RamCache(Wrapper(source)), torch.arange(4))
    assert wrapped.licence == "CC0" and pickle.loads(pickle.dumps(Wrapper(source))).licence == "CC0"
    with pytest.raises(AttributeError, match="licenses"):
        _ = wrapped.licenses


def test_rows_that_cannot_be_read_keep_the_dtype():
    class Damaged(Read):
        def fetch(self, index):
            bad = {row: CorruptSample(str(i), "damaged") for row, i in enumerate(index.tolist()) if i % 2}
            if bad:
                raise CorruptSamples(bad)
            return super().fetch(index)

    column = torch.arange(1, 7).to(torch.uint16)
    dataset = CorruptFlagged(Damaged(Spec(x=Field("vector", (), torch.uint16)), {"x": column}))
    for index in ([0, 1, 2, 3], [1, 3]):
        found = dataset.fetch(torch.tensor(index))
        assert found["x"].dtype == torch.uint16
        assert found["x"].tolist() == [0 if i % 2 else i + 1 for i in index]
        assert found["readable"].tolist() == [i % 2 == 0 for i in index]
