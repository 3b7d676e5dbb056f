"""A head without layers is the identity."""

import pytest
import torch
from support.modalities import Bag, token_dataset
from torch.nn import functional as F

from sslcli.objectives.heads import mlp_head
from sslcli.objectives.infonce import InfoNCE


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_a_head_of_no_layers_is_the_identity(norm):
    head = mlp_head(6, 256, 128, depth=0, norm=norm)
    x = torch.randn(5, 6)
    assert torch.equal(head(x), x)
    assert not list(head.parameters())


def test_without_a_head_the_objective_compares_the_features():
    encoder = Bag(token_dataset().spec)
    objective = InfoNCE(encoder, depth=0)
    x = torch.randn(3, encoder.dim)
    torch.testing.assert_close(objective._embedded(x), F.normalize(x, dim=1))


def test_a_norm_may_stand_alone():
    rows = mlp_head(6, 1, 1, depth=0, norm="batch", last_norm=True)(torch.randn(64, 6) + 3)
    torch.testing.assert_close(rows.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="depth at least 0"):
        mlp_head(6, 1, 1, depth=-1, norm="none")
