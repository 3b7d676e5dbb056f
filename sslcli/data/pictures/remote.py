"""Copies remote files completely into a local folder when they are first needed."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sslcli.config.secrets import HIDDEN, hide
from sslcli.data.disk_cache import cache_dir, replacing
from sslcli.data.download import alone
from sslcli.errors import UserError

_SECRETS = re.compile(rf"{re.escape(HIDDEN)}@|[?&#;][\w.%-]+={re.escape(HIDDEN)}")
# Of the many that fsspec knows: some run commands or read other programs' files, and one URL may hold several.
PROTOCOLS = ("http", "https", "s3", "gs", "az", "hf", "file", "memory")


def is_remote(path: str) -> bool:
    """Whether ``path`` is a URL."""
    return "://" in path


def local_copies(path: str, urls: list[str], folder: str | None) -> list[Path]:
    """Copy the files at ``urls``, which may be patterns or one folder, and return the copies in the order of the URLs.

    Copies are kept in ``folder``. A file is copied again if its size, ETag or key in fsspec has changed.

    Args:
        path: the path that the user gave, for messages.
        urls: the URLs.
        folder: the folder for copies; None is the user's cache.

    Raises:
        UserError: the kind of URL is not one of ``PROTOCOLS``; fsspec or its support for this kind is not installed;
            or the files cannot be fetched.
    """
    told = hide(path)
    for url in urls:
        if url.partition("://")[0] not in PROTOCOLS or "::" in url:
            raise UserError(f"dataset.path: {told} is not a URL of one of these kinds: {', '.join(PROTOCOLS)}.")
    try:
        import fsspec
    except ImportError:
        raise UserError("dataset.path: URLs need fsspec: pip install 'sslcli[shards]'") from None
    place = Path(folder).expanduser() if folder else cache_dir() / "shards"
    try:
        files, _ = fsspec.core.url_to_fs(urls[0])
        names = sorted({name for url in urls for name in _names(files, files._strip_protocol(url))})
        if not names:
            raise UserError(f"dataset.path: there is no .tar at {told}.")
        with alone(place):  # the ranks of a run wait for the first instead of fetching everything again
            progress = tqdm(names, desc="fetching shards", unit=" shards", disable=None)
            return [_copy(files, name, place) for name in progress]
    except ImportError as error:  # the message of fsspec names the missing package
        raise UserError(f"dataset.path: {error}") from None
    except UserError:
        raise
    except Exception as error:  # each kind of store has its own exceptions
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"dataset.path: {told} cannot be fetched to {place} ({hide(reason[0])}).") from None


def _names(files: Any, name: str) -> list[str]:
    if set("*[" if "://" in name else "*?[") & set(name):
        return list(files.glob(name))
    if _file_name(name).endswith(".tar"):
        return [name]
    return [found for found in files.find(name) if found.endswith(".tar")]


def _file_name(name: str) -> str:
    """Return the last part of a name in a store, without the query of a URL."""
    return Path(name.partition("?")[0] if "://" in name else name).name


def _copy(files: Any, name: str, place: Path) -> Path:
    info = files.info(name)
    size = info["size"]
    told = _SECRETS.sub("", hide(name))  # a URL that was signed anew is that of the same file
    known = (files.protocol, told, files.ukey(told), size, info.get("ETag"))  # http servers give an ETag
    state = hashlib.sha256(repr(known).encode()).hexdigest()[:16]
    file_name = _file_name(name)
    target = place / f"{state}-{file_name if '.tar' in file_name else f'{file_name}.tar'}"
    if not target.is_file() or (size is not None and target.stat().st_size != size):
        with replacing(target) as file:
            files.get_file(name, file.name)
            if size is not None and Path(file.name).stat().st_size != size:
                raise OSError(f"{told} came incomplete")
    return target
