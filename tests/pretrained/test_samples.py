"""Pictures in Python: PIL images and arrays give the features of the tensor that the data would have."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from support.modalities import padded_texts

from sslcli.data.pictures.decode import decode
from sslcli.data.pictures.reading import Reading
from sslcli.encoders.convnet_small import ConvNetSmall
from sslcli.encoders.text_bag import TextBag
from sslcli.errors import UserError
from sslcli.pretrained.model import Pretrained
from sslcli.types import Field, Spec
from sslcli.views.base import PassThrough
from sslcli.views.image.pipeline import ImageViews

SIZE = 16
RGB = Reading().spec(SIZE)["image"]
GREY = Field("image", (1, SIZE, SIZE), torch.uint8, mean=(0.3,), std=(0.4,))
rng = np.random.default_rng(0)


def model_for(column=RGB, **options):
    torch.manual_seed(0)
    spec = Spec(image=column)
    encoder = ConvNetSmall(spec, width=4, cells=1, **options).eval()
    return Pretrained(encoder, ImageViews(encoder.view_spec, encoder.spec, 2), spec)


@torch.inference_mode()
def check(model, samples, expected):
    """``samples`` have the features of the tensor ``expected``."""
    torch.testing.assert_close(model(samples), model(expected), rtol=1e-6, atol=1e-6)


def pixels(*shape):
    return rng.integers(0, 256, shape, np.uint8)


def stored(image, **options):
    """An image as a PNG file has it, and what the dataset decodes of that file."""
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return Image.open(io.BytesIO(file.getvalue())), file.getvalue()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize("column", [RGB, GREY], ids=["rgb", "grey"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "LA"])
def test_an_image_of_any_mode_and_size_is_read_as_the_dataset_reads_it(mode, column):
    image = Image.fromarray(pixels(37, 50, 4)).convert(mode)
    reading = Reading(channels=column.shape[0])
    for options in ({}, {"exif": turned()}):
        opened, content = stored(image, **options)
        check(model_for(column), opened, decode(content, SIZE, reading)[None])


@pytest.mark.parametrize("height, width", [(16, 16), (40, 16), (23, 24), (9, 31)])
def test_an_array_is_the_picture_of_these_pixels(height, width):
    rgb = pixels(height, width, 3)
    for array in (rgb, rgb[..., :1], rgb[..., 0]):
        image = Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)
        expected = decode(stored(image)[1], SIZE)[None]
        check(model_for(), array, expected)
        check(model_for(), [array], expected)


def test_floats_and_bytes_of_a_batch_give_the_features_of_the_tensor():
    batch = pixels(3, SIZE, SIZE, 3)
    tensor = torch.from_numpy(batch).permute(0, 3, 1, 2)
    for samples in (batch, batch / 255, (batch / 255).astype(np.float32), list(batch), tuple(batch / 255)):
        check(model_for(), samples, tensor)
    check(model_for(), [batch[0], batch[1] / 255, Image.fromarray(batch[2])], tensor)


def test_pictures_of_different_sizes_are_a_batch():
    model = model_for()
    pictures = [pixels(40, 30, 3), pixels(9, 9), Image.fromarray(pixels(20, 64, 3)), rng.random((25, 16, 1))]
    with torch.inference_mode():
        together = model(pictures)
        assert together.shape == (4, model.dim)
        for row, picture in zip(together, pictures):
            torch.testing.assert_close(row, model(picture)[0], rtol=1e-5, atol=1e-5)


def test_grey_floats_are_repeated_and_colours_become_the_grey_of_pillow():
    grey, colours = rng.random((SIZE, SIZE)), rng.random((SIZE, SIZE, 3))
    check(model_for(), grey, torch.from_numpy(grey).float().expand(1, 3, -1, -1))
    weighed = torch.from_numpy(colours @ [0.299, 0.587, 0.114]).float()
    check(model_for(GREY), colours, weighed[None, None])


def test_deep_integers_are_shown_in_the_range_of_the_runs_data():
    deep = rng.integers(0, 4096, (SIZE, SIZE), np.uint16)
    opened, content = stored(Image.fromarray(deep))
    reading = Reading(deep=True, levels=(0, 4095))
    for samples in (deep, opened):
        check(model_for(replace(RGB, levels=(0, 4095))), samples, decode(content, SIZE, reading)[None])
        with pytest.raises(UserError, match="picture 0: integers of uint16; give uint8"):
            model_for()(samples)


def test_numbers_that_are_no_pixels_are_taken_as_they_are():
    data = rng.normal(5, 90, (2, SIZE, SIZE, 5))
    model = model_for(Field("image", (5, SIZE, SIZE), torch.float32, mean=(5.0,) * 5, std=(90.0,) * 5))
    check(model, data, torch.from_numpy(data).float().permute(0, 3, 1, 2))
    with pytest.raises(UserError, match=r"shape \[16, 16, 3\].*reads 5 channels"):
        model(data[0, ..., :3])


def test_a_column_that_is_not_square_gets_the_window_of_its_proportions():
    wide = Field("image", (1, 8, SIZE), torch.uint8)
    picture = pixels(12, SIZE)
    check(model_for(wide, image_size=SIZE), picture, torch.from_numpy(picture[2:10])[None, None])


@pytest.mark.parametrize(
    "samples, message",
    [
        (rng.random((SIZE, SIZE, 3)) * 255, "picture 0: floats from .* to 25.*; pixels are floats in"),
        (np.full((4, 4, 3), np.nan), "picture 0: floats from nan to nan"),
        (pixels(3, SIZE, SIZE), r"picture 0: an array of shape \[3, 16, 16\], .* they come last"),
        ([pixels(4, 4), "a.png"], "picture 1: a str; give PIL images or arrays"),
        ([torch.zeros(3, 4, 4)], r"picture 0: a Tensor; .* one tensor \(B, C, H, W\)"),
        (np.zeros((4, 4), bool), "picture 0: numbers of bool"),
        (np.zeros((4, 4), np.int64), "picture 0: integers of int64; give uint8"),
        (np.zeros(4), r"picture 0: an array of shape \[4\]; give \(H, W\)"),
        ([], "no pictures"),
    ],
)
def test_a_mistake_is_told_in_one_line(samples, message):
    with pytest.raises(UserError, match=message) as caught:
        model_for()(samples)
    assert "\n" not in str(caught.value)


def test_tokens_come_with_the_features_that_are_their_mean():
    model = model_for()
    picture = pixels(SIZE, SIZE, 3)
    with torch.inference_mode():
        encoded = model.encode(picture)
        assert encoded.tokens.shape == (1, 16, model.encoder.token_dim)  # 4 x 4 places
        torch.testing.assert_close(encoded.tokens.mean(1), model(picture))


def test_tokens_may_be_read_after_the_block_that_encodes():
    """Also those of a bag of words, which looks them up when they are read."""
    data = padded_texts(3, 24)
    encoder = TextBag(data.spec, hidden_dim=8, bigrams=16).eval()
    model = Pretrained(encoder, PassThrough(encoder.view_spec, data.spec, 1), data.spec)
    with torch.inference_mode():
        encoded = model.encode(data.columns["text"])
    expected = model.encode(data.columns["text"]).tokens
    assert encoded.tokens.is_inference() and torch.equal(encoded.tokens, expected.detach())
