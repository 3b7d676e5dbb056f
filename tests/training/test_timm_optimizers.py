"""``optimizer=timm``: against the optimizers that timm and torch make themselves, and through ssl-train."""

import json
from pathlib import Path

import pytest
import torch
from timm.optim import create_optimizer_v2
from torch import nn

from sslcli.training.optim import parameter_groups, timm

NAMES = ["lamb", "adan", "lion", "muon", "nadamw", "lookahead_sgd"]


def toy() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))


def descend(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Least squares on other random data in every step."""
    for step in steps:
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (model(x) - x[:, :3]).pow(2).mean().backward()
        optimizer.step()


def assert_same_bits(first: nn.Module, second: nn.Module) -> None:
    for (name, mine), theirs in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize("name", NAMES)
def test_a_toy_problem_ends_where_timms_own_optimizer_ends(name):
    """timm groups the parameters of a whole model itself, in another order: no weight decay on biases and norms."""
    mine, theirs = toy(), toy()
    descend(mine, timm(parameter_groups([mine]), 64, name=name, lr=0.02, weight_decay=0.1), range(10))
    descend(theirs, create_optimizer_v2(theirs, name, lr=0.02, weight_decay=0.1), range(10))
    torch.testing.assert_close(mine.state_dict(), theirs.state_dict(), rtol=1e-5, atol=1e-6)
    assert not torch.equal(mine[0].weight, toy()[0].weight)


def test_options_reach_the_optimizer_and_adamw_is_torchs():
    mine, theirs = toy(), toy()
    optimizer = timm(parameter_groups([mine]), 64, name="adamw", weight_decay=0.1, options={"betas": (0.7, 0.9)})
    decayed, kept = parameter_groups([theirs])
    groups = [{**decayed, "weight_decay": 0.1}, {**kept, "weight_decay": 0.0}]
    descend(mine, optimizer, range(10))
    descend(theirs, torch.optim.AdamW(groups, lr=1e-3, betas=(0.7, 0.9)), range(10))
    assert_same_bits(mine, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_the_state_of_a_checkpoint_goes_on_in_the_same_bits(name, tmp_path):
    whole = toy()
    optimizer = timm(parameter_groups([whole]), 64, name=name, lr=0.02)
    descend(whole, optimizer, range(5))
    torch.save([whole.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    descend(whole, optimizer, range(5, 10))
    resumed = toy()
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed.load_state_dict(weights)
    optimizer = timm(parameter_groups([resumed]), 64, name=name, lr=0.02)
    optimizer.load_state_dict(state)
    descend(resumed, optimizer, range(5, 10))
    assert_same_bits(whole, resumed)


def test_the_learning_rate_grows_with_the_batch():
    optimizer = timm(parameter_groups([toy()]), 1024, name="lamb", lr=0.1, scale="sqrt", base_batch=256)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.2, 0.2])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optimizer.name=lmab"], "Did you mean 'lamb'?"),
        (["optimizer.name=AdamW"], "Did you mean 'adamw'?"),
        (["optimizer.name=adahessian"], "optimizer: name=adahessian is not an optimizer of timm"),
        (["optimizer.name=kron"], "run and resume exactly"),
        (["optimizer.options={beta: 0.9}"], "unexpected keyword argument 'beta'"),
        (["optimizer.name=adan", "optimizer.options={betas: [0.9, 0.99]}"], "timm cannot build the optimizer adan"),
        (["optimizer.weight_decay=-1"], "weight_decay=-1 must be at least 0"),
    ],
)
def test_what_timm_does_not_have_or_take_is_one_line(run, overrides, said):
    code, _, err = run("debug=tiny", "optimizer=timm", *overrides)
    assert code == 2 and said in err and err.strip().count("\n") == 0


@pytest.mark.parametrize("name", ["lamb", "lion", "adan"])
def test_ssl_train_trains_with_it(run, name):
    code, out, err = run("debug=tiny", "optimizer=timm", f"optimizer.name={name}", "probe=none", "run_dir=r",
                         "log.report=false", "device.threads=1")  # fmt: skip
    assert code == 0, err
    losses = [json.loads(line)["loss"] for line in Path("r/metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 20 and sum(losses[-5:]) < sum(losses[:5])
