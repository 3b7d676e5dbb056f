"""What lies beside the weights in published files, named so that it can be passed over.

A checkpoint often holds the settings of its run too: objects of classes that ``torch.load(weights_only=True)``
refuses, rightly, to build. The classes below are known to hold settings and nothing else. In their place the file
gets stand-ins that keep nothing and do nothing, so that even these classes' own code never runs. Any other class
or function in the file is refused, with its name.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch


class Passed:
    """Stands for an object that nobody reads; takes whatever a pickle gives it and forgets it."""

    def __init__(self, *_: Any) -> None:
        pass

    def __new__(cls, *_: Any) -> Passed:
        """The same, where a pickle makes the object and its state apart."""
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass


def _empty(*_: Any) -> OrderedDict[Any, Any]:
    """Stands for a mapping that the pickle fills afterwards."""
    return OrderedDict()


_STAND_INS: tuple[tuple[Callable[..., Any], tuple[str, ...]], ...] = (
    # The command line of MAE, DINO, SupContrast and many more, under "args" or "opt".
    (Passed, ("argparse.Namespace",)),
    # Metrics and learning rates that came from numpy, before and since numpy 2.
    (Passed, ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")),
    # The config of SimMIM, Swin and other yacs projects: a dict with attributes.
    (OrderedDict, ("yacs.config.CfgNode",)),
    # The hyperparameters in Lightning's checkpoints: solo-learn's are OmegaConf's.
    (OrderedDict, ("pytorch_lightning.utilities.parsing.AttributeDict",)),
    (OrderedDict, ("lightning_fabric.utilities.data.AttributeDict",)),
    (_empty, ("collections.defaultdict",)),
    (Passed, ("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig")),
    (Passed, ("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata", "omegaconf.nodes.AnyNode")),
    (Passed, ("builtins.dict", "builtins.list", "builtins.int", "typing.Any")),
    # The keys of Lightning's "callbacks", before version 1.5.
    (Passed, ("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",)),
    (Passed, ("pytorch_lightning.callbacks.early_stopping.EarlyStopping",)),
)


def passing_over_settings() -> Any:
    """A context in which ``torch.load(weights_only=True)`` passes over the settings beside the weights."""
    return torch.serialization.safe_globals([(by, name) for by, names in _STAND_INS for name in names])
