"""What ``_target_`` names is known to be of the wanted kind before it is called."""

import pytest

from sslcli.config.instantiate import build
from sslcli.data.base import Dataset
from sslcli.errors import UserError
from sslcli.evaluation.base import Probe


@pytest.mark.parametrize(
    "target",
    [
        "sslcli.data.disk_cache.cache_dir",  # functions of this package that take no key, and would be called
        "sslcli.commands.pack.main",
        "sslcli.cli.pack",
        "sslcli.data.disk_cache.Path",  # a class that a module has imported
        "sslcli.data.published.fashion_mnist.fashion_mnist_mini",  # a part of another kind
        "sslcli.data.synthetic.synthetic",
        "sslcli.encoders.mlp.MLP",
    ],
)
def test_another_kind_is_refused_before_it_is_called(target):
    with pytest.raises(UserError, match=rf"probe\._target_: {target} is not (annotated to return )?a Probe\."):
        build({"_target_": target}, Probe, where="probe")


def test_a_subclass_and_an_annotated_function_are_built():
    assert len(build({"_target_": "sslcli.data.published.fashion_mnist.fashion_mnist_mini"}, Dataset, where="dataset"))
    assert build({"_target_": "sslcli.evaluation.base.NoProbe"}, Probe, where="probe")({}) == {}
