"""``objective.same``: what counts as equal, how the objective uses it, and that the layout does not matter."""

import functools
import math

import pytest
import torch
from support.forked import Forked
from support.helpers import TINY, each_rank, make_trainer
from support.modalities import Bag, Towers, token_dataset, user_item_dataset

from sslcli.components import Components
from sslcli.data.base import Columns
from sslcli.distributed.ranks import joined
from sslcli.distributed.start import Start
from sslcli.encoders.mlp import MLP
from sslcli.objectives.infonce import InfoNCE
from sslcli.objectives.losses import contrastive as contrast
from sslcli.objectives.losses.equal_samples import numbers_of
from sslcli.types import Field, Spec
from sslcli.views.base import PassThrough

TEXT = Field("tokens", (8,), torch.int64, 40, pad=0)


def padded(*texts, width=8):
    return torch.tensor([[*text, *[0] * (width - len(text))] for text in texts])


def test_texts_are_equal_where_their_tokens_are():
    texts = [(5, 6), (6, 5), (5,), (5, 6, 6), (5, 6), (11, 0), (), (5, 0)]
    numbers = numbers_of(padded(*texts), TEXT)
    assert numbers.dtype == torch.int64
    equal = {(i, j) for i in range(8) for j in range(i) if numbers[i] == numbers[j]}
    assert equal == {(4, 0), (7, 2)}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_neither_padding_nor_the_dtype_is_part_of_a_text(dtype):
    texts = [(5, 6, 7), (9,)]
    narrow, wide = (numbers_of(padded(*texts, width=width).to(dtype), TEXT) for width in (3, 8))
    assert torch.equal(narrow, wide)
    left = torch.tensor([[0, 0, 5, 6, 7], [0, 0, 0, 0, 9]])
    assert torch.equal(numbers_of(left, TEXT), wide)


def test_a_hundred_thousand_texts_have_as_many_numbers():
    texts = torch.cartesian_prod(*[torch.arange(1, 18)] * 4)
    assert len(numbers_of(texts, TEXT).unique()) == len(texts) == 17**4


def test_an_id_is_its_own_number():
    ids = torch.tensor([3, 0, 3], dtype=torch.int32)
    assert numbers_of(ids, Field("id", (), torch.int32, 4)).tolist() == [3, 0, 3]


def doubled_texts():
    """64 texts, each twice, of 3 to 8 tokens; dropout 0."""
    ids = token_dataset(64, 8).columns["text"] + 1
    ids = torch.where(torch.arange(8) < 3 + torch.arange(64)[:, None] % 6, ids, 0).repeat(2, 1)
    return Columns(Spec(text=Field("tokens", (8,), torch.int64, 51, pad=0)), {"text": ids})


def parts_of(form, same="text"):
    torch.manual_seed(0)
    dataset = doubled_texts()
    encoder = Bag(dataset.spec, dropout=0.0)
    objective = InfoNCE(encoder, form=form, same=same, norm="layer", temperature=0.1)
    return Components(dataset, encoder, objective, PassThrough(dataset.spec, dataset.spec, 2))


def first_step(folder, form, accumulate=1, ranks=None, **more):
    """The loss, its chance level and all gradients of the first step."""
    options = (*TINY, "train.batch_size=64", "train.precision=fp32", f"train.accumulate={accumulate}")
    trainer = make_trainer(folder, *options, parts=parts_of(form, **more), ranks=ranks)
    loss, _ = trainer.gradients(next(trainer.loader.batches(0)))
    found = {"loss": loss.total.detach(), "chance": torch.as_tensor(loss.chance or 0.0)}
    modules = {"encoder": trainer.encoder, "objective": trainer.objective}.items()
    return found | {f"{k}.{name}": p.grad.clone() for k, m in modules for name, p in m.named_parameters()}


def one_rank(folder):
    with joined(Start.read(), torch.device("cpu")) as ranks:
        torch.save(first_step(folder, "nt_xent", ranks=ranks), folder / f"rank{ranks.rank}.pt")


@pytest.mark.parametrize("form", ["nt_xent", "cross_view", "decoupled", "sigmoid"])
def test_micro_batches_are_one_batch(tmp_path, form):
    whole, cut = first_step(tmp_path / "1", form), first_step(tmp_path / "4", form, accumulate=4)
    torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-6)
    other = first_step(tmp_path / "without", form, same=None)
    assert abs(float(other["loss"] - whole["loss"])) > 1e-3  # some texts of the batch are there twice


def test_processes_are_one_batch(tmp_path):
    whole = first_step(tmp_path, "nt_xent")
    workers = [Forked(functools.partial(one_rank, tmp_path), "same", environment=e) for e in each_rank(2)]
    said = [worker.communicate(timeout=100)[0] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers), said
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"rank{rank}.pt"), whole, rtol=1e-5, atol=1e-6)


def test_the_chance_level_counts_the_negatives():
    """Of four samples, two of which are one: 2 x 2 + 1 candidates for these two, and 2 x 3 + 1 for the others."""
    objective = parts_of("nt_xent").objective
    z = torch.ones(4, 3)
    loss = objective.loss({"z1": z, "z2": z, "same": torch.tensor([7, 1, 7, 2])})
    expected = (2 * math.log(5) + 2 * math.log(7)) / 4
    assert float(loss.chance) == pytest.approx(expected)
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-5)


def test_small_views_have_the_same_negatives():
    objective = parts_of("cross_view").objective
    objective.expect_local(2)
    torch.manual_seed(0)
    z1, z2, same = torch.randn(5, 3), torch.randn(5, 3), torch.tensor([0, 1, 0, 2, 0])
    local = torch.randn(5, 2, 3)
    pair = lambda a, t: contrast.info_nce(a, t, 0.1, False, same)  # noqa: E731
    added = sum(pair(a, t) for a in local.unbind(1) for t in (z1, z2)) / 2
    expected = (contrast.info_nce(z1, z2, 0.1, same=same) + added) / 3
    loss = objective.loss({"z1": z1, "z2": z2, "local": local, "same": same})
    torch.testing.assert_close(loss.total, expected)


def test_ids_of_users_are_no_negatives_of_themselves():
    dataset = user_item_dataset()
    objective = InfoNCE(Towers(dataset.spec), same="user")
    assert objective.same_field is dataset.spec["user"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"same": "texts"}, "same=texts: the dataset has no such column. Did you mean 'text'?"),
        ({"same": "text", "form": "supervised", "label": "y"}, "positives by label"),
    ],
)
def test_what_cannot_be_compared_is_refused(options, message):
    with pytest.raises(ValueError, match=message.replace(".", "\\.").replace("?", "\\?")):
        InfoNCE(Bag(doubled_texts().spec), **options)


def test_vectors_are_not_compared():
    spec = Spec(vector=Field("vector", (4,), torch.float32))
    with pytest.raises(ValueError, match="same=vector: only tokens and ids are compared"):
        InfoNCE(MLP(spec), same="vector")
