"""The structure itself: rooms, what may import what, packaging, and what a newcomer can expect of every file."""

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import sslcli

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sslcli"
# A room imports from those above it in this list, never from those beside it.
ROOMS = [
    {"errors", "signals"},
    {"types", "randomness"},
    {"graph"},
    {"config"},
    {"distributed", "run_dir"},
    {"data", "encoders", "views"},
    {"features"},
    {"objectives"},
    {"pretrained"},
    {"components"},
    {"training", "evaluation", "report", "loggers", "export"},
    {"sweeps"},
    {"commands"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def parsed(path):
    return ast.walk(ast.parse(path.read_text()))


def imports():
    """(file, its room, the imported room, the imported module) for every import of one of our modules."""
    for path in FILES:
        for node in parsed(path):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module == "sslcli":
                names = [f"sslcli.{alias.name}" for alias in node.names if alias.name in LEVEL]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                if name.startswith("sslcli."):
                    yield path, room_of(path), name.split(".")[1], name


def test_imports_go_one_way():
    for path, room, target, module in imports():
        if room not in ("__init__", "__main__", target):
            assert LEVEL[target] < LEVEL[room], f"{path} imports {module}, which is not below it"


def test_every_room_is_known_and_few_modules_lie_loose():
    assert {room_of(path) for path in FILES} - {"__init__", "__main__"} == set(LEVEL)
    loose = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert len(loose) <= 8


def test_no_module_imports_itself_in_a_circle():
    """Within a room, too; names that only type checkers read do not count."""
    graph = {}
    for path in FILES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found = graph.setdefault(name, set())
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sslcli"):
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {node.module, *inner}
    graph = {name: targets & graph.keys() for name, targets in graph.items()}
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path, name])
        if name not in done:
            path.append(name)
            for target in graph[name]:
                visit(target)
            done.add(path.pop())

    for name in graph:
        visit(name)


def test_only_config_and_commands_know_a_config_as_it_is_written():
    """Elsewhere a config is typed: no parameter is a plain mapping of one, and no string indexes one."""
    for path in FILES:
        if room_of(path) in ("config", "commands", "cli"):
            continue
        for node in parsed(path):
            if isinstance(node, ast.arg) and node.arg in ("config", "cfg") and node.annotation is not None:
                hint = ast.unparse(node.annotation)
                assert hint.endswith("Config"), f"{path}:{node.lineno}: config: {hint}"
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                name = ast.unparse(node.value)
                is_config = name.split(".")[-1] in ("config", "cfg") or name.endswith("['config']")
                assert not (is_config and isinstance(node.slice.value, str)), f"{path}:{node.lineno}: {name}[...]"


def test_no_file_and_no_function_is_long():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 250, path
        for node in parsed(path):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno - node.lineno < 60, f"{path}:{node.lineno} {node.name}"


def test_tests_lie_in_rooms_of_the_same_names():
    rooms = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*") if path.is_dir()}
    for path in (ROOT / "tests").rglob("test_*.py"):
        where = path.parent.relative_to(ROOT / "tests").as_posix()
        assert where in rooms | {"."}, path


def test_every_module_imports():
    for module in pkgutil.walk_packages(sslcli.__path__, "sslcli."):
        __import__(module.name)


def answered(arguments, *, forbidden):
    """What ``ssl-train`` prints for the arguments, in a process that must not import the forbidden modules."""
    code = (
        f"import sys; sys.argv = ['ssl-train', *{arguments!r}]\n"
        "from sslcli.cli import train\n"
        "try: train()\n"
        "except SystemExit as e: code = e.code or 0\n"
        f"assert not {set(forbidden)!r} & set(sys.modules)\n"
        "sys.exit(code)"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_help_answers_without_torch():
    found = answered(["--help"], forbidden=["torch", "timm", "hydra"])
    assert found.returncode == 0, found.stderr
    for word in ("objective", "infonce", "fashion_mnist_mini", "train.batch_size", "optimizer.lr"):
        assert word in found.stdout


def test_a_typo_is_answered_without_torch():
    found = answered(["objective=infonc"], forbidden=["torch"])
    assert found.returncode == 2, found.stderr
    assert "Did you mean 'infonce'?" in found.stderr


def test_a_default_run_is_built_without_what_it_does_not_use():
    """torchvision and timm import torch's compiler, which takes as long as torch itself."""
    found = answered(["encoder.weights=/nowhere"], forbidden=["torch._dynamo", "torchvision", "timm", "matplotlib"])
    assert found.returncode == 2, found.stderr
    assert "encoder.weights: there is no file or run /nowhere" in found.stderr


@pytest.mark.parametrize("command", ["train", "eval", "export", "report"])
def test_the_package_runs_as_a_module(command):
    found = subprocess.run(
        [sys.executable, "-m", "sslcli", command, "--version"], capture_output=True, text=True, check=False
    )
    assert found.stdout.split() == [f"ssl-{command}", sslcli.__version__], found.stderr


def test_ci_runs_the_tests_of_every_marker_where_they_are():
    """It names their folders, as collecting all tests takes longer than some of them."""
    ci = (ROOT / ".ci" / "run").read_text()
    for marker in ("browser", "services", "slurm"):
        folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py") if f"mark.{marker}" in path.read_text()}
        (line,) = [line for line in ci.splitlines() if "pytest " in line and marker in line]
        assert folders and all(f" {folder.relative_to(ROOT)}" in line for folder in folders), line
