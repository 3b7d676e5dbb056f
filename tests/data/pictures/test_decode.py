"""Decoding, against Pillow and against the arrays that were saved: formats, modes, turns, sizes, and damage."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, JpegImagePlugin, TiffImagePlugin
from support.oddities import encoded, exif, smooth, turned

from sslcli.data.pictures.decode import decode, decode_crops
from sslcli.data.pictures.opening import BadPicture
from sslcli.data.pictures.reading import Reading


def rgb(data, size=None):
    """Our pixels as Pillow lays them out: (H, W, 3)."""
    pixels = decode(data, size)
    assert pixels.dtype == torch.uint8
    return pixels.permute(1, 2, 0).numpy()


def by_pillow(data):
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def far(a, b):
    return np.abs(a.astype(int) - b.astype(int)).max()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_give_the_pixels_that_were_saved(kind):
    pixels = np.random.default_rng(0).integers(0, 256, (21, 34, 3), dtype=np.uint8)
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(rgb(encoded(pixels, kind, **options)), pixels)


def test_a_gif_gives_its_first_picture():
    first = np.array([[0, 90], [180, 255]], np.uint8).repeat(8, 0).repeat(8, 1)
    data = encoded(first, "GIF", save_all=True, append_images=[Image.fromarray(255 - first)])
    assert np.array_equal(rgb(data), np.stack([first] * 3, -1))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_as_pillow_decodes_it(mode, subsampling, progressive):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
    data = encoded(pixels, "JPEG", mode, subsampling=subsampling, progressive=progressive)
    assert far(rgb(data), by_pillow(data)) <= 1


def test_formats_are_told_by_content():
    """The path says one thing, the bytes another: see also the odd folder."""
    pixels = smooth(9, 9)
    assert np.array_equal(rgb(encoded(pixels, "PNG")), pixels)
    with pytest.raises(BadPicture, match="not a picture"):  # Pillow would call Ghostscript for it
        decode(encoded(pixels, "EPS"))


# --- modes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_an_alpha_channel_is_laid_on_white(kind):
    rgba = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    share = rgba[..., 3:] / 255
    assert far(rgb(encoded(rgba, kind, **options)), rgba[..., :3] * share + 255 * (1 - share)) <= 1


def test_a_palette_with_transparency_is_laid_on_white():
    image = Image.fromarray(np.array([[0, 1]] * 2, np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 0, 255] + [0] * 750)
    for kind in ("PNG", "GIF"):
        file = io.BytesIO()
        image.save(file, kind, transparency=0)
        assert rgb(file.getvalue()).tolist() == [[[255, 255, 255], [0, 0, 255]]] * 2


def test_a_transparent_colour_of_a_picture_without_alpha_is_laid_on_white():
    pixels = np.array([[[9, 8, 7], [1, 2, 3]]], np.uint8)
    assert rgb(encoded(pixels, "PNG", transparency=(9, 8, 7))).tolist() == [[[255, 255, 255], [1, 2, 3]]]


def test_gray_with_alpha_is_laid_on_white():
    file = io.BytesIO()
    Image.merge("LA", [Image.new("L", (9, 9), 0), Image.new("L", (9, 9), 51)]).save(file, "PNG")
    assert np.unique(rgb(file.getvalue())).tolist() == [204]


def test_gray_and_one_bit_become_three_equal_channels():
    gray = np.random.default_rng(0).integers(0, 256, (9, 11), dtype=np.uint8)
    assert np.array_equal(rgb(encoded(gray, "PNG")), np.stack([gray] * 3, -1))
    bits = np.where(gray > 127, 255, 0).astype(np.uint8)
    assert np.array_equal(rgb(encoded(bits, "PNG", "1")), np.stack([bits] * 3, -1))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_a_pixel_keep_their_high_byte(kind):
    deep = np.random.default_rng(0).integers(0, 65536, (9, 11), dtype=np.uint16)
    assert np.array_equal(rgb(encoded(deep, kind)), np.stack([deep >> 8] * 3, -1))


def test_sixteen_bits_a_channel_keep_their_high_byte():
    """Pillow does not write these: a PNG by hand, and a binary PPM of 16 bits a value."""
    deep = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), dtype=np.uint16)

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert np.array_equal(rgb(png), deep >> 8)
    assert far(rgb(b"P6 7 5 65535\n" + deep.astype(">u2").tobytes()), deep >> 8) <= 1  # Pillow rounds


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind):
    """Pillow writes Adobe's inverted values into a JPEG, as Photoshop does, and plain ones into a TIFF."""
    pixels = np.broadcast_to(np.array((200, 100, 50), np.uint8), (16, 16, 3))
    options = {"quality": 95} if kind == "JPEG" else {}
    data = encoded(pixels, kind, "CMYK", **options)
    assert (b"Adobe" in data) == (kind == "JPEG")
    assert far(rgb(data), pixels) <= 6
    assert far(rgb(data, 8), pixels[:8, :8]) <= 6


