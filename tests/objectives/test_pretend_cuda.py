"""Forward passes on a GPU that is only pretended: no tensor is left on the host, and the host never waits.

This does not replace the tests marked ``gpu``: nothing is computed here, no kernel runs, and there is no backward pass.
"""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.helpers import compose
from support.layouts import YAMLS
from support.marks import rest_is_slow
from support.modalities import histories, padded_texts
from support.pretend_cuda import CUDA, Waits, autocast, on_cuda, pretend_cuda
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorDeviceMismatchError,
)

from sslcli.components import build_encoder, build_objective, build_views
from sslcli.features import Features
from sslcli.objectives.infonce import InfoNCE
from sslcli.randomness import Randomness
from sslcli.types import Field, Spec

BATCH = 8
SPEC = Spec(image=Field("image", (3, 32, 32), torch.uint8, mean=(0.5,) * 3, std=(0.25,) * 3))
ENCODERS = ("convnet_small", "resnet18", "vit_tiny")
# Of `visible_only` nothing is here: it counts the patches of a mask on the host, whose tensors have no numbers here.
VARIANTS = {
    "cross_view": ("infonce", {"form": "cross_view", "learn_temperature": True}),
    "decoupled": ("infonce", {"form": "decoupled", "norm": "layer"}),
    "sigmoid": ("infonce", {"form": "sigmoid", "learn_temperature": True}),
    "supervised": ("infonce", {"form": "supervised", "label": "label"}),
    "moco 1": ("moco", {"version": 1, "symmetric": False}),
    "moco 3": ("moco", {"version": 3}),
    "moco, shuffled": ("moco", {"bn_splits": 2}),
    "mae": ("simmim", {"mask": "random", "target": "patch", "error": "l2", "mask_patch": 4}),
    "beit": ("simmim", {"mask": "blockwise", "target": "window", "target_window": 7, "mask_patch": 4}),
    "smile": ("infomax", {"estimator": "smile", "critic": "concat"}),
    "mine": ("infomax", {"estimator": "mine", "critic": "separable"}),
    "gaussian": ("infomax", {"estimator": "gaussian", "width": 8}),
    "local": ("infomax", {"pairs": "local", "estimator": "jsd"}),
    "noise": ("infomax", {"pairs": "noise", "estimator": "barber_agakov", "width": 8}),
}
VIEWS = {
    "small": {},
    "byol": {},
    "multicrop": {},
    "none": {"rotate": 0.5, "degrees": 9.0, "solarise": 0.5, "erase": 1.0},
}


@functools.cache
def encoder_of(name):
    encoder = build_encoder(compose(f"encoder={name}"), SPEC)
    if name == "vit_tiny":  # two of 12 blocks that do the same
        encoder.model.blocks, encoder.attentions = encoder.model.blocks[:2], encoder.attentions[:2]
    return encoder


@pytest.fixture(scope="module")
def device():
    with pretend_cuda() as device:
        yield device


def columns():
    return {
        "image": torch.empty(BATCH, 3, 40, 40, dtype=torch.uint8, device=CUDA),
        "label": torch.empty(BATCH, dtype=torch.int64, device=CUDA),
    }


def texts(spec):
    return {name: torch.empty(BATCH, *field.shape, dtype=torch.int32, device=CUDA) for name, field in spec.items()}


def step(encoder, objective, views):
    """What a training step calls before its backward pass, and what follows its update; the tensors made."""
    batch, randomness = columns(), Randomness(0, 0, np.arange(BATCH), CUDA)
    objective.before_step(0.5)
    with autocast():
        made = views(batch, randomness)
        outputs = objective.project(Features(encoder, made, randomness, batch))
    loss = objective.loss(outputs)
    objective.after_step({name: rows.detach() for name, rows in outputs.items()})
    assert loss.total.dtype == torch.float32 and loss.total.requires_grad
    assert all(view.x.dtype in (torch.bfloat16, torch.int64) for view in made)  # pixels, ids
    return [loss.total, *loss.parts.values(), *outputs.values(), *(view.x for view in made)]


def assert_never_waits(device, encoder, objective, views):
    with device.watched():
        modules = [module.train() for module in on_cuda(encoder, objective, views)]
        made = step(*modules)
        if device.blocking:  # constants are copied in the first step
            device.blocking.clear()
            made = step(*modules)
        assert not device.blocking
        assert all(tensor.device == CUDA for tensor in made)


