"""Views of images and columns against torchvision, and the rows of a micro-batch against the whole batch."""

import numpy as np
import pytest
import torch
from scipy import stats
from support.helpers import randomness
from torchvision.transforms import InterpolationMode, RandomErasing, RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from sslcli.errors import UserError
from sslcli.randomness import Randomness
from sslcli.types import Field, Spec
from sslcli.views.base import PassThrough, normalise
from sslcli.views.image.colour import LUMA, colour_change, gray_change, recolour
from sslcli.views.image.parameters import draw
from sslcli.views.image.pipeline import ImageViews
from sslcli.views.image.resample import blur_matrix, resample, resample_one, resize_matrix
from sslcli.views.image.rotate import rotated
from sslcli.views.image.windows import random_rectangles, random_windows

EXACT = {"rtol": 0, "atol": 1e-5}
# torchvision's luma rounds 0.299 to 0.2989: its weights add up to 0.9999, and gray loses 1e-4; ours is exact.
LUMA_DIGITS = {"rtol": 0, "atol": 1.5e-4}
RGB = Spec(image=Field("image", (3, 16, 16), torch.uint8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)))
GREY = Spec(image=Field("image", (1, 16, 16), torch.uint8, mean=(0.3,), std=(0.35,)))
ALL_ON = {
    "scale": (0.2, 1.0),
    "ratio": (0.75, 4 / 3),
    "flip": 0.5,
    "jitter": 0.8,
    "brightness": 0.8,
    "contrast": 0.8,
    "saturation": 0.8,
    "hue": 0.2,
    "gray": 0.2,
    "blur": 0.5,
}