def test_floating_point_pixels_are_refused_and_not_shown_black():
    with pytest.raises(BadPicture, match="floating-point"):
        decode(encoded(np.random.default_rng(0).random((9, 9), dtype=np.float32), "TIFF"))


# --- orientation and size ---------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_exif_orientation_is_undone(kind, orientation):
    upright = smooth(24, 40)
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    if kind == "TIFF":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[0x0112] = orientation
        options["tiffinfo"] = tags
    else:
        options["exif"] = exif(orientation)
    data = encoded(turned(upright, orientation), kind, **options)
    found = rgb(data)
    assert found.shape == upright.shape
    assert far(found, upright) <= (8 if kind == "JPEG" else 0)
    tolerance = 20 if kind == "JPEG" else 1  # a reduced JPEG is filtered by two steps
    square = Image.fromarray(upright[:, 8:32])
    assert far(rgb(data, 12), np.array(square.resize((12, 12), Image.BILINEAR))) <= tolerance
    window = (1, 3, 18, 30)  # of the upright picture, not in its centre
    for size in ((18, 30), (9, 15), (4, 7)):  # as it is; at half and at a quarter of the resolution for a JPEG
        cut = Image.fromarray(upright[1:19, 3:33]).resize(size[::-1], Image.BILINEAR)
        (crop,) = decode_crops(data, lambda height, width: [window], [size])
        assert far(crop.permute(1, 2, 0).numpy(), np.array(cut)) <= tolerance


