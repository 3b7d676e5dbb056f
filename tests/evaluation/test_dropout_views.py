"""Where views are equal and differ by the encoder's dropout only, measurements of views keep it on and say so."""

import copy

import pytest
import torch
from support.helpers import Flat, compose, make_context
from support.modalities import Bag, token_dataset, vector_dataset
from torch import nn

from sslcli.components import Components
from sslcli.data.base import Columns, with_held_out
from sslcli.encoders.base import Encoder
from sslcli.evaluation.collapse_monitor import CollapseMonitor
from sslcli.evaluation.dropout import dropping
from sslcli.evaluation.geometry import Geometry
from sslcli.evaluation.label_free import alignment
from sslcli.evaluation.measure import held_out_loss
from sslcli.evaluation.mutual_information import MutualInformation
from sslcli.objectives.infonce import InfoNCE
from sslcli.training.device import choose
from sslcli.types import Encoded
from sslcli.views.base import PassThrough

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def texts():
    tokens = token_dataset(400, length=8)
    return with_held_out(Columns(tokens.spec, tokens.columns), None, 0.5)


def bag(texts, dropout=0.2):
    torch.manual_seed(0)
    return Bag(texts.spec, dropout=dropout)


def context_of(texts, dropout=0.2):
    return make_context(texts, trained=bag(texts, dropout), random_init=bag(texts, dropout))


def test_alignment_and_lidar_are_those_of_passes_with_dropout(texts):
    context = context_of(texts)
    found = Geometry(max_samples=100, lidar_samples=50, lidar_views=4)(context)
    encoder, ids = copy.deepcopy(context.encoders["trained"]).train(), context.queried.columns["text"]
    torch.manual_seed(1)
    view = PassThrough(texts.spec, texts.spec, 1).evaluation_view({"text": ids})
    one, two = (encoder(view).pooled.detach() for _ in range(2))
    assert found["alignment"].value == pytest.approx(alignment(one, two), rel=0.15)  # of other draws and samples
    assert "two passes with dropout of 100 held out samples" in found["alignment"].protocol
    assert "50 held out samples by 4 passes with dropout of each" in found["lidar"].protocol
    assert not context.left_out
    again = Geometry(max_samples=100, lidar_samples=50, lidar_views=4)(context_of(texts))
    assert again == found


def test_clean_features_are_without_dropout(texts):
    context = context_of(texts)
    index = torch.arange(20)
    clean = context.draw(texts, index, None)["trained"]
    torch.testing.assert_close(clean, context.features("trained", texts, index))
    one, two = (context.draw(texts, index, number)["trained"] for number in (0, 1))
    assert not torch.equal(one, clean) and not torch.equal(one, two)
    assert torch.equal(one, context.draw(texts, index, 0)["trained"])


def test_information_is_that_of_passes_with_dropout(texts):
    found = MutualInformation(components=4, batch_size=50, steps=60, hidden_dim=16)(context_of(texts))
    assert "components of two passes with dropout" in found["mi_floor"].protocol
    assert found["mi_gaussian"].value < 20  # of equal views it would be infinite


def test_without_dropout_nothing_is_measured_of_views_and_the_reader_is_told(texts):
    context = context_of(texts, dropout=0.0)
    found = Geometry(max_samples=100, lidar_samples=50, lidar_views=4)(context)
    assert {"rankme", "uniformity", "alpha_req"} <= found.keys()
    assert not {"alignment", "lidar"} & found.keys()
    assert MutualInformation(components=4, batch_size=50, steps=1)(context) == {}
    assert [line.partition(":")[0] for line in context.left_out] == ["alignment and lidar", "mutual information"]
    assert all("the encoder has no dropout" in line for line in context.left_out)


def test_the_raw_input_has_no_dropout():
    vectors = vector_dataset()
    context = make_context(vectors, trained=Normed(), random_init=Flat(10))
    found = Geometry(max_samples=100)(context)
    assert found["rankme"].baselines.keys() == {"raw_input", "random_init"}
    assert found["alignment"].value > 0.1 and found["alignment"].baselines == found["lidar"].baselines == {}
    vectors.held_out = vectors
    found = MutualInformation(components=4, batch_size=50, steps=2, hidden_dim=8)(context)
    assert found["mi_floor"].baselines == {}


@pytest.mark.parametrize("full", [False, True])
def test_the_monitor_keeps_dropout(texts, full):
    def monitor():
        views = PassThrough(texts.spec, texts.spec, 2)
        return CollapseMonitor(texts, views, CPU, seed=0, full=full, warn=lambda text: None)

    encoder = bag(texts)
    state = torch.get_rng_state()
    found = monitor()(encoder)
    assert 0.01 < found["alignment"] < 1
    assert torch.equal(torch.get_rng_state(), state)
    assert found == monitor()(encoder)
    without = monitor()(bag(texts, 0.0))
    assert not {"alignment", "lidar"} & without.keys() and without["rankme"] > 1


def parts_of(texts, dropout):
    encoder = bag(texts, dropout)
    views = PassThrough(texts.spec, texts.spec, 2)
    return Components(texts, encoder, InfoNCE(encoder, form="cross_view", depth=0, temperature=0.05), views)


def test_the_held_out_loss_is_that_of_views_by_dropout(texts):
    config, compute = compose("train.batch_size=64", "device=cpu"), choose("cpu", "fp32")
    with_dropout = held_out_loss(config, parts_of(texts, 0.3), compute)["held_out_loss"]
    assert with_dropout.protocol.endswith("views by dropout")
    without = held_out_loss(config, parts_of(texts, 0.0), compute)["held_out_loss"]
    assert with_dropout.value > without.value + 0.1
    assert with_dropout == held_out_loss(config, parts_of(texts, 0.3), compute)["held_out_loss"]


class Normed(Encoder):
    """BatchNorm and dropout."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.BatchNorm1d(10), nn.Dropout(0.5))
        self.dim = 10

    def forward(self, view, mask=None):
        return Encoded(view.x[:, None], self.net(view.x))


def test_batch_norm_keeps_its_statistics_and_every_module_its_mode():
    encoder = Normed().eval()
    encoder.net[1].train()
    before = copy.deepcopy(encoder.state_dict())
    x = torch.randn(64, 10) + 5
    with dropping(encoder, 3, CPU):
        rows = encoder.net(x)
    kept = rows != 0
    assert 0.3 < kept.float().mean() < 0.7
    torch.testing.assert_close(rows[kept], 2 * x[kept] / (1 + 1e-5) ** 0.5)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert [module.training for module in encoder.net] == [False, True] and not encoder.training
