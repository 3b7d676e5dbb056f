"""MoCo and BYOL over three steps against references written from the papers, one sample at a time, in float64."""

import math

import pytest
import torch
from support import small_models  # noqa: F401  registers models
from support.helpers import TINY, compose, make_trainer, randomness
from support.modalities import vector_dataset
from torch.nn import functional as F

from sslcli.commands.checks import check_fit
from sslcli.components import build_components
from sslcli.distributed.ranks import Ranks
from sslcli.encoders.mlp import MLP
from sslcli.errors import UserError
from sslcli.features import Features
from sslcli.objectives.byol import BYOL
from sslcli.objectives.moco import moco
from sslcli.objectives.moco_queue import queue_contrast
from sslcli.objectives.shuffling_bn import in_groups, shuffled
from sslcli.objectives.teacher import rising
from sslcli.types import Encoded, View

B, LR = 6, 0.1


def batch_norm(x, weight, bias):
    mean, var = x.mean(0), x.var(0, unbiased=False)
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def encode(p, x):
    """The MLP encoder by hand: linear, BatchNorm of the batch, ReLU."""
    h = batch_norm(x @ p["trunk.0.weight"].T, p["trunk.1.weight"], p["trunk.1.bias"])
    return h.clamp(min=0)


def cross_entropy_loop(queries, candidates_of, temperature):
    losses = []
    for i, q in enumerate(queries):
        logits = [q @ c / temperature for c in candidates_of(i)]
        losses.append(-logits[0] + torch.log(sum(torch.exp(logit) for logit in logits)))
    return sum(losses) / len(losses)


def start(make):
    torch.manual_seed(0)
    encoder = MLP(vector_dataset().spec, hidden_dim=5).double()
    objective = make(encoder).double()
    views = torch.randn(3, 2, B, 10, dtype=torch.float64)
    return encoder.train(), objective.train(), views


def copy(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def run(encoder, objective, views, total_steps=10):
    """Three steps of plain gradient descent through the objective's own hooks."""
    parameters = [p for m in (encoder, objective) for p in m.parameters() if p.requires_grad]
    for step in range(3):
        objective.before_step(step / total_steps)
        seen = [View(x, "vector") for x in views[step]]
        outputs = objective.project(Features(encoder, seen, randomness(B, step)))
        loss = objective.loss(outputs).total
        loss.backward()
        with torch.no_grad():
            for p in parameters:
                p -= LR * p.grad
                p.grad = None
        objective.after_step({name: rows.detach() for name, rows in outputs.items()})
        yield loss.detach(), {name: rows.detach() for name, rows in outputs.items()}


def descend(loss, *groups):
    parameters = [p for group in groups for p in group.values()]
    for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters)):
        p.data -= LR * gradient


def live(group):
    return {name: p.clone().requires_grad_() for name, p in group.items()}


def follow(teacher, student, m):
    return {name: m * teacher[name] + (1 - m) * student[name].detach() for name in teacher}


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("version", [1, 2])
def test_moco_with_a_queue_is_the_published_algorithm(version, symmetric):
    m, t, size = 0.9, 0.3, 16  # 16 is no multiple of the 6 or 12 keys of a step: the queue wraps within one
    encoder, objective, views = start(
        lambda e: moco(
            e, version=version, momentum=m, temperature=t, width=4, hidden_dim=5, queue=size, symmetric=symmetric
        )
    )

    def project(p, h):
        if version == 1:
            return F.normalize(h @ p["0.weight"].T + p["0.bias"], dim=1)
        h = (h @ p["0.weight"].T + p["0.bias"]).clamp(min=0)
        return F.normalize(h @ p["2.weight"].T + p["2.bias"], dim=1)

    enc, head = live(copy(encoder)), live(copy(objective.head))
    key_enc, key_head = copy(encoder), copy(objective.head)
    queue, pointer = [row.clone() for row in objective.queue], 0
    for step, (loss, outputs) in enumerate(run(encoder, objective, views)):
        key_enc, key_head = follow(key_enc, enc, m), follow(key_head, head, m)  # first the momentum update
        keys = [project(key_head, encode(key_enc, x)).detach() for x in views[step]]
        total = 0
        for one, two in ((0, 1), (1, 0)) if symmetric else ((0, 1),):
            queries = project(head, encode(enc, views[step][one]))
            total = total + cross_entropy_loop(queries, lambda i, k=keys[two]: [k[i], *queue], t)
        same(loss, total.detach())
        descend(total, enc, head)
        for key in torch.cat(keys if symmetric else keys[1:]):  # only then the keys, the oldest first to go
            queue[pointer] = key
            pointer = (pointer + 1) % size
        assert objective.queue_pointer.item() == pointer
        same(objective.queue, torch.stack(queue))
        same(outputs["k2"], keys[1])
        same(copy(objective.teacher.encoder), key_enc)
        same(copy(objective.teacher.head), key_head)
        same(copy(encoder), {name: p.detach() for name, p in enc.items()})


