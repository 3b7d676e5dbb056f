"""Length buckets: every sample once an epoch, little padding, and an order that is a function of the step."""

import numpy as np
import pytest
import torch
from support.forked import Forked
from support.helpers import TINY, compose, each_rank, make_context, make_trainer
from support.modalities import Bag, vector_dataset

from sslcli.components import Components
from sslcli.config.identity import Content, differences, run_name
from sslcli.data.base import Columns, with_held_out
from sslcli.data.buckets import bucketed, by_length, lengths_of
from sslcli.data.loader import Loader
from sslcli.distributed.ranks import joined
from sslcli.distributed.start import Start
from sslcli.errors import UserError
from sslcli.objectives.infonce import InfoNCE
from sslcli.types import Field, Spec, View
from sslcli.views.base import PassThrough

COUNT, LENGTH, BATCH, WINDOW = 530, 100, 8, 10


def texts(count=COUNT):
    """Texts of 1 to 100 tokens; the first token is no padding."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 60, (count, LENGTH), generator=generator)
    length = torch.randint(1, LENGTH + 1, (count, 1), generator=generator)
    ids = torch.where(torch.arange(LENGTH) < length, ids, 0)
    return Columns(Spec(text=Field("tokens", (LENGTH,), torch.int64, 60, pad=0)), {"text": ids})


def loader(buckets=WINDOW, **options):
    return Loader(texts(), batch_size=BATCH, accumulate=1, seed=0, workers=0, buckets=buckets, **options)


def test_an_epoch_has_the_samples_that_it_has_without_buckets_window_by_window():
    sorted_, plain = loader(), loader(None)
    for epoch in range(2):
        first = epoch * plain.steps_per_epoch
        for start in range(first, first + plain.steps_per_epoch, WINDOW):
            steps = range(start, min(start + WINDOW, first + plain.steps_per_epoch))
            ours, theirs = (torch.cat([each.index(step) for step in steps]) for each in (sorted_, plain))
            assert torch.equal(ours.sort().values, theirs.sort().values)
            assert len(ours.unique()) == len(ours) == BATCH * len(steps)
            assert not torch.equal(ours, theirs)


def test_batches_have_little_padding_and_come_in_no_order_of_length():
    widths, rows = {}, {}
    for buckets in (None, WINDOW):
        batches = loader(buckets)
        length = [lengths_of(batches.dataset, batches.index(step)) for step in range(batches.steps_per_epoch)]
        widths[buckets] = [each.max() for each in length]
        rows[buckets] = sum(each.max() * BATCH for each in length) / sum(each.sum() for each in length)
    assert rows[WINDOW] < 1.2 < 1.6 < rows[None]
    steps = np.arange(len(widths[WINDOW]))
    assert abs(np.corrcoef(widths[WINDOW], steps)[0, 1]) < 0.4


def test_a_step_is_found_alone_as_it_is_among_others():
    whole = loader()
    order = [whole.index(step) for step in range(3 * whole.steps_per_epoch)]
    for step in (0, 7, WINDOW, 65, 66, 100, 131):
        assert torch.equal(loader().index(step), order[step])
        assert torch.equal(next(loader().batches(step))[0]["text"], _trimmed(texts().fetch(order[step])["text"]))


def _trimmed(ids):
    longest = int((ids != 0).sum(1).max())
    return ids[:, : min(LENGTH, -(-longest // 16) * 16)]


def test_a_window_is_sorted_and_a_batch_keeps_the_order_of_the_permutation():
    order = torch.tensor([50, 10, 40, 20, 30, 60])
    length = np.array([5, 1, 4, 2, 3, 6])
    found = bucketed(order, length, 2, 0).reshape(-1, 2).tolist()
    assert sorted(found) == [[10, 20], [40, 30], [50, 60]]


def test_the_longest_column_counts():
    spec = Spec(text=Field("tokens", (3,), torch.int64, 9, pad=0), pair=Field("tokens", (4,), torch.int64, 9, pad=0))
    columns = {"text": torch.tensor([[1, 0, 0], [1, 1, 1]]), "pair": torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]])}
    assert lengths_of(Columns(spec, columns), torch.tensor([1, 0])).tolist() == [3, 4]


def first_step(folder, accumulate=1, ranks=None):
    torch.manual_seed(0)
    dataset = texts(200)
    encoder = Bag(dataset.spec, dropout=0.0)
    views = PassThrough(dataset.spec, dataset.spec, 2)
    parts = Components(dataset, encoder, InfoNCE(encoder, norm="layer"), views)
    options = (*TINY, "train.precision=fp32", f"train.accumulate={accumulate}", "+dataset.buckets=5")
    trainer = make_trainer(folder, *options, parts=parts, ranks=ranks)
    assert trainer.loader.buckets == 5
    loss, _ = trainer.gradients(next(trainer.loader.batches(0)))
    return {"loss": loss.total.detach()} | {name: p.grad.clone() for name, p in trainer.encoder.named_parameters()}


def one_rank(folder):
    with joined(Start.read(), torch.device("cpu")) as ranks:
        torch.save(first_step(folder, ranks=ranks), folder / f"rank{ranks.rank}.pt")


def test_every_layout_is_the_same_batch(tmp_path):
    whole = first_step(tmp_path)
    torch.testing.assert_close(first_step(tmp_path, accumulate=4), whole, rtol=1e-5, atol=1e-6)
    workers = [Forked(lambda: one_rank(tmp_path), "buckets", environment=e) for e in each_rank(2)]
    said = [worker.communicate(timeout=100)[0] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers), said
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"rank{rank}.pt"), whole, rtol=1e-5, atol=1e-6)


def test_data_without_texts_are_refused():
    with pytest.raises(UserError, match="dataset.buckets sorts texts by length, and these data have none"):
        Loader(vector_dataset(), batch_size=4, accumulate=1, seed=0, workers=0, buckets=3)


def test_buckets_change_what_is_learned_and_none_change_no_name():
    plain, sorted_ = (compose("dataset=wordnet_mini", *more) for more in ((), ("dataset.buckets=20",)))
    refused, _ = differences(plain, sorted_)
    assert refused == ["dataset.buckets: None -> 20"]
    names = [run_name(config, {}, Content("data")) for config in (plain, sorted_)]
    assert names[0] != names[1]


def test_features_are_read_by_length_and_come_back_in_their_order():
    dataset = with_held_out(texts(1500), None, 0.1)
    asked = []
    context = make_context(dataset, asked=asked, trained=Bag(dataset.spec).eval())
    index = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:1200]
    found = context.embed("trained", dataset, index)
    ids = dataset.fetch(index)["text"]
    whole = context.encoders["trained"](View(ids, "text", ids != 0))
    torch.testing.assert_close(found, whole.pooled.detach(), rtol=1e-5, atol=1e-6)
    assert (np.diff(lengths_of(dataset, asked[0][1])) <= 0).all()


def test_windows_are_sorted_each_for_itself(monkeypatch):
    monkeypatch.setattr("sslcli.data.buckets._WINDOW", 100)
    index = torch.arange(530).flip(0)[:250]
    places = by_length(texts(), index, "text")
    for start in (0, 100, 200):
        window = places[start : start + 100]
        assert sorted(window.tolist()) == list(range(start, min(start + 100, 250)))
        assert (np.diff(lengths_of(texts(), index[window])) <= 0).all()
    assert by_length(vector_dataset(10), torch.arange(10), "vector") is None
    assert by_length(texts(), torch.arange(0), "text") is None
