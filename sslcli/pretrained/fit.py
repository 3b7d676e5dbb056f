"""Checks that the tensors of a checkpoint are all those of a module, before they are loaded."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sslcli.errors import UserError


def check_fit(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Check names, shapes and values of the tensors that a module is to be restored from.

    Args:
        module: built from the config that is stored with the tensors.
        tensors: the state dict.
        where: the part, for the message.

    Raises:
        UserError: a tensor is missing, is left over, has another shape, or holds values that are not finite.
    """
    ours = module.state_dict()
    there, here = ({name: _shape(tensor) for name, tensor in some.items()} for some in (tensors, ours))
    wrong = sorted(name for name in {*there, *here} if there.get(name) != here.get(name))
    if wrong:
        name = wrong[0]
        raise UserError(
            f"{where}: the tensors in this checkpoint are not those of its own config: {len(wrong)} of {len(here)} "
            f"differ, the first is {name}: {there.get(name, 'missing')} there, {here.get(name, 'missing')} here."
        )
    floats = [name for name, tensor in tensors.items() if tensor.is_floating_point()]
    broken = [name for name in floats if not bool(torch.isfinite(tensors[name]).all())]
    if broken:
        raise UserError(f"{where}: {broken[0]} in this checkpoint is not finite, and ssl-train saves no such values.")


def _shape(tensor: Tensor) -> str:
    sizes = "x".join(map(str, tensor.shape)) or "a number"
    plain = tensor.layout == torch.strided and tensor.device.type != "meta" and not tensor.is_quantized
    return sizes if plain else f"{sizes} of another kind"
