"""``--help`` shows the values that hold, and after overrides the keys of what they choose, without importing it."""

import ast
import functools
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from sslcli.config.arguments import conf_dir
from sslcli.config.docstrings import parameters
from sslcli.config.given import Given
from sslcli.config.help import explained, text
from sslcli.config.options import Folders, as_written, comments
from sslcli.config.part_help import composed
from sslcli.config.part_help import text as text_of_parts

CONF = Path(conf_dir())
TARGETS = sorted({line.split()[1] for path in CONF.rglob("*.yaml") for line in path.read_text().splitlines()
                  if line.startswith("_target_: ") and "hydra" not in path.parts})  # fmt: skip


ABSENT = object()


def rows(page):
    """The values of a page's keys by their names."""
    found = [line.split(None, 2) for line in page.splitlines() if line.startswith("  ") and not line.startswith("   ")]
    return {words[0]: words[1:] for words in found if len(words) > 1}


@pytest.mark.parametrize("name", ["train", "eval", "export", "report"])
def test_the_values_on_the_page_are_those_of_the_default_config(name):
    shown = rows(text(name, Folders([CONF])))
    GlobalHydra.instance().clear()
    config, _ = composed(Given(name, [], Folders([CONF])))
    for key in explained(name):
        value = functools.reduce(lambda node, part: node.get(part, ABSENT), key.split("."), config)
        assert shown[key][0] == ("-" if value is ABSENT else as_written(value)), key


@pytest.mark.parametrize("target", [t for t in TARGETS if "evaluation" not in t])
def test_a_constructor_is_read_from_its_file_as_python_reads_it(target):
    module, _, name = target.rpartition(".")
    thing = getattr(import_module(module), name)
    own = {
        key: p
        for key, p in inspect.signature(thing, follow_wrapped=False).parameters.items()
        if p.kind is p.KEYWORD_ONLY
    }
    found = parameters(target)
    assert found.keys() <= own.keys()  # the fields that ``takes_fields_of`` adds stand in yaml
    assert {key for key, p in found.items() if p.default == "needed"} == {
        key for key, p in own.items() if p.default is p.empty and key in found
    }
    if "**" not in ast.unparse(ast.parse(inspect.getsource(thing))).partition("->")[0]:
        assert list(found) == list(own)


def test_the_keys_of_what_is_chosen_have_values_and_explanations():
    GlobalHydra.instance().clear()
    given = Given("train", ["objective=joint", "objective.parts.infonce.temperature=0.3"], Folders([CONF]))
    shown = rows(text_of_parts(given))
    assert shown["objective.parts.infonce.temperature"] == ["0.3", "divides the cosine similarities"]
    assert shown["objective.parts.simmim.mask_ratio"][0] == "0.6"
    assert (
        shown["objective.weights"][0] == "{infonce:" and shown["train.batch_size"]
        if "train.batch_size" in shown
        else True
    )
    assert all(len(words) == 2 for key, words in shown.items() if key != "device"), shown


MODULE = '''
raise ImportError("a module is not imported for its help")
from sslcli.objectives.infonce import InfoNCE

class Base(InfoNCE):
    """Ours.

    Args:
        encoder: the encoder.
        tau (float): divides the
            similarities.
    """

    def __init__(self, encoder, *, tau: float = 0.5, hidden: int = 7) -> None:
        """Make it.

        Args:
            hidden: width of the head.
        """

class Mine(Base):
    pass
'''


def test_a_part_of_ones_own_is_explained_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "unimported"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from .parts import Mine\nfrom sslcli.objectives.infonce import InfoNCE as Ours\n"
    )
    (package / "parts.py").write_text(MODULE)
    folder = tmp_path / "my" / "objective"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# mine\n_target_: unimported.Mine\ntau: 0.25\n")
    monkeypatch.chdir(tmp_path)
    GlobalHydra.instance().clear()
    page = text_of_parts(Given.read("train", ["--config-dir", "my", "objective=mine", "plugins=[unimported]"]))
    assert "objective=mine  mine\n" in page
    assert rows(page)["objective.tau"] == ["0.25", "divides the similarities"]
    assert rows(page)["+objective.hidden"] == ["7", "width of the head"]
    assert "unimported" not in sys.modules
    assert parameters("unimported.Ours")["temperature"].text == "divides the cosine similarities."
    assert parameters("unimported.Nope") == parameters("no_such_package.X") == parameters("X") == {}


def test_a_broken_module_costs_its_explanations_only(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("class Mine(:\n")
    (tmp_path / "circle.py").write_text("from circle import Mine\n")
    monkeypatch.chdir(tmp_path)
    assert parameters("broken.Mine") == parameters("circle.Mine") == {}


def test_comments_are_found_behind_their_keys(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("# head\na: 1 # one\nb:\n  c: '#' # two\n  d: x#y\ne: 3 # three # and more\n")
    assert comments(path) == {"a": "one", "b.c": "two", "e": "three # and more"}


def test_the_help_of_parts_imports_no_torch():
    code = (
        "import sys; sys.argv = ['ssl-train', 'objective=moco', '--help']\n"
        "from sslcli.cli import train\n"
        "try: train()\nexcept SystemExit as e: assert not e.code\n"
        "assert not {'torch', 'timm'} & set(sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0 and "objective.queue" in found.stdout, found.stderr