def test_damaged_exif_data_turn_nothing_and_say_nothing(recwarn, capfd):
    pixels = smooth(24, 40)
    data = encoded(pixels, "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 7)
    assert far(rgb(data), pixels) <= 8
    assert not recwarn.list and capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(("height", "width", "size"), [(50, 90, 32), (90, 50, 32), (40, 40, 64), (33, 50, 33)])
def test_the_centre_square_is_resized_as_pillow_does(kind, height, width, size):
    data = encoded(smooth(height, width), kind)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(by_pillow(data)[top : top + side, left : left + side])
    assert far(rgb(data, size), np.array(square.resize((size, size), Image.BILINEAR))) <= 2


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_reduced_jpeg_looks_as_if_decoded_whole(factor, mode):
    data = encoded(smooth(363, 501), "JPEG", mode, quality=95)
    size = 363 // factor - 2
    square = Image.fromarray(by_pillow(data)[:, 69:432])
    whole = np.array(square.resize((size, size), Image.BILINEAR)).astype(int)
    assert np.abs(rgb(data, size) - whole).mean() < 3


@pytest.mark.parametrize("seed", range(4))
def test_windows_of_a_reduced_jpeg_lie_where_they_should(seed):
    """A ramp tells places: the mean of a crop's column is its place in the picture."""
    y, x = np.mgrid[0:400, 0:600]
    data = encoded(np.stack([x / 600 * 255, y / 400 * 255, 0 * x], -1).astype(np.uint8), "JPEG", quality=95)
    generator = np.random.default_rng(seed)
    h, w = generator.integers(64, 400), generator.integers(64, 600)
    top, left = generator.integers(0, 400 - h + 1), generator.integers(0, 600 - w + 1)
    crop = decode_crops(data, lambda height, width: [(top, left, h, w)], [(16, 16)])[0].float()
    places_x = (left + (torch.arange(16) + 0.5) * w / 16) / 600 * 255
    places_y = (top + (torch.arange(16) + 0.5) * h / 16) / 400 * 255
    assert (crop[0].mean(0) - places_x).abs().max() < 1.5
    assert (crop[1].mean(1) - places_y).abs().max() < 1.5


def test_no_window_is_cut_from_fewer_pixels_than_its_view_has(monkeypatch):
    """All windows of one picture share one decode: the one with the least room decides."""
    drafts = []
    draft = JpegImagePlugin.JpegImageFile.draft

    def spy(self, mode, size):
        drafts.append(self.size[0] // size[0])
        return draft(self, mode, size)

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", spy)
    data = encoded(smooth(256, 256), "JPEG")
    whole, half, small = (0, 0, 256, 256), (0, 0, 128, 128), (0, 0, 40, 256)
    for windows, sizes, factor in (
        ([whole], [(64, 64)], [4]),
        ([whole, half], [(64, 64), (64, 64)], [2]),
        ([whole, small], [(32, 32), (32, 32)], []),
        ([whole], [(16, 16)], [8]),
        ([whole], [(1, 1)], [8]),
        ([small], [(64, 64)], []),
    ):
        drafts.clear()
        crops = decode_crops(data, lambda height, width: windows, sizes)  # noqa: B023
        assert drafts == factor and [crop.shape[1:] for crop in crops] == sizes


# --- what cannot be read ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.9])
@pytest.mark.parametrize("size", [None, 16])
def test_a_cut_picture_is_bad(kind, keep, size, recwarn, capfd):
    data = encoded(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8), kind)
    with pytest.raises(BadPicture):
        decode(data[: int(keep * len(data))], size)
    assert not recwarn.list and capfd.readouterr().err == ""


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [None, 200, 20])
def test_a_jpeg_that_ends_early_is_bad_at_every_size(progressive, size):
    """Decoders fill what is missing with grey; a file without its end, or with zeros there, must not pass for whole."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    thumbnail = b"Exif\0\0" + encoded(noise[:20, :20], "JPEG")  # has an end of its own
    data = encoded(noise, "JPEG", progressive=progressive, exif=thumbnail)
    assert rgb(data + bytes(64), size).size  # padded after its end, it is whole
    for end in (len(data) // 2, int(0.99 * len(data)), len(data) - 2):
        for tail in (b"", bytes(64), bytes(len(data))):
            with pytest.raises(BadPicture):
                decode(data[:end] + tail, size)


def test_a_jpeg_whose_middle_is_missing_is_bad_and_libjpeg_is_not_heard(capfd):
    data = encoded(np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8), "JPEG")
    with pytest.raises(BadPicture, match="damaged"):
        decode(data[: len(data) // 2] + b"\xff\xd9", 100)
    assert capfd.readouterr().err == ""
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_stray_bytes_in_a_jpeg_do_no_harm(capfd):
    data = encoded(smooth(64, 64), "JPEG")
    whole = rgb(data)
    assert np.array_equal(rgb(data[:-2] + bytes(5) + data[-2:]), whole)
    assert np.array_equal(rgb(data + b"after the end" * 99), whole)
    assert capfd.readouterr().err == ""


def test_decompression_bombs_are_refused_by_their_header(monkeypatch):
    bombs = [encoded(smooth(40, 40), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF")]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for data in bombs:
        with pytest.raises(BadPicture, match="too many pixels; dataset.max_pixels"):
            decode(data, 4)


def test_a_large_picture_below_the_limit_is_decoded_without_a_warning(monkeypatch, recwarn):
    data = encoded(smooth(40, 40), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow warns from here and refuses from twice this
    assert rgb(data).shape == (40, 40, 3) and not recwarn.list


def test_files_that_cannot_be_opened_say_why(tmp_path):
    for name, reason in (("nowhere.png", "no such file"), ("", "Is a directory"), ("x" * 300, "File name too long")):
        with pytest.raises(BadPicture, match=reason):
            decode(str(tmp_path / name))
    if os.geteuid():  # root may read everything
        path = tmp_path / "locked.png"
        path.touch(0)
        with pytest.raises(BadPicture, match="Permission denied"):
            decode(path)


def test_a_limit_of_pixels_of_ones_own_is_compared_with_the_header(monkeypatch):
    data = encoded(smooth(40, 30), "PNG")
    with pytest.raises(BadPicture, match=r"30 x 40 pixels are more than dataset\.max_pixels=1199"):
        decode(data, 4, Reading(max_pixels=1199))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(data, 4, Reading(max_pixels=1200)).shape == (3, 4, 4)
