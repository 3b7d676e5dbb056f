"""Pictures of more than 8 bits, of floats and of any number of channels, against the arrays that were saved."""

import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from support.helpers import compose
from support.oddities import encoded, smooth

import sslcli
from sslcli.data.base import CorruptSamples
from sslcli.data.pictures.decode import decode, decode_crops
from sslcli.data.pictures.images import images
from sslcli.data.pictures.levels import apply_levels, levels_of, measured_levels
from sslcli.data.pictures.opening import BadPicture
from sslcli.data.pictures.reading import Reading
from sslcli.data.synthetic import synthetic
from sslcli.errors import UserError
from sslcli.pretrained.normalisation import read_as_trained
from sslcli.run_dir import checkpoint


def grey(k, size=12):
    return smooth(size, size, k)[..., 0]


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def deep_png(values):
    """A PNG of 16 bits a channel, which Pillow does not write: grey, grey with alpha, RGB or RGBA."""
    height, width, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(values, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([0, 5, 255], (0, 255)),
        ([300, 3000], (0, 4095)),  # 12 bits in 16
        ([0, 4096], (0, 8191)),
        ([0, 65535], (0, 65535)),
        ([0, 1, 1], (0, 1)),
        ([0, 0], (0, 1)),
        ([-1024, 0, 3071], (-1024, 3071)),  # Hounsfield units
        ([-5, -5], (-5, -4)),
        ([*[100] * 99_999, 65535], (0, 127)),  # one hot pixel
    ],
)
def test_the_range_has_all_bits_in_use_or_runs_from_lowest_to_highest(values, levels):
    assert levels_of(np.array(values, np.int64)) == levels


@pytest.mark.parametrize("kind", ["12 bits in a TIFF", "8 bits in a 16 bit PNG", "8 bits in an int32 TIFF"])
def test_deep_integers_are_seen_as_the_bytes_that_they_were(tmp_path, kind):
    for k in range(5):
        values, suffix = {
            "12 bits in a TIFF": (grey(k).astype(np.uint16) << 4, "tif"),
            "8 bits in a 16 bit PNG": (grey(k).astype(np.uint16), "png"),
            "8 bits in an int32 TIFF": (grey(k).astype(np.int32), "tif"),
        }[kind]
        Image.fromarray(values).save(tmp_path / f"{k}.{suffix}")
    dataset = images(path=str(tmp_path), size=12, holdout=0.2)
    found = measured_levels(dataset)
    assert found.levels == (0, 4095 if "12" in kind else 255) and found.source.endswith("4 of 4 training pictures")
    apply_levels(dataset, found.levels)
    for part in (dataset, dataset.held_out):
        assert part.spec["image"].levels == found.levels
        for i in range(len(part)):
            k = int(part.name_of(i)[-5])
            seen = part.fetch(torch.tensor([i]))["image"][0]
            assert (seen.int() - torch.from_numpy(grey(k)).int()).abs().max() <= 1


