"""Fine-tuning: layers by depth, the published pieces in place, and the control trained alike."""

import math

import numpy as np
import pytest
import torch
from support import small_models  # noqa: F401  registers models
from support.helpers import TINY, compose, make_context
from support.marks import rest_is_slow
from timm.layers import DropPath
from timm.optim import param_groups_layer_decay

from sslcli.components import build_components
from sslcli.data.synthetic import synthetic
from sslcli.encoders.depth import layer_numbers
from sslcli.evaluation.classifier import Classifier
from sslcli.evaluation.finetune import Finetune
from sslcli.evaluation.measure import probe_context
from sslcli.training.device import choose


def measured(*overrides):
    config = compose(*TINY, "train.precision=fp32", *overrides)
    return probe_context(config, build_components(config), choose("cpu", "fp32"), budget=10.0)


@pytest.fixture(scope="module")
def small():
    return measured("dataset.num_samples=300", "dataset.num_classes=3")


def numbers():
    """The state of NumPy's own generator."""
    return np.random.get_state()[1].tolist()  # noqa: NPY002


def layers(encoder):
    """The first parameter's name part that tells layers apart, by layer number."""
    found = {}
    for name, layer in layer_numbers(encoder).items():
        found.setdefault(layer, set()).add(name)
    assert sorted(found) == list(range(len(found)))
    return found


def test_layers_of_a_vit_are_its_stem_and_blocks():
    found = layers(measured("encoder=vit_tiny").encoders["trained"])
    assert len(found) == 13  # the embedding and 12 blocks, the last with the final norm
    assert {"model.cls_token", "model.pos_embed", "model.patch_embed.proj.weight"} <= found[0]
    for block in range(12):
        assert all(name.startswith((f"model.blocks.{block}.", "model.norm")) for name in found[block + 1])
    assert "model.norm.weight" in found[12]


@pytest.mark.slow
def test_layers_of_a_swin_and_a_resnet_follow_their_blocks():
    swin = layers(measured("encoder=swin_tiny").encoders["trained"])
    assert "model.patch_embed.proj.weight" in swin[0] and len(swin) == 1 + 12
    resnet = layers(measured("encoder=resnet18").encoders["trained"])
    assert "model.conv1.weight" in resnet[0] and len(resnet) == 1 + 8
    assert all(name.startswith("model.layer4.1.") for name in resnet[8])


@pytest.mark.parametrize(("encoder", "depth"), [("convnet_small", 3), ("mlp", 1)])
def test_layers_of_our_own_nets_begin_at_weights(encoder, depth):
    found = layers(measured(f"encoder={encoder}").encoders["trained"])
    assert len(found) == depth
    for names in found.values():
        assert sum(name.endswith("weight") for name in names) == 2  # the convolution's and its norm's


@pytest.mark.parametrize("encoder", ["vit_tiny", "convnet_small"])
def test_layer_decay_is_a_power_of_the_distance_from_the_head(encoder):
    classifier = Classifier(measured(f"encoder={encoder}").encoders["trained"], 4)
    scales = {}
    for group in param_groups_layer_decay(classifier, 0.05, layer_decay=0.5):
        for parameter in group["params"]:
            scales[id(parameter)] = group["lr_scale"], group["weight_decay"]
    last = max(layer_numbers(classifier.encoder).values()) + 1
    for name, parameter in classifier.named_parameters():
        layer = layer_numbers(classifier.encoder).get(name.removeprefix("encoder."), last)
        scale, decay = scales[id(parameter)]
        assert scale == pytest.approx(0.5 ** (last - layer)), name
        assert decay == (0.05 if parameter.ndim > 1 else 0.0), name
    assert scales[id(classifier.head.weight)] == (1.0, 0.05)