def pictures(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def bytes_of(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


# --- resampling ---------------------------------------------------------------------------------


def resized_by_matrices(x, top, left, h, w, size):
    rows = resize_matrix(torch.tensor([top]).float(), torch.tensor([h]).float(), x.shape[-2], size[0])
    cols = resize_matrix(torch.tensor([left]).float(), torch.tensor([w]).float(), x.shape[-1], size[1])
    return rows[0] @ x @ cols[0].T


@pytest.mark.parametrize(
    ("shape", "window", "size"),
    [
        ((48, 48), (0, 0, 48, 48), (16, 16)),  # shrinks by a whole factor
        ((48, 48), (3, 5, 41, 37), (16, 16)),  # by a fraction
        ((28, 28), (7, 9, 10, 12), (28, 28)),  # enlarges
        ((20, 50), (2, 11, 13, 31), (24, 24)),  # enlarges one side and shrinks the other
        ((50, 20), (4, 0, 45, 20), (16, 32)),  # neither image nor view is square
        ((28, 28), (27, 27, 1, 1), (16, 16)),  # one pixel, in the corner
        ((28, 28), (0, 26, 28, 2), (8, 8)),
        ((16, 16), (0, 0, 16, 16), (16, 16)),  # nothing to do
        ((100, 100), (0, 0, 99, 100), (1, 1)),
    ],
)
def test_resize_is_torchvisions_antialiased_crop(shape, window, size):
    x = pictures(3, *shape)
    ours = resized_by_matrices(x, *window, size)
    theirs = tv.resized_crop(x, *window, list(size), antialias=True)
    torch.testing.assert_close(ours, theirs, **EXACT)


def test_each_sample_of_a_batch_has_its_own_window():
    top, height = torch.tensor([0.0, 5.0, 13.0]), torch.tensor([28.0, 9.0, 3.0])
    matrices = resize_matrix(top, height, 28, 12)
    for b in range(3):
        torch.testing.assert_close(matrices[b], resize_matrix(top[b : b + 1], height[b : b + 1], 28, 12)[0])


def test_resize_reads_nothing_outside_its_window_and_keeps_constants():
    matrix = resize_matrix(torch.tensor([6.0]), torch.tensor([11.0]), 28, 16)[0]
    assert (matrix[:, :6] == 0).all() and (matrix[:, 17:] == 0).all()
    torch.testing.assert_close(matrix.sum(1), torch.ones(16))


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_blur_is_torchvisions_away_from_the_border(sigma):
    x = pictures(3, 40, 40)
    matrix = blur_matrix(torch.tensor([sigma]), 40)[0]
    theirs = tv.gaussian_blur(x, [25, 25], [sigma, sigma])
    inside = (slice(None), slice(12, 28), slice(12, 28))
    torch.testing.assert_close((matrix @ x @ matrix.T)[inside], theirs[inside], **EXACT)


def test_a_faint_blur_changes_nothing_and_no_blur_changes_a_constant():
    matrices = blur_matrix(torch.tensor([0.01, 0.7, 5.0]), 9)
    torch.testing.assert_close(matrices[0], torch.eye(9), rtol=0, atol=1e-30)
    torch.testing.assert_close(matrices.sum(-1), torch.ones(3, 9))


def on_its_own(x, size, flip=False, sigma=0.0):
    """The batched way for one window (C, H, W): what ``resample_one`` does in blocks."""
    whole = [torch.tensor([float(n)]) for n in (0, x.shape[1], 0, x.shape[2])]
    blur = (torch.tensor([sigma]), torch.tensor([0])) if sigma else (None, None)
    return resample(x[None], whole[:2], whole[2:], torch.tensor([float(flip)]), size, *blur)[0]


@pytest.mark.parametrize("sigma", [0.0, 0.4, 2.0, 9.0])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("shape", "size"), [((200, 171), (130, 130)), ((37, 300), (140, 150)), ((130, 130), (130, 130)), ((5, 7), (64, 33))]
)
def test_cutting_in_blocks_is_cutting_with_whole_matrices(shape, size, flip, sigma):
    x = pictures(3, *shape)
    torch.testing.assert_close(resample_one(x, size, flip, sigma), on_its_own(x, size, flip, sigma), **EXACT)


@pytest.mark.parametrize("shape", [(256, 256), (90, 300)])
def test_cutting_in_blocks_is_torchvisions_antialiased_resize(shape):
    x = pictures(3, *shape)
    torch.testing.assert_close(resample_one(x, (224, 224)), tv.resize(x, [224, 224], antialias=True), **EXACT)


def test_large_views_are_those_that_whole_matrices_make(monkeypatch):
    """On a processor large views are cut one by one; the same pipeline beside itself with the batched cut."""
    x = bytes_of(5, 3, 180, 150)
    spec = Spec(image=Field("image", (3, 136, 136), torch.uint8, mean=RGB["image"].mean, std=RGB["image"].std))
    views = ImageViews(spec, spec, 2, **ALL_ON, rotate=0.5, degrees=30.0, solarise=0.3, erase=0.5)
    one_by_one = views({"image": x}, randomness(5))
    monkeypatch.setattr("sslcli.views.image.augment.ALONE", 10**9)
    for alone, batched in zip(one_by_one, views({"image": x}, randomness(5))):
        # A value at the threshold of solarisation may fall on either side.
        assert ((alone.x - batched.x).abs() > 1e-4).float().mean() < 1e-4
        torch.testing.assert_close(alone.target, batched.target, rtol=0, atol=1e-4)


# --- rotation, solarisation, erasing --------------------------------------------------------------


@pytest.mark.parametrize("shape", [(33, 33), (24, 40)])
def test_each_sample_is_rotated_as_by_torchvision(shape):
    """Away from the border of what is left of the image, which torchvision cuts off sharply."""
    x, angles = pictures(4, 3, *shape), [0.0, 17.0, -63.0, 90.0]
    ours = rotated(x, torch.tensor(angles))
    for sample, angle, found in zip(x, angles, ours):
        theirs = tv.rotate(sample, angle, InterpolationMode.BILINEAR)
        inside = tv.rotate(torch.ones(1, *shape), angle, InterpolationMode.BILINEAR) == 1
        inside = -torch.nn.functional.max_pool2d(-inside[None].float(), 3, 1, 1)[0] == 1
        assert inside.float().mean() > 0.4
        torch.testing.assert_close(found * inside, theirs * inside, rtol=0, atol=2e-5)
        outside = tv.rotate(torch.ones(1, *shape), angle, InterpolationMode.BILINEAR) == 0
        outside = -torch.nn.functional.max_pool2d(-outside[None].float(), 3, 1, 1)[0] == 1
        assert (found * outside == 0).all()


def test_solarise_is_torchvisions():
    x = pictures(4, 3, 12, 12)
    spec = Spec(image=Field("image", (3, 12, 12), torch.uint8))
    view = ImageViews(spec, spec, 1, solarise=1.0)
    torch.testing.assert_close(view({"image": x}, randomness(4))[0].x, tv.solarize(x, 0.5), **EXACT)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 96)])
def test_erased_rectangles_are_distributed_as_torchvisions(height, width):
    scale, ratio, count = (0.02, 0.33), (0.3, 3.3), 4000
    ours = random_rectangles(randomness(count).numbers("w", 22), height, width, scale, ratio)
    torch.manual_seed(0)
    image = torch.zeros(1, height, width)
    theirs = np.array([RandomErasing.get_params(image, scale, ratio, [0.0])[:4] for _ in range(count)])
    for name, a, b in zip(("top", "left", "height", "width"), ours.T, theirs.T):
        assert stats.ks_2samp(a, b).statistic < 1.95 * (2 / count) ** 0.5, name  # p = 0.001