def test_pictures_of_bytes_are_not_measured(tmp_path):
    for k in range(3):
        Image.fromarray(grey(k)).save(tmp_path / f"{k}.png")
    dataset = images(path=str(tmp_path), size=12, holdout=0)
    assert measured_levels(dataset) is None and dataset.spec["image"].levels == ()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_deep_colours_keep_both_bytes(channels):
    """Pillow alone keeps the high byte of each, which is black here."""
    values = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint16)
    if channels % 2 == 0:
        values[..., -1] = 65535  # alpha
    colours = values[..., : channels - (channels + 1) % 2]
    found = decode(deep_png(values), None, Reading(levels=(0, 255))).permute(1, 2, 0).numpy()
    assert np.array_equal(found, np.broadcast_to(colours, (5, 7, 3)))


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"planarconfig": "separate"}, {"tile": (16, 16)}]
)
def test_deep_colours_of_a_tiff_keep_both_bytes(options):
    values = np.random.default_rng(0).integers(0, 4096, (5, 7, 3), dtype=np.uint16)
    array = values.transpose(2, 0, 1) if "planarconfig" in options else values
    data = tiff(array, photometric="rgb", **options)
    found = decode(data, None, Reading(levels=(0, 4095)))
    assert np.array_equal(found.permute(1, 2, 0).numpy(), np.rint(values / 4095 * 255))
    with pytest.raises(BadPicture):
        decode(data[: min(len(data) // 2, 330)], None, Reading(levels=(0, 4095)))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32])
def test_signed_and_long_integers_keep_their_values(dtype):
    limits = np.iinfo(dtype)
    values = np.array([[limits.min, 0], [limits.max // 2, limits.max]], dtype)
    found = decode(tiff(values), None, Reading(levels=(float(limits.min), float(limits.max))))
    wanted = np.rint((values.astype(float) - limits.min) / (float(limits.max) - limits.min) * 255)
    assert np.array_equal(found[0].numpy(), wanted)


# --- numbers ----------------------------------------------------------------------------------------


def test_floats_are_data(tmp_path):
    values = np.random.default_rng(0).normal(280, 10, (4, 9, 9)).astype(np.float32)
    for k, array in enumerate(values):
        Image.fromarray(array).save(tmp_path / f"{k}.tif")
    dataset = images(path=str(tmp_path), size=9, channels=1, holdout=0)
    assert dataset.spec["image"].dtype == torch.float32 and dataset.has_own_scale
    assert np.array_equal(dataset.fetch(torch.arange(4))["image"][:, 0], values)
    repeated = images(path=str(tmp_path), size=9, holdout=0).fetch(torch.arange(4))["image"]
    assert repeated.shape == (4, 3, 9, 9) and np.array_equal(repeated[:, 2], values)
    tifffile.imwrite(tmp_path / "4.tif", np.full((9, 9), np.nan, np.float32))
    with pytest.raises(CorruptSamples, match="not finite"):
        images(path=str(tmp_path), size=9, holdout=0).fetch(torch.arange(5))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_any_number_of_channels_is_read_from_tiffs(planar, dtype):
    values = np.random.default_rng(0).integers(0, 256, (6, 7, 5)).astype(dtype)
    array = values if planar == "contig" else values.transpose(2, 0, 1)
    data = tiff(array, planarconfig=planar, photometric="minisblack")
    reading = Reading(5, floats=dtype == np.float32, levels=(0, 255))
    assert np.array_equal(decode(data, None, reading).permute(1, 2, 0).numpy(), values)
    (crop,) = decode_crops(data, lambda height, width: [(1, 2, 3, 4)], [(3, 4)], reading)
    assert np.array_equal(crop.permute(1, 2, 0).numpy(), values[1:4, 2:6])
    with pytest.raises(BadPicture, match=r"dataset\.channels=4"):
        decode(data, None, Reading(4))


def test_arrays_of_numpy_are_pictures_where_a_list_names_them(tmp_path):
    values = np.random.default_rng(0).normal(0, 1, (3, 8, 8, 2)).astype(np.float32)
    for k in range(3):
        np.save(tmp_path / f"{k}.npy", values[k])
    np.save(tmp_path / "objects.npy", np.array([print], dtype=object))
    (tmp_path / "list.txt").write_text("0.npy\n1.npy\n2.npy\nobjects.npy\n")
    dataset = images(path=str(tmp_path / "list.txt"), size=8, channels=2, holdout=0)
    assert np.array_equal(dataset.fetch(torch.arange(3))["image"].permute(0, 2, 3, 1), values)
    with pytest.raises(CorruptSamples, match="objects"):
        dataset.fetch(torch.arange(4))


def test_one_channel_is_grey_and_alpha_stays_where_four_are_wanted():
    rgba = np.random.default_rng(0).integers(0, 256, (9, 9, 4), dtype=np.uint8)
    assert np.array_equal(decode(encoded(rgba, "PNG"), None, Reading(4)).permute(1, 2, 0), rgba)
    opaque = Image.fromarray(rgba[..., :3])
    assert np.array_equal(decode(encoded(rgba[..., :3], "PNG"), None, Reading(1))[0], np.array(opaque.convert("L")))


# --- a run ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_keeps_its_range_for_resuming_evaluation_and_export(run, tmp_path):
    for k in range(24):
        (tmp_path / "p" / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey(k).astype(np.uint16) << 4).save(tmp_path / "p" / "ab"[k % 2] / f"{k}.png")
    common = ("dataset=images", "dataset.path=p", "dataset.size=12", "train.batch_size=4", "log.report=false",
              "encoder.width=2", "run_dir=r", "probe=none", "device=cpu", "log.quality=none")  # fmt: skip
    code, out, err = run(*common, "train.steps=2")
    assert code == 0, err
    assert "4,095" in out
    state = checkpoint.newest(tmp_path / "r", print)[1]
    assert tuple(state["spec"]["image"]["levels"]) == (0, 4095)
    code, out, err = run(*common, "train.steps=4")
    assert code == 0 and "resuming" in out, err
    code, _, err = run(*common, "train.steps=6", "dataset.range=[0,255]")
    assert code == 2 and "dataset.range" in err
    code, out, err = run("run=r", "format=safetensors", command="export")
    assert code == 0 and "/ 4095" in out, err
    code, _, err = run("run=r", "format=embeddings", "format.split=train", "output=e.npy", "format.table=numpy",
                       command="export")  # fmt: skip
    assert code == 0, err
    with Image.open(tmp_path / "p" / "a" / "0.png") as deep:
        shown = torch.from_numpy(np.asarray(deep).astype(np.float32)).expand(1, 3, -1, -1) / 4095
    table = np.load("e.npy")
    (row,) = (row for row in table if row["path"].endswith("a/0.png"))
    with torch.inference_mode():
        torch.testing.assert_close(torch.tensor(row["vector"]), sslcli.load("r")(shown)[0], rtol=0.01, atol=0.01)


def test_a_range_of_data_that_are_not_decoded_is_refused(run):
    code, _, err = run("debug=tiny", "+dataset.range=[0,4095]")
    assert code == 2 and "dataset.range" in err
    code, _, err = run("dataset=images", "dataset.path=.", "dataset.range=[9,3]")
    assert code == 2 and "dataset.range" in err and "[0,4095]" in err


def test_other_data_are_read_by_the_range_of_the_run(tmp_path):
    Image.fromarray(grey(0).astype(np.uint16)).save(tmp_path / "0.png")

    def read(levels, *overrides):
        dataset = images(path=str(tmp_path), size=12, holdout=0)
        config = compose("dataset=images", f"dataset.path={tmp_path}", *overrides)
        spec = dataset.spec.having("image", replace(dataset.spec["image"], levels=levels))
        read_as_trained(config, dataset, spec, is_other=True)
        return dataset.spec["image"].levels

    assert read((0.0, 4095.0)) == (0, 4095)
    assert read((0.0, 4095.0), "dataset.range=[0,255]") == (0, 255)
    with pytest.raises(UserError, match=r"dataset\.range: these pictures have more than 8 bits"):
        read(())
    with pytest.raises(UserError, match=r"dataset\.range: these data are not decoded"):
        read_as_trained(compose("+dataset.range=[0,255]"), synthetic(), synthetic().spec, is_other=True)


def test_an_array_among_colours_says_what_it_needs():
    with pytest.raises(BadPicture, match=r"shape \[6, 7, 5\]: give its channels as dataset\.channels"):
        decode(tiff(np.zeros((6, 7, 5), np.uint16), photometric="minisblack", planarconfig="contig"))