@pytest.mark.parametrize("objective", YAMLS)
@pytest.mark.parametrize("encoder", rest_is_slow(ENCODERS, "convnet_small", "vit_tiny"))
def test_no_objective_waits(device, objective, encoder):
    config, encoder = compose(f"objective={objective}"), encoder_of(encoder)
    built = build_objective(config, encoder)
    assert_never_waits(device, encoder, built, build_views(config, encoder, built))


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_variant_waits(device, variant):
    objective, keys = VARIANTS[variant]
    config, encoder = compose(f"objective={objective}"), encoder_of("convnet_small")
    built = build_objective(replace(config, objective=config.objective.with_keys(**keys)), encoder)
    assert_never_waits(device, encoder, built, build_views(config, encoder, built))


@pytest.mark.parametrize("views", VIEWS)
def test_no_views_wait(device, views):
    config, encoder = compose(f"views={views}"), encoder_of("convnet_small")
    objective = InfoNCE(encoder)
    built = build_views(replace(config, views=config.views.with_keys(**VIEWS[views])), encoder, objective)
    assert_never_waits(device, encoder, objective, built)
    with device.watched():
        built.evaluation_view(columns())
        assert not device.blocking


@pytest.mark.parametrize(
    ("objective", "views"),
    [("masked_tokens", "columns"), ("infonce", "token_crop"), ("infonce", "token_delete"), ("moco", "span_mask"),
     ("infonce", "pairs")],
)  # fmt: skip
def test_no_objective_and_no_views_of_texts_wait(device, monkeypatch, objective, views):
    spec = padded_texts(1, 24, pair=True).spec
    config = compose("encoder=text_transformer", "encoder.depth=1", f"objective={objective}", f"views={views}")
    encoder = build_encoder(config, spec)
    built = build_objective(config, encoder)
    monkeypatch.setattr(f"{__name__}.columns", lambda: texts(spec))
    assert_never_waits(device, encoder, built, build_views(config, encoder, built))


@pytest.mark.parametrize("experiment", ["sasrec", "cl4srec", "bert4rec"])
def test_no_objective_and_no_views_of_histories_wait(device, monkeypatch, experiment):
    spec = histories().spec
    config = compose(f"experiment={experiment}", "encoder.depth=1")
    encoder = build_encoder(config, spec)
    built = build_objective(config, encoder)
    views = build_views(config, encoder, built)
    monkeypatch.setattr(f"{__name__}.columns", lambda: texts(spec))
    encoder.spec = Spec(spec)  # the graph in its facts is on the host, and no step reads it
    assert_never_waits(device, encoder, built, views)


class Wrong(InfoNCE):
    """An objective that does with a row of its outputs what it must not do on a GPU."""

    def __init__(self, encoder, act) -> None:
        super().__init__(encoder)
        self.act = act

    def loss(self, outputs):
        self.act(outputs["z1"])
        return super().loss(outputs)


WRONG = {
    "cpu": (lambda z: z.cpu(), Waits),
    "to": (lambda z: z.sum().to("cpu"), Waits),
    "without blocking": (lambda z: z.to("cpu", non_blocking=True), Waits),
    "copied into memory of the host": (lambda z: torch.zeros(z.shape).copy_(z), Waits),
    "item": (lambda z: z.sum().item(), DataDependentOutputException),
    "bool": (lambda z: bool((z > 0).all()), DataDependentOutputException),
    "a shape that depends on values": (lambda z: z[z > 0], DynamicOutputShapeException),
    "a constant on the host": (lambda z: z * torch.ones(z.shape[1]), FakeTensorDeviceMismatchError),
    "a constant copied in every step": (lambda z: z * torch.tensor([2.0], device=z.device), AssertionError),
    "pageable memory": (lambda z: torch.zeros(3).to(z.device, non_blocking=True), AssertionError),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_seen(device, mistake):
    act, error = WRONG[mistake]
    encoder = encoder_of("convnet_small")
    objective = Wrong(encoder, act)
    with pytest.raises(error):
        assert_never_waits(device, encoder, objective, build_views(compose(), encoder, objective))


def test_the_host_s_own_tensors_are_no_mistake(device):
    """As drawing on the host and sending in one copy is what views do."""
    encoder = encoder_of("convnet_small")
    objective = Wrong(encoder, lambda z: z * torch.ones(3).sum().pin_memory().to(z.device, non_blocking=True))
    assert_never_waits(device, encoder, objective, build_views(compose(), encoder, objective))
