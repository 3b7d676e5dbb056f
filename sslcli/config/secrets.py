"""Hides passwords and tokens in URLs, wherever a config or a message is written, shown, hashed or compared.

The URL that is fetched keeps them; it comes from the command line or, by ``${oc.env:NAME}``, from the environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sslcli.errors import escaped

HIDDEN = "***"
_USER = re.compile(r"(\b[a-z][a-z0-9+.-]{0,30}://)[^/?#\s]*@", re.IGNORECASE)
_PARAMETER = re.compile(r"([?&#;]([\w.%-]+)=)[^&#;\s'\"]+")
# Parameters of signed URLs, also those that are no secrets: they are others each time that the same file is signed.
_SECRET = re.compile(
    r"x-(amz|goog|ms)-|token|secret|passw|pwd|signature|credential|auth|api-?key|access-?(key|id)"
    r"|(^|[-.])(key|sig|pass|jwt|session|expires|policy|key-pair-id|se|st)$",
    re.IGNORECASE,
)


def hide(text: str) -> str:
    """Return a text with the users, passwords, tokens and signatures of all URLs in it replaced by ``***``."""
    if "://" not in text:
        return text
    return _PARAMETER.sub(_hidden, _USER.sub(rf"\1{HIDDEN}@", text))


def _hidden(found: re.Match[str]) -> str:
    return f"{found[1]}{HIDDEN}" if _SECRET.search(found[2].replace("_", "-")) else found[0]


def hidden(node: Any) -> Any:
    """Return a plain config with the secrets in all its texts replaced."""
    if isinstance(node, str):
        return hide(node)
    if isinstance(node, Mapping):
        return {key: hidden(value) for key, value in node.items()}
    return type(node)(map(hidden, node)) if isinstance(node, (list, tuple)) else node


def shown(text: object) -> str:
    """Return a text as it may be printed: without the secrets in URLs and without control characters."""
    return escaped(hide(str(text)))
