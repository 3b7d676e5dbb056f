"""The joint objective: shared passes, ramps, balance, and what it says of the terms' gradients."""

import json

import pytest
import torch
from support.helpers import TINY, compose, hook_of, make_trainer, randomness

from sslcli.components import build_components
from sslcli.errors import UserError
from sslcli.features import Features
from sslcli.objectives.masking import scaled_to
from sslcli.objectives.ramped_weight import Weight
from sslcli.training.gradient_conflict import GradientConflict

LAYER = ("encoder.norm=layer", "train.precision=fp32")


def one_step(trainer):
    """Loss, outputs and the encoder's gradients of step 0."""
    for module in trainer.modules:
        module.train()
    trainer.objective.before_step(0.0)
    loss, outputs = trainer.gradients(next(trainer.loader.batches(0)))
    grads = {name: p.grad.clone() for name, p in trainer.encoder.named_parameters() if p.grad is not None}
    return {"loss": loss, "outputs": outputs, "grads": grads}


def test_the_gradient_is_the_weighted_sum_of_the_parts_gradients(tmp_path):
    """Views and masks are functions of the step, so each part alone sees the same ones."""
    common = (*TINY, *LAYER, "views=small")
    joint = one_step(
        make_trainer(tmp_path, *common, "objective=joint", "objective.parts.infonce.norm=layer",
                     "objective.weights.infonce=0.7", "objective.weights.simmim=2")
    )  # fmt: skip
    alone = {}
    for name in ("infonce", "simmim"):
        extra = ("objective.norm=layer",) if name == "infonce" else ()
        trainer = make_trainer(tmp_path, *common, f"objective={name}", *extra)
        twin = make_trainer(tmp_path, *common, "objective=joint", "objective.parts.infonce.norm=layer")
        trainer.objective.load_state_dict(twin.objective.parts[name].state_dict())
        alone[name] = one_step(trainer)
    for name, gradient in joint["grads"].items():
        parts = [w * alone[p]["grads"].get(name, torch.zeros(())) for p, w in (("infonce", 0.7), ("simmim", 2.0))]
        torch.testing.assert_close(gradient, sum(parts), rtol=1e-4, atol=1e-6)


def test_share_masked_is_one_masked_pass_a_view_and_a_clean_teacher():
    config = compose(*TINY, *LAYER, "objective=joint_masked", "objective.parts.moco.norm=layer")
    parts = build_components(config)
    index = torch.arange(6)
    r = randomness(6)
    calls = []

    def encode(view, mask=None, **options):
        calls.append(mask)
        return parts.encoder(view, mask, **options)

    views = parts.views(parts.dataset.fetch(index), r)
    outputs = parts.objective.project(Features(encode, views, r))
    assert len(calls) == 2 and all(mask is not None for mask in calls)
    moco, simmim = parts.objective.parts["moco"], parts.objective.parts["simmim"]
    errors = 0
    for i in (0, 1):
        mask = simmim.draw(r, i)
        encoded = parts.encoder(views[i], scaled_to(mask, *simmim.grid))
        errors = errors + simmim.errors(encoded, views[i], mask)["error"]
        torch.testing.assert_close(outputs[f"moco/q{i + 1}"], moco.predictor(moco.head(encoded.pooled)))
        clean = moco.teacher.head(moco.teacher.encoder(views[i]).pooled)
        torch.testing.assert_close(outputs[f"moco/k{i + 1}"], clean)
    torch.testing.assert_close(outputs["simmim/error"], errors)
    assert not torch.equal(simmim.draw(r, 0), simmim.draw(r, 1))


def test_a_ramp_goes_straight_from_one_value_to_the_other():
    ramp = Weight("x", {"from": 1.0, "to": 0.2, "start": 0.25, "end": 0.75})
    assert [ramp.value(p) for p in (0, 0.25, 1, 0.75)] == pytest.approx([1, 1, 0.2, 0.2])
    assert ramp.value(0.5) == pytest.approx(0.6)
    assert Weight("x", 3).value(0.4) == 3


def test_weights_move_during_training_and_are_logged(tmp_path):
    trainer = make_trainer(
        tmp_path, *TINY, "objective=joint", "objective.weights.simmim={from: 2, to: 0}", "train.steps=4", "log.every=1"
    )
    trainer.fit()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["simmim/weight"] for line in lines] == pytest.approx([2, 1.5, 1, 0.5])
    assert "infonce/weight" not in lines[0]
    for line in lines:
        assert line["loss"] == pytest.approx(line["infonce"] + line["simmim/weight"] * line["simmim"], rel=1e-5)


