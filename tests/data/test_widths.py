"""A batch of texts is as wide as its longest text needs, wherever it is kept, and nothing but padding is cut off."""

import pytest
import torch
from support.modalities import PAD, padded_texts

from sslcli.data.base import Columns
from sslcli.data.checked import Checked
from sslcli.data.dataloading import OnDevice, in_pieces, kept_in_memory
from sslcli.data.loader import Loader
from sslcli.data.widths import joined, trimmed
from sslcli.types import Field, Spec, lengths

LENGTH = 100


def uneven(num_samples=600, pair=False):
    """Texts of all lengths up to 40 in a column of 100 places; those from the 512th on have at most 10 tokens."""
    dataset = padded_texts(num_samples, 40, pair=pair)
    ids = torch.nn.functional.pad(dataset.columns["text"], (0, LENGTH - 40), value=PAD)
    ids[512:, 10:] = PAD
    field = Field("tokens", (LENGTH,), torch.int64, 60, pad=PAD)
    return Columns(dataset.spec.having("text", field), {**dataset.columns, "text": ids}, dataset.labels)


def needed(ids):
    """The length of the longest text, by a loop."""
    return max(max((k + 1 for k, token in enumerate(text) if token != PAD), default=0) for text in ids.tolist())


def test_lengths_count_up_to_the_last_token_that_is_no_padding():
    ids = torch.tensor([[5, 0, 6, 0], [0, 0, 0, 0], [1, 2, 3, 4]])
    assert lengths(ids, 0).tolist() == [3, 0, 4]
    assert lengths(ids, None).tolist() == [4, 4, 4]


@pytest.mark.parametrize(("longest", "width"), [(0, 16), (1, 16), (16, 16), (17, 32), (96, 96), (97, 100), (100, 100)])
def test_widths_are_multiples_of_16_up_to_the_fields(longest, width):
    assert Field("tokens", (LENGTH,), torch.int64, 60, pad=PAD).rounded(longest) == width


@pytest.mark.parametrize("workers", [0, 1])
def test_the_micro_batches_of_a_loader_are_cut(workers):
    dataset = kept_in_memory(Checked(uneven()), "auto")
    loader = Loader(dataset, batch_size=8, accumulate=2, seed=0, workers=workers)
    widths = set()
    batches = loader.batches(0)
    for step in range(6):
        for micro, batch in enumerate(next(batches)):
            index = loader.index(step)[loader.positions(micro)]
            whole, width = dataset.fetch(index)["text"], batch["text"].shape[1]
            assert width == -(-needed(whole) // 16) * 16
            assert torch.equal(batch["text"], whole[:, :width]) and (whole[:, width:] == PAD).all()
            assert batch["text"].is_contiguous()
            widths.add(width)
    assert len(widths) > 1


def test_pieces_are_cut_each_for_itself_and_join_as_one_batch():
    dataset = uneven(pair=True)
    pieces = [columns for columns, _ in in_pieces(dataset, torch.arange(600), 0)]
    assert [piece["text"].shape[1] for piece in pieces] == [48, 16]
    whole = joined(pieces, dataset.spec)
    for name, column in dataset.columns.items():
        assert torch.equal(whole[name], column[:, : whole[name].shape[1]])
    assert whole["text"].shape == (600, 48) and whole["pair"].shape == (600, 20)


def test_a_copy_on_the_device_is_cut_by_lengths_that_are_known_on_the_host():
    dataset = uneven()
    copy = OnDevice(dataset, torch.device("cpu"), workers=0, on_bad=lambda bad: None)
    assert torch.equal(copy.columns["text"], dataset.columns["text"])
    for index in (torch.arange(8), torch.arange(590, 600), torch.tensor([511, 3])):
        assert torch.equal(copy.fetch(index)["text"], trimmed(dataset.fetch(index), dataset.spec)["text"])


def test_columns_without_padding_stay_as_they_are():
    spec = Spec(text=Field("tokens", (40,), torch.int64, 60), x=Field("vector", (40,), torch.float32))
    columns = {"text": torch.zeros(3, 40, dtype=torch.int64), "x": torch.zeros(3, 40), "label": torch.zeros(3)}
    for name, column in trimmed(columns, spec).items():
        assert column is columns[name]
