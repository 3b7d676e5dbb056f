"""Masked image modelling against slow loops, closed forms, and encoders run by hand."""

import math
from dataclasses import replace

import pytest
import torch
from support.helpers import randomness

from sslcli.encoders.convnet_small import ConvNetSmall
from sslcli.encoders.timm import Timm
from sslcli.encoders.timm_kinds import visible_patches
from sslcli.features import Features
from sslcli.objectives.decoders import TokenDecoder, sine_cosine
from sslcli.objectives.masking import random_cells, random_rectangles, scaled_to
from sslcli.objectives.simmim import SimMIM, masked_error
from sslcli.objectives.targets import patch_normalised, window_normalised
from sslcli.types import Field, Spec, View


class Grid(ConvNetSmall):
    """Claims a patch grid and stride without the weight of the model that has them."""

    def __init__(self, size, patch, stride):
        super().__init__(spec(size), view_share=1.0)
        self.patch, self.stride, self.can_drop = patch, stride, True

    def grid(self, view):
        return tuple(side // self.patch for side in view.x.shape[-2:])


def spec(size, channels=3):
    return Spec(image=Field("image", (channels, size, size), torch.uint8))


def encoder_of(family):
    torch.manual_seed(0)
    if family == "convnet_small":
        return ConvNetSmall(spec(32), view_share=1.0).eval()
    names = {
        "vit": "test_vit",
        "swin": "swin_tiny_patch4_window7_224",
        "resnet": "resnet10t",
        "convnext": "test_convnext",
    }
    return Timm(spec(32), name=names[family]).eval()


def images(batch=3, size=32, seed=0, channels=3):
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(seed))


FAMILIES = ["vit", "swin", "resnet", "convnext", "convnet_small"]


@pytest.mark.parametrize(
    "size, patch, stride, mask, ratio, cell, cells, hidden",
    [
        (192, 4, 32, "block", 0.6, 32, 36, 22),  # SimMIM, Swin
        (224, 16, 16, "block", 0.6, 32, 49, 30),  # SimMIM, ViT
        (224, 16, 16, "random", 0.75, 16, 196, 147),  # MAE
        (224, 16, 16, "random", 0.6, 16, 196, 118),  # keeps int(78.4)
        (224, 16, 16, "blockwise", 0.4, 16, 196, 79),
        (28, 1, 4, "block", 0.6, 4, 49, 30),
        (28, 1, 4, "random", 0.6, 4, 49, 30),
    ],
)
def test_masks_hide_the_published_number(size, patch, stride, mask, ratio, cell, cells, hidden):
    objective = SimMIM(Grid(size, patch, stride), mask=mask, mask_ratio=ratio)
    drawn = objective.draw(randomness(50), 0)
    assert objective.mask_patch == cell and drawn[0].numel() == cells
    assert drawn.flatten(1).sum(1).tolist() == [hidden] * 50
    for i in range(2):
        assert torch.equal(objective.draw(randomness(50), i)[7:9], objective.draw(randomness(50).part(7, 9), i))
    assert not torch.equal(drawn, objective.draw(randomness(50), 1))
    assert not torch.equal(drawn, objective.draw(randomness(50, step=1), 0))


