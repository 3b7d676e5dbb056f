"""Batches by step number, schedules by progress, and optimizers step by step."""

import math
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from timm.scheduler import CosineLRScheduler
from torch import nn

from sslcli.data.base import Columns, Dataset
from sslcli.data.loader import Loader
from sslcli.data.workers import default_workers
from sslcli.distributed.ranks import Ranks
from sslcli.errors import UserError
from sslcli.training.optim import adamw, lars, parameter_groups, scaled_lr, sgd
from sslcli.training.schedule import Constant, Cosine
from sslcli.types import Field, Spec


class Numbers(Dataset):
    """The sample's index as a column, made on demand; ``bad`` cannot be read."""

    def __init__(self, n, bad=-1):
        self.spec, self.n, self.bad = Spec(x=Field("vector", (), torch.int64)), n, bad

    def __len__(self):
        return self.n

    def fetch(self, index):
        if self.bad in index:
            raise UserError(f"dataset.path: sample {self.bad} cannot be read.")
        return {"x": index.clone()}


def loader(n=53, batch_size=8, accumulate=1, seed=0, workers=0, bad=-1, ranks=None):
    numbers = Numbers(n, bad)
    return Loader(numbers, batch_size=batch_size, accumulate=accumulate, seed=seed, workers=workers, ranks=ranks)


def take(loader, start, count):
    """The samples of ``count`` steps from ``start`` on, micro-batch by micro-batch."""
    stream = loader.batches(start)
    return [[micro["x"].tolist() for micro in next(stream)] for _ in range(count)]


# --- the loader -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "batch_size"), [(53, 8), (48, 8), (8, 8), (9, 1)])
def test_an_epoch_visits_each_sample_at_most_once_and_all_but_the_tail(n, batch_size):
    batches = loader(n, batch_size)
    assert batches.steps_per_epoch == n // batch_size
    for epoch in range(3):
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        seen = torch.cat([batches.index(step) for step in steps]).tolist()
        assert len(seen) == len(set(seen)) == n - n % batch_size and set(seen) <= set(range(n))


def test_epochs_differ_in_order_and_in_their_tail():
    batches = loader()
    first, second = (torch.cat([batches.index(6 * epoch + k) for k in range(6)]) for epoch in (0, 1))
    assert not torch.equal(first, second) and set(first.tolist()) != set(second.tolist())


def test_every_sample_is_drawn_about_equally_often_over_many_epochs():
    batches = loader(n=10, batch_size=4)  # 8 of 10 an epoch
    counts = torch.bincount(torch.cat([batches.index(step) for step in range(800)]), minlength=10)
    assert counts.sum() == 3200 and (counts - 320).abs().max() < 4.5 * (400 * 0.8 * 0.2) ** 0.5


def test_the_order_is_a_function_of_seed_and_step_only():
    forwards, shuffled = loader(), loader()
    steps = [17, 3, 0, 100, 3, 5, 6, 99]
    torch.manual_seed(5)
    found = {step: shuffled.index(step).tolist() for step in steps}
    assert all(forwards.index(step).tolist() == found[step] for step in sorted(steps))
    assert loader(seed=1).index(3).tolist() != found[3]
    assert loader(seed=-1).index(3).tolist() != found[3]


