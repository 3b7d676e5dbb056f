"""Views of several columns: their numbers, their random streams, padding, and which views an objective reads."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.helpers import TINY, compose, make_trainer, randomness
from support.modalities import ImageText, image_text_dataset

from sslcli.components import Components, build_views
from sslcli.config.instantiate import build
from sslcli.errors import UserError
from sslcli.evaluation.measure import dry_loss
from sslcli.features import Features
from sslcli.objectives.base import Objective
from sslcli.pretrained.model import Pretrained
from sslcli.training.device import choose
from sslcli.types import Field, Spec
from sslcli.views.base import PassThrough, Views
from sslcli.views.compose import Composed
from sslcli.views.image.pipeline import ImageViews

CROPS = {"_target_": "sslcli.views.image.pipeline.ImageViews", "scale": [0.3, 0.6], "flip": 0.5}
PLAIN = {"_target_": "sslcli.views.base.PassThrough"}
SPEC = Spec(
    image=Field("image", (1, 8, 8), torch.uint8),
    sketch=Field("image", (1, 8, 8), torch.uint8),
    text=Field("tokens", (4,), torch.int64, 9, pad=0),
    items=Field("vector", (3,), torch.float32),
)


def columns(size=6):
    image = torch.arange(size * 64).remainder(251).to(torch.uint8).reshape(size, 1, 8, 8)
    text = torch.tensor([[3, 4, 0, 0]] * size)
    return {"image": image, "sketch": image, "text": text, "items": torch.ones(size, 3)}


def made(order, num_views=None, **parts):
    return Composed(SPEC, SPEC, num_views or len(order), parts=parts, order=order)


def test_views_are_numbered_in_the_order_of_the_key_and_small_views_come_last():
    image = {**CROPS, "num_local": 2, "local_size": 0.5}
    views = made(["image", "text", "image", "items"], image=image, text=PLAIN, items=PLAIN)
    found = views(columns(), randomness(6))
    assert [view.field for view in found] == ["image", "text", "image", "items", "image", "image"]
    assert [tuple(view.x.shape[2:]) for view in found if view.field == "image"] == [(8, 8), (8, 8), (4, 4), (4, 4)]
    assert views.num_local == 2 and views.field == "image"
    assert not torch.equal(found[0].x, found[2].x)


def test_columns_have_random_numbers_of_their_own():
    views = made(["image", "sketch"], image=CROPS, sketch={**CROPS, "field": "sketch"})
    first, second = views(columns(), randomness(6))  # two columns of the same pixels
    assert not any(torch.equal(a, b) for a, b in zip(first.x, second.x))
    crops = (
        views.parts["image"].crops(randomness(6).named("image")),
        views.parts["sketch"].crops(randomness(6).named("sketch")),
    )
    assert not np.array_equal(crops[0].numbers[0], crops[1].numbers[0])
    with pytest.raises(UserError, match="crop=device"):
        views.crops(randomness(6))


def test_crops_that_workers_cut_are_those_of_the_image_column():
    views = made(["text", "image"], image=CROPS, text=PLAIN)
    crops = views.crops(randomness(6))
    same = views.parts["image"].crops(randomness(6).named("image"))
    assert crops.sizes == ((8, 8),) and crops.windows(3, 20, 30) == same.windows(3, 20, 30)


def test_one_column_alone_has_the_streams_that_it_always_had():
    plain = ImageViews(SPEC, SPEC, 2, scale=(0.3, 0.6), flip=0.5)
    assert np.array_equal(randomness(6).numbers("view0", 3), replace(randomness(6), prefix="").numbers("view0", 3))
    alone = plain(columns(), randomness(6))
    composed = made(["image", "image"], image=CROPS)(columns(), randomness(6))
    assert not torch.equal(alone[0].x, composed[0].x)


def test_padding_is_marked_in_every_view_of_ids():
    views = made(["image", "text"], image=CROPS, text=PLAIN)
    marked = [[True, True, False, False]] * 6
    assert views(columns(), randomness(6))[1].valid.tolist() == marked
    assert views.evaluation_view(columns(), "text").valid.tolist() == marked
    assert views.evaluation_view(columns()).valid is None and views.evaluation_view(columns()).field == "image"
    unpadded = Spec(text=Field("tokens", (4,), torch.int64, 9))
    assert PassThrough(unpadded, unpadded, 1).evaluation_view(columns()).valid is None


@pytest.mark.parametrize(
    ("order", "num_views", "parts", "message"),
    [
        (["image", "txt"], 2, {"image": CROPS, "text": PLAIN}, "order names 'txt'.*Did you mean 'text'"),
        (["image"], 1, {"image": CROPS, "text": PLAIN}, "parts.text makes no view"),
        (["image", "text"], 3, {"image": CROPS, "text": PLAIN}, "reads view 2: 3 are needed"),
        (["image", "image", "text"], 2, {"image": CROPS, "text": PLAIN}, r"view 2 \('text'\) is read by nothing"),
        (["sketch"], 1, {"sketch": CROPS | {"field": "image"}}, r"Set views.parts.sketch.field=sketch"),
        (["image"], 1, {"image": "simclr"}, "Write views@views.parts.image=simclr"),
        (["image"], 1, {"image": {**CROPS, "flop": 1}}, "Unknown key 'views.parts.image.flop'"),
    ],
)
def test_a_mistake_is_named(order, num_views, parts, message):
    with pytest.raises((ValueError, UserError), match=message):
        Composed(SPEC, SPEC, num_views, parts=parts, order=order)


def test_a_column_without_a_view_cannot_be_evaluated():
    for views in (
        made(["image"], image=CROPS),
        PassThrough(SPEC, SPEC, 1, columns=["text"]),
        ImageViews(SPEC, SPEC, 2),
    ):
        with pytest.raises(UserError, match="'items'"):
            views.evaluation_view(columns(), "items")


def test_columns_that_no_objective_reads_are_refused():
    with pytest.raises(ValueError, match=r"view 2 \('items'\) is read by nothing"):
        PassThrough(SPEC, SPEC, 2, columns=["text", "text", "items"])


def test_parts_are_chosen_and_changed_from_the_shell():
    plain = compose("views=image_text").views.node
    changed = compose("views=image_text", "views@views.parts.image=simclr", "views.parts.image.flip=0.25").views.node
    assert plain["parts"]["image"] == compose("views=small").views.node
    assert changed["parts"]["image"] == {**compose("views=simclr").views.node, "flip": 0.25}
    assert changed["parts"]["text"] == compose("views=columns").views.node
    wrong = compose("views=image_text", "views.parts.image=simclr").views.node["parts"]["image"]
    with pytest.raises(UserError, match=r"text 'simclr' stands where .* Write views@views.parts.image=simclr"):
        build(wrong, Views, where="views.parts.image")


# --- which views an objective reads ------------------------------------------------------------------


def parts_of(*overrides, dataset=None):
    """Components on image-text pairs, as ``ssl-train *overrides`` builds them."""
    config = compose("views=image_text", *overrides)
    dataset = dataset or image_text_dataset()
    torch.manual_seed(0)
    encoder = ImageText(dataset.spec)
    objective = build(config.objective.node, Objective, encoder, where="objective")
    return Components(dataset, encoder, objective, build_views(config, encoder, objective))


SMALL = ("objective.norm=layer", "objective.width=8", "objective.hidden_dim=16")
CLIP = ("objective.form=cross_view", *SMALL)


def loss_of(parts, columns):
    return dry_loss(parts, columns, choose("cpu", "fp32"), seed=0)


def test_image_text_pairs_learn_that_they_belong_together(tmp_path):
    """CLIP's loss of right pairs is below chance, and that of shuffled pairs is not."""
    parts = parts_of(*CLIP, "views@views.parts.image=none")
    trainer = make_trainer(tmp_path, *TINY, "train.steps=60", "optimizer.lr=0.01", "probe=none", parts=parts)
    batches = trainer.loader.batches(0)
    for _ in range(60):
        trainer.train_step(next(batches))
    held_out = image_text_dataset(160)
    right = held_out.fetch(torch.arange(128, 160))
    shuffled = {**right, "text": right["text"].roll(1, 0)}  # the pattern of the sample before
    chance = parts.objective.chance(32)
    assert loss_of(parts, right) < 0.8 * chance < chance < loss_of(parts, shuffled)
    model = Pretrained(parts.encoder, parts.views, parts.dataset.spec)
    image, text = model(right["image"]), model(right["text"], "text")
    assert image.shape == text.shape == (32, 16)
    padded = right["text"].clone()
    assert torch.equal(model(torch.cat([padded, torch.zeros(32, 3, dtype=torch.int64)], 1), "text"), text)


