"""``train.sync_norm``: BatchNorm of two processes is that of one process with the whole batch."""

import functools
import re
from dataclasses import replace

import pytest
import torch
from support.forked import Forked
from support.helpers import TINY, compose, each_rank, make_trainer, trainer_of
from timm.layers import BatchNormAct2d
from torch import nn

from sslcli.commands.checks import check_fit, warn_of_batch_norm
from sslcli.components import build_components
from sslcli.config.identity import differences, settings
from sslcli.distributed.ranks import Ranks, joined
from sslcli.distributed.start import Start
from sslcli.errors import UserError
from sslcli.training.grad_cache import backward, frozen_statistics
from sslcli.training.strategy import DDP, Strategy
from sslcli.training.sync_norm import SyncNorm, synchronise
from sslcli.types import Loss

RUN = (*TINY, "device=cpu", "train.precision=fp32", "train.sync_norm=true", "optimizer=sgd", "optimizer.lr=0.05")
# Both kinds of heads, a teacher, and timm's BatchNorm with an activation in it.
RUNS = {
    "infonce": (),
    "moco 3": (
        "objective=moco",
        "objective.version=3",
    ),
    "timm": (
        "encoder=timm",
        "encoder.name=test_efficientnet",
    ),
}
NORMS = {
    "rows": (lambda: nn.BatchNorm1d(3), (8, 3)),
    "sequences": (lambda: nn.BatchNorm1d(3, momentum=None), (8, 3, 5)),
    "pictures": (lambda: nn.BatchNorm2d(3, eps=1e-3, momentum=0.3), (8, 3, 4, 4)),
    "without scale": (lambda: nn.BatchNorm2d(3, affine=False), (8, 3, 4, 4)),
    "without statistics": (lambda: nn.BatchNorm1d(3, track_running_stats=False), (8, 3)),
    "with an activation": (lambda: BatchNormAct2d(3), (8, 3, 4, 4)),
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4), nn.BatchNorm1d(4))

    def forward(self, x):
        return self.layers(x)


def of_norm(name, ranks):
    """Output, gradients and statistics of a layer after two passes, and after one that must not move statistics."""
    make, shape = NORMS[name]
    torch.manual_seed(1)
    holder = nn.Sequential(make())
    if holder[0].weight is not None:
        nn.init.uniform_(holder[0].weight, 0.5, 2)
        nn.init.uniform_(holder[0].bias)
    if ranks.size > 1:
        synchronise(holder)
    whole, slope = 100 + 3 * torch.randn(2, *shape), torch.randn(shape)
    for batch in whole:
        x = batch.chunk(ranks.size)[ranks.rank].clone().requires_grad_()
        y = holder(x)
    (y * slope.chunk(ranks.size)[ranks.rank]).sum().backward()
    with frozen_statistics([holder]), torch.no_grad():
        holder(x)
    rows = {"y": ranks.gather(y), "gradient": ranks.gather(x.grad)}
    of_weights = {name: p.grad.clone() for name, p in holder.named_parameters()}
    if ranks.size > 1:
        for gradient in of_weights.values():
            torch.distributed.all_reduce(gradient)
    return rows | of_weights | {name: value.clone() for name, value in holder.named_buffers()}


def of_cache(ranks):
    """Gradients and statistics of two micro-batches, each of which is spread over all processes."""
    torch.manual_seed(2)
    net, x = Net().double(), torch.randn(2, 8, 6, dtype=torch.float64)
    if ranks.size > 1:
        synchronise(net)
    strategy = DDP(ranks) if ranks.size > 1 else Strategy()
    strategy.prepare([net])
    backward(
        lambda m: {"z": net(x[m].chunk(ranks.size)[ranks.rank])},
        lambda rows: Loss(rows["z"].exp().mean() + rows["z"].square().mean(0).prod(), {}),
        2,
        modules=[net],
        scale=lambda loss: loss,
        strategy=strategy,
    )
    return {name: p.grad for name, p in net.named_parameters()} | dict(net.named_buffers())


def of_run(options, ranks, folder):
    """What three steps leave behind, in double precision: in single, rounding turns a ReLU on or off."""
    config = compose(*RUN, *options)
    parts = build_components(config)
    for module in (parts.encoder, parts.objective):
        module.double()
    parts.views.register_forward_hook(lambda module, inputs, views: [replace(v, x=v.x.double()) for v in views])
    trainer = trainer_of(config, folder, parts=parts, ranks=ranks)
    trainer.fit()
    modules = {"encoder": trainer.encoder, "objective": trainer.objective}
    return {f"{part}.{name}": v for part, module in modules.items() for name, v in module.state_dict().items()}