@pytest.mark.parametrize("accumulate", [1, 2, 4, 8])
def test_micro_batches_concatenate_to_the_batch(accumulate):
    cut = loader(accumulate=accumulate)
    for step, micros in enumerate(take(cut, 0, 8)):
        assert [len(micro) for micro in micros] == [8 // accumulate] * accumulate
        assert sum(micros, []) == loader().index(step).tolist()
    positions = np.concatenate([cut.positions(i) for i in range(accumulate)])
    assert positions.tolist() == list(range(8))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("start", [0, 1, 5, 6, 13])
def test_resuming_at_any_step_continues_the_undisturbed_stream(start, accumulate):
    undisturbed = take(loader(accumulate=accumulate), 0, 20)
    assert take(loader(accumulate=accumulate), start, 20 - start) == undisturbed[start:]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_on_4_then_2_then_3_processes_draws_what_one_draws(accumulate):
    """Each part of a batch stays at its positions, by which also crops, colours and masks are drawn."""
    whole = take(loader(100, 24), 0, 12)
    for size, start, stop in ((4, 0, 3), (2, 3, 7), (3, 7, 12)):  # an epoch has 4 steps
        parts = [loader(100, 24, accumulate, ranks=Ranks(rank, size)) for rank in range(size)]
        drawn = [take(part, start, stop - start) for part in parts]
        for k, steps in enumerate(zip(*drawn)):
            assert sum((sum(micros, []) for micros in steps), []) == whole[start + k][0]
        positions = [part.positions(m) for part in parts for m in range(accumulate)]
        assert np.concatenate(positions).tolist() == list(range(24))


@pytest.mark.parametrize("start", [0, 5])
def test_workers_fetch_the_same_stream(start):
    undisturbed = take(loader(accumulate=2), 0, 15)
    assert take(loader(accumulate=2, workers=2), start, 10) == undisturbed[start : start + 10]


def test_the_wait_for_data_is_counted():
    batches = loader()
    take(batches, 0, 3)
    assert 0 < batches.wait < 5


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_sample_arrives_as_the_datasets_own_message(workers):
    message = None
    try:  # not pytest.raises: it would keep the traceback, and with it the workers
        take(loader(bad=7, workers=workers), 0, 12)
    except UserError as error:
        message = str(error)
    assert message == "dataset.path: sample 7 cannot be read."


BAD_PICTURE = """
import sys
from sslcli.data.pictures.images import images
from sslcli.data.loader import Loader
from sslcli.data.workers import default_workers
from sslcli.errors import UserError

try:
    loader = Loader(images(path=sys.argv[1]), batch_size=2, accumulate=1, seed=0, workers=2)
    next(loader.batches(0))
except UserError:
    sys.exit(2)  # as the command does; the exit keeps the error, whose traceback keeps the workers
"""


@pytest.mark.slow
def test_a_process_that_leaves_on_an_unreadable_sample_does_not_wait_for_its_workers(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(b"no picture")
    command = [sys.executable, "-W", "ignore", "-c", BAD_PICTURE, str(tmp_path)]
    assert subprocess.run(command, timeout=25).returncode == 2


@pytest.mark.slow
def test_a_process_that_exits_in_the_middle_of_a_stream_does_not_wait_for_its_workers():
    """They ignore SIGTERM, with which multiprocessing ends them when the interpreter exits."""
    code = """
import torch
from sslcli.data.base import Columns
from sslcli.data.loader import Loader
from sslcli.types import Field, Spec

if __name__ == "__main__":
    dataset = Columns(Spec(x=Field("vector", (), torch.int64)), {"x": torch.arange(64)})
    batches = Loader(dataset, batch_size=8, accumulate=1, seed=0, workers=2).batches(0)
    next(batches)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_columns_in_memory_need_no_workers_and_others_do():
    memory = Columns(Spec(x=Field("vector", (), torch.int64)), {"x": torch.arange(5)})
    assert default_workers(memory) == 0 and default_workers(Numbers(5)) >= 1


# --- schedules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("warmup", "final"), [(0.0, 0.0), (0.1, 0.0), (0.25, 0.1), (0.0, 1.0)])
def test_cosine_is_its_closed_form(warmup, final):
    schedule = Cosine(warmup=warmup, final=final)
    assert schedule(warmup) == pytest.approx(1.0)
    assert schedule(1.0) == pytest.approx(final)
    assert schedule((1 + warmup) / 2) == pytest.approx((1 + final) / 2)  # half way down
    quarter = schedule(warmup + (1 - warmup) / 4)
    assert quarter == pytest.approx(final + (1 - final) * math.cos(math.pi / 8) ** 2)
    for share in (0.0, 0.3, 0.9):
        if warmup:
            assert schedule(share * warmup) == pytest.approx(share)


def test_cosine_is_torchs_without_warm_up():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40, eta_min=0.2)
    for step in range(41):
        assert Cosine(warmup=0.0, final=0.2)(step / 40) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_the_cosine_of_simmim_is_timms():
    """SimMIM, lr_scheduler.py and configs/swin_base__100ep: the warm-up covers the beginning of the cosine."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 2e-4)
    theirs = CosineLRScheduler(
        optimizer, t_initial=100, lr_min=1e-5, warmup_lr_init=1e-6, warmup_t=10, cycle_limit=1, t_in_epochs=False
    )
    ours = Cosine(warmup=0.1, final=0.05, initial=0.005, from_start=True)
    for step in (0, 1, 9, 10, 11, 50, 99):
        theirs.step_update(step)
        assert 2e-4 * ours(step / 100) == pytest.approx(optimizer.param_groups[0]["lr"]), step


def test_constant_warms_up_and_stays():
    assert [Constant(warmup=0.2)(p) for p in (0.0, 0.1, 0.2, 0.5, 1.0)] == pytest.approx([0, 0.5, 1, 1, 1])
    assert [Constant(warmup=0.0)(p) for p in (0.0, 0.5, 1.0)] == [1, 1, 1]


@pytest.mark.parametrize("warmup", [-0.1, 1.0, 5])
@pytest.mark.parametrize("schedule", [Cosine, Constant])
def test_a_warm_up_that_is_no_share_is_refused(schedule, warmup):
    with pytest.raises(ValueError, match="warmup"):
        schedule(warmup=warmup)


def test_a_final_rate_that_is_no_share_is_refused():
    with pytest.raises(ValueError, match="final"):
        Cosine(warmup=0.1, final=1.1)
    with pytest.raises(ValueError, match="initial"):
        Cosine(warmup=0.1, initial=-0.1)


# --- which parameters decay -------------------------------------------------------------------------


class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 4, 2)
        self.norm = nn.LayerNorm(4)
        self.batch_norm = nn.BatchNorm1d(4)
        self.words = nn.Embedding(5, 4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.pos_embed = nn.Parameter(torch.zeros(1, 9, 4))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
        self.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)


def names_of(module, group):
    members = {id(p) for p in group["params"]}
    return {name for name, p in module.named_parameters() if id(p) in members}


def test_biases_norms_tokens_position_tables_and_embeddings_do_not_decay():
    model = Patches()
    decayed, kept = parameter_groups([model])
    assert names_of(model, decayed) == {"embed.weight"}
    assert names_of(model, kept) == {
        *("embed.bias", "norm.weight", "norm.bias", "batch_norm.weight", "batch_norm.bias"),
        *("cls_token", "mask_token", "pos_embed", "relative_position_bias_table", "words.weight"),
    }


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_timms_own_list_of_parameters_without_decay_is_respected(name):
    model = timm.create_model(name, pretrained=False)
    kept = names_of(model, parameter_groups([model])[1])
    own = {n for n, _ in model.named_parameters() if any(word in n for word in model.no_weight_decay())}
    one_dimensional = {n for n, p in model.named_parameters() if p.ndim <= 1}
    assert own and kept == own | one_dimensional


def test_a_table_that_is_an_output_layer_too_is_not_decayed():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(3, 7, bias=False)
            self.words = nn.Embedding(7, 3)
            self.words.weight = self.out.weight

    decayed, kept = parameter_groups([Tied()])
    assert not decayed["params"] and len(kept["params"]) == 1


def test_groups_of_several_modules_hold_every_trained_parameter_once():
    modules = [nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))]
    decayed, kept = parameter_groups(modules)
    everything = [id(p) for module in modules for p in module.parameters()]
    assert sorted(id(p) for p in decayed["params"] + kept["params"]) == sorted(everything)
    assert len(decayed["params"]) == 2


