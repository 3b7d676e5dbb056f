"""One job of a command that Hydra configures: the only one, or one of a sweep. No torch."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any

from sslcli.config.secrets import shown
from sslcli.errors import UserError, for_user


class Job:
    """The task of one job. It stores exceptions instead of raising them: a sweep continues, Hydra prints nothing."""

    def __init__(self, task: Callable[[Any], Any], program: str, arguments: list[str]) -> None:
        self.task, self.program, self.arguments = task, program, arguments
        self.failure: Exception | None = None
        self.failed = 0
        self.__name__ = program  # hydra.main reads this attribute

    def __call__(self, config: Any) -> Any:
        from hydra.core.hydra_config import HydraConfig

        sys.argv[1:] = self.arguments  # as they were given: a run writes down the command that resumes it
        try:
            return self.task(config)
        except Exception as raised:
            failure = for_user(raised)
            self.failed += 1
            if is_sweep(HydraConfig.get()):
                where = f"{self.program}: job {HydraConfig.get().job.num}"
                if isinstance(failure, UserError):
                    print(shown(f"{where}: error: {failure}"), file=sys.stderr)
                    failure = UserError("1 job of the sweep failed, see above.")
                else:
                    print(shown(traceback.format_exc()), end="", file=sys.stderr)
                    failure = failure.with_traceback(None)  # its frames would keep this job's model in memory
            if self.failure is None or isinstance(self.failure, UserError):
                self.failure = failure  # report a bug rather than a mistake of the user
            return None


def is_sweep(hydra: Any) -> bool:
    """Whether Hydra runs this job as one of a sweep."""
    return hydra.mode is not None and hydra.mode.name == "MULTIRUN"
