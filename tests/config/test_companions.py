"""An option of dataset chooses the other parts for its kind of data, unless the user or an experiment chooses them."""

import pytest
from support.helpers import compose


def test_data_choose_the_other_parts_and_the_user_has_the_last_word():
    config = compose("dataset=interactions")
    parts = [part.name for part in (config.encoder, config.views, config.probe)]
    assert parts == ["Nodes", "UserItem", "Ranking"]
    config = compose("dataset=interactions", "encoder=mlp", "objective=infonce", "views=columns", "probe=knn")
    assert [part.name for part in (config.encoder, config.objective, config.probe)] == ["MLP", "InfoNCE", "KNN"]
    assert compose("dataset=vectors").encoder.name == "ConvNetSmall"


@pytest.mark.parametrize(
    "name, objective", [("sasrec", "NextItem"), ("cl4srec", "Joint"), ("bert4rec", "MaskedTokens")]
)
def test_an_experiment_chooses_others_than_its_data(name, objective):
    config = compose(f"experiment={name}")
    found = [part.name for part in (config.encoder, config.objective, config.views, config.probe)]
    assert found == ["History", objective, "Augmented", "Ranking"] and config.dataset.node["sample"] == "history"
    assert config.encoder.node["causal"] == (name != "bert4rec")


@pytest.mark.parametrize("command", ["eval", "export"])
def test_commands_that_read_a_run_take_such_data_without_the_other_parts(command):
    config = compose("dataset=interactions", "dataset.part=validation", name=command)
    assert config.dataset.name == "interactions" and config.dataset.node["part"] == "validation"
    assert not hasattr(config, "encoder") and not hasattr(config, "objective")
    if command == "eval":
        assert config.probe.name == "Ranking"
        assert compose("dataset=interactions", "probe=linear", name=command).probe.name == "Linear"
