"""Small views beside the full-size ones: losses as means over loops of pairs, what goes through together, sizes."""

import math

import pytest
import timm
import torch
from support import small_models  # noqa: F401  registers models
from support.helpers import TINY, compose, make_trainer, randomness
from support.modalities import vector_dataset
from torch import nn

from sslcli.commands.checks import check_fit
from sslcli.components import build_components
from sslcli.encoders.convnet_small import ConvNetSmall
from sslcli.encoders.mlp import MLP
from sslcli.encoders.timm import Timm
from sslcli.errors import UserError
from sslcli.features import Features
from sslcli.objectives.byol import BYOL
from sslcli.objectives.infonce import InfoNCE
from sslcli.objectives.moco import moco
from sslcli.objectives.simsiam import SimSiam
from sslcli.types import Field, Spec, View

N, L, T = 6, 3, 0.3
NUM_LOCAL = "views.num_local=2"
HALF = "views.local_size=0.5"


def unit(z):
    return z / z.norm(dim=1, keepdim=True)


def softmax_loop(anchors, positives, negatives_of):
    """Mean of -log of the positive's share among it and the negatives, one anchor at a time."""
    total = 0
    for i, anchor in enumerate(anchors):
        logits = [anchor @ c / T for c in (positives[i], *negatives_of(i))]
        total = total - logits[0] + torch.log(sum(torch.exp(logit) for logit in logits))
    return total / len(anchors)


def among(anchors, targets):
    """InfoNCE in one direction."""
    return softmax_loop(anchors, targets, lambda i: [c for j, c in enumerate(targets) if j != i])


def among_all(anchors, targets):
    """NT-Xent in one direction: the other anchors are negatives, too."""
    others = lambda i: [c for z in (anchors, targets) for j, c in enumerate(z) if j != i]  # noqa: E731
    return softmax_loop(anchors, targets, others)


def cosines(p, z):
    return sum((a @ b) / (a.norm() * b.norm()) for a, b in zip(p, z)) / len(p)


def mean(terms):
    return sum(terms) / len(terms)


def together(encoder, head, *views):
    """Heads on top of the encoder, with BatchNorm over these views together."""
    return head(encoder(View(torch.cat(views), "vector")).pooled).chunk(len(views))


def infonce_pairs(encoder, objective, x, small, one_way=among_all, symmetric=True):
    """The loss of every ordered pair of (predicting view, full-size view)."""
    z1, z2 = map(unit, together(encoder, objective.head, *x))
    local = [unit(z) for z in together(encoder, objective.head, *small)]
    full = [one_way(z1, z2), one_way(z2, z1)] if symmetric else [one_way(z1, z2)]
    return full + [among(z, target) for z in local for target in ((z1, z2) if symmetric else (z2,))]


def queue_pairs(encoder, objective, x, small):
    queries = [unit(together(encoder, objective.head, view)[0]) for view in x]
    local = [unit(z) for z in together(encoder, objective.head, *small)]
    with torch.no_grad():
        keys = [unit(together(objective.teacher.encoder, objective.teacher.head, view)[0]) for view in x]
    directions = [(queries[0], keys[1])] + ([(queries[1], keys[0])] if objective.symmetric else [])
    targets = keys if objective.symmetric else [keys[1]]
    pairs = [*directions, *((q, k) for q in local for k in targets)]
    return len(directions), [softmax_loop(q, k, lambda i: objective.queue) for q, k in pairs]


def predicted_pairs(encoder, objective, x, small, loss):
    heads = nn.Sequential(objective.head, objective.predictor)
    queries = [together(encoder, heads, view)[0] for view in x]
    local = together(encoder, heads, *small)
    teacher = getattr(objective, "teacher", None)
    with torch.no_grad():
        source = (teacher.encoder, teacher.head) if teacher else (encoder, objective.head)
        keys = [together(*source, view)[0] for view in x]
    pairs = [(queries[0], keys[1]), (queries[1], keys[0]), *((q, k) for q in local for k in keys)]
    return [loss(q, k) for q, k in pairs]


def infonce(**options):
    return lambda e: InfoNCE(e, temperature=T, hidden_dim=7, width=4, **options)


def queued(**options):
    return lambda e: moco(e, temperature=T, width=4, hidden_dim=7, queue=9, **options)


def queue_loss(*parts):
    scale, pairs = queue_pairs(*parts)
    return scale * mean(pairs)