def test_an_erased_rectangle_is_the_mean_in_the_view_and_whole_in_the_target():
    x = bytes_of(300, 3, 16, 16)
    view = ImageViews(RGB, RGB, 1, erase=0.4, erase_scale=(0.2, 0.2), erase_ratio=(1.0, 1.0))(
        {"image": x}, randomness(300)
    )[0]
    plain = ImageViews(RGB, RGB, 1)({"image": x}, randomness(300))[0].x
    erased = (view.x != plain).any(1)  # (B, H, W)
    assert torch.equal(view.target, plain)
    assert (view.x.permute(0, 2, 3, 1)[erased] == 0).all()
    counts = erased.sum((1, 2))
    assert set(counts.tolist()) <= {0, *range(45, 50)}  # 7 x 7, less where a pixel was the mean
    assert abs((counts > 0).float().mean().item() - 0.4) < 4 * (0.24 / 300) ** 0.5
    for mask in erased[counts == 49]:
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        assert len(rows) == len(columns) == 7 and rows[-1] - rows[0] == columns[-1] - columns[0] == 6


def test_dropped_channels_are_the_mean_in_the_view_and_one_always_stays():
    spec = Spec(image=Field("image", (5, 8, 8), torch.uint8, mean=(0.4,) * 5, std=(0.2,) * 5))
    x = bytes_of(400, 5, 8, 8)
    plain = ImageViews(spec, spec, 1, flip=0.5)({"image": x}, randomness(400))[0].x
    view = ImageViews(spec, spec, 1, flip=0.5, channel_drop=0.3)({"image": x}, randomness(400))[0]
    dropped = (view.x == 0).flatten(2).all(2)  # (B, C)
    assert torch.equal(view.x, torch.where(dropped[:, :, None, None], 0.0, plain)) and torch.equal(view.target, plain)
    assert abs(dropped.float().mean().item() - 0.3) < 4 * (0.21 / 2000) ** 0.5
    all_dropped = ImageViews(spec, spec, 1, channel_drop=1.0)({"image": x}, randomness(400))[0].x
    assert ((all_dropped != 0).flatten(2).any(2).sum(1) == 1).all()


# --- windows ------------------------------------------------------------------------------------


def windows(count, height, width, scale, ratio, seed=0):
    return random_windows(randomness(count, seed=seed).numbers("w", 22), height, width, scale, ratio)


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(64, 64, (0.2, 1.0)), (48, 96, (0.08, 1.0)), (64, 64, (0.1, 0.3))]
)
def test_windows_are_distributed_as_torchvisions(height, width, scale):
    ratio, count = (3 / 4, 4 / 3), 4000
    top, left, h, w = windows(count, height, width, scale, ratio).T
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, scale, ratio) for _ in range(count)], dtype=float)
    t_top, t_left, t_h, t_w = theirs.T
    pairs = {
        "area": (h * w, t_h * t_w),
        "aspect": (w / h, t_w / t_h),
        "top": (top, t_top),
        "left": (left, t_left),
        "height": (h, t_h),
        "width": (w, t_w),
    }
    for name, (a, b) in pairs.items():
        assert stats.ks_2samp(a, b).statistic < 1.95 * (2 / count) ** 0.5, name  # p = 0.001


def test_where_windows_always_fit_area_is_uniform_and_aspect_log_uniform():
    _, _, h, w = windows(4000, 2000, 2000, (0.1, 0.3), (0.5, 2.0)).T
    assert stats.kstest(h * w / 2000**2, stats.uniform(0.1, 0.2).cdf).pvalue > 1e-4
    assert stats.kstest(np.log2(w / h), stats.uniform(-1, 2).cdf).pvalue > 1e-4


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [
        (28, 28, (0.2, 1.0), (0.75, 4 / 3)),
        (1, 1, (0.2, 1.0), (0.75, 4 / 3)),
        (7, 300, (0.01, 1.0), (0.1, 10.0)),
        (28, 28, (1e-6, 1e-6), (1.0, 1.0)),
        (28, 28, (1.0, 1.0), (100.0, 100.0)),
        (28, 28, (1.0, 1.0), (0.01, 0.01)),
        (3, 5, (0.9, 1.0), (1e-3, 1e3)),
    ],
)
def test_windows_hold_pixels_and_lie_inside_the_image(height, width, scale, ratio):
    uniform = randomness(2000).numbers("w", 22)
    corners = np.array([[0.0] * 22, [1 - 2.0**-24] * 22], np.float32)  # the smallest and the largest numbers drawn
    found = random_windows(np.concatenate([uniform, corners]), height, width, scale, ratio)
    assert found.dtype == np.int64
    top, left, h, w = found.T
    for start, length, size in ((top, h, height), (left, w, width)):
        assert start.min() >= 0 and length.min() >= 1 and (start + length).max() <= size