def predictive_reference(p, h, last):
    """linear, BatchNorm, ReLU, linear, and a BatchNorm without scale and shift if ``last``."""
    h = batch_norm(h @ p["0.weight"].T, p["1.weight"], p["1.bias"]).clamp(min=0)
    h = h @ p["3.weight"].T
    return batch_norm(h, 1, 0) if last else h + p.get("3.bias", 0)  # version 3 has no last bias


@pytest.mark.parametrize("name", ["moco", "byol"])
def test_the_predictive_objectives_are_the_published_algorithms(name):
    m0, t = 0.9, 0.3
    make = {
        "moco": lambda e: moco(e, version=3, momentum=m0, temperature=t, width=4, hidden_dim=7),
        "byol": lambda e: BYOL(e, momentum=m0, width=4, hidden_dim=7),
    }[name]
    encoder, objective, views = start(make)
    last = name == "moco"
    enc, head, predictor = (live(copy(x)) for x in (encoder, objective.head, objective.predictor))
    key_enc, key_head = copy(encoder), copy(objective.head)
    for step, (loss, outputs) in enumerate(run(encoder, objective, views)):
        m = 1 - 0.5 * (1 + math.cos(math.pi * step / 10)) * (1 - m0)
        key_enc, key_head = follow(key_enc, enc, m), follow(key_head, head, m)
        keys = [predictive_reference(key_head, encode(key_enc, x), last).detach() for x in views[step]]
        queries = [
            predictive_reference(predictor, predictive_reference(head, encode(enc, x), last), False)
            for x in views[step]
        ]
        total = 0
        for q, k in ((queries[0], keys[1]), (queries[1], keys[0])):
            if name == "moco":
                q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)
                order = lambda i, k=k: [k[i], *(k[j] for j in range(B) if j != i)]  # noqa: E731
                total = total + 2 * t * cross_entropy_loop(q, order, t)
            else:
                total = total + sum(2 - 2 * (a @ b) / (a.norm() * b.norm()) for a, b in zip(q, k)) / B
        same(loss, total.detach())
        descend(total, enc, head, predictor)
        same(outputs["k1"], keys[0])
        same(copy(objective.teacher.encoder), key_enc)
        same(copy(objective.teacher.head), key_head)
        same(copy(objective.predictor), {name: p.detach() for name, p in predictor.items()})


def test_queue_contrast_of_equal_vectors_is_chance():
    ones = F.normalize(torch.ones(3, 4, dtype=torch.float64), dim=1)
    assert queue_contrast(ones, ones, ones[:1].repeat(7, 1), 0.2).item() == pytest.approx(math.log(8))


def test_momentum_rises_to_one_along_half_a_cosine():
    assert rising(0.99, 0) == pytest.approx(0.99) and rising(0.99, 1) == 1
    assert rising(0.996, 0.5) == pytest.approx(0.998)


def test_more_keys_than_the_queue_holds_leave_the_last():
    encoder = MLP(vector_dataset().spec, hidden_dim=5)
    objective = moco(encoder, version=2, width=4, queue=4, symmetric=False)
    keys = torch.arange(7.0)[:, None].expand(7, 4)
    objective.after_step({"k2": keys})
    assert objective.queue_pointer.item() == 3
    assert objective.queue[:, 0].tolist() == [4, 5, 6, 3]  # slots (0..6) % 4: key 3 in slot 3, then 4, 5, 6


def per_group(view):
    """An encoder that shows which samples shared its batch."""
    return Encoded(view.x[:, None], view.x + 100 * view.x.sum(0, keepdim=True))


def test_groups_are_interleaved_and_come_back_in_order():
    x = torch.arange(6.0)[:, None]
    pooled = in_groups(per_group, 2)(View(x, "x")).pooled[:, 0]
    assert pooled.tolist() == [i + 100 * (9 if i % 2 else 6) for i in range(6)]  # 1 + 3 + 5 and 0 + 2 + 4


def test_shuffling_changes_the_company_and_not_the_order():
    x = torch.arange(8.0)[:, None]
    encode_in_four = in_groups(per_group, 4)
    plain = encode_in_four(View(x, "x")).pooled[:, 0]
    mixed = shuffled(encode_in_four, Ranks(), seed=1)(View(x, "x")).pooled[:, 0]
    assert torch.equal(plain % 100, mixed % 100)
    assert not torch.equal(plain, mixed)
    again = shuffled(encode_in_four, Ranks(), seed=1)(View(x, "x")).pooled[:, 0]
    assert torch.equal(mixed, again)