def test_four_micro_batches_give_the_gradient_of_one(tmp_path):
    found = []
    for accumulate in (1, 4):
        parts = parts_of(*CLIP)
        trainer = make_trainer(tmp_path, *TINY, "train.precision=fp32", f"train.accumulate={accumulate}", parts=parts)
        loss, _ = trainer.gradients(next(trainer.loader.batches(0)))
        modules = (parts.encoder, parts.objective)
        found.append([loss.total.detach(), *(p.grad for module in modules for p in module.parameters())])
    for one, four in zip(*found):
        torch.testing.assert_close(four, one, rtol=1e-5, atol=1e-5)


def projected(objective, views):
    encode = ImageText(image_text_dataset().spec)
    torch.manual_seed(1)
    for parameter in encode.parameters():
        torch.nn.init.normal_(parameter)
    return objective.project(Features(encode, views, randomness(8)))


@pytest.mark.parametrize("name", ["infonce", "infomax", "simsiam", "byol", "moco", "vicreg", "barlow_twins"])
def test_an_objective_reads_the_views_that_it_is_told_to(name):
    """Reading [2, 0] of three views is reading the first two of (third, first)."""
    data = image_text_dataset().fetch(torch.arange(8))
    dataset = image_text_dataset()
    first, second = PassThrough(dataset.spec, dataset.spec, 2, columns=["text", "text"])(data, randomness(8))
    third = replace(first, x=first.x.roll(1, 0), valid=first.valid.roll(1, 0))
    outputs = []
    for reads, views in (("[2,0]", [first, second, third]), ("null", [third, first])):
        config = compose(f"objective={name}", f"objective.reads={reads}", *SMALL)
        torch.manual_seed(0)
        objective = build(config.objective.node, Objective, ImageText(dataset.spec), where="objective")
        if hasattr(objective, "teacher"):
            torch.manual_seed(1)
            for parameter in objective.teacher.encoder.parameters():
                torch.nn.init.normal_(parameter)
        assert objective.reads == ((2, 0) if reads == "[2,0]" else (0, 1))
        outputs.append(projected(objective.eval(), views))
    assert outputs[0].keys() == outputs[1].keys()
    for key, rows in outputs[0].items():
        torch.testing.assert_close(rows, outputs[1][key], msg=key)