def test_the_whole_image_is_the_only_window_of_full_scale():
    assert np.unique(windows(100, 17, 17, (1.0, 1.0), (1.0, 1.0)), axis=0).tolist() == [[0, 0, 17, 17]]


@pytest.mark.parametrize(
    ("height", "width", "ratio", "expected"),
    [
        (40, 100, (0.5, 1.5), (0, 20, 40, 60)),  # too wide: full height, widest legal ratio, centred
        (100, 40, (0.8, 1.5), (25, 0, 50, 40)),  # too tall: full width
        (40, 48, (0.5, 1.5), (0, 0, 40, 48)),  # a legal ratio: everything
    ],
)
def test_where_no_window_fits_the_largest_centred_legal_one_is_taken(height, width, ratio, expected):
    """Ten tries of an area too small for a pixel; torchvision's fallback beside it."""
    found = windows(5, height, width, (1e-9, 1e-9), ratio)
    theirs = RandomResizedCrop.get_params(torch.empty(3, height, width), (1e-9, 1e-9), ratio)
    assert tuple(theirs) == expected
    assert [tuple(row) for row in found.tolist()] == [expected] * 5


# --- colour -------------------------------------------------------------------------------------


def coloured(x, brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0, gray=False):
    """Numbers for all samples, or arrays (B,) with one for each."""
    factors = [np.broadcast_to(value, len(x)) for value in (brightness, contrast, saturation, hue, gray)]
    change = colour_change(*factors) if x.shape[1] == 3 else gray_change(*factors[:2])
    return recolour(x.clone(), torch.from_numpy(change))


def mild(*shape):
    """Colours so far from 0 and 1 that no operation below clamps."""
    return 0.4 + 0.2 * pictures(*shape)


@pytest.mark.parametrize("factor", [0.3, 0.9, 1.4])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_each_colour_change_alone_is_torchvisions(name, factor):
    x = mild(4, 3, 12, 12)
    theirs = getattr(tv, f"adjust_{name}")(x, factor)
    assert theirs.min() > 0 and theirs.max() < 1
    torch.testing.assert_close(coloured(x, **{name: factor}), theirs, **LUMA_DIGITS)


def test_gray_is_torchvisions():
    x = mild(4, 3, 12, 12)
    torch.testing.assert_close(coloured(x, gray=True), tv.rgb_to_grayscale(x, 3), **LUMA_DIGITS)


@pytest.mark.parametrize("gray", [False, True])
def test_colour_changes_compose_as_brightness_contrast_saturation_gray(gray):
    x = mild(4, 3, 12, 12)
    theirs = tv.adjust_saturation(tv.adjust_contrast(tv.adjust_brightness(x, 1.3), 0.6), 1.5)
    theirs = tv.rgb_to_grayscale(theirs, 3) if gray else theirs
    assert theirs.min() > 0 and theirs.max() < 1
    torch.testing.assert_close(
        coloured(x, brightness=1.3, contrast=0.6, saturation=1.5, gray=gray), theirs, **LUMA_DIGITS
    )


def test_colour_parameters_act_per_sample():
    x = mild(3, 3, 8, 8)
    mixed = coloured(x, brightness=np.array([0.5, 1.0, 1.2]), gray=np.array([False, True, False]))
    theirs = torch.stack(
        [tv.adjust_brightness(x[0], 0.5), tv.rgb_to_grayscale(x[1], 3), tv.adjust_brightness(x[2], 1.2)]
    )
    torch.testing.assert_close(mixed, theirs, **LUMA_DIGITS)


def test_colour_changes_are_the_formulae_with_exact_luma_weights():
    """Each pixel in double precision: blend with black, with the mean luma, with the pixel's own luma."""
    x = mild(2, 3, 4, 5)
    ours = coloured(x, brightness=1.2, contrast=0.7, saturation=0.4)
    weights = np.array([0.299, 0.587, 0.114])
    for b in range(2):
        pixels = 1.2 * x[b].double().numpy().reshape(3, 20)
        pixels = 0.7 * pixels + 0.3 * (weights @ pixels).mean()
        pixels = 0.4 * pixels + 0.6 * (weights @ pixels)
        np.testing.assert_allclose(ours[b].reshape(3, 20).numpy(), pixels, rtol=0, atol=1e-6)


def test_a_result_outside_the_colour_cube_is_clamped():
    out = coloured(pictures(4, 3, 12, 12), brightness=1.8, contrast=1.8, saturation=1.8, hue=0.2)
    assert out.min() == 0 and out.max() == 1