def test_a_block_is_hidden_whole():
    mask = random_cells(randomness(4), "mask", 6, 6, 22)
    fine = scaled_to(mask, 48, 48)
    for b in range(4):
        for i in range(48):
            for j in range(48):
                assert fine[b, i, j] == mask[b, i // 8, j // 8]


def test_each_cell_is_hidden_as_often():
    share = random_cells(randomness(4000), "mask", 6, 6, 22).float().mean(0)
    assert (share - 22 / 36).abs().max() < 5 * math.sqrt(22 / 36 * 14 / 36 / 4000)


def pieces(mask):
    """The number of 4-connected hidden regions."""
    left = {(i, j) for i, row in enumerate(mask.tolist()) for j, hidden in enumerate(row) if hidden}
    found = 0
    while left:
        found += 1
        border = [left.pop()]
        while border:
            i, j = border.pop()
            for near in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                if near in left:
                    left.remove(near)
                    border.append(near)
    return found


@pytest.mark.parametrize("rows, ratio", [(14, 0.1), (14, 0.4), (14, 0.97), (7, 0.6), (4, 0.5), (1, 1.0), (2, 0.25)])
def test_rectangles_hide_an_exact_count(rows, ratio):
    count = math.ceil(rows * rows * ratio)
    mask = random_rectangles(randomness(300), "mask", rows, rows, count)
    assert mask.shape == (300, rows, rows) and mask.flatten(1).sum(1).tolist() == [count] * 300


def test_rectangles_are_few_connected_pieces():
    boxes = [pieces(m) for m in random_rectangles(randomness(100), "mask", 14, 14, 79)]
    cells = [pieces(m) for m in random_cells(randomness(100), "mask", 14, 14, 79)]
    assert sum(boxes) / 100 < 2 and max(boxes) <= 5
    assert sum(cells) / 100 > 10


def test_the_first_rectangle_has_beits_area_and_aspect():
    """With a single rectangle the hidden cells, before the fill from the top, are one box of the drawn size."""

    class One:
        def uniform(self, name, *shape):
            values = torch.full((1, *shape), 0.999)
            values[0, :, 0, 0] = torch.tensor([1.0, 0.5, 0.5, 0.5])  # largest area, square, in the middle
            values[0, 0, 1:] = 1.0
            return values

    mask = random_rectangles(One(), "mask", 14, 14, 64)[0]
    expected = torch.zeros(14, 14, dtype=torch.bool)
    expected[3:11, 3:11] = True
    assert torch.equal(mask, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_patch_target_is_a_loop_over_patches(channels):
    x = images(2, 12, channels=channels) * 3 + 1
    y = patch_normalised(x, 4)
    for b in range(2):
        for i in range(0, 12, 4):
            for j in range(0, 12, 4):
                cell = x[b, :, i : i + 4, j : j + 4]
                n = cell.numel()
                mean = cell.sum() / n
                variance = (cell - mean).square().sum() / (n - 1)
                expected = (cell - mean) / (variance + 1e-6).sqrt()
                torch.testing.assert_close(y[b, :, i : i + 4, j : j + 4], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size, window, used", [(12, 5, 5), (12, 47, 11), (9, 47, 9), (48, 47, 47)])
def test_window_target_is_a_loop_over_pixels(size, window, used):
    x = images(1, size, channels=2).double().float() * 3 + 1
    y, half = window_normalised(x, window), used // 2
    for i in range(0, size, 1 if size < 20 else 7):
        for j in range(0, size, 1 if size < 20 else 5):
            near = x[0, :, max(0, i - half) : i + half + 1, max(0, j - half) : j + half + 1].flatten(1).double()
            expected = (x[0, :, i, j] - near.mean(1)) / (near.var(1, correction=1) + 1e-6).sqrt()
            torch.testing.assert_close(y[0, :, i, j], expected.float(), rtol=1e-4, atol=1e-4)


def test_targets_of_a_blank_image_are_zero():
    x = torch.full((1, 3, 16, 16), 0.3)
    assert patch_normalised(x, 4).abs().max() < 1e-3 and window_normalised(x, 5).abs().max() < 1e-3


@pytest.mark.parametrize("error, power", [("l1", 1), ("l2", 2)])
def test_masked_error_is_the_published_loss(error, power):
    """(|x - y|^p * m).sum() / (m.sum() + 1e-5) / C, with the mask repeated over channels by broadcasting."""
    torch.manual_seed(0)
    x, y = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    hidden = torch.rand(3, 4, 4) < 0.5
    total, count = masked_error(x, y, hidden, error)
    expected = 0.0
    for b in range(3):
        for c in range(2):
            for i in range(4):
                for j in range(4):
                    if hidden[b, i, j]:
                        expected += abs(float(x[b, c, i, j]) - float(y[b, c, i, j])) ** power
    published = expected / (int(hidden.sum()) + 1e-5) / 2
    assert (total.sum() / (count.sum() + 1e-5) / 2).item() == pytest.approx(published, rel=1e-6)


def test_l2_is_maes_mean_over_hidden_patches():
    """MAE: mean of the squares over each patch's values, then over the hidden patches."""
    x, y = images(2, 8, seed=1), images(2, 8, seed=2)
    mask = random_cells(randomness(2), "mask", 4, 4, 12)
    each = (x - y).square().unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean((1, 3, 5))
    expected = (each * mask).sum() / mask.sum()
    total, count = masked_error(x, y, scaled_to(mask, 8, 8), "l2")
    torch.testing.assert_close(total.sum() / count.sum() / 3, expected)


def features(encoder, views=1, size=32):
    made = [View(images(3, size, seed=i), "image", target=images(3, size, seed=10 + i)) for i in range(views)]
    return Features(encoder, made, randomness(3))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_the_error_of_the_drawn_pixels(family):
    """From the tokens on by hand: the published code's 1 x 1 convolution, pixel shuffle and masked mean."""
    encoder = encoder_of(family)
    objective, batch = SimMIM(encoder, target="patch"), features(encoder)
    mask = objective.draw(batch.randomness, 0)
    tokens = encoder(batch.views[0], scaled_to(mask, *encoder.grid(batch.views[0]))).tokens
    side = math.isqrt(tokens.shape[1])
    maps = tokens.transpose(1, 2).reshape(3, -1, side, side)
    kernel = objective.decoder.weight[:, :, None, None]
    pixels = torch.pixel_shuffle(torch.conv2d(maps, kernel, objective.decoder.bias), encoder.stride)[..., :32, :32]
    target = patch_normalised(batch.views[0].target, objective.mask_patch)
    m = torch.kron(mask.float(), torch.ones(objective.mask_patch, objective.mask_patch))[:, None]
    expected = ((pixels - target).abs() * m).sum() / (m.sum() + 1e-5) / 3
    torch.testing.assert_close(objective.loss(objective.project(batch)).total, expected)


@pytest.mark.parametrize("visible_only", [False, True])
def test_two_views_add_their_errors(visible_only):
    encoder = encoder_of("vit")
    objective, batch = SimMIM(encoder, visible_only=visible_only), features(encoder, views=2)
    objective.reads = (0, 1)
    both = objective.project(batch)
    for name in both:
        expected = 0
        for i in range(2):
            mask = objective.draw(batch.randomness, i)
            expected = expected + objective.errors(objective.encode(batch, i, mask), batch.views[i], mask)[name]
        torch.testing.assert_close(both[name], expected)
    objective.reads = (0,)
    assert not torch.allclose(objective.project(batch)["error"], both["error"])


@pytest.mark.parametrize("family, visible_only", [(family, False) for family in FAMILIES] + [("vit", True)])
def test_hidden_pixels_do_not_leak(family, visible_only):
    encoder = encoder_of(family)
    objective = SimMIM(encoder, mask_ratio=0.5, visible_only=visible_only)
    mask = objective.draw(randomness(3), 0)
    hidden = scaled_to(mask, 32, 32)[:, None]
    x = images()
    options = {"visible_only": True} if visible_only else {}
    fine = scaled_to(mask, *objective.grid)
    with torch.no_grad():
        before = encoder(View(x, "image"), fine, **options)
        other = encoder(View(torch.where(hidden, 7 * images(seed=1), x), "image"), fine, **options)
        seen = encoder(View(torch.where(hidden, x, 7 * images(seed=1)), "image"), fine, **options)
    assert torch.equal(before.tokens, other.tokens) and torch.equal(before.pooled, other.pooled)
    assert not torch.allclose(before.tokens, seen.tokens)


def test_overlapping_patches_are_hidden_as_pixels():
    """Swapping an overlapping patch's token would leave its pixels in the neighbours'."""
    assert encoder_of("vit").grid(View(images(), "image")) == (8, 8)
    hybrid = Timm(spec(64), name="vit_tiny_r_s16_p8_224", stem="standard", patch_size=8)
    assert hybrid.grid(View(images(size=64), "image")) == (64, 64) and not hybrid.can_drop


def by_hand(model, tokens, keep=None):
    """A ViT from its embedded patches (B, T, D) on; ``keep`` (B, V) chooses the patches after positions are added."""
    prefix = [t.expand(len(tokens), -1, -1) for t in (model.cls_token, model.reg_token) if t is not None]
    count = sum(t.shape[1] for t in prefix)
    positions = model.pos_embed
    if model.no_embed_class:
        x = torch.cat([*prefix, tokens + positions], 1)
    else:
        x = torch.cat([*prefix, tokens], 1) + positions
    if keep is not None:
        rows = [torch.cat([x[b, :count], x[b, count:][keep[b]]]) for b in range(len(x))]
        x = torch.stack(rows)
    for block in model.blocks:
        x = block(x)
    return model.norm(x)[:, count:]


VITS = ["vit_tiny_patch16_224", "test_vit4"]  # a class token with a position; registers without


@pytest.mark.parametrize("name", VITS)
def test_mask_tokens_come_before_positions(name):
    torch.manual_seed(0)
    encoder = Timm(spec(32), name=name).eval()
    mask = random_cells(randomness(3), "mask", 8, 8, 38)
    with torch.no_grad():
        found = encoder(View(images(), "image"), mask)
        patches = encoder.model.patch_embed.proj(images()).flatten(2).transpose(1, 2)
        patches[mask.flatten(1)] = encoder.mask_token
        expected = by_hand(encoder.model, patches)
    torch.testing.assert_close(found.tokens, expected, rtol=1e-4, atol=1e-5)
    seen = torch.stack([expected[b][~mask[b].flatten()].mean(0) for b in range(3)])
    torch.testing.assert_close(found.pooled, seen, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", VITS)
def test_visible_only_is_the_vit_on_the_gathered_tokens(name):
    torch.manual_seed(0)
    encoder = Timm(spec(32), name=name).eval()
    mask = random_cells(randomness(3), "mask", 8, 8, 48)
    keep = [(~mask[b].flatten()).nonzero()[:, 0] for b in range(3)]
    with torch.no_grad():
        found = encoder(View(images(), "image"), mask, visible_only=True)
        patches = encoder.model.patch_embed.proj(images()).flatten(2).transpose(1, 2)
        expected = by_hand(encoder.model, patches, keep)
        assert encoder(View(images(), "image")).tokens.shape[1] == 64  # nothing is left over from the last pass
    assert found.tokens.shape == (3, 16, encoder.token_dim)
    torch.testing.assert_close(found.tokens, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.pooled, expected.mean(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["swin", "resnet", "convnext"])
def test_pooled_weighs_a_token_by_the_visible_pixels_above_it(family):
    encoder = encoder_of(family)
    mask = random_cells(randomness(3), "mask", 8, 8, 38)
    view = View(images(), "image")
    with torch.no_grad():
        found = encoder(view, scaled_to(mask, *encoder.grid(view)))
    side = math.isqrt(found.tokens.shape[1])
    cell = 32 // side
    seen = (~scaled_to(mask, 32, 32)).float()
    for b in range(3):
        total = weight = 0.0
        for t in range(side**2):
            i, j = cell * (t // side), cell * (t % side)
            share = seen[b, i : i + cell, j : j + cell].mean()
            total, weight = total + share * found.tokens[b, t], weight + share
        torch.testing.assert_close(found.pooled[b], total / weight, rtol=1e-4, atol=1e-5)


def test_visible_patches_are_in_raster_order():
    mask = random_cells(randomness(20), "mask", 5, 5, 19)
    expected = [[i for i, hidden in enumerate(m.flatten().tolist()) if not hidden] for m in mask]
    assert visible_patches(mask, torch.device("cpu")).tolist() == expected


def test_the_decoder_puts_tokens_back_in_their_places():
    decoder = TokenDecoder(32, 32, 1, 4, 4)
    tokens = images(20, 4, channels=32).flatten(2).transpose(1, 2)  # (20, 16, 32)
    mask = random_cells(randomness(20), "mask", 4, 4, 11).flatten(1)
    gathered = torch.stack([tokens[b][~mask[b]] for b in range(20)])
    placed = decoder.placed(gathered, mask)
    for b in range(20):
        for place in range(16):
            expected = decoder.mask_token if mask[b, place] else tokens[b, place]
            assert torch.equal(placed[b, place], expected)


def test_the_decoder_knows_the_place_of_a_mask_token():
    """Permuting samples with their masks permutes the output; permuting the visible tokens alone changes it."""
    decoder = TokenDecoder(16, 32, 2, 4, 4).eval()
    tokens = images(5, 2, channels=16).flatten(2).transpose(1, 2)
    mask = random_cells(randomness(5), "mask", 4, 4, 12)
    order = torch.tensor([3, 0, 4, 1, 2])
    out = decoder(tokens, mask)
    assert out.shape == (5, 16, 32)
    torch.testing.assert_close(decoder(tokens[order], mask[order]), out[order])
    assert not torch.allclose(decoder(tokens.flip(1), mask), out, atol=1e-3)
    assert (out[0][mask[0].flatten()].std(0) > 1e-3).any()


def test_sine_cosine_positions():
    positions = sine_cosine(3, 5, 16)
    for row in range(3):
        for col in range(5):
            for i in range(4):
                w = 10000 ** (-i / 4)
                expected = [math.sin(col * w), math.cos(col * w), math.sin(row * w), math.cos(row * w)]
                found = positions[row * 5 + col, i::4].tolist()
                assert found == pytest.approx(expected, abs=1e-6)


def test_visible_only_gives_every_part_a_gradient():
    encoder = encoder_of("vit").train()
    objective = SimMIM(encoder, mask="random", mask_ratio=0.75, target="patch", error="l2", visible_only=True)
    objective.loss(objective.project(features(encoder))).total.backward()
    for module in (encoder, objective):
        for name, parameter in module.named_parameters():
            assert name == "mask_token" and module is encoder or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mask_patch": 5}, "mask_patch=5 does not divide the 32 x 32 image; use one of 4, 8, 16$"),
        ({"mask_patch": 2}, "not a multiple of the encoder's patch of 4"),
        ({"mask_ratio": 0.0}, "mask_ratio=0.0 must be between 0 and 1"),
        ({"mask_ratio": 1.5}, "mask_ratio=1.5 must be between 0 and 1"),
        ({"mask_ratio": 0.99}, "mask_ratio=0.99 hides 64 of 64 patches of 4 pixels"),
        ({"mask": "random", "mask_ratio": 1e-9, "mask_patch": 32}, "hides 1 of 1 patches of 32 pixels"),
        ({"target_window": 4}, "target_window=4 must be odd"),
        ({"visible_only": True, "decoder_depth": 0}, "decoder_depth=0 must be at least 1"),
        ({"visible_only": True, "decoder_dim": 48}, "decoder_dim=48 must be a multiple of 32"),
    ],
)
def test_a_bad_value_is_answered_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        SimMIM(encoder_of("vit"), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["swin", "resnet", "convnext", "convnet_small"])
def test_only_a_vit_leaves_tokens_out(family):
    with pytest.raises(ValueError, match="visible_only needs an encoder that can leave tokens out"):
        SimMIM(encoder_of(family), visible_only=True)


def test_a_patch_of_one_grey_pixel_has_no_variance():
    with pytest.raises(ValueError, match="set mask_patch=2 or more"):
        SimMIM(ConvNetSmall(spec(28, channels=1)), target="patch", mask_patch=1)


@pytest.mark.gpu
@pytest.mark.parametrize("visible_only", [False, True])
@pytest.mark.parametrize("mask", ["random", "blockwise"])
def test_a_step_does_not_wait_for_the_gpu(visible_only, mask):
    device = torch.device("cuda")
    encoder = encoder_of("vit").train().to(device)
    objective = SimMIM(encoder, mask=mask, target="window", visible_only=visible_only).to(device)
    x = images().to(device)
    batch = Features(encoder, [View(x, "image", target=x)], replace(randomness(3), device=device))
    torch.cuda.set_sync_debug_mode("error")
    try:
        objective.loss(objective.project(batch)).total.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
