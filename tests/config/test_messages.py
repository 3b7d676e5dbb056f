"""What is said about keys and options that are not there, broken yaml files and overrides that cannot be read."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra

from sslcli.config.arguments import conf_dir
from sslcli.config.composed import CONFIGS, resolved, schema
from sslcli.config.flags import flags_first
from sslcli.config.given import Given
from sslcli.config.hydra_errors import explain
from sslcli.config.options import Folders
from sslcli.config.other_names import FIRST, KEYS, OPTIONS, Nearest
from sslcli.config.overrides import check_overrides
from sslcli.config.suggestions import timm_models, unknown_key, unknown_option
from sslcli.errors import UserError

FOLDERS = Folders([Path(conf_dir())])


def composed(*overrides, name="train", own=None):
    """The plain config of a command; errors are explained as the command does it."""
    words = [*overrides, *(["--config-dir", str(own)] if own else [])]
    given = Given.read(name, words)
    check_overrides(given)
    path = [f"hydra.searchpath=[{own}]"] if own else []
    ConfigStore.instance().store(name="schema", node=schema(CONFIGS[name]))
    GlobalHydra.instance().clear()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        try:
            return resolved(compose(name, overrides=[*path, *overrides]), CONFIGS[name])
        except UserError:
            raise
        except Exception as error:
            raise UserError(explain(error, given)) from error


def refused(*overrides, **more):
    with pytest.raises(UserError) as caught:
        composed(*overrides, **more)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and "raised while" not in message
    return message


KEYS_THAT_ARE_NOT_THERE = {
    "dataset.path=pics": "dataset=images dataset.path=pics",
    "dataset.path='my pics'": "dataset=images dataset.path=",
    "lr=0.1": "Did you mean: optimizer.lr=0.1",
    "train.lr=0.1": "Did you mean: optimizer.lr=0.1",
    "optimizer.learning_rate=0.1": "Did you mean: optimizer.lr=0.1",
    "batch_size=32": "Did you mean: train.batch_size=32",
    "batchsize=32": "Did you mean: train.batch_size=32",
    "epochs=3": "Did you mean: train.epochs=3",
    "temperature=0.1": "objective.temperature=0.1",
    "objective=simmim objective.temperature=0.1": "objective=infomax objective.temperature=0.1 (also in infonce",
    "mask_ratio=0.5": "objective=masked_tokens objective.mask_ratio=0.5 (also in simmim)",
    "objective.mask_ratio=0.5": "objective=masked_tokens objective.mask_ratio=0.5 (also in simmim)",
    "encoder.name=resnet34": "encoder=timm encoder.name=resnet34",
    "model=resnet18": "Did you mean: encoder=resnet18",
    "data=pics": "Did you mean: dataset=images dataset.path=pics",
    "warmup_epochs=10": "Did you mean: schedule.warmup=SHARE",
    "name=x": "Did you mean: run_dir=runs/x",
    "width=64": "encoder.width=64 or objective.width=64",
    "train.stepz=1": "Unknown key 'train.stepz'. Did you mean 'steps'? Known: accumulate,",
    "zzz=1": "Unknown key 'zzz'. Known: checkpoint, dataset,",
}  # fmt: skip


@pytest.mark.parametrize("line", KEYS_THAT_ARE_NOT_THERE)
def test_a_key_one_level_down_or_of_another_name_is_offered(line):
    given = Given("train", line.split(" ", 1) if "objective=" in line else [line], FOLDERS)
    key = given.overrides[-1].partition("=")[0]
    section = key.rpartition(".")[0]
    known = {name.removeprefix(f"{section}.").partition(".")[0] for name in given.keys(given.chosen())}
    assert KEYS_THAT_ARE_NOT_THERE[line] in unknown_key(given, key, known)


@pytest.mark.parametrize("line", ["lr=0.1", "dataset.path='my pics'", "objective=simmim objective.temperature=0.1"])
def test_a_key_that_hydra_refuses_is_explained_so(line):
    words = [line] if "'" in line else line.split(" ")
    assert KEYS_THAT_ARE_NOT_THERE[line] in refused(*words)


OPTIONS_THAT_ARE_NOT_THERE = {
    "objective=simclr": "objective=infonce; as published: experiment=simclr_cifar10 or experiment=simclr_imagenet",
    "objective=mae": "objective=simmim objective.visible_only=true encoder=vit_tiny; as published: experiment=mae_",
    "objective=dino": "'dino' is not in this tool. The nearest is: objective=byol",
    "objective=InfoNCE": "Did you mean 'infonce'?",
    "encoder=resnet34": "encoder=timm encoder.name=resnet34",
    "encoder=resnet50.a1_in1k": "encoder=timm encoder.name=resnet50 encoder.weights=timm:resnet50.a1_in1k",
    "dataset=./pics": "dataset=images dataset.path=./pics",
    "optimizer=lamb": "optimizer=timm optimizer.name=lamb",
    "device=cuda:1": "device.name=cuda:1",
    "hydra/launcher=joblib": "pip install hydra-joblib-launcher",
    "hydra/launcher=ray": "pip install hydra-ray-launcher",
    "hydra/sweeper=ax": "pip install hydra-ax-sweeper",
}  # fmt: skip


@pytest.mark.parametrize("line", OPTIONS_THAT_ARE_NOT_THERE)
def test_an_option_of_another_name_is_offered(line):
    group, _, option = line.partition("=")
    known = list(FOLDERS.groups.get(group, ()))
    assert OPTIONS_THAT_ARE_NOT_THERE[line] in unknown_option(Given("train", [line], FOLDERS), group, option, known)


@pytest.mark.parametrize("line", ["dataset=./pics", "hydra/launcher=ray"])
def test_an_option_that_hydra_refuses_is_explained_so(line):
    assert OPTIONS_THAT_ARE_NOT_THERE[line] in refused(line)


REFUSED = {
    "seed=1,2": "-m runs the command once for each of several values. A list is written 'seed=[1,2]'",
    "objective=infonce,moco": "-m runs the command once for each of several options",
    "logger=csv,wandb": "are a list: logger=[csv,wandb]",
    "seed=range(3)": "-m runs the command",
    "infonce": "Did you mean: objective=infonce",
    "objective/moco": "Did you mean: objective=moco",
    "objective": "objective takes an option: objective=barlow_twins,",
    "what": "'what' is not key=value. `--help` lists keys and options.",
    "=": "Leave no spaces around it.",
    "views.scale=[0.2,1.0": "a bracket is open",
    "dataset.path=a=b": """Write: 'dataset.path="a=b"'""",
    "dataset.path=größe": """Write: 'dataset.path="größe"'""",
    "+objective=moco": "Leave out the +: objective=moco",
    "~objective.nope": "~objective.nope: the config has nothing of that name",
    "run_dir=${HOME}": "An environment variable is written ${oc.env:HOME}",
    "run_dir=${oc.env:NOT_SET_ANYWHERE}": "run_dir reads the environment variable NOT_SET_ANYWHERE, which is not set",
    "run_dir=${nope:1}": "run_dir: there is no '${nope:...}'",
    "run_dir=${optimizer.lrr}": "Did you mean 'optimizer.lr'?",
}  # fmt: skip


@pytest.mark.parametrize("line", REFUSED)
def test_an_override_that_cannot_be_read_is_explained(line):
    assert REFUSED[line] in refused(line)


@pytest.mark.parametrize(
    "command, line, said",
    [
        ("eval", "run_dir=x", "Did you mean: run=x"),
        ("eval", "objective=moco", "ssl-eval has no group 'objective'"),
        ("eval", "encoder.dim=8", "Unknown key 'encoder'. Known: dataset, device, plugins, probe, run, seed, weights."),
        ("eval", "probe.steps=3", "probe=linear probe.steps=3 (also in mi)"),
        ("export", "frmat=onnx", "Did you mean 'format'?"),
        ("export", "format=torchscript", "The nearest is: format=torch_export"),
        ("report", "run=a,b", "A list is written 'run=[a,b]'"),
    ],
)
def test_other_commands_explain_as_well(command, line, said):
    assert said in refused(line, name=command)


HEAD = "_target_: sslcli.objectives.infonce.InfoNCE\n"
BROKEN = {
    "objective": {
        HEAD + "\twidth: 2\n": "line 2: a tab stands where spaces belong",
        HEAD + " width: 2\n": "line 2: a line is indented otherwise",
        HEAD + "width: 2\nwidth: 3\n": "line 3: found duplicate key width",
        HEAD + "label: 'a\n": "line 3: a quote is not closed",
        HEAD + "label: [a\n": "line 3: a bracket is not closed",
        HEAD + "label: *a\n": "line 2: found undefined alias",
        HEAD + "label: !!python/name:os.system x\n": "line 2: tags (!!) are not read here",
        HEAD + "label: a\x01b\n": "it holds a control character",
        HEAD + "label: \udcff\n": "mine.yaml is not UTF-8",
        HEAD + "width: ${optimizer.lrr}\n": "line 2: objective.width refers to 'optimizer.lrr', which is not there.",
        HEAD + "width: ${oc.env:NOT_SET_ANYWHERE}\n": "line 2: objective.width reads the environment variable",
        HEAD + "width: ${nope:1}\n": "line 2: objective.width: there is no '${nope:...}'",
        HEAD + "width: ${optimizer.lr\n": "line 2: width: '${optimizer.lr' is not closed",
        HEAD + "1: 2\n": "line 2: the key 1 is not a text",
        "- a\n": "it must hold keys, 'key: value', not a list",
        "defaults:\n  - infonc\n": "line 2: objective has no option 'infonc'. Did you mean 'infonce'?",
        "defaults:\n  - /objektive: moco\n": "line 2: there is no group 'objektive'. Did you mean 'objective'?",
        "defaults: infonce\n": "line 1: defaults is a list",
        "defaults:\n  - override /views: simmim\n  - infonce\n": "line 2: entries with override stand last",
    },
    "experiment": {
        "train:\n  steps: 5\n": "mine.yaml: its first line must be '# @package _global_'",
        "# @package _global_\ntrain:\n  stepz: 5\n": "line 3: Unknown key 'train.stepz'. Did you mean 'steps'?",
        "# @package _global_\ntrain:\n  steps: many\n": "line 3: train.steps: 'many' is not a whole number",
        "# @package _global_\nlr: 0.1\n": "line 2: Unknown key 'lr'. Did you mean: optimizer.lr=...",
        "# @package _global_\ndefaults:\n  - override /objective: mocco\n": "line 3: objective: there is no option",
        "# @package _global_\ndefaults:\n  - override /objektive: moco\n": "line 3: there is no group 'objektive'",
        "# @package _global_\ndefaults:\n  - objective: moco\n": "line 3: another group is written with a slash",
    },
}  # fmt: skip


@pytest.mark.parametrize("group, text", [(group, text) for group, texts in BROKEN.items() for text in texts])
def test_a_broken_file_is_told_with_its_line(group, text, tmp_path):
    path = tmp_path / group / "mine.yaml"
    path.parent.mkdir()
    path.write_bytes(text.encode(errors="surrogateescape"))
    message = refused(f"{group}=mine", own=tmp_path)
    assert message.startswith(str(path)) and BROKEN[group][text] in message


@pytest.mark.parametrize(
    "words, said",
    [
        (["--dataset", "images"], "Did you mean: dataset=images"),
        (["--lr=0.1"], "Did you mean: optimizer.lr=0.1"),
        (["--batch-size", "32"], "Did you mean: train.batch_size=32"),
        (["--seed", "3"], "Did you mean: seed=3"),
        (["--multrun"], "Did you mean '--multirun'?"),
        (["--foo"], "Keys have no dashes: key=value."),
        (["--cfg"], "a value must follow"),
    ],
)
def test_a_flag_that_is_not_there_is_taken_for_a_key(words, said):
    with pytest.raises(UserError, match=re.escape(said)):
        flags_first("train", words)


OFFERED = [(group, word, said) for group, names in OPTIONS.items() for word, said in names.items()]


@pytest.mark.parametrize("said", sorted({str(said) for _, _, said in OFFERED}))
def test_what_the_table_offers_is_there(said):
    given = Given("export" if said.startswith("format=") else "train", said.split(" "), FOLDERS)
    for word in given.overrides:
        key, _, value = word.partition("=")
        assert value in FOLDERS.groups[key] if key in FOLDERS.groups else key in given.keys(given.chosen())


def test_the_tables_hold_names_that_are_not_our_own():
    for group, word, said in OFFERED:
        assert word not in {re.sub("[-_]", "", name) for name in FOLDERS.groups[group]} - {"clip", "none"}, (
            group,
            word,
        )
        assert (
            isinstance(said, Nearest)
            or unknown_option(Given("train", [], FOLDERS), group, word, []).endswith(said)
            or ("as published" in unknown_option(Given("train", [], FOLDERS), group, word, []))
        )
    assert all(option in FOLDERS.groups[group] for group, option in FIRST.items())


def test_every_key_that_the_table_offers_is_one_of_some_command():
    known = set()
    for name in CONFIGS:
        given = Given(name, [], FOLDERS)
        known |= {*given.groups, *given.keys(given.chosen())}
        known |= {f"{g}.{key}" for g in given.parts for option in FOLDERS.groups[g] for key in FOLDERS.keys(g, option)}
    for templates in KEYS.values():
        for template in templates:
            for word in template.split(" "):
                assert word.partition("=")[0] in known, template


def test_timms_models_are_read_from_its_files():
    assert len(timm_models()) > 1000 and {"resnet34", "vit_base_patch16_224", "convnext_tiny"} <= timm_models()


def test_a_key_in_no_section_has_all_sections_to_choose_from():
    given = Given("train", ["zzz=1"], FOLDERS)
    assert unknown_key(given, "zzz", ["train", "hydra", "views"]) == "Unknown key 'zzz'. Known: train, views."
