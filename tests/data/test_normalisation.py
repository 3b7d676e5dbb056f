"""Mean and standard deviation of pictures: as numpy finds them, of the training part only, and kept by the run."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.helpers import compose
from torchvision.models import resnet18

import sslcli
from sslcli.components import build_components, restore_components
from sslcli.config.choices import DatasetChoice
from sslcli.data.base import Columns, CorruptSample, CorruptSamples, Dataset, with_held_out
from sslcli.data.normalisation import given, measured
from sslcli.errors import UserError
from sslcli.pretrained.normalisation import numbers_of
from sslcli.run_dir import checkpoint
from sslcli.types import Field, Spec

FILE = "preprocessor_config.json"


def pixels(dtype, count=1100):
    """(N, 3, 4, 5), each channel with a mean and a deviation of its own."""
    drawn = np.random.default_rng(0).normal(size=(count, 3, 4, 5)) * [[[2]], [[20]], [[45]]] + [[[20]], [[90]], [[180]]]
    return torch.from_numpy(drawn.clip(0, 255)).to(dtype)


def columns(images):
    return Columns(Spec(image=Field("image", tuple(images.shape[1:]), images.dtype)), {"image": images})


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.int64])
def test_measured_numbers_are_those_of_numpy_over_all_pixels(dtype):
    images = pixels(dtype)
    found = measured(columns(images), workers=0)
    every = images.numpy().astype(np.float64) / (255 if dtype == torch.uint8 else 1)
    np.testing.assert_allclose(found.mean, every.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(found.std, every.std((0, 2, 3)), rtol=1e-12)
    assert found.source == "measured on 1,100 of 1,100 training pictures"
    assert found.unit == (1 / 255 if dtype == torch.uint8 else 1)


def test_a_large_mean_costs_no_digits():
    """Of numbers around a million, the mean of squares less the square of the mean has lost ten digits."""
    images = (1e6 + pixels(torch.float64)).float()
    every = images.numpy().astype(np.float64)
    np.testing.assert_allclose(measured(columns(images), 0).std, every.std((0, 2, 3)), rtol=1e-9)


def test_held_out_pictures_are_not_measured():
    images = pixels(torch.uint8, 100)
    whole = with_held_out(columns(images), None, 0.3)
    held_out = whole.held_out.fetch(torch.arange(30))["image"]
    kept = whole.fetch(torch.arange(70))["image"]
    expected = kept.double().div(255).mean((0, 2, 3)).tolist()
    assert measured(whole, 0).mean == pytest.approx(expected, rel=1e-12)
    assert held_out.double().div(255).mean((0, 2, 3)).tolist() != pytest.approx(expected, rel=1e-6)


class Decoded(Dataset):
    """Pictures that are not in memory, of which every tenth cannot be read."""

    def __init__(self, images):
        self.images = images
        self.spec = columns(images).spec

    def __len__(self):
        return len(self.images)

    def fetch(self, index):
        bad = (index % 10 == 0).nonzero().flatten().tolist()
        if bad:
            raise CorruptSamples({row: CorruptSample(str(row), "cut") for row in bad})
        return {"image": self.images[index]}


def test_of_many_pictures_a_seeded_sample_is_measured_and_corrupt_ones_are_left_out(monkeypatch):
    images = pixels(torch.uint8, 300)
    good = images[torch.arange(300) % 10 > 0].numpy() / 255
    found = measured(Decoded(images), 0)
    assert found.source == "measured on 270 of 300 training pictures"
    np.testing.assert_allclose(found.mean, good.mean((0, 2, 3)), rtol=1e-12)
    monkeypatch.setattr("sslcli.data.normalisation.SAMPLES", 100)
    some = measured(Decoded(images), 0)
    assert some == measured(Decoded(images), 0) and " of 300 training pictures" in some.source
    assert 80 <= int(some.source.split()[2]) <= 100
    assert some.mean == pytest.approx(found.mean, rel=0.1) and some.mean != found.mean


def test_what_cannot_be_normalised_is_a_mistake():
    images = pixels(torch.uint8, 10)
    images[:, 1] = 7
    with pytest.raises(UserError, match="channel 1 has the standard deviation 0"):
        measured(columns(images), 0)
    with pytest.raises(UserError, match="2 numbers, and the pictures have 3"):
        given(columns(images), [0.1, 0.2], 0.5, "")
    with pytest.raises(UserError, match="0 columns of pictures"):
        measured(Columns(Spec(v=Field("vector", (3,), torch.float32)), {"v": torch.zeros(4, 3)}), 0)
    for wrong in ("ours", [1], [0.5, 0], ["a", 1], [[], []], 3, [float("nan"), 1], [True, 1]):
        with pytest.raises(UserError, match=r"dataset\.normalise="):
            DatasetChoice.read({"normalise": wrong})


def numbers(normalise=None, weights=None, **keys):
    config = compose("dataset=synthetic", "dataset.num_samples=30", "dataset.size=8", "encoder=resnet18",
                     "encoder.stem=standard")  # fmt: skip
    dataset = replace(config.dataset.with_keys(**keys), normalise=normalise)
    encoder = replace(config.encoder, weights=weights and str(weights))
    parts = build_components(replace(config, dataset=dataset, encoder=encoder))
    return parts.views.evaluation_column.mean, parts.views.evaluation_column.std, parts.normalisation


def test_given_numbers_are_taken():
    assert numbers() == ((0.5,) * 3, (0.25,) * 3, None)
    assert numbers([0.1, 2]) == ((0.1,) * 3, (2.0,) * 3, None)
    assert numbers([[0.1, 0.2, 0.3], 0.5]) == ((0.1, 0.2, 0.3), (0.5,) * 3, None)
    assert numbers("imagenet")[:2] == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.slow
def test_given_weights_bring_their_numbers(tmp_path):
    weights = tmp_path / "r18.pth"
    torch.save(resnet18().state_dict(), weights)
    mean, _, fitted = numbers(weights=weights)
    assert mean == (0.485, 0.456, 0.406) and fitted.source.endswith("r18.pth")
    assert numbers([0.1, 2], weights)[0] == (0.1,) * 3
    mean, std, _ = numbers(weights=weights, channels=1)
    assert mean == pytest.approx((0.449,), abs=1e-3) and std == pytest.approx((0.226,), abs=1e-3)
    torch.save(resnet18(num_classes=10).state_dict(), weights)  # who knows on what
    assert numbers(weights=weights)[0] == (0.5,) * 3
    assert numbers_of("timm:vit_base_patch16_224.augreg_in21k") == ((0.5,) * 3, (0.5,) * 3)


TRAIN = ("dataset=images", "dataset.path=data", "dataset.size=8", "dataset.normalise=measured", "dataset.workers=0",
         "encoder.width=2", "train.batch_size=4", "train.precision=fp32", "checkpoint.every=2", "probe=none",
         "log.report=false", "device=cpu", "run_dir=run")  # fmt: skip


@pytest.fixture
def trained(run):
    """A run of two steps in the folder ``run``, on pictures in ``data``; in ``other`` there are brighter ones."""
    for folder, brightness in (("data", 0), ("other", 100)):
        Path(folder).mkdir()
        for k in range(10):
            drawn = np.random.default_rng(k).integers(brightness, brightness + 100, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(drawn).save(f"{folder}/{k}.png")
    code, out, err = run(*TRAIN, "train.steps=2")
    assert code == 0, err
    return out


def never(*_):
    raise AssertionError("nothing is fitted again")


def test_a_run_keeps_its_numbers(run, trained, monkeypatch):
    content = Path("run", FILE).read_bytes()
    kept = json.loads(content)
    assert kept["source"] == "measured on 10 of 10 training pictures" and kept["source"] in " ".join(trained.split())
    assert f"mean {' '.join(f'{v:.4f}' for v in kept['image_mean'])}" in trained
    state = checkpoint.newest(Path("run"), print)[1]
    assert state["files"] == {FILE: hashlib.sha256(content).hexdigest()}
    assert list(state["spec"]["image"]["mean"]) == kept["image_mean"]
    assert kept["rescale_factor"] == 1 / 255 and 0.1 < kept["image_mean"][0] < 0.3

    monkeypatch.setattr("sslcli.pretrained.normalisation.measured", never)
    code, _, err = run(*TRAIN, "train.steps=4")
    assert code == 0, err
    assert Path("run", FILE).read_bytes() == content
    other = replace(state["config"].dataset.with_keys(path="other", holdout=0.5), normalise=None)
    elsewhere = restore_components(state, torch.device("cpu"), other)
    for part in (elsewhere.dataset, elsewhere.dataset.held_out):
        assert list(part.spec["image"].mean) == kept["image_mean"] and list(part.spec["image"].std) == kept["image_std"]
    assert list(elsewhere.views.evaluation_column.mean) == kept["image_mean"]
    model = sslcli.load("run")
    picture = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    mean, std = (torch.tensor(kept[key]).view(1, 3, 1, 1) for key in ("image_mean", "image_std"))
    torch.testing.assert_close(model.views.evaluation_view({"image": picture}).x, (picture / 255 - mean) / std)


def test_another_run_may_go_on_from_its_checkpoint(run, trained, monkeypatch):
    monkeypatch.setattr("sslcli.pretrained.normalisation.measured", never)
    code, _, err = run(*TRAIN, "train.steps=4", "run_dir=second", "resume=run")
    assert code == 0, err
    assert Path("second", FILE).read_bytes() == Path("run", FILE).read_bytes()


@pytest.mark.slow
def test_a_lost_or_changed_file_and_other_numbers_are_refused(run, trained):
    content = Path("run", FILE).read_text()
    other = json.dumps({**json.loads(content), "source": "another"}, indent=2) + "\n"
    for spoilt, message in ((None, "is missing"), (other, "not that of its checkpoints"),
                            (content[:40], "cannot be read"), (content + " ", "has been changed")):  # fmt: skip
        Path("run", FILE).unlink() if spoilt is None else Path("run", FILE).write_text(spoilt)
        code, _, err = run(*TRAIN, "train.steps=4")
        assert code == 2 and message in err and "resume=never" in err, err
    Path("run", FILE).write_text(content)
    code, _, err = run(*TRAIN, "train.steps=4", "dataset.normalise=imagenet")
    assert code == 2 and "dataset.normalise: measured -> imagenet" in err
    code, _, err = run("run=run", "dataset=images", "dataset.path=other", "dataset.normalise=measured", command="eval")
    assert code == 2 and "dataset.normalise: a trained encoder" in err
