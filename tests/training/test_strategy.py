"""DDP: the gradients of a flat sum and of torch's DistributedDataParallel, sent while the backward pass computes."""

import copy
import functools

import pytest
import torch
import torch.distributed as dist
from support.forked import Forked
from support.helpers import TINY, compose, each_rank, trainer_of
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sslcli.distributed.ranks import Ranks, joined
from sslcli.distributed.start import Start
from sslcli.training.bucket import Bucket, split
from sslcli.training.grad_cache import backward
from sslcli.training.strategy import DDP, Strategy
from sslcli.types import Loss

SMALL = 400  # bytes of a bucket, so that a small net has several
RUN = (*TINY, "train.precision=fp32", "train.clip=1", "encoder.freeze_steps=1", "encoder.norm=layer")
RUNS = {
    "a parameter of the loss": (*RUN, "objective.form=cross_view", "objective.learn_temperature=true",
                                "objective.norm=layer", "optimizer=sgd", "optimizer.lr=0.05"),
    "accumulated, gradients compared": (
        *RUN, "objective=joint", "train.accumulate=2", "log.every=1", "objective.parts.infonce.norm=layer",
    ),
    "a teacher, BatchNorm": (*TINY, "train.precision=fp32", "objective=byol"),
}  # fmt: skip


class FlatSum(DDP):
    """The slow reference: one sum over all gradients when all passes are over; what a process lacks counts as zero."""

    def prepare(self, modules):
        self._parameters = [p for module in modules for p in module.parameters() if p.requires_grad]

    def _fill_buckets(self, own):
        pass

    def last_backward(self):
        pass

    @torch.no_grad()
    def gradients_done(self):
        present = torch.tensor([p.grad is not None for p in self._parameters]).int()
        dist.all_reduce(present)
        used = [p for p, count in zip(self._parameters, present) if count]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in used])
        dist.all_reduce(flat)
        for p, part in zip(used, flat.split([p.numel() for p in used])):
            p.grad = torch.empty_like(p).copy_(part.view(p.shape))  # a fused optimizer reads the memory as it lies


