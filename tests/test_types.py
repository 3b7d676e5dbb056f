"""The description of columns: what a field refuses, its bytes, and how columns of old checkpoints are read."""

import json
import pickle

import pytest
import torch

from sslcli.errors import UserError
from sslcli.run_dir.formats import with_kinds
from sslcli.types import Field, Spec

TEXT = Field("tokens", (7,), torch.int64, 100, pad=0, mask=99)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("picture", (3, 4, 4), torch.uint8), "kind='picture'"),
        (("image", (4, 4), torch.uint8), "kind=image has 3 axes"),
        (("tokens", (7,), torch.int64), "vocab=0"),
        (("vector", (7,), torch.float32, 5), "vocab=5"),
        (("tokens", (7,), torch.float32, 5), "dtype=float32"),
        (("tokens", (7,), torch.int64, 5, 5), "pad=5"),
        (("id", (), torch.int64, 5, 0), "pad=0"),
        (("vector", (7,), "float32"), "dtype='float32'"),
    ],
)
def test_a_field_that_contradicts_itself_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Field(*arguments)


def test_the_bytes_of_a_sample_are_those_of_its_tensor():
    for field in (TEXT, Field("image", (3, 5, 4), torch.float16), Field("id", (), torch.int32, 9)):
        assert field.num_bytes == torch.empty(1, *field.shape, dtype=field.dtype).untyped_storage().nbytes()


def test_a_spec_survives_a_checkpoint_a_pickle_and_another_column():
    spec = Spec(text=TEXT, image=Field("image", (1, 2, 2), torch.uint8, mean=(0.5,), std=(0.2,)))
    assert Spec.from_plain(json.loads(json.dumps(spec.to_plain()))) == spec
    assert spec.to_plain()["text"]["dtype"] == "int64"
    known = Spec(spec, facts={"popularity": torch.ones(3)})
    for copy in (pickle.loads(pickle.dumps(known)), known.having("label", Field("id", (), torch.int64, 3))):
        assert torch.equal(copy.facts["popularity"], torch.ones(3)) and copy["text"] == TEXT


def test_columns_of_formats_1_and_2_get_the_kind_that_was_guessed_then():
    old = {
        "image": {"shape": [3, 8, 8], "vocab": 0, "mean": [0.5] * 3, "std": [0.2] * 3},
        "text": {"shape": [7], "vocab": 100, "mean": [], "std": []},
        "user": {"shape": [], "vocab": 9, "mean": [], "std": []},
        "row": {"shape": [4], "vocab": 0, "mean": [], "std": []},
    }
    assert Spec.from_plain(with_kinds(old)) == Spec(
        image=Field("image", (3, 8, 8), torch.uint8, mean=(0.5,) * 3, std=(0.2,) * 3),
        text=Field("tokens", (7,), torch.int64, 100),
        user=Field("id", (), torch.int64, 9),
        row=Field("vector", (4,), torch.float32),
    )
    new = Spec(text=TEXT).to_plain()
    assert with_kinds(new) == new


def test_other_data_must_have_a_column_of_the_same_kind():
    ours = Spec(image=Field("image", (3, 8, 8), torch.uint8), row=Field("vector", (4,), torch.float32), text=TEXT)
    fine = Spec(image=Field("image", (3, 9, 7), torch.float32), row=Field("vector", (4,), torch.float16),
                text=Field("tokens", (5,), torch.int32, 50))  # fmt: skip
    wrong = Spec(image=Field("image", (1, 8, 8), torch.uint8), row=Field("vector", (5,), torch.float32),
                 text=Field("tokens", (7,), torch.int64, 101))  # fmt: skip
    for name in ours:
        fine.check_readable(name, ours)
        with pytest.raises(UserError, match=f"reads '{name}' as .*, and these data have .*dtype"):
            wrong.check_readable(name, ours)
