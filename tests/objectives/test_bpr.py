"""BPR against a loop in float64, and what it learns of two blocks of taste."""

import math

import pytest
import torch
from support.helpers import TINY, make_trainer, randomness
from support.modalities import pairs_dataset

from sslcli.components import Components
from sslcli.encoders.nodes import Nodes
from sslcli.features import Features
from sslcli.objectives.bpr import BPR
from sslcli.views.nodes.pairs import UserItem

DATASET = pairs_dataset()


def parts(layers=0, **options):
    torch.manual_seed(0)
    encoder = Nodes(DATASET.spec, dim=6, layers=layers)
    objective = BPR(encoder, **options)
    return encoder, objective, UserItem(DATASET.spec, DATASET.spec, len(objective.reads))


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("negatives, l2", [(1, 0.0), (3, 0.01)])
def test_the_loss_is_that_of_a_loop(layers, negatives, l2):
    encoder, objective, views = parts(layers, negatives=negatives, l2=l2)
    encoder.double()
    columns = DATASET.fetch(torch.arange(20))
    made = views(columns, randomness(20))
    loss = objective.loss(objective.project(Features(encoder, made, randomness(20), columns, at_once=True)))
    vectors = encoder(made[0]), *map(encoder, made[1:])
    ranking, lengths = 0.0, 0.0
    for b in range(20):
        user, item, *others = (encoded.pooled[b].tolist() for encoded in vectors)
        own = sum(x * y for x, y in zip(user, item))
        for other in others:
            difference = own - sum(x * y for x, y in zip(user, other))
            ranking += math.log(1 + math.exp(-difference)) / (20 * negatives)
        first = [sum(x * x for x in encoded.tokens[b, 0].tolist()) for encoded in vectors]
        lengths += (first[0] + first[1] + sum(first[2:]) / negatives) / (2 * 20)
    assert loss.total.item() == pytest.approx(ranking + l2 * lengths, rel=1e-12)
    assert loss.chance == math.log(2)


def test_constant_scores_are_chance():
    encoder, objective, _ = parts()
    loss = objective.loss({"difference": torch.zeros(4, 2)})
    assert loss.total.item() == pytest.approx(objective.chance(4)) and loss.parts["pair_accuracy"] == 0.5
    assert objective.similarity == "dot"


@pytest.mark.parametrize("layers", [0, 2])
def test_it_learns_two_blocks_of_taste(tmp_path, layers):
    """Held-out items are of a user's own block, so they come before those of the other block."""
    encoder, objective, views = parts(layers)
    options = (*TINY, "train.batch_size=32", "train.steps=60", "optimizer.lr=0.03", "train.precision=fp32")
    trainer = make_trainer(tmp_path, *options, parts=Components(DATASET, encoder, objective, views))
    batches = trainer.loader.batches(0)
    for _ in range(60):
        trainer.train_step(next(batches))
    with torch.no_grad():
        scores = encoder(views.evaluation_view({"user": torch.arange(12)})).pooled @ encoder.item_vectors().T
    own = scores[torch.arange(12), DATASET.held_out.columns["item"] - 12]
    others = [scores[u, [i for i in range(8) if i % 2 != u % 2]].mean() for u in range(12)]
    assert (own > torch.stack(others)).float().mean() > 0.8