class Net(nn.Module):
    """Layers of several buckets, of two formats and types, and parameters that are used by some or by nobody."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3).to(memory_format=torch.channels_last)
        self.second = nn.Linear(16, 16)
        self.frozen = nn.Linear(16, 16).requires_grad_(False)
        self.wide = nn.Parameter(torch.ones(16, dtype=torch.float64))
        self.sometimes = nn.Linear(16, 16)
        self.last = nn.Linear(16, 3)
        self.unused = nn.Parameter(torch.ones(5))
        self.scale = nn.Parameter(torch.ones(()))  # of the loss

    def forward(self, x, *, all_layers=True):
        rows = self.frozen(self.second(self.first(x).flatten(1)).relu())
        rows = rows * self.wide.float()
        return self.last(self.sometimes(rows) if all_layers else rows)


def net_and_data():
    torch.manual_seed(0)
    net = Net()
    return net, torch.randn(8, 2, 4, 4)


def gradients(net, x, strategy, *, num_micro=1, steps=2, all_layers=True):
    """Of the last of several steps, by name, after what an optimizer does between steps."""
    parts = x.chunk(strategy.ranks.size)[strategy.ranks.rank].chunk(num_micro)
    strategy.prepare([net])
    for _ in range(steps):
        net.zero_grad(set_to_none=True)
        backward(
            lambda m: {"z": net(parts[m], all_layers=all_layers)},
            lambda rows: Loss(net.scale * rows["z"].square().sum(), {}),
            num_micro,
            modules=[net],
            scale=lambda loss: loss,
            strategy=strategy,
        )
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def of_layouts(ranks):
    """Gradients by DDP and by the reference, with all layers and with one that only the first process uses."""
    found = {}
    for num_micro in (1, 2):
        for everywhere in (True, False):
            for kind in (functools.partial(DDP, bucket_bytes=SMALL), FlatSum):
                net, x = net_and_data()
                used = everywhere or ranks.first
                now = gradients(net, x, kind(ranks), num_micro=num_micro, all_layers=used)
                found.setdefault((num_micro, everywhere), []).append(now)
    return found


def of_torch(ranks):
    """The gradients of DistributedDataParallel, which are means over the processes."""
    net, x = net_and_data()
    wrapped = DistributedDataParallel(net, find_unused_parameters=True, gradient_as_bucket_view=True)
    wrapped(x.chunk(2)[ranks.rank]).square().sum().backward()
    return {name: 2 * p.grad for name, p in net.named_parameters() if p.grad is not None}


def sent_before_the_first_layer(ranks):
    """How many elements are on their way when the gradient reaches the first layer, in each backward pass of a step."""
    net, x = net_and_data()
    sent, seen = [], []
    reduce = dist.all_reduce

    def counted(tensor, *args, **more):
        sent.append(tensor.numel())
        return reduce(tensor, *args, **more)

    def reached(module, inputs, output):
        if output.requires_grad:
            output.register_hook(lambda gradient: seen.append(list(sent)))

    net.first.register_forward_hook(reached)
    dist.all_reduce = counted
    try:
        gradients(net, x, DDP(ranks, SMALL), num_micro=2, steps=1)
    finally:
        dist.all_reduce = reduce
    return seen, sent


def of_run(ranks, folder, options, kind):
    """All that three steps of a run leave behind."""
    trainer = trainer_of(compose("device=cpu", *options), folder, ranks=ranks)
    trainer.strategy = kind(ranks)
    trainer.strategy.prepare(trainer.modules)
    trainer.fit()
    modules = {"encoder": trainer.encoder, "objective": trainer.objective}
    state = {f"{part}.{name}": v for part, module in modules.items() for name, v in module.state_dict().items()}
    moments = trainer.optimizer.state_dict()["state"]
    return state | {f"optimizer.{i}.{key}": v for i, group in moments.items() for key, v in group.items()}


def one_rank(folder):
    with joined(Start.read(), torch.device("cpu")) as ranks:
        found = {"layouts": of_layouts(ranks), "torch": of_torch(ranks), "sent": sent_before_the_first_layer(ranks)}
        for name, options in RUNS.items():
            found[name] = [of_run(ranks, folder, options, kind) for kind in (DDP, FlatSum)]
        torch.save(found, folder / f"rank{ranks.rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strategy")
    for options in RUNS.values():
        compose("device=cpu", *options)  # once, for both
    workers = [Forked(functools.partial(one_rank, folder), "strategy", environment=r) for r in each_rank()]
    said = [worker.communicate(timeout=200)[0] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers), said
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(torch.as_tensor(found[name]), torch.as_tensor(value)), name


@pytest.mark.parametrize("num_micro", [1, 2])
@pytest.mark.parametrize("everywhere", [True, False], ids=["used", "used by one process"])
def test_gradients_are_those_of_one_sum(ranks, num_micro, everywhere):
    for rank in ranks:
        found, expected = rank["layouts"][num_micro, everywhere]
        assert_same_bits(found, expected)
        assert "unused" not in found and "frozen.weight" not in found and "sometimes.weight" in found
    assert_same_bits(*(rank["layouts"][num_micro, everywhere][0] for rank in ranks))


def test_gradients_are_those_of_one_process(ranks):
    net, x = net_and_data()
    for name, gradient in gradients(net, x, Strategy()).items():
        torch.testing.assert_close(ranks[0]["layouts"][1, True][0][name], gradient, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_torch(ranks):
    found, expected = ranks[0]["layouts"][1, True][0], ranks[0]["torch"]
    assert len(expected) > 5
    assert_same_bits({name: found[name] for name in expected}, expected)


@pytest.mark.parametrize("run", RUNS)
def test_a_run_ends_in_the_bits_of_one_sum(ranks, run):
    for rank in ranks:
        assert_same_bits(*rank[run])
    first, second = (rank[run][0] for rank in ranks)
    assert_same_bits({k: v for k, v in first.items() if "running" not in k},
                     {k: v for k, v in second.items() if "running" not in k})  # fmt: skip


def test_buckets_are_sent_while_the_last_pass_computes(ranks):
    (first_pass, last_pass), sent = ranks[0]["sent"]
    assert first_pass == []
    assert len(last_pass) >= 4 and len(sent) > len(last_pass)


def test_a_bucket_holds_each_gradient_in_the_format_of_its_parameter():
    net, _ = net_and_data()
    bucket = Bucket([net.first.weight, net.last.bias])
    gradient = torch.randn_like(net.first.weight)
    net.first.weight.grad = gradient.clone()
    bucket.begin()
    bucket.take_rest()
    view = net.first.weight.grad
    assert view.stride() == net.first.weight.stride() and torch.equal(view, gradient) and not bucket.missing
    assert view.untyped_storage().data_ptr() == bucket.flat.data_ptr()
    assert net.last.bias.grad is None and not bucket.views[net.last.bias].any()
    assert all((view.data_ptr() - bucket.flat.data_ptr()) % 128 == 0 for view in bucket.views.values())


def test_parameters_are_cut_by_size_and_type():
    sizes = [(10, torch.float32), (10, torch.float32), (30, torch.float32), (2, torch.float64), (2, torch.float32)]
    parameters = [nn.Parameter(torch.zeros(n, dtype=kind)) for n, kind in sizes]
    assert [[len(p) for p in group] for group in split(parameters, 80)] == [[10, 10], [30], [2], [2]]


def test_copies_of_a_module_send_nothing():
    """An evaluation that trains a copy of the encoder has no other processes."""
    net, x = net_and_data()
    DDP(Ranks(0, 2)).prepare([net])
    copy.deepcopy(net)(x).sum().backward()
    net(x).sum().backward()
