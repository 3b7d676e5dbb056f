"""timm's pretrained weights by name, downloaded from its hub or read from the cache of earlier downloads."""

from __future__ import annotations

import urllib.error
import urllib.request

import timm
from huggingface_hub import constants
from torch import Tensor

from sslcli.errors import UserError, suggest
from sslcli.run_dir.formatting import first_line

_TIMEOUT = 5.0  # seconds


def from_timm(name: str) -> dict[str, Tensor]:
    """Return the state dict of ``timm.create_model(name, pretrained=True)``.

    Raises:
        UserError: timm has no such weights, or they cannot be downloaded.
    """
    model, _, tag = name.partition(".")
    if not timm.is_model(model):
        raise UserError(f"encoder.weights: timm has no model '{model}'.")
    known = timm.list_pretrained(f"{model}.*")
    if not known or (tag and name not in known):
        raise UserError(f"encoder.weights: timm has no weights '{name}'. {suggest(name, known)}")
    reachable = constants.HF_HUB_OFFLINE or _answers(constants.ENDPOINT)
    if not reachable:
        constants.HF_HUB_OFFLINE = True  # use the cache at once, instead of retrying the network for a minute
    try:
        found: dict[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # errors of the hub, the network and the file system have no common class
        raise UserError(
            f"encoder.weights: timm's weights {name} cannot be fetched "
            f"({first_line(error) if reachable else 'its hub cannot be reached'}). "
            "Fetch the file where there is a network, and give its path."
        ) from None
    return found


def _answers(url: str) -> bool:
    """Return whether a server answers at ``url``, even with an HTTP error."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_TIMEOUT):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
