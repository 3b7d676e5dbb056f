"""A printed override gives its value back after the shell, Hydra's grammar and OmegaConf's interpolations."""

import ast
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from sslcli.config.arguments import sweep_dir
from sslcli.config.quoting import for_hydra, loading, override

NASTY = [
    "runs/plain-1.0", "", " ", "my pics", "a=b", "a,b", "[a,b]", "{a: b}", "a(1)", "it's", 'say "x"', "\\", "a\\b",
    'a\\"b', "a\\\\", "$HOME/x", "${HOME}/x", "\\${x}", "\\\\${x}", "$(rm x)", "`x`", "a;b&c|d", "a#b",
    "größe/картинки", "\u5199\u771f", "a:b", "null", "true", "1", "1e3", "0x10", "inf", "nan", "~/x", "*?[a-z]",
    "!x", "a\tb", "a\nb", "'", "''", '"', "%d", "<x>", "x y/", "-m", "=", "range(3)", "choice(a,b)", "shuffle",
    "//host/x", "C:\\Users\\me\\",
    "a${", "$", "}", "{", "${a.b:1}", "2024-runs", "Null", "-inf", "a b=${c},'d'[\"e\"]",
]  # fmt: skip
PARSER = OverridesParser.create()


def parsed(text):
    (word,) = shlex.split(text)
    found = PARSER.parse_override(word)
    return found.key_or_group, OmegaConf.to_container(OmegaConf.create({"value": found.value()}), resolve=True)["value"]


@pytest.mark.parametrize("value", NASTY)
def test_an_override_can_be_pasted(value):
    assert parsed(override("dataset.path", value)) == ("dataset.path", value)


def test_what_needs_no_quotes_has_none():
    for value in ("runs/infonce-x-1.0_2", "resnet50.a1_in1k", "/data/x", "NAME"):
        assert override("run", value) == f"run={value}"


@pytest.mark.parametrize("value", [value for value in NASTY if value and not value.startswith("~")])
def test_the_folder_of_a_sweep_is_what_was_given_for_it(value):
    assert str(sweep_dir(["-m", for_hydra("run_dir", value), "seed=0,1"])) == str(Path(value))


@pytest.mark.parametrize("value", NASTY)
def test_the_command_in_python_names_the_run(value):
    program, flag, code = shlex.split(loading(value))
    assert (program, flag) == ("python", "-c") and ast.literal_eval(
        code.partition("load(")[2].rpartition(")")[0]
    ) == value