def test_bn_splits_keep_queries_and_keys_in_different_company():
    """Queries in interleaved groups, keys in shuffled ones: each with BatchNorm statistics of its own."""
    torch.manual_seed(0)
    encoder = MLP(vector_dataset().spec, hidden_dim=5).double().train()
    objective = moco(encoder, version=2, width=4, queue=16, symmetric=False, bn_splits=2).double().train()
    x = torch.randn(B, 10, dtype=torch.float64)
    features = Features(encoder, [View(x, "vector"), View(x, "vector")], randomness(B))
    outputs = objective.project(features)
    p = copy(encoder)
    expected = torch.empty(B, 5, dtype=torch.float64)
    for group in (0, 1):
        expected[group::2] = encode(p, x[group::2])
    same(outputs["q1"].detach(), F.normalize(objective.head(expected), dim=1).detach())
    assert (outputs["q1"] - outputs["k2"]).abs().max() > 1e-3  # equal weights and images, other company


def test_bn_splits_move_the_running_statistics_once_by_the_mean_of_the_groups():
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm1d(3).double()
    norm.running_mean.fill_(2.0)
    x = torch.randn(B, 3, dtype=torch.float64)
    in_groups(lambda view: Encoded(view.x[:, None], norm(view.x)), 3, norm)(View(x, "x"))
    groups = [x[k::3] for k in range(3)]
    same(norm.running_mean, 0.9 * torch.full((3,), 2.0, dtype=x.dtype) + 0.1 * sum(g.mean(0) for g in groups) / 3)
    same(norm.running_var, 0.9 * torch.ones(3, dtype=x.dtype) + 0.1 * sum(g.var(0) for g in groups) / 3)
    assert norm.momentum == 0.1


def test_bn_splits_are_for_training_only():
    """A run's dry pass and its held-out loss have few samples, and BatchNorm then has no company to hide."""
    torch.manual_seed(0)
    encoder = MLP(vector_dataset().spec, hidden_dim=5).eval()
    objective = moco(encoder, version=2, width=4, queue=16, bn_splits=8).eval()
    x = torch.randn(3, 10)
    outputs = objective.project(Features(encoder, [View(x, "vector"), View(x, "vector")], randomness(3)))
    assert len(outputs["q1"]) == 3
    with pytest.raises(ValueError, match="bn_splits=8 does not divide the micro-batch of 20"):
        objective.check(100, 20)


def test_a_queue_larger_than_the_data_is_refused(tmp_path):
    config = compose(*TINY, "objective=moco", "device=cpu")
    parts = build_components(config)
    trainer = make_trainer(tmp_path, *TINY, "objective=moco", parts=parts)
    with pytest.raises(UserError, match="queue=1024 is larger than the 160 training samples"):
        check_fit(config, parts, trainer.compute)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (("objective.version=3", "objective.queue=64"), "version=3 has no queue"),
        (("objective.version=3", "objective.symmetric=true"), "version=3 has no queue"),
        (("objective.version=1", "objective.freeze_patches=true"), "trains its patch embedding"),
        (("objective.version=3", "objective.freeze_patches=true"), "no patch embedding"),
        (("objective.momentum=1.5",), "momentum=1.5 must be from 0 to 1"),
        (("objective.temperature=0",), "temperature=0 must be from 0.0001 to 10000"),
        (("objective.version=4",), "objective.version: 4 is not one of 1, 2, 3"),
    ],
)
def test_what_a_version_does_not_have_is_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        build_components(compose(*TINY, "objective=moco", *overrides))


def test_version_3_freezes_a_vits_patches(tmp_path):
    trainer = make_trainer(
        tmp_path,
        *TINY,
        "objective=moco",
        "objective.version=3",
        "objective.freeze_patches=true",
        "encoder=timm",
        "encoder.name=vit_mini",
    )
    frozen = {name for name, p in trainer.encoder.named_parameters() if not p.requires_grad}
    assert frozen and all("patch_embed" in name for name in frozen)
    before = {name: p.clone() for name, p in trainer.encoder.named_parameters()}
    trainer.train_step(next(trainer.loader.batches(0)))
    trainer.train_step(next(trainer.loader.batches(1)))
    for name, p in trainer.encoder.named_parameters():
        if p.requires_grad and "mask_token" not in name:
            assert not torch.equal(p, before[name]), name
        elif name in frozen:
            assert torch.equal(p, before[name])


def test_the_teacher_is_saved_and_comes_back(tmp_path):
    options = (*TINY, "objective=moco", "objective.queue=64")
    one = make_trainer(tmp_path, *options)
    one.fit()
    two = make_trainer(tmp_path / "two", *options)
    (tmp_path / "two").mkdir()
    two.load_state_dict(one.state_dict())
    for (name, a), b in zip(one.objective.state_dict().items(), two.objective.state_dict().values()):
        assert torch.equal(a, b), name
    assert any(name.startswith("teacher.encoder.") for name in one.objective.state_dict())