# name: (objective, its loss written as a mean over all ordered pairs, times the scale that it has without small views)
CASES = {
    "nt_xent": (infonce(), lambda *x: mean(infonce_pairs(*x))),
    "cross_view": (infonce(form="cross_view"), lambda *x: mean(infonce_pairs(*x, one_way=among))),
    "one direction": (
        infonce(form="cross_view", symmetric=False),
        lambda *x: mean(infonce_pairs(*x, one_way=among, symmetric=False)),
    ),
    "moco 1": (queued(version=1, symmetric=False), queue_loss),
    "moco 2": (queued(version=2), queue_loss),
    "moco 3": (
        lambda e: moco(e, version=3, temperature=T, width=4, hidden_dim=7),
        lambda *x: 4 * T * mean(predicted_pairs(*x, loss=lambda q, k: among(unit(q), unit(k)))),
    ),
    "byol": (
        lambda e: BYOL(e, width=4, hidden_dim=7),
        lambda *x: 2 * mean(predicted_pairs(*x, loss=lambda q, k: 2 - 2 * cosines(q, k))),
    ),
    "simsiam": (
        lambda e: SimSiam(e, width=5, hidden_dim=7, bottleneck=3),
        lambda *x: mean(predicted_pairs(*x, loss=lambda p, z: -cosines(p, z))),
    ),
}


def start(name, num_local=L):
    torch.manual_seed(0)
    encoder = MLP(vector_dataset().spec, hidden_dim=5).double().train()
    objective = CASES[name][0](encoder).double().train()
    for module in objective.modules():  # a teacher that is not the student, so that the two cannot be mistaken
        if hasattr(module, "students"):
            for p in module.parameters():
                p.data += 0.1 * torch.randn_like(p)
    objective.expect_local(num_local)
    return encoder, objective


def sets(size=N):
    generator = torch.Generator().manual_seed(1)
    rows = lambda: torch.randn(size, 10, generator=generator, dtype=torch.float64)  # noqa: E731
    return [rows(), rows()], [rows() for _ in range(L)]


def projected(encoder, objective, x, small):
    views = [View(rows, "vector") for rows in (*x, *small)]
    return objective.project(Features(encoder, views, randomness(len(x[0]))))


def gradients(loss, encoder, objective):
    named = [(n, p) for m in (encoder, objective) for n, p in m.named_parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(named, found)}


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_the_mean_over_all_pairs_of_a_view_and_another_full_size_view(name):
    encoder, objective = start(name)
    x, small = sets()
    found = objective.loss(projected(encoder, objective, x, small)).total
    expected = CASES[name][1](encoder, objective, x, small)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        gradients(found, encoder, objective), gradients(expected, encoder, objective), rtol=1e-8, atol=1e-9
    )


@pytest.mark.parametrize("name", CASES)
def test_full_size_views_are_encoded_to_the_bit_as_without_small_ones(name):
    x, small = sets()
    encoder, objective = start(name)
    together = projected(encoder, objective, x, small)
    assert together.pop("local").shape[:2] == (N, L)
    encoder, objective = start(name, num_local=0)
    alone = projected(encoder, objective, x, [])
    assert alone.keys() == together.keys()
    assert all(torch.equal(together[key], rows) for key, rows in alone.items())


def test_bn_splits_leave_the_small_views_together():
    """Keys come in another company than theirs anyway, so BatchNorm leaks nothing."""
    torch.manual_seed(0)
    encoder = MLP(vector_dataset().spec, hidden_dim=5).double().train()
    objective = queued(version=2, bn_splits=2)(encoder).double().train()
    objective.expect_local(L)
    x, small = sets()
    expected = [unit(z) for z in together(encoder, objective.head, *small)]
    torch.testing.assert_close(projected(encoder, objective, x, small)["local"], torch.stack(expected, 1))


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("byol", "simsiam")])
def test_a_collapsed_encoder_is_at_chance_with_small_views(name):
    encoder, objective = start(name)
    outputs = {key: torch.ones_like(rows) / math.sqrt(rows.shape[-1]) for key, rows in
               projected(encoder, objective, *sets()).items()}  # fmt: skip
    if "queue" in dict(objective.named_buffers()):
        objective.queue.fill_(0.5)
    loss = objective.loss(outputs)
    assert loss.total.item() == pytest.approx(objective.chance(N), abs=1e-9)
    assert loss.chance == objective.chance(N)


