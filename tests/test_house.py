"""The structure itself: layers, packaging, what may be imported where."""

import ast
import subprocess
import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).parent.parent
LAYERS = [
    {"errors", "types", "words", "randomness", "ranks", "batchnorm"},
    {"config", "build", "help", "messages"},
    {"encoders", "datasets", "views"},
    {"features"},
    {"objectives"},
    {"engine", "probes", "report"},
    {"loggers", "weights"},
    {"parts"},
    {"evaluate", "exhibits", "pretrained", "preview", "publish", "records", "summary", "train"},
    {"formats"},
    {"export"},
    {"cli"},
]
# engine.signals and engine.files know nothing of the layers below; the command line and exports need them.
FREE = {"sslcli.signals"}


def imports():
    """(file, unit, imported unit, imported module) for every import of one of our modules."""
    for path in sorted((ROOT / "sslcli").rglob("*.py")):
        unit = path.relative_to(ROOT / "sslcli").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                if name.startswith("sslcli."):
                    yield path, unit, name.split(".")[1], name


def level(unit):
    return next(i for i, units in enumerate(LAYERS) if unit in units)


def test_imports_go_one_way():
    for path, unit, target, module in imports():
        if unit == "__init__" or module in FREE:
            continue
        assert level(target) <= level(unit), f"{path} imports {module} from above"


def test_folders_on_one_level_do_not_import_each_other():
    folders = {p.name for p in (ROOT / "sslcli").iterdir() if p.is_dir()}
    for path, unit, target, module in imports():
        if unit in folders and target in folders and unit != target:
            assert level(target) < level(unit), f"{path} imports {module} from beside"


def test_the_packaging_list_is_complete():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "sslcli").rglob("__init__.py")}
    assert set(listed) == found | {"sslcli.conf"}


def test_help_answers_without_torch():
    code = (
        "import sys; sys.argv = ['ssl-train', '--help']\n"
        "from sslcli.cli import train\n"
        "try: train()\n"
        "except SystemExit as e: assert not e.code\n"
        "assert not {'torch', 'timm', 'hydra'} & set(sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    for word in ("objective", "infonce", "fashion_mnist_mini", "train.batch_size", "optimizer.lr"):
        assert word in found.stdout


def test_a_typo_is_answered_without_torch():
    code = (
        "import sys; sys.argv = ['ssl-train', 'objective=infonc']\n"
        "from sslcli.cli import train\n"
        "try: train()\n"
        "except SystemExit as e: assert e.code == 2\n"
        "assert 'torch' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "Did you mean 'infonce'?" in found.stderr


def test_files_and_functions_stay_short():
    for path in (ROOT / "sslcli").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 350, path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno - node.lineno < 80, f"{path}:{node.lineno} {node.name}"
