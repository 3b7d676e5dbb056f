"""Checks, at the first read, that the columns of a dataset are what its spec says."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sslcli.data.base import Dataset, Wrapper
from sslcli.data.fingerprints import LIMIT
from sslcli.errors import UserError, suggest
from sslcli.run_dir.fitted import Fitted
from sslcli.types import Crops, name_of


class Checked(Wrapper):
    """``dataset``, whose columns are compared with their fields when they are first read in a process.

    Only names, dtypes and shapes are compared, never values, so this costs nothing.
    """

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        self.held_out = None if dataset.held_out is None else Checked(dataset.held_out)
        self.identified = dataset  # what fingerprints are of: the data, however they are read
        self._is_checked = False
        self._fingerprints: dict[int, str] = {}

    def fit(self, files: Fitted) -> Dataset:
        found = self.dataset.fit(files)
        if found is self.dataset:
            return self
        checked = Checked(found)
        checked.identified, checked._fingerprints = self.identified, self._fingerprints
        return checked

    def fingerprint(self, limit: int = LIMIT) -> str:
        """Return the fingerprint of the data as they were when a run began.

        It is computed once: it may read all data, and resuming, the first checkpoint and the report ask for it.
        """
        if limit not in self._fingerprints:
            self._fingerprints[limit] = self.identified.fingerprint(limit)
        return self._fingerprints[limit]

    def fetch(self, index: Tensor) -> dict[str, Tensor]:
        columns = self.dataset.fetch(index)
        if not self._is_checked:
            self._check_names(columns)
            for name, column in columns.items():
                self._check(name, column, column.shape[1:] == self.spec[name].shape)
            self._is_checked = True
        return columns

    def fetch_crops(self, index: Tensor, crops: Crops) -> dict[str, Tensor]:
        columns = self.dataset.fetch_crops(index, crops)
        for name, column in columns.items():  # crops have sizes of their own, so only their dtype is compared
            self._check(name, column, True)
        return columns

    def _check_names(self, columns: Mapping[str, Tensor]) -> None:
        for name in self.spec:
            if name not in columns:
                raise UserError(f"dataset: fetch returns no column '{name}' of the spec. {suggest(name, columns)}")
        for name in columns:
            if name not in self.spec:
                raise UserError(f"dataset: fetch returns a column '{name}', which the spec does not have.")

    def _check(self, name: str, column: Tensor, fits: bool) -> None:
        field = self.spec[name.partition("/")[0]]
        if column.dtype != field.dtype or not fits:
            raise UserError(
                f"dataset: the column '{name}' is {name_of(column.dtype)} of shape {list(column.shape[1:])}, and its "
                f"field says {name_of(field.dtype)} of shape {list(field.shape)}. Correct either of them."
            )
