"""One default a key: what a yaml says is what the constructor says, but for the variants that are listed here."""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from sslcli.cli import conf_dir
from sslcli.config.instantiate import locate

YAMLS = [
    f"{path.parent.name}/{path.stem}"
    for path in sorted(Path(conf_dir()).glob("*/*.yaml"))
    if path.parent.name not in ("experiment", "debug")  # those name no class and change what other yamls say
]
# In a part's section, but read by the loader, by what loads weights, and by what looks at a run while it trains.
READ_ELSEWHERE = {
    "dataset": {"workers", "cache", "max_bad", "max_pixels", "normalise", "range", "buckets"},
    "encoder": {"weights"},
    "probe": {"every", "share", "patience"},
}
# Where several yamls name one class: in which keys they differ from the one that gives its defaults.
CROP = {"scale", "ratio", "flip"}
COLOUR = {"jitter", "brightness", "contrast", "saturation", "hue", "gray"}
OF_NOISE = ("form", "symmetric", "depth", "unique", "reads")
VARIANTS = {
    "encoder/convnet_medium": {"width"},
    "encoder/convnext_tiny": {"norm"},
    "encoder/resnet18": {"norm"},
    "encoder/resnet50": {"norm"},
    "encoder/swin_base": {"norm"},
    "encoder/swin_tiny": {"norm"},
    "encoder/vit_base": {"norm"},
    "encoder/vit_micro": {"norm", "num_heads", "embed_dim", "depth"},
    "encoder/vit_small": {"norm"},
    "encoder/vit_tiny": {"norm"},
    "objective/joint_history": {"parts.infonce.depth", "parts.infonce.reads"},
    "objective/infonce_nodes": {"form", "symmetric", "depth", "same"},
    "objective/joint_layers": {f"parts.{part}.{key}" for part in ("user", "item") for key in (*OF_NOISE, "layer")},
    "objective/joint_masked": {"share", "parts.moco.version", "parts.simmim.mask_ratio"},
    "objective/joint_nodes": {f"parts.{part}.{key}" for part in ("user", "item") for key in OF_NOISE},
    "probe/knn_all": {"max_samples"},
    "views/auto": CROP | COLOUR | {"blur", "blur_sigma"},
    "views/byol": CROP | COLOUR | {"blur", "second"},
    "views/image_text": {f"parts.image.{key}" for key in CROP | COLOUR | {"blur", "blur_sigma"}},
    "views/grayscale_small": CROP | {"jitter", "brightness", "contrast", "blur", "blur_sigma"},
    "views/moco_v1": CROP | COLOUR,
    "views/moco_v2": CROP | COLOUR | {"blur"},
    "views/multicrop": CROP | COLOUR | {"blur", "num_local", "local"},
    "views/simclr": CROP | COLOUR | {"blur"},
    "views/simmim": CROP,
    "views/small": CROP | COLOUR | {"blur", "blur_sigma"},
}
Node = Mapping[str, Any]


@pytest.fixture(scope="module")
def options() -> dict[str, Node]:
    """Every yaml with the yamls that it builds on, as one composition has them all: its section by its name."""
    GlobalHydra.instance().clear()
    groups = [name.split("/") for name in YAMLS]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        chosen = ["+encoder=nodes", "+objective=bpr", "+views=nodes", "+probe=ranking"]  # which a dataset may choose
        found = compose(overrides=[*chosen, *(f"+{group}@{group}.{option}={option}" for group, option in groups)])
    plain = OmegaConf.to_container(found, resolve=True)
    return {f"{group}/{option}": plain[group][option] for group, option in groups}


def parts(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """What a section builds, itself and the parts in it, each behind the path that its keys have."""
    if "_target_" in node:
        yield path, node
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from parts(value, f"{path}{key}.")


def defaults(node: Node) -> dict[str, Any]:
    """The keys that a part's constructor takes with their defaults, lists as a yaml has them."""
    parameters = inspect.signature(locate(node["_target_"], "")).parameters.values()
    found = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def differing(section: Node, elsewhere: set[str]) -> set[str]:
    """The keys of a section, and of the parts in it, whose value is not the constructor's default."""
    found = set()
    for path, node in parts(section):
        expected = defaults(node)
        own = {key: value for key, value in node.items() if key != "_target_" and (path or key not in elsewhere)}
        assert own.keys() == expected.keys(), "a yaml has the keys of its constructor, no more and no less"
        needed = {key for key, default in expected.items() if default is inspect.Parameter.empty}
        found |= {f"{path}{key}" for key in own.keys() - needed if own[key] != expected[key]}
    return found


@pytest.mark.parametrize("name", YAMLS)
def test_a_yaml_says_what_the_constructor_says(options, name):
    elsewhere = READ_ELSEWHERE.get(name.split("/")[0], set())
    assert differing(options[name], elsewhere) == VARIANTS.get(name, set())


def test_every_class_has_a_yaml_that_gives_its_defaults(options):
    targets = {name: node["_target_"] for name, node in options.items() if "_target_" in node}
    own = {name for name, keys in VARIANTS.items() if not all(key.startswith("parts.") for key in keys)}
    assert set(targets.values()) == {target for name, target in targets.items() if name not in own}
    assert set(VARIANTS) <= set(targets)


@pytest.mark.parametrize(
    "section, expected",
    [
        ({"_target_": "sslcli.training.schedule.Constant", "warmup": 0.25}, set()),  # needed: no default to differ from
        (
            {"_target_": "sslcli.training.schedule.Steps", "milestones": [0.5], "factor": 0.2, "warmup": 0.0},
            {"milestones", "factor"},
        ),
        ({"_target_": "sslcli.evaluation.base.NoProbe", "every": 5}, set()),
        # parts are needed: there is no default to differ from
        ({"_target_": "sslcli.evaluation.base.Several", "parts": {}, "max_samples": None}, set()),
        (
            {
                "_target_": "sslcli.evaluation.base.Several",
                "parts": {"knn": {"_target_": "sslcli.evaluation.knn.KNN", "k": 5, "temperature": 0.07, "whiten": 256,
                                  "max_samples": "auto"}},
                "max_samples": None,
            },
            {"parts.knn.k"},
        ),
    ],
)  # fmt: skip
def test_a_difference_is_seen(section, expected):
    assert differing(section, {"every"}) == expected


@pytest.mark.parametrize("keys", [{}, {"warmup": 0.0, "warm": 0.0}])
def test_a_key_too_few_or_too_many_is_seen(keys):
    with pytest.raises(AssertionError, match="no more and no less"):
        differing({"_target_": "sslcli.training.schedule.Constant", **keys}, set())
