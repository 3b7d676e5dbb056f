"""Makes the sweepers and launchers of this room known to Hydra.

Hydra builds a plug-in only if its name lies in the package ``hydra_plugins``, which it searches, and imports, at every
start. Ours are put there by name when a sweep starts, so that no other command pays for them.
"""

from __future__ import annotations

import sys
from types import ModuleType

from hydra.core.plugins import Plugins

_PACKAGE, _NAME = "hydra_plugins", "sslcli"


def register() -> None:
    """Register all of them as ``hydra_plugins.sslcli.<class>``, the names in the yaml files of ``conf/hydra``."""
    from sslcli.sweeps.grid import GridSweeper
    from sslcli.sweeps.optuna_sweeper import OptunaSweeper
    from sslcli.sweeps.parallel import ParallelLauncher

    known = Plugins.instance()  # which imports the package, if a plug-in is installed
    package = sys.modules.setdefault(_PACKAGE, ModuleType(_PACKAGE))
    module = sys.modules.setdefault(f"{_PACKAGE}.{_NAME}", ModuleType(f"{_PACKAGE}.{_NAME}"))
    setattr(package, _NAME, module)
    for plugin in (GridSweeper, OptunaSweeper, ParallelLauncher):
        plugin.__module__ = module.__name__
        setattr(module, plugin.__name__, plugin)
        known.register(plugin)
