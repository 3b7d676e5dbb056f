"""Known classes of settings in published checkpoints, which are skipped when the weights are read.

A checkpoint often contains the settings of its run in addition to the weights: objects of classes that
``torch.load(weights_only=True)`` refuses to build. The classes below contain settings only. Placeholders that store
nothing replace them, so that the code of these classes never runs. A file with any other class or function is refused,
and the error names it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch


class Skipped:
    """A placeholder for an object that is not needed; it accepts any state from a pickle and discards it."""

    def __init__(self, *_: Any) -> None:
        pass

    def __new__(cls, *_: Any) -> Skipped:
        """Accept any arguments when a pickle creates the object without calling ``__init__``."""
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass


def _empty(*_: Any) -> OrderedDict[Any, Any]:
    """Return a placeholder for a mapping that the pickle fills afterwards."""
    return OrderedDict()


def _empty_list(*_: Any) -> list[Any]:
    """Return a placeholder for a sequence that the pickle fills afterwards."""
    return []


_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")

_PLACEHOLDERS: tuple[tuple[Callable[..., Any], tuple[str, ...]], ...] = (
    # The command line of MAE, DINO, SupContrast and many more, under "args" or "opt".
    (Skipped, ("argparse.Namespace",)),
    # Metrics and learning rates that came from numpy, before and since numpy 2.
    (Skipped, ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")),
    # Arrays and random states of numpy.
    (Skipped, ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray")),
    (Skipped, ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer", "_codecs.encode")),
    # Paths and times among the settings.
    (Skipped, tuple(f"pathlib.{name}" for name in _PATHS) + tuple(f"pathlib._local.{name}" for name in _PATHS)),
    (Skipped, ("datetime.datetime", "datetime.timedelta", "datetime.date")),
    # The config of SimMIM, Swin and other yacs projects: a dict with attributes.
    (OrderedDict, ("yacs.config.CfgNode",)),
    # The hyperparameters in Lightning's checkpoints: solo-learn's are OmegaConf's.
    (OrderedDict, ("pytorch_lightning.utilities.parsing.AttributeDict",)),
    (OrderedDict, ("lightning_fabric.utilities.data.AttributeDict",)),
    (_empty, ("collections.defaultdict",)),
    (_empty_list, ("collections.deque",)),
    (Skipped, ("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig")),
    (Skipped, ("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata", "omegaconf.nodes.AnyNode")),
    (Skipped, ("builtins.dict", "builtins.list", "builtins.int", "typing.Any")),
    # The keys of Lightning's "callbacks", before version 1.5.
    (Skipped, ("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",)),
    (Skipped, ("pytorch_lightning.callbacks.early_stopping.EarlyStopping",)),
)


def skipping_settings() -> Any:
    """Return a context in which ``torch.load(weights_only=True)`` replaces known settings by placeholders."""
    return torch.serialization.safe_globals([(by, name) for by, names in _PLACEHOLDERS for name in names])