# --- optimizers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "batch_size", "expected"),
    [("none", 1024, 0.1), ("linear", 1024, 0.4), ("linear", 64, 0.025), ("sqrt", 1024, 0.2)],
)
def test_the_learning_rate_scales_with_the_batch(scale, batch_size, expected):
    assert scaled_lr(0.1, scale, batch_size, 256) == pytest.approx(expected)
    parameter = [{"params": [nn.Parameter(torch.zeros(2, 2))]}, {"params": []}]
    for make in (adamw, sgd, lars):
        optimizer = make(parameter, batch_size, lr=0.1, scale=scale, base_batch=256)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([expected] * 2)


@pytest.mark.parametrize("make", [adamw, sgd, lars])
def test_a_negative_rate_or_decay_is_refused(make):
    groups = [{"params": [nn.Parameter(torch.zeros(2, 2))]}, {"params": []}]
    with pytest.raises(ValueError, match="lr"):
        make(groups, 1, lr=-0.1)
    with pytest.raises(ValueError, match="weight_decay"):
        make(groups, 1, lr=0.1, weight_decay=-0.1)
    with pytest.raises(ValueError, match="base_batch"):
        make(groups, 1, lr=0.1, base_batch=0)


def descend(make, reference, steps=5, **options):
    """Both from the same point along the same gradients: parameters of weight and bias after ``steps``."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = make(parameter_groups([model]), 256, **options)
    slow = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    state = {name: {} for name in slow}
    for step in range(1, steps + 1):
        for name, p in model.named_parameters():
            p.grad = torch.randn(p.shape, generator=generator)
            slow[name] = reference(slow[name], p.grad.double(), state[name], step, decays=name == "weight")
        optimizer.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach().double(), slow[name], rtol=1e-5, atol=1e-6)


def test_adamw_is_the_papers_algorithm():
    """Loshchilov and Hutter 2019, algorithm 2, with the decay scaled by the rate as in PyTorch."""
    lr, decay, b1, b2, eps = 0.05, 0.3, 0.8, 0.95, 1e-4

    def reference(p, g, state, t, decays):
        state["m"] = b1 * state.get("m", 0) + (1 - b1) * g
        state["v"] = b2 * state.get("v", 0) + (1 - b2) * g**2
        update = state["m"] / (1 - b1**t) / ((state["v"] / (1 - b2**t)).sqrt() + eps)
        return p - lr * update - lr * (decay if decays else 0) * p

    descend(adamw, reference, lr=lr, weight_decay=decay, betas=(b1, b2), eps=eps)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_momentum_with_coupled_decay(nesterov):
    lr, decay, momentum = 0.05, 0.3, 0.7

    def reference(p, g, state, t, decays):
        g = g + (decay if decays else 0) * p
        state["v"] = momentum * state.get("v", 0) + g
        return p - lr * (g + momentum * state["v"] if nesterov else state["v"])

    descend(sgd, reference, lr=lr, weight_decay=decay, momentum=momentum, nesterov=nesterov)


@pytest.mark.parametrize("decay_all", [False, True])
@pytest.mark.parametrize("exempt_lr", [None, 0.03])
@pytest.mark.parametrize("decay", [0.1, 0.0])
def test_lars_is_the_algorithm_of_the_published_codes(decay, exempt_lr, decay_all):
    """moco-v3's moco/optimizer.py, and alike in SimCLR, BYOL, Barlow Twins and VICReg: trust * |w| / |g + decay w|."""
    lr, momentum, trust = 0.5, 0.7, 0.02
    rates = {"lr": lr, "exempt_lr": exempt_lr, "decay_all": decay_all}

    def reference(p, g, state, t, decays):
        if decays or decay_all:
            g = g + decay * p
            g = trust * p.norm() / g.norm() * g
        state["v"] = momentum * state.get("v", 0) + g
        return p - (lr if decays or exempt_lr is None else exempt_lr) * state["v"]

    descend(lars, reference, **rates, weight_decay=decay, momentum=momentum, trust_coeff=trust, scale="none")