@pytest.mark.parametrize("reads", ["[0]", "[0,0]", "[0,-1]", "[0,1,2]"])
def test_two_different_views_are_compared(reads):
    with pytest.raises(UserError, match="reads=.* must number 2 different views"):
        parts_of(f"objective.reads={reads}")


def test_a_view_that_is_left_out_is_named():
    with pytest.raises(UserError, match="view 2 is read, and view 1 is read by nothing"):
        parts_of("objective.reads=[0,2]", "views.order=[image,image,text]")
    with pytest.raises(UserError, match=r"views: order=.*view 2 \('text'\) is read by nothing"):
        parts_of("views.order=[image,image,text]")


def test_each_part_of_a_joint_reads_its_own_views():
    """Two views of an image are contrasted with each other, and the first with the text."""
    joint = ("objective=joint", "objective@objective.parts.simmim=infonce", "objective.parts.simmim.form=cross_view",
             "objective.parts.simmim.reads=[0,2]", "views.order=[image,image,text]")  # fmt: skip
    parts = parts_of(*joint)
    assert parts.objective.reads == (0, 1, 2)
    data = parts.dataset.fetch(torch.arange(16))
    views = parts.views(data, randomness(16))
    outputs = parts.objective.eval().project(Features(parts.encoder, views, randomness(16)))
    for name, number in (("infonce", 1), ("simmim", 2)):
        head = parts.objective.parts[name]
        for key, view in (("z1", views[0]), ("z2", views[number])):
            expected = torch.nn.functional.normalize(head.head(parts.encoder(view).pooled), dim=1)
            torch.testing.assert_close(outputs[f"{name}/{key}"], expected)
