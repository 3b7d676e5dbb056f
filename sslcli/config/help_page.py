"""What ``--help`` prints: groups and keys of a command or, after overrides, the keys of the parts that they choose."""

from __future__ import annotations

from sslcli.config import help, part_help
from sslcli.config.given import Given
from sslcli.config.hydra_errors import explain
from sslcli.config.overrides import check_overrides
from sslcli.errors import UserError


def page(given: Given) -> str:
    """Return the text of ``--help`` for a command as it was given.

    Raises:
        UserError: the overrides are wrong.
    """
    if not given.overrides:
        return help.text(given.name, given.folders)
    check_overrides(given)
    try:
        return part_help.text(given)
    except Exception as error:
        raise UserError(explain(error, given)) from error
