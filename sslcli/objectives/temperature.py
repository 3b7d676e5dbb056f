"""The temperature of a softmax over similarities: a number, or learned with the weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

COLDEST, WARMEST = 0.01, 1.0  # bounds of a learned temperature (the lower one: Radford et al. 2021, section 2.5)


class Temperature(nn.Module):
    """A fixed or learned temperature; calling it returns a float, or a scalar tensor with a gradient if it is learned.

    A learned temperature is parametrised by its logarithm.

    Raises:
        ValueError: the temperature is not positive, or a learned one starts outside its bounds.
    """

    def __init__(self, start: float, *, learned: bool) -> None:
        super().__init__()
        if not start > 0:
            raise ValueError(f"temperature={start} must be positive; 0.1 to 0.5 is usual")
        if learned and not COLDEST <= start <= WARMEST:
            raise ValueError(f"temperature={start}: a learned one starts and stays between {COLDEST} and {WARMEST}")
        self.start = start
        self.logarithm = nn.Parameter(torch.tensor(math.log(start))) if learned else None

    def forward(self) -> float | Tensor:
        return self.start if self.logarithm is None else self.logarithm.exp()

    @torch.no_grad()
    def clamp(self) -> None:
        """Move a learned temperature back into its bounds after an update."""
        if self.logarithm is not None:
            self.logarithm.clamp_(math.log(COLDEST), math.log(WARMEST))

    def parts(self) -> dict[str, Tensor]:
        """Return the scalars to log: the temperature, if it is learned."""
        return {} if self.logarithm is None else {"temperature": self.logarithm.detach().exp()}