@pytest.mark.parametrize("hue", [-0.5, -0.2, 0.1, 0.3])
def test_hue_keeps_the_luma_and_moves_the_colour(hue):
    x = mild(4, 3, 12, 12)
    turned = coloured(x, hue=hue)
    luma = torch.tensor(LUMA).view(1, 3, 1, 1)
    torch.testing.assert_close((turned * luma).sum(1), (x * luma).sum(1), **EXACT)
    assert (turned - x).abs().mean() > 0.005


def test_hue_leaves_gray_pixels_alone():
    x = mild(4, 1, 12, 12).expand(4, 3, 12, 12).contiguous()
    torch.testing.assert_close(coloured(x, hue=0.3), x, **EXACT)


def test_hue_0_and_a_full_turn_are_the_identity_and_turns_add_up():
    x = mild(4, 3, 12, 12)
    torch.testing.assert_close(coloured(x, hue=0.0), x, **EXACT)
    torch.testing.assert_close(coloured(x, hue=1.0), x, **EXACT)
    torch.testing.assert_close(coloured(coloured(x, hue=0.1), hue=0.15), coloured(x, hue=0.25), **EXACT)


def test_a_hue_of_a_third_makes_red_green_or_blue_as_in_torchvision():
    """The planes differ (YIQ here, HSV there) and the sense of rotation; its unit, a turn, must not."""
    x = torch.tensor([0.6, 0.4, 0.4]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    strongest = [coloured(x, hue=hue)[0, :, 0, 0].argmax().item() for hue in (0.0, 1 / 3, -1 / 3)]
    theirs = [tv.adjust_hue(x, hue)[0, :, 0, 0].argmax().item() for hue in (0.0, -1 / 3, 1 / 3)]
    assert strongest == theirs == [0, 2, 1]


def test_one_channel_images_take_brightness_and_contrast_only():
    x = mild(4, 1, 12, 12)
    theirs = tv.adjust_contrast(tv.adjust_brightness(x, 0.8), 1.5)
    torch.testing.assert_close(coloured(x, brightness=0.8, contrast=1.5), theirs, **EXACT)
    spec = Spec(image=Field("image", (1, 12, 12), torch.uint8))
    colours = ImageViews(spec, spec, 1, jitter=1.0, saturation=0.9, hue=0.4, gray=1.0)
    torch.testing.assert_close(colours({"image": x}, randomness(4))[0].x, x, **EXACT)


# --- the whole pipeline ---------------------------------------------------------------------------


def test_views_off_are_the_normalised_picture():
    x = bytes_of(5, 3, 16, 16)
    view = ImageViews(RGB, RGB, 1)({"image": x}, randomness(5))[0]
    expected = tv.normalize(x.float() / 255, [0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
    assert view.x.dtype == torch.float32 and view.field == "image"
    torch.testing.assert_close(view.x, expected, **EXACT)


def test_uint8_and_unit_floats_of_the_same_picture_give_the_same_views():
    x = bytes_of(5, 3, 20, 24)
    views = ImageViews(RGB, RGB, 1, **ALL_ON)
    from_bytes, from_floats = (views({"image": p}, randomness(5))[0].x for p in (x, x.float() / 255))
    assert torch.equal(from_bytes, from_floats) and from_bytes.shape == (5, 3, 16, 16)


def test_flip_1_is_torchvisions_flip():
    x = bytes_of(5, 3, 16, 16)
    flipped = ImageViews(RGB, RGB, 1, flip=1.0)({"image": x}, randomness(5))[0].x
    expected = ImageViews(RGB, RGB, 1)({"image": tv.horizontal_flip(x)}, randomness(5))[0].x
    torch.testing.assert_close(flipped, expected)


@pytest.mark.parametrize("option", ["flip", "jitter", "gray", "blur"])
def test_a_probability_is_the_share_of_changed_samples(option):
    x = bytes_of(1, 3, 16, 16).expand(2000, 3, 16, 16)
    strength = {"jitter": {"brightness": 0.5}, "blur": {"blur_sigma": (10.0, 10.0)}}.get(option, {})
    changed = ImageViews(RGB, RGB, 1, **{option: 0.3}, **strength)({"image": x}, randomness(2000))[0].x
    plain = ImageViews(RGB, RGB, 1)({"image": x}, randomness(2000))[0].x
    share = ((changed - plain).abs().amax((1, 2, 3)) > 1e-3).float().mean().item()
    assert abs(share - 0.3) < 4 * (0.3 * 0.7 / 2000) ** 0.5


def test_brightness_factors_are_uniform_around_one():
    x = torch.full((2000, 3, 4, 4), 0.25)
    spec = Spec(image=Field("image", (3, 4, 4), torch.uint8))
    bright = ImageViews(spec, spec, 1, jitter=1.0, brightness=0.8)({"image": x}, randomness(2000))[0].x
    factor = bright.mean((1, 2, 3)).double().numpy() / 0.25
    assert stats.kstest(factor, stats.uniform(0.2, 1.6).cdf).pvalue > 1e-4


def test_blur_sigma_is_in_pixels_of_a_224_pixel_view():
    x = pictures(2, 3, 56, 56)
    spec = Spec(image=Field("image", (3, 56, 56), torch.uint8))
    blurred = ImageViews(spec, spec, 1, blur=1.0, blur_sigma=(4.0, 4.0))({"image": x}, randomness(2))[0].x
    theirs = tv.gaussian_blur(x, [15, 15], [1.0, 1.0])
    inside = (..., slice(8, 48), slice(8, 48))
    torch.testing.assert_close(blurred[inside], theirs[inside], **EXACT)


@pytest.mark.parametrize("spec", [RGB, GREY], ids=["rgb", "grey"])
def test_the_same_seed_and_step_give_the_same_views_and_others_do_not(spec):
    x = {"image": bytes_of(6, spec["image"].shape[0], 20, 20)}
    views = ImageViews(spec, spec, 2, **ALL_ON)
    first, second = views(x, randomness(6, step=4, seed=1)), views(x, randomness(6, step=4, seed=1))
    assert len(first) == 2 and all(torch.equal(a.x, b.x) for a, b in zip(first, second))
    assert not torch.equal(first[0].x, first[1].x)
    for other in (randomness(6, step=5, seed=1), randomness(6, step=4, seed=2)):
        different = (views(x, other)[0].x - first[0].x).abs().amax((1, 2, 3))
        assert (different > 1e-3).all()


@pytest.mark.parametrize("spec", [RGB, GREY], ids=["rgb", "grey"])
def test_a_micro_batch_gets_exactly_the_rows_of_the_whole_batch(spec):
    x = bytes_of(12, spec["image"].shape[0], 24, 20)
    views = ImageViews(spec, spec, 2, **ALL_ON)
    whole = views({"image": x}, randomness(12, step=3))
    for start, stop in ((0, 4), (4, 8), (8, 12), (5, 6)):
        by_part = views({"image": x[start:stop]}, randomness(12, step=3).part(start, stop))
        by_offset = views({"image": x[start:stop]}, Randomness(0, 3, np.arange(start, stop), torch.device("cpu")))
        for all_rows, rows, again in zip(whole, by_part, by_offset):
            torch.testing.assert_close(rows.x, all_rows.x[start:stop], **EXACT)
            torch.testing.assert_close(rows.target, all_rows.target[start:stop], **EXACT)
            assert torch.equal(rows.x, again.x)


def test_the_target_has_the_same_geometry_and_no_colour_change():
    x = {"image": bytes_of(6, 3, 20, 20)}
    geometry = {"scale": (0.2, 1.0), "ratio": (0.75, 4 / 3), "flip": 0.5}
    colour = {"jitter": 1.0, "brightness": 0.8, "saturation": 0.8, "gray": 0.5}
    view = ImageViews(RGB, RGB, 1, **geometry, **colour)({"image": x["image"]}, randomness(6))[0]
    plain = ImageViews(RGB, RGB, 1, **geometry)(x, randomness(6))[0]
    torch.testing.assert_close(view.target, plain.x, **EXACT)
    assert ((view.x - view.target).abs().amax((1, 2, 3)) > 1e-2).all()
    assert torch.equal(plain.target, plain.x)


def test_operations_are_done_in_the_documented_order():
    """Crop, flip, blur, rotation, colours, solarisation: torchvision's operations one after the other, by sample."""
    x = bytes_of(8, 3, 40, 40)
    spec = Spec(image=Field("image", (3, 24, 24), torch.uint8))
    options = {"flip": 0.5, "blur": 1.0, "blur_sigma": (4.0, 9.0), "rotate": 1.0, "degrees": 8.0, "solarise": 0.5}
    colours = {"jitter": 1.0, "brightness": 0.2, "contrast": 0.2, "saturation": 0.2}
    views = ImageViews(spec, spec, 1, scale=(0.5, 0.9), ratio=(0.8, 1.2), **options, **colours)
    found = views({"image": x}, randomness(8))[0].x
    chosen = draw(views.recipes[0], randomness(8), "view0", (40, 40), (24, 24), 3, 24 / 224)
    for i in range(8):
        sample = tv.resized_crop(x[i].float() / 255, *chosen.window[i].astype(int).tolist(), [24, 24], antialias=True)
        sample = tv.horizontal_flip(sample) if chosen.flip[i] else sample
        sample = tv.gaussian_blur(sample, [11, 11], [float(chosen.sigma[i])] * 2)
        sample = tv.rotate(sample, float(chosen.degrees[i]), InterpolationMode.BILINEAR)
        sample = recolour(sample[None], torch.from_numpy(chosen.colour[i : i + 1]))[0]  # compared above
        sample = tv.solarize(sample, 0.5) if chosen.solarise[i] else sample
        inside = (slice(None), slice(7, 17), slice(7, 17))  # where neither blur nor rotation meets the border
        off = (found[i][inside] - sample[inside]).abs()
        assert off.median() < 2e-2 and (off > 0.1).float().mean() < 0.02  # contrast's mean knows the border


@pytest.mark.parametrize("which", ["second", "local"])
def test_other_views_differ_in_what_they_name_and_in_nothing_else(which):
    x = {"image": bytes_of(300, 3, 16, 16)}
    count = {"second": {}, "local": {"num_local": 2, "local_size": 0.5}}[which]
    views = ImageViews(RGB, RGB, 2, flip=0.5, solarise=0.0, **count, **{which: {"solarise": 1.0, "flip": 0.0}})
    made = views(x, randomness(300))
    plain = ImageViews(RGB, RGB, 2, flip=0.5)(x, randomness(300))
    assert [tuple(view.x.shape[2:]) for view in made] == [(16, 16)] * 2 + [(8, 8)] * len(views.recipes[2:])
    different = {"second": [1], "local": [2, 3]}[which]
    solarised = ImageViews(RGB, RGB, 1, solarise=1.0)(x, randomness(300))[0].x
    for k in range(2):
        assert torch.equal(made[k].x, plain[k].x) == (k not in different)
    if which == "second":
        assert torch.equal(made[1].x, solarised)  # never flipped, always solarised


def test_an_unknown_or_wrong_number_of_another_view_is_named_with_its_path():
    with pytest.raises(UserError, match=r"views\.second\.blurr.*Did you mean 'blur'"):
        ImageViews(RGB, RGB, 2, second={"blurr": 0.1})
    with pytest.raises(UserError, match=r"views\.local.*flip"):
        ImageViews(RGB, RGB, 2, num_local=2, local={"flip": 2.0})


def test_autocast_sets_the_precision_of_views_and_not_that_of_their_making():
    x = {"image": bytes_of(6, 3, 20, 20)}
    views = ImageViews(RGB, RGB, 1, **ALL_ON)
    exact = views(x, randomness(6))[0]
    with torch.autocast("cpu", torch.bfloat16):
        half = views(x, randomness(6))[0]
    assert half.x.dtype == torch.bfloat16 and half.target.dtype == torch.float32
    assert torch.equal(half.x, exact.x.bfloat16()) and torch.equal(half.target, exact.target)


def test_the_views_leave_the_batch_as_it_was():
    x = pictures(4, 3, 16, 16)
    before = x.clone()
    spec = Spec(image=Field("image", (3, 16, 16), torch.uint8))
    ImageViews(spec, spec, 2, **ALL_ON)({"image": x}, randomness(4))
    assert torch.equal(x, before)


@pytest.mark.parametrize("size", [(16, 16), (40, 40), (10, 12), (30, 14)])
def test_the_evaluation_view_is_torchvisions_resize_and_normalise(size):
    x = bytes_of(4, 3, *size)
    view = ImageViews(RGB, RGB, 2, **ALL_ON).evaluation_view({"image": x})
    resized = tv.resize(x.float() / 255, [16, 16], antialias=True)
    torch.testing.assert_close(view.x, tv.normalize(resized, [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]), **EXACT)
    assert torch.equal(view.target, view.x)


def test_training_views_may_be_smaller_than_what_evaluation_reads():
    x = bytes_of(4, 3, 20, 20)
    small = Spec(image=Field("image", (3, 8, 8), torch.uint8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)))
    views = ImageViews(small, RGB, 1)
    theirs = {
        size: tv.normalize(tv.resize(x.float() / 255, [size, size]), RGB["image"].mean, RGB["image"].std)
        for size in (8, 16)
    }
    torch.testing.assert_close(views({"image": x}, randomness(4))[0].x, theirs[8], **EXACT)
    torch.testing.assert_close(views.evaluation_view({"image": x}).x, theirs[16], **EXACT)


@pytest.mark.parametrize(
    "wrong",
    [
        {"flip": 1.5},
        {"jitter": -0.1},
        {"gray": 2.0},
        {"blur": 1.01},
        {"scale": (1.0, 0.2)},
        {"scale": (0.0, 1.0)},
        {"scale": (0.5, 1.5)},
        {"ratio": (2.0, 0.5)},
        {"ratio": (0.0, 1.0)},
        {"brightness": -0.1},
        {"contrast": -1.0},
        {"saturation": -0.4},
        {"hue": 0.9},
        {"hue": -0.1},
        {"blur_sigma": (2.0, 0.1)},
        {"blur_sigma": (-1.0, 0.1)},
        {"rotate": 1.5},
        {"degrees": -1.0},
        {"solarise": -0.1},
        {"erase": 1.1},
        {"erase_scale": (0.5, 0.2)},
        {"erase_ratio": (0.0, 1.0)},
        {"num_local": -1},
        {"local_size": 0.0},
        {"local_size": 1.5},
    ],
    ids=str,
)
def test_a_wrong_argument_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ImageViews(RGB, RGB, 2, **wrong)


def test_a_column_without_pictures_is_refused():
    spec = Spec(ids=Field("tokens", (7,), torch.int64, 100))
    with pytest.raises(ValueError, match="holds no images"):
        ImageViews(spec, spec, 2, field="ids")


def test_colour_on_pictures_of_other_than_1_or_3_channels_is_refused_at_once():
    spec = Spec(image=Field("image", (4, 16, 16), torch.uint8))
    with pytest.raises(ValueError, match="channels"):
        ImageViews(spec, spec, 2, jitter=0.8, brightness=0.4)


def test_numbers_that_are_no_pixels_are_neither_scaled_nor_clamped():
    x = torch.rand(5, 1, 8, 8) * 4 - 2
    spec = Spec(image=Field("image", (1, 8, 8), torch.float32))
    views = ImageViews(spec, spec, 1, jitter=1.0, brightness=0.5)
    assert torch.equal(views.evaluation_view({"image": x}).x, x)
    factor = (views({"image": x}, randomness(5))[0].x / x).flatten(1)
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor))
    assert factor.min() >= 0.499 and factor.max() <= 1.501 and factor[:, 0].std() > 0