def found_by(ranks, folder):
    found = {("norm", name): of_norm(name, ranks) for name in NORMS}
    found["cache"] = of_cache(ranks)
    return found | {("run", name): of_run(options, ranks, folder) for name, options in RUNS.items()}


def one_rank(folder):
    with joined(Start.read(), torch.device("cpu")) as ranks:
        torch.save(found_by(ranks, folder), folder / f"rank{ranks.rank}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What one process finds, and each of two."""
    folder = tmp_path_factory.mktemp("sync")
    for options in RUNS.values():
        compose(*RUN, *options)  # once, for all
    workers = [Forked(functools.partial(one_rank, folder), "sync", environment=r) for r in each_rank()]
    whole = found_by(Ranks(), folder)
    said = [worker.communicate(timeout=200)[0] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers), said
    return [whole, *(torch.load(folder / f"rank{rank}.pt") for rank in (0, 1))]


def compare(found, name, tolerance):
    whole, *ranks = (part[name] for part in found)
    for rank in ranks:
        assert rank.keys() == whole.keys()
        for key, value in whole.items():
            size = max(1.0, float(value.abs().max()))
            torch.testing.assert_close(
                rank[key], value, rtol=tolerance, atol=tolerance * size, msg=lambda m, k=key: f"{k}: {m}"
            )
    first, second = ranks
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", NORMS)
def test_a_layer_is_that_of_one_process(found, name):
    compare(found, ("norm", name), 1e-6 if name != "sequences" else 2e-6)


def test_both_passes_over_micro_batches_normalise_alike_and_move_statistics_once(found):
    compare(found, "cache", 1e-12)
    assert int(found[1]["cache"]["layers.1.num_batches_tracked"]) == 2


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_are_one_with_batch_norm(found, name):
    compare(found, ("run", name), 1e-9)
    assert any("running_mean" in key for key in found[0]["run", name])


def test_a_synchronised_model_evaluates_and_trains_alone_as_before():
    """An evaluation has no other processes; the names in checkpoints stay."""
    torch.manual_seed(0)
    plain, model, x = Net(), Net(), torch.randn(8, 6)
    model.load_state_dict(plain.state_dict())
    synchronise(model)
    assert isinstance(model.layers[1], SyncNorm) and model.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(model(x), plain(x)) and torch.equal(model.eval()(x), plain.eval()(x))


def test_another_kind_of_batch_norm_is_refused():
    class Mine(nn.BatchNorm1d):
        pass

    with pytest.raises(UserError, match=r"train\.sync_norm: Mine of this model"):
        synchronise(nn.Sequential(Mine(3)))


class Lines:
    def __init__(self):
        self.said = []

    def warn(self, text):
        self.said.append(text)


@pytest.mark.parametrize(
    ("options", "ranks", "warning"),
    [
        ((), Ranks(), None),
        ((), Ranks(0, 2), "one process at a time.*train.sync_norm=true takes all processes together"),
        (("train.sync_norm=true",), Ranks(0, 2), None),
        (
            ("train.sync_norm=true", "train.accumulate=2"),
            Ranks(0, 2),
            "of all processes at a time, so train.accumulate",
        ),
        (("train.accumulate=2",), Ranks(), "one process at a time"),
        (("encoder.norm=layer", "objective.norm=layer"), Ranks(0, 2), None),
    ],
)
def test_the_warning_says_what_batch_norm_sees(options, ranks, warning):
    config, lines = compose(*TINY, *options), Lines()
    warn_of_batch_norm(config, build_components(config), ranks, lines)
    assert lines.said == [] if warning is None else (len(lines.said) == 1 and re.search(warning, lines.said[0]))


def test_one_sample_a_process_is_enough(tmp_path):
    trainer = make_trainer(tmp_path, *TINY, "train.batch_size=2")
    config = compose(*TINY, "train.batch_size=2")
    parts = build_components(config)
    with pytest.raises(UserError, match="BatchNorm needs micro-batches of at least 2"):
        check_fit(config, parts, trainer.compute, Ranks(0, 2))
    config.train.sync_norm = True
    check_fit(config, parts, trainer.compute, Ranks(0, 2))


def test_it_is_part_of_a_runs_name_only_where_it_is_on():
    off, on = compose(), compose("train.sync_norm=true")
    assert "train.sync_norm" not in settings(off) and settings(on) == settings(off) | {"train.sync_norm": True}
    assert differences(off, on) == (["train.sync_norm: False -> True"], [])