@pytest.mark.parametrize(
    ("weight", "gradient", "expected"),
    [
        ([3.0, 4.0], [0.0, 0.0], [2.994, 3.992]),  # only the decay moves it: by 0.001 of its norm, times the rate of 2
        ([0.0, 0.0], [3.0, 4.0], [-6.0, -8.0]),  # a parameter of norm zero moves as by SGD
        ([3.0, 4.0], None, [3.0, 4.0]),
    ],
)
def test_lars_where_a_norm_is_zero(weight, gradient, expected):
    parameter = nn.Parameter(torch.tensor([weight]))
    parameter.grad = None if gradient is None else torch.tensor([gradient])
    lars([{"params": [parameter]}, {"params": []}], 1, lr=2.0, weight_decay=0.1, scale="none").step()
    torch.testing.assert_close(parameter.data, torch.tensor([expected]))


@pytest.mark.parametrize("before", [{"always_adapt": True, "weight_decay": 0.0}, {"weight_decay": 0.1}])
def test_lars_goes_on_from_a_checkpoint_with_timms(before):
    """Its groups had other keys, and its first version adapted what decays."""
    groups = parameter_groups([nn.Linear(3, 2)])
    ours = lars(groups, 256, lr=0.3)
    state = ours.state_dict()
    for group, keys in zip(state["param_groups"], (before, {"weight_decay": 0.0})):
        del group["adapt"]
        group |= {"always_adapt": False, "nesterov": False, "trust_clip": False, **keys}
    ours.load_state_dict(state)
    assert [group["adapt"] for group in ours.param_groups] == [True, False]


def test_the_rate_of_biases_scales_with_the_batch_too():
    """Barlow Twins' main.py: 0.2 and 0.0048, both times batch / 256."""
    groups = parameter_groups([nn.Linear(3, 2)])
    assert [group["lr"] for group in lars(groups, 2048, lr=0.2, exempt_lr=0.0048).param_groups] == [1.6, 0.0384]


@pytest.mark.parametrize("make", [adamw, sgd, lars])
def test_all_parameters_decay_when_asked(make):
    groups = parameter_groups([nn.Linear(3, 2)])
    for decay_all, expected in ((True, [0.1, 0.1]), (False, [0.1, 0.0])):
        optimizer = make(groups, 1, lr=0.1, weight_decay=0.1, decay_all=decay_all)
        assert [group["weight_decay"] for group in optimizer.param_groups] == expected
