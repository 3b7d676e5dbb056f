"""Every yaml composes and builds, and every objective runs with every family of encoders."""

import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from support import small_models  # noqa: F401  registers models
from support.helpers import TINY, compose, make_trainer, trainer_of
from support.layouts import data_of
from support.marks import rest_is_slow

from sslcli.cli import conf_dir
from sslcli.components import build_components, build_dataset
from sslcli.config.instantiate import build
from sslcli.config.options import describe
from sslcli.errors import UserError
from sslcli.evaluation.base import Probe
from sslcli.run_dir.fitted import Fitted
from sslcli.training.optim import parameter_groups
from sslcli.training.schedule import Schedule
from sslcli.views.image.pipeline import ImageViews

CONF = Path(conf_dir())
NEEDS_TOKENS = {"simmim", "joint", "joint_masked"}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def made_by(option: str) -> str:
    """The ``_target_`` of an option of views, its own or that of the option it changes."""
    found = OmegaConf.load(CONF / f"views/{option}.yaml")
    return str(found.get("_target_") or made_by(found.defaults[0]))


IMAGE_PIPELINES = [option for option in options("views") if made_by(option).endswith(".ImageViews")]
NEEDS_NO_FILES = [
    option for option in options("dataset") if "path" not in OmegaConf.load(CONF / f"dataset/{option}.yaml")
]


@pytest.mark.parametrize("option", IMAGE_PIPELINES)
def test_every_number_of_a_pipeline_can_be_set(option):
    """What no yaml names could only be added with a +; and views=none leaves everything off."""
    parameters = inspect.signature(ImageViews).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    found = compose(f"views={option}").views.node
    assert set(found) == {"_target_", *defaults}
    if option == "none":
        for name, default in defaults.items():
            assert found[name] == (pytest.approx(default) if default is not None else None), name


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda p: str(p.relative_to(CONF)))
def test_every_yaml_says_what_it_is(path):
    assert describe(path)


GROUPS = [g.name for g in sorted(CONF.iterdir()) if g.is_dir() and g.name != "__pycache__"]
TOGETHER = [group for group in GROUPS if group not in ("experiment", "format", "hydra")]


@pytest.mark.parametrize("number", range(max(len(options(group)) for group in TOGETHER)))
def test_every_option_composes(number):
    """The option of this number of every group at once: a composition takes longer than the parts of it."""
    chosen = [f"{group}={options(group)[number]}" for group in TOGETHER if number < len(options(group))]
    assert compose(*chosen).encoder.node["_target_"].startswith("sslcli.")


@pytest.mark.parametrize(
    "group, option", [(group, option) for group in GROUPS if group not in TOGETHER for option in options(group)]
)
def test_every_option_composes_that_brings_others(group, option):
    command, part = ("export", "format") if group == "format" else ("train", "encoder")
    assert getattr(compose(f"{group}={option}", name=command), part).node["_target_"].startswith("sslcli.")


@pytest.mark.parametrize("name", ["eval", "export", "report"])
def test_the_other_commands_compose(name):
    assert compose(name=name).run is None


def test_small_parts_build():
    module = torch.nn.Linear(2, 2)
    for option in options("optimizer"):
        config = compose(f"optimizer={option}")
        build(config.optimizer.node, torch.optim.Optimizer, parameter_groups([module]), 256, where="optimizer")
    for option in options("schedule"):
        build(compose(f"schedule={option}").schedule.node, Schedule, where="schedule")
    for option in options("probe"):
        build(compose(f"probe={option}").probe.node, Probe, where="probe")
        build(compose(f"probe={option}", name="eval").probe.node, Probe, where="probe")


FAMILIES = {  # every option with a narrow model of its architecture
    "convnet_small": (),
    "mlp": (),
    "resnet18": ("encoder.name=resnet_mini",),
    "vit_tiny": ("encoder.name=vit_mini",),
    "swin_tiny": ("encoder.name=swin_mini",),
    "convnext_tiny": ("encoder.name=convnext_mini",),
}


@pytest.mark.parametrize("encoder", rest_is_slow(FAMILIES, "convnet_small", "mlp", "vit_tiny"))
@pytest.mark.parametrize("objective", options("objective"))
def test_every_objective_trains_every_encoder_family(tmp_path, encoder, objective):
    """One step on tiny images, 16 px colour: finite loss, finite gradients that reach the encoder."""
    common = (*TINY, "train.batch_size=4", "device=cpu")
    chosen = compose(*common, f"encoder={encoder}", *FAMILIES[encoder]).encoder
    config = replace(compose(*common, f"objective={objective}"), encoder=chosen)
    if data_of(objective) is not None:
        with pytest.raises(UserError, match="use encoder="):
            build_components(config)
        return
    if encoder == "mlp" and objective in NEEDS_TOKENS:
        with pytest.raises(UserError, match="no image tokens"):
            build_components(config)
        return
    trainer = trainer_of(config, tmp_path)
    loss, _ = trainer.gradients(next(trainer.loader.batches(0)))
    grads = [p.grad for p in trainer.encoder.parameters() if p.grad is not None]
    assert loss.total.detach().isfinite()
    assert len(grads) >= 3 and all(g.isfinite().all() for g in grads)
    assert any(g.abs().sum() > 0 for g in grads)


@pytest.mark.parametrize("option", NEEDS_NO_FILES)
def test_every_dataset_that_needs_no_files_trains(tmp_path, option):
    reader = ("encoder=text_bag",) if option == "wordnet_mini" else ()
    trainer = make_trainer(tmp_path, f"dataset={option}", *reader, "train.batch_size=16", "train.steps=2")
    trainer.fit()
    assert trainer.step == 2


@pytest.mark.parametrize("views", IMAGE_PIPELINES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_pipeline_makes_finite_views(tmp_path, views, channels):
    trainer = make_trainer(tmp_path, *TINY, f"views={views}", f"dataset.channels={channels}")
    loss, _ = trainer.train_step(next(trainer.loader.batches(0)))
    assert loss.total.detach().isfinite()


def test_an_own_part_works_from_an_own_package(tmp_path, monkeypatch):
    """``--config-dir my/conf objective=mine plugins=[mypkg]``: one file and one yaml, nothing registered."""
    from sslcli.config.instantiate import allow

    package = tmp_path / "mypkg_for_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "mine.py").write_text(
        "from sslcli.objectives.infonce import InfoNCE\n\n\nclass Mine(InfoNCE):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    config = compose(*TINY)
    config.objective.node["_target_"] = "mypkg_for_test.mine.Mine"
    with pytest.raises(UserError, match=r"plugins=\[mypkg_for_test\]"):
        build_components(config)
    allow(["mypkg_for_test"])
    try:
        assert type(build_components(config).objective).__name__ == "Mine"
    finally:
        allow([])


def test_joint_parts_share_the_encoder_and_keep_their_own_keys():
    parts = build_components(compose(*TINY, "objective=joint", "objective.parts.infonce.temperature=0.3"))
    assert parts.objective.parts["infonce"].temperature.start == 0.3
    assert parts.objective.reads == (0, 1) and parts.objective.couples_batch


def test_training_never_sees_labels():
    for option in NEEDS_NO_FILES:
        dataset = build_dataset(compose(f"dataset={option}")).fit(Fitted())
        columns = {"wordnet_mini": {"text", "pair"}, "package_deps": {"user", "item"}}.get(option, {"image"})
        assert set(dataset.fetch(torch.arange(2))) == set(dataset.spec) == columns