@pytest.mark.parametrize(
    ("dtype", "white"), [(torch.uint8, 255), (torch.uint16, 65_535), (torch.int64, 1), (torch.bool, 1)]
)
def test_pixels_are_scaled_by_their_white_and_other_numbers_by_nothing(dtype, white):
    x = torch.tensor([0, 1, white]).to(dtype).reshape(3, 1, 1, 1).expand(3, 1, 4, 4)
    spec = Spec(image=Field("image", (1, 4, 4), dtype))
    found = ImageViews(spec, spec, 1).evaluation_view({"image": x}).x[:, 0, 0, 0]
    torch.testing.assert_close(found, torch.tensor([0, 1 / white, 1.0]))


# --- columns as they are ----------------------------------------------------------------------------


def test_passing_through_repeats_the_ids_of_the_first_column():
    spec = Spec(text=Field("tokens", (7,), torch.int64, 100), other=Field("vector", (3,), torch.float32))
    columns = {"text": torch.arange(14).view(2, 7), "other": torch.ones(2, 3)}
    views = PassThrough(spec, spec, 2)(columns, randomness(2))
    assert [view.field for view in views] == ["text", "text"]
    assert all(torch.equal(view.x, columns["text"]) and not view.x.is_floating_point() for view in views)


def test_two_columns_are_two_views_and_evaluation_reads_the_first():
    spec = Spec(user=Field("id", (), torch.int64, 9), item=Field("id", (), torch.int64, 5))
    columns = {"user": torch.tensor([1, 2]), "item": torch.tensor([3, 4])}
    views = PassThrough(spec, spec, 2, columns=["item", "user"])
    assert [view.x.tolist() for view in views(columns, randomness(2))] == [[3, 4], [1, 2]]
    assert views.evaluation_view(columns).x.tolist() == [3, 4]


def test_vectors_are_normalised_with_the_columns_statistics():
    spec = Spec(row=Field("vector", (3,), torch.float32, mean=(1.0, 2.0, 3.0), std=(0.5, 1.0, 2.0)))
    view = PassThrough(spec, spec, 1)({"row": torch.tensor([[2, 2, 1], [1, 4, 3]])}, randomness(2))[0]
    assert view.x.tolist() == [[2.0, 0.0, -1.0], [0.0, 2.0, 0.0]]


def test_normalise_is_torchvisions_and_leaves_columns_without_statistics():
    x = pictures(2, 3, 4, 4)
    torch.testing.assert_close(normalise(x, RGB["image"]), tv.normalize(x, [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]))
    assert torch.equal(normalise(x, Field("image", (3, 4, 4), torch.float32)), x)


def test_too_few_columns_are_refused():
    spec = Spec(a=Field("vector", (), torch.float32), b=Field("vector", (), torch.float32))
    with pytest.raises(ValueError, match="2 are needed"):
        PassThrough(spec, spec, 2, columns=["a"])
