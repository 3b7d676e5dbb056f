"""What every test runs under."""

import functools
import gc
import os
import pickle
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the tests' processes share the cores

import pytest
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from xdist.scheduler import LoadScopeScheduling

from sslcli import cli


class ByModule(LoadScopeScheduling):
    """Tests of a module that has fixtures of its own run in one process, where these are made once, and first."""

    def _split_scope(self, nodeid):
        module = nodeid.partition("::")[0]
        return module if shares_fixtures(self.config.rootpath / module) else nodeid


@functools.cache
def shares_fixtures(module):
    return 'scope="module"' in module.read_text()


def pytest_xdist_make_scheduler(config, log):
    return ByModule(config, log)


def pytest_collection_modifyitems(items):
    """Those marked ``long`` begin first: at the end, one would keep a process while the others have nothing to do."""
    items.sort(key=lambda item: "long" not in item.keywords)


def pytest_collection_finish(session):
    """What the libraries and the tests define lives to the end: the garbage collector need not visit it every time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def cache_of_its_own(tmp_path_factory):
    """Indices of folders are kept here and not in the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def composed_quickly():
    """Composing was a third of the tests' time.

    Hydra composes every config twice, first to read ``hydra.mode``, which no test sets; and each time it reads every
    yaml anew, where a copy of what was read does. Those that a test writes are read as ever.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hydra, "get_mode", lambda self, config_name, overrides: None)
        patch.setattr(ConfigRepository, "load_config", copies_of_what_is_shipped(ConfigRepository.load_config))
        yield


def copies_of_what_is_shipped(load_config):
    """``load_config`` that reads a config of the project or of Hydra once; its callers change what it returns."""
    kept = {}

    def load(self, config_path):
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        shipped = config_path == "hydra/config" or (source and source.path in (cli.conf_dir(), "hydra.conf"))
        if not shipped:
            return load_config(self, config_path)
        key = (source.path, config_path)
        if key not in kept:
            kept[key] = pickle.dumps(load_config(self, config_path))
        return pickle.loads(kept[key])

    return load


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run a command in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.signals, "install", lambda **_: None)  # pytest keeps its own Ctrl-C
    monkeypatch.setattr(cli, "leave", sys.exit)  # and its process, should a command end with a bug

    def call(*arguments, command="train"):
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        monkeypatch.setattr(sys, "argv", [f"ssl-{command}", *arguments])
        GlobalHydra.instance().clear()
        entry = {"train": cli.train, "eval": cli.evaluate, "export": cli.export, "report": cli.report}[command]
        with pytest.raises(SystemExit) as stop:
            entry()
        out = capsys.readouterr()
        return stop.value.code, out.out, out.err

    return call
