"""``train.recompute``: the same bits from fewer saved tensors. Changing it, or ``train.accumulate``, on resume."""

from pathlib import Path

import pytest
import torch
from support.helpers import TINY, compose, make_trainer
from support.marks import rest_is_slow
from support.modalities import Bag, token_dataset
from torch import nn

from sslcli.components import build_components
from sslcli.config.identity import differences, settings
from sslcli.encoders.dropout import drops
from sslcli.errors import UserError
from sslcli.training.resume import free_keys

VIT = ("encoder=timm", "encoder.name=test_vit", "encoder.drop_path=0.3")
RESNET = ("encoder=timm", "encoder.name=test_resnet", "dataset.size=32")
MASKED = ("objective=simmim", "objective.visible_only=true", "objective.mask=random")
CASES = {
    "ViT": (*VIT, *MASKED, "train.accumulate=2"),
    "Swin": ("encoder=swin_tiny", "encoder.embed_dim=12", "encoder.drop_path=0.3", "train.precision=bf16"),
    "BatchNorm": (*RESNET, "train.accumulate=2"),
}


def saved_bytes(trainer):
    """Bytes that the graph of a batch's projections keeps for the backward pass."""
    sizes = {}
    weights = {p.untyped_storage().data_ptr() for module in trainer.modules for p in module.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = trainer.projection(next(trainer.loader.batches(0)))(0)
    assert kept
    return sum(sizes.values())


def trained(folder, *options):
    """A trainer after two steps, with what it keeps in memory for one."""
    trainer = make_trainer(folder, *TINY, "train.precision=fp32", "train.steps=2", *options)
    before = {name: b.clone() for name, b in trainer.encoder.named_buffers()}
    size = saved_bytes(trainer)
    for name, buffer in trainer.encoder.named_buffers():  # the forward pass of this measurement has moved them
        buffer.copy_(before[name])
    trainer.fit()
    return trainer, size


@pytest.mark.parametrize("case", rest_is_slow(CASES, "ViT"))
def test_blocks_are_computed_again_in_the_same_bits(tmp_path, case):
    (plain, whole), (again, part) = (
        trained(tmp_path, *CASES[case], f"train.recompute={w}") for w in ("none", "blocks")
    )
    assert part < 0.8 * whole
    for one, two in zip(plain.modules, again.modules):
        expected = two.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in one.state_dict().items())


def test_statistics_would_move_twice_without_care(tmp_path):
    """The comparison above can fail: a pass that is computed again moves the statistics of BatchNorm."""
    torch.manual_seed(0)
    trainer = make_trainer(tmp_path, *TINY, *RESNET, "train.recompute=blocks")
    kept = trainer.projection(next(trainer.loader.batches(0)))(0)
    sum(rows.sum() for rows in kept.values()).backward()
    counts = {int(b) for name, b in trainer.encoder.named_buffers() if name.endswith("tracked")}
    assert counts == {1, 2}  # the stem is no block


WITHOUT = [(), ("encoder=mlp",), ("encoder=timm", "encoder.name=dla46_c", "encoder.stem=standard", "dataset.size=32")]


@pytest.mark.parametrize("options", WITHOUT)
def test_an_encoder_without_blocks_is_refused(tmp_path, options):
    with pytest.raises(UserError, match=r"train\.recompute=blocks: \w+ has no blocks that can be computed again\. Use"):
        make_trainer(tmp_path, *TINY, *options, "train.recompute=blocks")


def test_a_wrong_word_and_an_encoder_without_blocks_end_with_one_line(run):
    code, _, err = run("debug=tiny", "train.recompute=blocks", "run_dir=a")
    assert code == 2 and err.count("\n") == 1 and not Path("a").exists()
    code, _, err = run("debug=tiny", "train.recompute=block")
    assert code == 2 and "train.recompute: there is no 'block'. Did you mean 'blocks'?" in err


def test_it_is_no_part_of_a_runs_name():
    plain, again = compose(), compose("train.recompute=blocks")
    assert settings(plain) == settings(again)
    assert differences(plain, again) == ([], ["train.recompute: none -> blocks"])


def test_accumulate_is_free_where_nothing_depends_on_the_cut():
    layer = build_components(compose(*TINY, "encoder.norm=layer", "objective.norm=layer"))
    batch = build_components(compose(*TINY, "objective.norm=layer"))
    dropping = build_components(compose(*TINY, *VIT, "objective.norm=layer"))
    assert free_keys(layer.encoder, layer.objective) == ("train.accumulate",)
    assert free_keys(batch.encoder, batch.objective) == free_keys(dropping.encoder, dropping.objective) == ()
    assert drops(Bag(token_dataset().spec, dropout=0.5)) and not drops(Bag(token_dataset().spec, dropout=0.0))
    assert drops(nn.MultiheadAttention(4, 2, dropout=0.1)) and not drops(nn.MultiheadAttention(4, 2))


def test_accumulate_changes_on_resume_where_it_is_free(run):
    layer = ("debug=tiny", "encoder.norm=layer", "objective.norm=layer", "probe=none", "log.report=false", "run_dir=a")
    assert run(*layer, "train.steps=2")[0] == 0
    code, out, err = run(*layer, "train.steps=3", "train.accumulate=2")
    assert code == 0, err
    assert "train.accumulate: 1 -> 2" in out and "resuming a at step 2" in out