def test_balance_divides_by_chance(tmp_path):
    trainer = make_trainer(tmp_path, *TINY, "objective=joint", "objective.balance=chance", "log.every=1")
    trainer.fit()
    for line in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines()):
        assert line["infonce/chance"] == pytest.approx(3.4339872, rel=1e-6)  # log(2 * 16 - 1)
        expected = line["infonce"] / line["infonce/chance"] + line["simmim"] / line["simmim/chance"]
        assert line["loss"] == pytest.approx(expected, rel=1e-5)


def test_gradients_of_the_terms_are_compared_at_log_steps_without_a_trace(tmp_path):
    def final(folder, log_every):
        folder.mkdir()
        trainer = make_trainer(
            folder, *TINY, "objective=joint", "train.steps=4", f"log.every={log_every}", "train.accumulate=2"
        )
        trainer.fit()
        return trainer, [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    often, lines = final(tmp_path / "often", 1)
    seldom, last = final(tmp_path / "seldom", 100)
    for part in ("encoder", "objective"):
        one, two = getattr(often, part).state_dict(), getattr(seldom, part).state_dict()
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert "gradient_cosine/infonce/simmim" not in last[0]
    for line in lines:
        assert line["gradient_norm/infonce"] > 0 and line["gradient_norm/simmim"] > 0
        assert -1 <= line["gradient_cosine/infonce/simmim"] <= 1


def test_the_gradient_cosine_is_that_of_the_terms_own_gradients(tmp_path):
    options = (*TINY, *LAYER, "objective=joint", "objective.parts.infonce.norm=layer", "log.every=1")
    trainer = make_trainer(tmp_path, *options)
    for module in trainer.modules:
        module.train()
    compared = hook_of(trainer, GradientConflict)
    compared.before_step(trainer, next(trainer.loader.batches(0)))
    reported = compared.metrics(trainer)
    last = "trunk.7.weight"  # the third convolution
    own = {}
    for name, off in (("infonce", "simmim"), ("simmim", "infonce")):
        own[name] = one_step(make_trainer(tmp_path, *options, f"objective.weights.{off}=0"))["grads"][last]
    assert reported["gradient_norm/infonce"] == pytest.approx(own["infonce"].norm().item(), rel=1e-4)
    cosine = torch.nn.functional.cosine_similarity(own["infonce"].flatten(), own["simmim"].flatten(), dim=0)
    assert reported["gradient_cosine/infonce/simmim"] == pytest.approx(cosine.item(), abs=1e-4)


def test_a_third_part_from_the_command_line(tmp_path):
    trainer = make_trainer(
        tmp_path, *TINY, "objective=joint", "+objective@objective.parts.byol=byol", "+objective.weights.byol=0.5"
    )
    found = one_step(trainer)
    assert set(found["loss"].terms) == {"infonce", "simmim", "byol"}


def test_parts_that_group_the_views_otherwise_do_not_share_a_pass():
    """InfoNCE's BatchNorm sees both views, BYOL's one, whichever part comes first."""
    parts = build_components(compose(*TINY, "objective=joint", "+objective@objective.parts.byol=byol",
                                "+objective.weights.byol=1", "+objective@objective.parts.vicreg=vicreg",
                                "+objective.weights.vicreg=1"))  # fmt: skip
    r = randomness(6)
    views, sizes = parts.views(parts.dataset.fetch(torch.arange(6)), r), []

    def encode(view, mask=None):
        sizes.append((len(view.x), mask is not None))
        return parts.encoder(view, mask)

    parts.objective.project(Features(encode, views, r))
    assert sorted(sizes) == [(6, False), (6, False), (6, True), (12, False)]  # BYOL and VICReg share theirs


@pytest.mark.parametrize(
    "overrides, message",
    [
        (("objective.weights.infonce=high",), "neither a number nor a ramp"),
        (("objective.weights.infonce={from: 1}",), "neither a number nor a ramp"),
        (("objective.weights.infonce={from: 1, to: 0, start: 0.5, end: 0.5}",), "0 <= start < end <= 1"),
        (("+objective.weights.moco=1",), "weights.moco has no part"),
        (("~objective.weights.simmim",), "'simmim' has no weight"),
        (("objective.share=masked",), "'infonce' has no teacher"),
        (("objective.share=some",), "objective.share: 'some' is not one of none, masked"),
    ],
)
def test_what_does_not_fit_is_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        build_components(compose(*TINY, "objective=joint", *overrides))
