"""How the processes of a run share one model: who has which weights, and how their gradients become one.

A ``Strategy`` hears of every event of a step that concerns it, and answers what depends on where the weights are. With
a single process there is nothing to do. ``DDP`` gives all processes all weights and adds up their gradients, while the
last backward pass still computes. A strategy that shards the weights is another class of this interface.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from sslcli.distributed.ranks import Ranks
from sslcli.training.bucket import Bucket, split

BUCKET_BYTES = 25 * 2**20


class Strategy:
    """A single process: it has all weights, and its gradients are those of the batch."""

    def __init__(self, ranks: Ranks | None = None) -> None:
        self.ranks = ranks or Ranks()

    def prepare(self, modules: Sequence[nn.Module]) -> None:
        """Take over the modules that are trained; they are on their device and change their parameters no more."""

    def loss_done(self) -> None:
        """Say that the gradients so far are those of the loss's own parameters, which are equal in all processes."""

    def last_backward(self) -> None:
        """Say that the next backward pass is the last one of the step."""

    def gradients_done(self) -> None:
        """Return when every ``grad`` is that of the whole batch, the same in all processes; after the last pass."""

    def norm(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        """Return the norm of all gradients together, a scalar on their device."""
        return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

    def clip(self, parameters: Sequence[nn.Parameter], largest: float, norm: Tensor) -> None:
        """Scale gradients whose ``norm`` is larger than ``largest`` down to it."""
        nn.utils.clip_grads_with_norm_(parameters, largest, norm)

    def full_state(self, encoder: nn.Module, objective: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """Return all weights and the whole state of the optimizer, as a checkpoint of any number of processes."""
        return {
            "encoder": encoder.state_dict(),
            "objective": objective.state_dict(),
            "optimizer": optimizer.state_dict(),
        }

    def load_full(
        self, state: Mapping[str, Any], encoder: nn.Module, objective: nn.Module, optimizer: Optimizer
    ) -> None:
        """Restore what ``full_state`` has returned, also with another number of processes."""
        encoder.load_state_dict(state["encoder"])
        objective.load_state_dict(state["objective"])
        optimizer.load_state_dict(state["optimizer"])


class DDP(Strategy):
    """Every process has all weights; gradients are summed bucket by bucket, the last layers' first (Li et al. 2020).

    A step has several backward passes: that of the loss, and one for each micro-batch. Only in the last one are the
    gradients complete when they are accumulated. A bucket is sent as soon as all its gradients are there and all
    buckets before it are sent, so that all processes send in one order (arXiv:2006.15704, section 3.2.3). What is left
    after the pass is sent then: buckets with the loss's own parameters, and with parameters that a process did not use.

    Two processes give the same bits as one sum over all gradients; of more, the order of the sums depends on the
    backend and on the buckets.

    Args:
        ranks: the processes of the run, which are connected.
        bucket_bytes: the size of a bucket; a larger parameter has one of its own.
    """

    def __init__(self, ranks: Ranks, bucket_bytes: int = BUCKET_BYTES) -> None:
        super().__init__(ranks)
        self._bucket_bytes = bucket_bytes
        self._parameters: list[nn.Parameter] = []
        self._buckets: list[Bucket] = []
        self._bucket_of: dict[nn.Parameter, Bucket] = {}
        self._sent: int | None = None  # buckets that are on their way in the last pass; None in other passes
        self._works: list[dist.Work] = []

    def prepare(self, modules: Sequence[nn.Module]) -> None:
        found = dict.fromkeys(p for module in modules for p in module.parameters() if p.requires_grad)
        self._parameters = list(found)
        for parameter in self._parameters:
            parameter.register_post_accumulate_grad_hook(self._accumulated)

    def loss_done(self) -> None:
        own = [parameter for parameter in self._parameters if parameter.grad is not None]
        if not self._buckets:
            self._fill_buckets(own)
        for parameter in own:
            if not self.ranks.first and parameter.grad is not None:
                parameter.grad.zero_()

    def _fill_buckets(self, own: Sequence[nn.Parameter]) -> None:
        """Put the loss's own parameters, of which the last pass says nothing, behind all others."""
        late = set(own)
        early = [parameter for parameter in reversed(self._parameters) if parameter not in late]
        groups = [group for part in (early, own) for group in split(part, self._bucket_bytes)]
        self._buckets = [Bucket(group) for group in groups]
        self._bucket_of = {parameter: bucket for bucket in self._buckets for parameter in bucket.parameters}

    def last_backward(self) -> None:
        for bucket in self._buckets:
            bucket.begin()
        self._sent = 0

    def _accumulated(self, parameter: nn.Parameter) -> None:
        if self._sent is not None:
            self._bucket_of[parameter].take(parameter)
            self._send()

    def _send(self) -> None:
        """Send the buckets that are complete, up to the first one that is not."""
        assert self._sent is not None
        while self._sent < len(self._buckets) and not self._buckets[self._sent].missing:
            bucket = self._buckets[self._sent]
            if bucket.is_trained:
                work = dist.all_reduce(bucket.flat, async_op=True)
                assert work is not None
                self._works.append(work)
            self._sent += 1

    def gradients_done(self) -> None:
        for bucket in self._buckets:
            bucket.take_rest()
        self._send()
        self._sent = None
        present = torch.tensor([parameter.grad is not None for parameter in self._parameters], dtype=torch.uint8)
        dist.all_reduce(present, dist.ReduceOp.MAX)  # on the host: the device need not have finished anything
        for work in self._works:
            work.wait()
        self._works.clear()
        for parameter, somewhere in zip(self._parameters, present.tolist()):
            if somewhere:
                parameter.grad = self._bucket_of[parameter].views[parameter]


_BY_NAME = {"auto": DDP, "ddp": DDP}


def choose_strategy(name: str, ranks: Ranks) -> Strategy:
    """Return the strategy that ``device.strategy`` names; a single process shares nothing by any of them."""
    return _BY_NAME[name](ranks) if ranks.size > 1 or ranks.in_group else Strategy(ranks)
