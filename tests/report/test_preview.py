"""The picture of what the model will see, read back from the file."""

import numpy as np
import pytest
import torch
from PIL import Image
from support.helpers import compose

from sslcli.commands.train import run
from sslcli.data.sampler import permuted
from sslcli.data.synthetic import synthetic
from sslcli.errors import UserError
from sslcli.report.preview import sheet

CELL, GAP, TITLE = 112, 4, 16
DATA = ("dataset=synthetic", "dataset.num_samples=100", "dataset.size=16", "train.batch_size=16", "device=cpu")


def cells(path):
    """The pictures of a preview as uint8 (rows, columns, CELL, CELL, 3)."""
    picture = np.asarray(Image.open(path).convert("RGB"))
    rows = (picture.shape[0] - TITLE - GAP) // (CELL + GAP)
    columns = (picture.shape[1] - GAP) // (CELL + GAP)
    tops = [TITLE + GAP + r * (CELL + GAP) for r in range(rows)]
    lefts = [GAP + c * (CELL + GAP) for c in range(columns)]
    return np.array([[picture[t : t + CELL, x : x + CELL] for x in lefts] for t in tops])


def preview(tmp_path, *overrides):
    path = tmp_path / "views.png"
    run(compose(*DATA, *overrides, f"preview={path}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    return cells(path)


def test_it_shows_the_first_samples_of_the_first_step_and_both_views(tmp_path):
    found = preview(tmp_path, "views=none", "encoder=mlp")  # whose views are not made smaller
    assert found.shape[:2] == (8, 3)
    dataset = synthetic(num_samples=100, size=16)
    index = torch.from_numpy(permuted(np.arange(8), len(dataset), 0, "order", 0))
    pixels = dataset.fetch(index)["image"].permute(0, 2, 3, 1).repeat_interleave(7, 1).repeat_interleave(7, 2).numpy()
    for column in range(3):  # without augmentation both views are the picture
        assert np.abs(found[:, column].astype(int) - pixels.astype(int)).max() <= 1


def test_views_differ_where_they_are_augmented(tmp_path):
    found = preview(tmp_path, "views=simclr").astype(int)
    assert all(np.abs(found[:, a] - found[:, b]).mean((1, 2, 3)).min() > 1 for a, b in ((0, 1), (0, 2), (1, 2)))


def test_what_a_masked_objective_hides_is_gray(tmp_path):
    found = preview(tmp_path, "objective=simmim", "objective.mask_ratio=0.5", "views=none")
    assert found.shape[:2] == (8, 3)
    shown, masked = found[:, 1].astype(int), found[:, 2].astype(int)
    gray = (masked == 128).all(-1)
    assert np.abs(gray.mean((1, 2)) - 0.5).max() < 0.02
    assert np.array_equal(masked[~gray], shown[~gray])


def test_a_white_picture_has_a_frame():
    drawn = np.asarray(sheet({"image": torch.ones(1, 1, 8, 8)}))
    inner = drawn[TITLE + GAP : TITLE + GAP + CELL, GAP : GAP + CELL]
    assert (inner == 255).all()
    edges = drawn[TITLE + GAP - 1, GAP : GAP + CELL], drawn[TITLE + GAP : TITLE + GAP + CELL, GAP + CELL]
    assert all((edge < 170).all() for edge in edges)


@pytest.mark.parametrize("path", ["/proc/no/such/place.png"])
def test_a_place_that_cannot_be_written_is_named(path, tmp_path):
    with pytest.raises(UserError, match=r"preview: /proc/no"):
        run(compose(*DATA, f"preview={path}"), tmp_path / "run")