def test_a_copy_has_the_weights_and_its_own_stochastic_depth():
    vit = measured("encoder=vit_tiny")
    copy, source = vit.copied("trained", 0.2), vit.encoders["trained"]
    rates = [module.drop_prob for module in copy.modules() if isinstance(module, DropPath)]
    assert max(rates) == pytest.approx(0.2) and rates == sorted(rates)
    assert not any(isinstance(module, DropPath) for module in source.modules())
    for name, value in source.state_dict().items():
        assert torch.equal(copy.state_dict()[name], value) and copy.state_dict()[name] is not value


def test_it_learns_and_leaves_no_trace(small):
    before = {name: value.clone() for name, value in small.encoders["trained"].state_dict().items()}
    numpy_state, torch_state = numbers(), torch.random.get_rng_state()
    probe = Finetune(epochs=6, batch_size=32, lr=0.05, mixup=0.0, cutmix=0.0)
    metric = probe(small)["finetune_top1"]
    assert metric.value > 0.8 > 1 / 3 and metric.split == "held out"
    assert all(torch.equal(value, before[n]) for n, value in small.encoders["trained"].state_dict().items())
    assert numbers() == numpy_state and torch.equal(torch.random.get_rng_state(), torch_state)


def test_the_run_before_its_first_step_is_its_own_control(small):
    """This trained encoder is at its random initialisation, but for BatchNorm's statistics, which training replaces."""
    metric = Finetune(epochs=2, batch_size=32, lr=0.05)(small)["finetune_top1"]
    assert metric.baselines.keys() == {"random_init"}
    assert metric.baselines["random_init"] == pytest.approx(metric.value, abs=0.2)
    assert Finetune(epochs=2, batch_size=32, lr=0.05)(small)["finetune_top1"] == metric  # the same bits
    for words in ("2 epochs on 240 train labels", "layer decay 0.65", "clean views", "mixup 0.8", "queries 60"):
        assert words in metric.protocol
    assert "drop path" not in metric.protocol  # which this encoder does not have


def test_supervised_is_random_initialisation_on_all_labels(small):
    found = Finetune(epochs=1, batch_size=32, max_samples=90, control="supervised")(small)
    assert found.keys() == {"finetune_top1", "finetune_balanced_accuracy", "finetune_macro_f1"}
    metric = found["finetune_top1"]
    every = Finetune(epochs=1, batch_size=32, max_samples=None)(small)["finetune_top1"]  # its 60 queries are the same
    assert metric.baselines.keys() == {"random_init", "supervised"}
    assert metric.baselines["supervised"] == every.baselines["random_init"]
    assert "on 90 train labels" in metric.protocol
    assert "supervised: the same from random initialisation on all 240 train labels" in metric.protocol


def test_permuted_labels_read_chance(small):
    dataset = synthetic(num_samples=600, num_classes=4, size=8)
    generator = torch.Generator().manual_seed(0)
    for part in (dataset, dataset.held_out):
        part.labels = part.labels[torch.randperm(len(part), generator=generator)]
    from sslcli.encoders.convnet_small import ConvNetSmall

    encoder = ConvNetSmall(dataset.spec, width=4)
    found = Finetune(epochs=2, batch_size=32)(
        make_context(dataset, trained=encoder, copied=lambda name, rate: ConvNetSmall(dataset.spec, width=4))
    )
    chance = math.sqrt(0.25 * 0.75 / 120)
    assert found["finetune_top1"].value == pytest.approx(0.25, abs=4 * chance)


@pytest.mark.parametrize("name", rest_is_slow(["vit_mini", "swin_mini", "resnet_mini"], "vit_mini"))
def test_every_family_of_encoders_is_fine_tuned(name):
    probe = Finetune(epochs=1, batch_size=16, max_samples=32, augment=True)
    metric = probe(measured("encoder=timm", f"encoder.name={name}"))["finetune_top1"]
    assert 0 <= metric.value <= 1 and "random_init" in metric.baselines


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 7}, {"epochs": 0}, {"lr": 0.0}, {"layer_decay": 1.5}, {"drop_path": 1.0}], ids=str
)
def test_a_wrong_setting_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Finetune(**wrong)
