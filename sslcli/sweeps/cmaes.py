"""CMA-ES, whose state Optuna keeps in the study as a pickle: only numbers and arrays are read from it."""

from __future__ import annotations

import io
import pickle
from typing import Any

from optuna.samplers import CmaEsSampler

from sslcli.errors import UserError
from sslcli.sweeps.search import WHERE

_ALLOWED = {
    ("cmaes._cma", "CMA"),
    *(
        (module, name)
        for module in ("numpy._core.multiarray", "numpy.core.multiarray")
        for name in ("scalar", "_reconstruct")
    ),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
}


class SafeCmaEs(CmaEsSampler):
    """The sampler; a study may come from anybody, and a pickle can run code."""

    def _concat_optimizer_attrs(self, *arguments: Any) -> str:
        """Return the pickle of the state, as hexadecimal digits, after it was found to hold nothing else."""
        text = super()._concat_optimizer_attrs(*arguments)
        _Numbers(io.BytesIO(bytes.fromhex(text))).load()
        return text


class _Numbers(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise UserError(f"{WHERE}.storage: in the state of the sampler is {module}.{name}, which may run code.")
        return super().find_class(module, name)
