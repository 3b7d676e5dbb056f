"""Views of histories against loops over the items: what CL4SRec changes, that pairs differ, and that no layout does."""

import pytest
import torch
from support.helpers import compose, randomness
from support.modalities import histories, pairs_dataset
from torch.nn import functional as F

from sslcli.config.instantiate import build
from sslcli.types import Field, Spec
from sslcli.views.base import Views
from sslcli.views.history.augmented import Augmented

DATA = histories(400, length=20)
SPEC, FIELD, HISTORIES = DATA.spec, DATA.spec["history"], DATA.columns["history"]
PAD, MASK = FIELD.pad, FIELD.mask
ALONE = {"crop": {"mask": None, "reorder": None}, "mask": {"crop": None, "reorder": None},
         "reorder": {"crop": None, "mask": None}}  # fmt: skip


def made(count=2, ids=HISTORIES, drawn=None, spec=SPEC, **options):
    views = Augmented(spec, spec, count, **{"whole": 0, **options})
    return views({"history": ids}, drawn or randomness(len(ids)))


def items_of(row):
    return [item for item in row.tolist() if item != PAD]


def is_crop(before, after):
    length = max(int(0.6 * len(before)), min(len(before), 1))
    return len(after) == length and any(before[k : k + length] == after for k in range(len(before) + 1))


def is_mask(before, after):
    hidden = sum(item == MASK for item in after)
    kept = all(one == other or other == MASK for one, other in zip(before, after))
    return len(before) == len(after) and kept and hidden == int(0.3 * len(before))


def is_reorder(before, after):
    length, moved = int(0.6 * len(before)), [k for k, (one, other) in enumerate(zip(before, after)) if one != other]
    return sorted(before) == sorted(after) and (not moved or moved[-1] - moved[0] < length)


CHECKS = {"crop": is_crop, "mask": is_mask, "reorder": is_reorder}


@pytest.mark.parametrize("name", ALONE)
def test_an_operation_does_what_the_paper_says(name):
    one, two = made(**ALONE[name])
    assert not torch.equal(one.x, two.x) and one.field == "history"
    places = []
    for view in (one, two):
        assert torch.equal(view.valid, view.x != PAD)
        for before, after in zip(HISTORIES, view.x):
            before, after = items_of(before), items_of(F.pad(after, (0, 20 - len(after)), value=PAD))
            assert CHECKS[name](before, after), (before, after)
            if len(before) == 20:
                changed = [k for k, (x, y) in enumerate(zip(before, after)) if x != y]
                places.append([before.index(item) for item in after] if name == "crop" else changed)
    ends = [(place[0], place[-1]) for place in places if place]
    assert min(ends)[0] == 0 and max(last for _, last in ends) == 19  # any part of a history can be the one


def test_a_reordered_part_is_shuffled_and_not_turned():
    (view,) = made(1, **ALONE["reorder"])
    orders = set()
    for before, after in zip(HISTORIES, view.x):
        before = items_of(before)
        if len(before) == 20:
            orders.add(tuple(before.index(item) for item in items_of(after)))
    assert len(orders) > 60  # of about 80


def test_the_two_views_of_a_sample_are_changed_in_different_ways():
    one, two = made()
    seen = {}
    for before, first, second in zip(HISTORIES, one.x, two.x):
        before = items_of(before)
        if len(before) < 15:  # short ones can be changed in two ways to the same
            continue
        kinds = tuple(
            next(name for name, check in CHECKS.items() if check(before, items_of(row))) for row in (first, second)
        )
        seen[kinds] = seen.get(kinds, 0) + 1
    total = sum(seen.values())
    assert len(seen) == 6 and all(a != b for a, b in seen)
    assert all(abs(count / total - 1 / 6) < 0.09 for count in seen.values())  # 110 histories: 2.5 standard errors


def test_whole_histories_come_first_and_pairs_after_them_are_drawn_on_their_own():
    whole, *changed = made(5, whole=1)
    assert torch.equal(whole.x, HISTORIES) and len(changed) == 4
    for one in range(4):
        for other in range(one):
            assert not torch.equal(changed[one].x, changed[other].x)
    assert [view.x.shape for view in made(1, whole=1)] == [HISTORIES.shape]
    assert Augmented(SPEC, SPEC, 2, whole=2).by_dropout and not Augmented(SPEC, SPEC, 2, whole=0).by_dropout
    assert not Augmented(SPEC, SPEC, 1, whole=1).by_dropout


def test_what_is_drawn_depends_on_neither_the_width_nor_the_layout():
    narrow = made(3, whole=1)
    ids = F.pad(HISTORIES, (0, 20), value=PAD)
    field = Field("tokens", (40,), torch.int64, FIELD.vocab, pad=PAD, mask=MASK)
    for one, other in zip(narrow, made(3, ids, whole=1, spec=SPEC.having("history", field))):
        assert torch.equal(one.x, other.x[:, :20]) and (other.x[:, 20:] == PAD).all()
    for one, other in zip(narrow, made(3, HISTORIES[100:200], randomness(400).part(100, 200), whole=1)):
        assert torch.equal(one.x[100:200, : other.x.shape[1]], other.x)


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_short_histories_stay_histories(length):
    ids = torch.full((64, 16), PAD)
    ids[:, :length] = HISTORIES[2, :length]
    for view in made(6, ids):
        assert all(len(items_of(row)) >= min(1, length) for row in view.x)
        assert not view.valid[:, length:].any()


def test_the_yaml_is_for_one_view_and_for_three():
    node = compose("views=history").views.node
    for count in (1, 3):
        views = build(node, Views, SPEC, SPEC, count, where="views")
        assert len(views(DATA.columns, randomness(400))) == count and views.fields == ("history",)
        assert torch.equal(views.evaluation_view(DATA.columns).x, HISTORIES)


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="no column 'history', only user, item; set dataset.sample=history"):
        Augmented(pairs_dataset().spec, pairs_dataset().spec, 1)
    with pytest.raises(ValueError, match="view 1 is to be a changed history"):
        made(2, whole=1, crop=None, mask=None, reorder=None)
    bare = Spec(history=Field("tokens", (20,), torch.int64, FIELD.vocab, pad=PAD))
    with pytest.raises(ValueError, match="no id that hides an item"):
        made(spec=bare)
    assert len(made(spec=bare, mask=None)) == 2
