"""Tensors that are not those of the config beside them."""

import pytest
import torch
from torch import nn

from sslcli.errors import UserError
from sslcli.pretrained.fit import check_fit


def module():
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_the_tensors_of_an_equal_module_fit():
    check_fit(module(), module().state_dict(), "encoder")


@pytest.mark.parametrize("change, named", [
    (lambda s: s.pop("0.weight"), "1 of 7 differ, the first is 0.weight: missing there, 2x3 here"),
    (lambda s: s.update(more=torch.zeros(1)), "more: 1 there, missing here"),
    (lambda s: s.update({"0.weight": torch.zeros(3, 2)}), "0.weight: 3x2 there, 2x3 here"),
    (lambda s: s.update({"0.weight": torch.zeros(2, 3, device="meta")}), "0.weight: 2x3 of another kind there"),
    (lambda s: s.update({"0.weight": torch.zeros(2, 3).to_sparse()}), "0.weight: 2x3 of another kind there"),
    (lambda s: s["0.bias"].fill_(float("nan")), "0.bias in this checkpoint is not finite"),
    (lambda s: s["1.running_var"].fill_(float("inf")), "1.running_var in this checkpoint is not finite"),
])  # fmt: skip
def test_others_are_refused_by_name(change, named):
    state = {name: tensor.clone() for name, tensor in module().state_dict().items()}
    change(state)
    with pytest.raises(UserError, match=named):
        check_fit(module(), state, "encoder")
