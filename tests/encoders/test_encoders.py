"""What encoders do for speed or repeatability is the same mathematics, and what hides patches belongs to one pass."""

import copy

import pytest
import torch
from support import small_models  # noqa: F401  registers models
from torch.nn import functional as F

from sslcli.encoders.images import repeatable_means
from sslcli.encoders.timm import Timm
from sslcli.types import Field, Spec, View


@pytest.mark.parametrize(
    ("height", "width", "cells"), [(7, 7, 4), (8, 8, 4), (5, 9, 3), (3, 3, 4), (6, 6, 1), (1, 1, 2)]
)
def test_repeatable_means_are_adaptive_average_pooling(height, width, cells):
    x = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    found, expected = repeatable_means(x, cells), F.adaptive_avg_pool2d(x, cells)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    gradients = [torch.autograd.grad((pooled * weights).sum(), x)[0] for pooled in (found, expected)]
    torch.testing.assert_close(*gradients)


def kernels(act):
    """The names of the operations that ``act`` runs."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        act()
    return {event.key for event in profile.key_averages()}


def test_attention_in_half_precision_on_a_cpu_takes_plain_products():
    """The fused kernel's backward pass is several times slower there (docs/performance.md)."""
    encoder = Timm(Spec(image=Field("image", (3, 16, 16), torch.uint8)), name="vit_tiny_patch16_224")
    view = View(torch.randn(2, 3, 16, 16), "image")

    def half():
        with torch.autocast("cpu", torch.bfloat16):
            encoder(view)

    fused = "aten::scaled_dot_product_attention"
    assert fused in kernels(lambda: encoder(view))
    assert fused not in kernels(half)
    assert fused in kernels(lambda: encoder(view))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_both_forms_of_attention_are_the_same_function(name):
    torch.manual_seed(0)
    encoder = Timm(Spec(image=Field("image", (3, 32, 32), torch.uint8)), name=name).eval()
    view = View(torch.randn(2, 3, 32, 32), "image")
    fused = encoder(view).tokens
    for attention in encoder.attentions:
        attention.fused_attn = False
    plain = encoder._tokens(encoder.model.forward_features(view.x))
    torch.testing.assert_close(plain, fused, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("drop_path", "repeats"), [(0.0, True), (0.5, False)])
def test_paths_are_dropped_at_the_rate_given_and_at_no_other(drop_path, repeats):
    """timm's Swin drops a tenth by default; SimMIM's drops none (DROP_PATH_RATE 0.0)."""
    encoder = Timm(
        Spec(image=Field("image", (3, 32, 32), torch.uint8)), name="swin_tiny_patch4_window7_224", drop_path=drop_path
    )
    view = View(torch.randn(8, 3, 32, 32), "image")
    first, second = encoder.train()(view), encoder(view)
    assert torch.equal(first.tokens, second.tokens) == repeats


PATCH_MODELS = ["vit_mini", "swin_mini", "beit_mini"]


@pytest.mark.parametrize("name", PATCH_MODELS)
def test_a_mask_lies_on_the_patches_that_the_model_embeds(name):
    encoder = Timm(Spec(image=Field("image", (3, 32, 32), torch.uint8)), name=name)
    with torch.no_grad():
        patches = encoder.model.patch_embed(torch.zeros(2, 3, 32, 32)).flatten(1, -2)
    rows, columns = encoder.grid(View(torch.zeros(2, 3, 32, 32), "image"))
    assert patches.shape == (2, rows * columns, len(encoder.mask_token)) and rows == columns


def without_and_with_a_mask(encoder, view):
    """The tokens of a view, whole and with its upper half hidden."""
    mask = torch.zeros(len(view.x), *encoder.grid(view), dtype=torch.bool)
    mask[:, : mask.shape[1] // 2] = True
    with torch.no_grad():
        return encoder(view).tokens, encoder(view, mask).tokens


@pytest.mark.parametrize("name", PATCH_MODELS[:2])
def test_a_copy_hides_with_its_own_mask_token(name):
    """A teacher is a deep copy of the encoder."""
    encoder = Timm(Spec(image=Field("image", (3, 32, 32), torch.uint8)), name=name).eval()
    view = View(torch.randn(2, 3, 32, 32), "image")
    plain, masked = without_and_with_a_mask(encoder, view)
    other = copy.deepcopy(encoder)
    with torch.no_grad():
        other.mask_token.add_(1)
    assert torch.equal(without_and_with_a_mask(encoder, view)[1], masked)
    assert torch.equal(without_and_with_a_mask(other, view)[0], plain)
    assert not torch.allclose(without_and_with_a_mask(other, view)[1], masked)


def test_a_masked_pass_that_fails_leaves_nothing_hidden():
    encoder = Timm(Spec(image=Field("image", (3, 32, 32), torch.uint8)), name="vit_tiny_patch16_224").eval()
    view = View(torch.randn(2, 3, 32, 32), "image")
    plain, _ = without_and_with_a_mask(encoder, view)
    with pytest.raises(RuntimeError):
        encoder(view, torch.ones(2, 3, 3, dtype=torch.bool))
    assert torch.equal(without_and_with_a_mask(encoder, view)[0], plain)


def test_the_class_token_is_pooled_when_asked():
    torch.manual_seed(0)
    encoder = Timm(Spec(image=Field("image", (3, 16, 16), torch.uint8)), name="vit_tiny_patch16_224", pool="token")
    x = torch.randn(2, 3, 16, 16)
    encoded = encoder.eval()(View(x, "image"))
    torch.testing.assert_close(encoded.pooled, encoder.model(x))  # timm's own ViT pools its class token
    torch.testing.assert_close(encoded.tokens, encoder.model.forward_features(x)[:, 1:])
    mask = torch.arange(16).reshape(1, 4, 4).expand(2, -1, -1) % 2 == 1
    dropped = encoder(View(x, "image"), mask, visible_only=True)
    assert dropped.pooled.shape == (2, 192) and not torch.equal(dropped.pooled, dropped.tokens.mean(1))
    with pytest.raises(ValueError, match="swin_tiny_patch4_window7_224 has no class token; use pool=patches"):
        Timm(Spec(image=Field("image", (3, 32, 32), torch.uint8)), name="swin_tiny_patch4_window7_224", pool="token")
