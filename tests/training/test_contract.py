"""The contract: exact accumulation for every objective, and every modality through the unchanged loop."""

import pytest
import torch
from support import small_models  # noqa: F401  registers models
from support.helpers import TINY, make_trainer
from support.modalities import Bag, Towers, token_dataset, user_item_dataset, vector_dataset

from sslcli.components import Components
from sslcli.distributed.ranks import Ranks
from sslcli.encoders.mlp import MLP
from sslcli.objectives.infonce import InfoNCE
from sslcli.training.grad_cache import backward
from sslcli.types import Loss
from sslcli.views.base import PassThrough

EXACT = ("train.precision=fp32", "encoder.norm=layer")
OBJECTIVES = {
    "infonce": ("objective.norm=layer",),
    "simmim": (),
    "joint": ("objective.parts.infonce.norm=layer",),
}


def gradient_of_first_step(trainer):
    """Loss and gradients of step 0."""
    trainer.encoder.train()
    trainer.objective.train()
    loss, _ = trainer.gradients(next(trainer.loader.batches(0)))
    return {"loss": loss.total.detach()} | {
        f"{part}.{name}": p.grad.clone()
        for part, module in (("encoder", trainer.encoder), ("objective", trainer.objective))
        for name, p in module.named_parameters()
        if p.grad is not None
    }


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("encoder", ["encoder=convnet_small", "encoder=timm encoder.name=vit_mini"])
def test_accumulation_gives_the_same_loss_and_gradient(tmp_path, objective, encoder):
    options = (*TINY, *EXACT, f"objective={objective}", *encoder.split(), *OBJECTIVES[objective])
    whole = gradient_of_first_step(make_trainer(tmp_path, *options))
    cut = gradient_of_first_step(make_trainer(tmp_path, *options, "train.accumulate=4"))
    assert whole.keys() == cut.keys()
    for name in whole:
        torch.testing.assert_close(cut[name], whole[name], rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
        assert whole[name].abs().sum() > 0 or name.endswith(("filler", "mask_token"))


def test_accumulation_without_the_cache_would_be_wrong(tmp_path):
    """The test above can fail: averaging the losses of micro-batches is another gradient."""
    options = (*TINY, *EXACT, "objective.norm=layer")
    whole = gradient_of_first_step(make_trainer(tmp_path, *options))
    small = gradient_of_first_step(make_trainer(tmp_path, *options, "train.batch_size=4"))
    assert abs(float(whole["loss"] - small["loss"])) > 0.1


def test_a_group_of_one_process_gives_the_same_bits(tmp_path):
    """As a run with NCCL on one GPU does (test_gpu.py): everything goes through the group."""
    options = (*TINY, *EXACT, "objective.norm=layer", "train.accumulate=2")
    alone = gradient_of_first_step(make_trainer(tmp_path, *options))
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        grouped = gradient_of_first_step(make_trainer(tmp_path, *options, ranks=Ranks(in_group=True)))
    finally:
        torch.distributed.destroy_process_group()
    assert alone.keys() == grouped.keys() and all(torch.equal(alone[name], grouped[name]) for name in alone)


def test_batch_norm_statistics_move_once_a_step(tmp_path):
    trainer = make_trainer(tmp_path, *TINY, "train.accumulate=4")
    trainer.train_step(next(trainer.loader.batches(0)))
    counts = {name: int(b) for name, b in trainer.encoder.named_buffers() if name.endswith("tracked")}
    assert set(counts.values()) == {4}  # one for each micro-batch, not two


def test_dropout_is_alike_in_both_passes(tmp_path):
    """With dropout the gradient of the cached loss is that of the very same masks."""
    dataset = token_dataset()
    torch.manual_seed(0)
    encoder = Bag(dataset.spec, dropout=0.5)
    parts = Components(dataset, encoder, InfoNCE(encoder, norm="layer"), PassThrough(dataset.spec, dataset.spec, 2))
    trainer = make_trainer(tmp_path, *TINY, "train.precision=fp32", "train.accumulate=2", parts=parts)
    batch = next(trainer.loader.batches(0))
    seen = []
    original = trainer.objective.project

    def project(features):
        rows = original(features)
        seen.append({k: v.detach().clone() for k, v in rows.items()})
        return rows

    trainer.objective.project = project
    trainer.train_step(batch)
    assert len(seen) == 4
    for first, second in ((0, 2), (1, 3)):
        assert torch.equal(seen[first]["z1"], seen[second]["z1"])
        assert not torch.equal(seen[first]["z1"], seen[first]["z2"])  # dropout makes the two views differ


def modalities():
    tokens, pairs, vectors = token_dataset(), user_item_dataset(), vector_dataset()
    return {
        "tokens": (tokens, lambda: Bag(tokens.spec), None),
        "user-item": (pairs, lambda: Towers(pairs.spec), ["user", "item"]),
        "vectors": (vectors, lambda: MLP(vectors.spec, hidden_dim=16), None),
    }


@pytest.mark.parametrize("name", ["tokens", "user-item", "vectors"])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_other_modalities_train_through_the_unchanged_loop(tmp_path, name, accumulate):
    dataset, make_encoder, columns = modalities()[name]
    torch.manual_seed(0)
    encoder = make_encoder()
    parts = Components(
        dataset, encoder, InfoNCE(encoder, norm="layer"), PassThrough(dataset.spec, dataset.spec, 2, columns=columns)
    )
    trainer = make_trainer(
        tmp_path, *TINY, "train.steps=40", "optimizer.lr=0.01", f"train.accumulate={accumulate}", parts=parts
    )
    trainer.fit()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert trainer.step == 40 and lines
    trained = {k: v.clone() for k, v in encoder.state_dict().items()}
    assert all(v.isfinite().all() for v in trained.values() if v.is_floating_point())


@pytest.mark.parametrize("name", ["tokens", "user-item"])
def test_other_modalities_learn(tmp_path, name):
    """The contrastive loss falls well below that of the untrained encoder."""
    dataset, make_encoder, columns = modalities()[name]
    torch.manual_seed(0)
    encoder = make_encoder()
    parts = Components(
        dataset, encoder, InfoNCE(encoder, norm="layer"), PassThrough(dataset.spec, dataset.spec, 2, columns=columns)
    )
    trainer = make_trainer(tmp_path, *TINY, "train.steps=60", "optimizer.lr=0.02", "schedule=constant", parts=parts)
    first, _ = trainer.train_step(next(trainer.loader.batches(0)))
    trainer.fit()
    last, _ = trainer.train_step(next(trainer.loader.batches(trainer.step)))
    assert float(last.total.detach()) < 0.8 * float(first.total.detach())


def test_backward_takes_integer_outputs_along():
    weight = torch.tensor(2.0, requires_grad=True)

    def project(m):
        return {"z": weight * torch.tensor([m + 1.0]), "id": torch.tensor([m])}

    def loss(rows):
        return Loss((rows["z"] * rows["id"]).sum(), {})

    result, outputs = backward(project, loss, 3, modules=[], scale=lambda x: x)
    assert outputs["id"].tolist() == [0, 1, 2]
    assert float(result.total) == 2.0 * (2 * 1 + 3 * 2)
    assert float(weight.grad) == 2 * 1 + 3 * 2