def test_parts_of_a_joint_objective_share_the_pass_of_the_small_views():
    parts = build_components(
        compose(*TINY, "objective=joint", "+objective@objective.parts.byol=byol", "+objective.weights.byol=1",
                NUM_LOCAL, HALF)
    )  # fmt: skip
    r, sizes = randomness(6), []
    views = parts.views(parts.dataset.fetch(torch.arange(6)), r)

    def encode(view, mask=None):
        sizes.append((len(view.x), view.x.shape[-1], mask is not None))
        return parts.encoder(view, mask)

    outputs = parts.objective.project(Features(encode, views, r))
    full, small = views[0].x.shape[-1], views[-1].x.shape[-1]
    assert small == round(full / 2)
    assert sorted(sizes) == sorted(
        [(12, full, False), (6, full, False), (6, full, False), (6, full, True), (12, small, False)]
    )
    assert {key for key in outputs if key.endswith("local")} == {"infonce/local", "byol/local"}
    assert outputs["byol/local"].shape[:2] == (6, 2)


@pytest.mark.parametrize(
    "objective",
    [
        ("objective.form=decoupled",),
        ("objective.form=sigmoid",),
        ("objective.form=supervised", "objective.label=label"),
        ("objective=simmim",),
        ("objective=vicreg",),
        ("objective=barlow_twins",),
        ("objective=infomax",),
        ("objective=joint_masked",),
    ],
)
def test_objectives_without_a_rule_for_small_views_refuse_them(objective):
    with pytest.raises(UserError, match=r"views.num_local=2: \w+ as configured reads full-size views only"):
        build_components(compose(*TINY, *objective, NUM_LOCAL, HALF))


@pytest.mark.parametrize(
    "options",
    [
        ("encoder=timm", "encoder.name=swin_mini"),
        ("encoder=mlp",),
        ("encoder=timm", "encoder.name=vit_mini", "views.local_size=0.4"),  # 13 pixels, and patches of 4
    ],
)
def test_encoders_that_cannot_read_small_views_refuse_them(tmp_path, options):
    options = (*TINY, "dataset.size=32", NUM_LOCAL, HALF, *options)
    config = compose(*options)
    parts = build_components(config)
    trainer = make_trainer(tmp_path, *options, parts=parts)
    with pytest.raises(UserError, match=r"views.num_local=2: this encoder cannot read small views of 1\d x 1\d pixels"):
        check_fit(config, parts, trainer.compute)


def images(size, count=2):
    generator = torch.Generator().manual_seed(size)
    return View(torch.randn(count, 3, size, size, generator=generator), "image")


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "vit_tiny_patch16_224", "convnet_small"])
def test_features_have_one_width_at_every_size(name):
    spec = Spec(image=Field("image", (3, 64, 64), torch.uint8))
    encoder = (ConvNetSmall(spec) if name == "convnet_small" else Timm(spec, name=name)).eval()
    with torch.no_grad():
        for size in (64, 32, 24, 64):
            encoded = encoder(images(size))
            assert encoded.pooled.shape == (2, encoder.dim)
            assert encoded.tokens.shape[2] == encoder.token_dim


def test_a_vits_positions_are_interpolated_for_small_views_and_its_own_stay_to_the_bit():
    """Against two models of timm: one for a single size, one for any."""
    torch.manual_seed(0)
    name = "vit_tiny_patch16_224"
    encoder = Timm(Spec(image=Field("image", (3, 64, 64), torch.uint8)), name=name, patch_size=8).eval()
    options = {"num_classes": 0, "img_size": 64, "patch_size": 8}
    fixed, free = (timm.create_model(name, dynamic_img_size=any_size, **options).eval() for any_size in (False, True))
    for model in (fixed, free):
        model.load_state_dict(encoder.model.state_dict())
    assert encoder.state_dict().keys() == {f"model.{key}" for key in fixed.state_dict()} | {"mask_token"}
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    with torch.no_grad():
        masked = encoder(images(64), mask.logical_not()).pooled
        for size in (64, 24, 64):
            view = images(size)
            expected = (fixed if size == 64 else free).forward_features(view.x)[:, encoder.prefix :]
            assert torch.equal(encoder(view).tokens, expected), size
        assert torch.equal(encoder(images(64), mask.logical_not()).pooled, masked)


@pytest.mark.parametrize(
    "objective",
    [("objective=infonce",), pytest.param(("objective=moco", "objective.version=3"), marks=pytest.mark.slow)],
)
def test_training_with_small_views_lowers_the_loss(tmp_path, objective):
    trainer = make_trainer(
        tmp_path, *TINY, *objective, NUM_LOCAL, HALF, "train.batch_size=32", "train.steps=30", "schedule=constant",
        "views=simmim",
    )  # fmt: skip
    losses = []
    for batch, _ in zip(trainer.loader.batches(0), range(30)):
        loss, outputs = trainer.train_step(batch)
        assert outputs["local"].shape[:2] == (32, 2)
        losses.append(loss.total.item())
    assert mean(losses[-8:]) < 0.8 * mean(losses[:8])
    assert mean(losses[-8:]) < 0.9 * trainer.objective.chance(32)
