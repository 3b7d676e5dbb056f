"""Fetching a published archive once, unpacked under its own name only when it is whole."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sslcli.data.disk_cache import cache_dir
from sslcli.errors import UserError


def unpacked(root: Path, name: str, *, urls: Sequence[str], md5: str, download: bool) -> Path:
    """``root / name``, fetched from the first of ``urls`` that answers and unpacked, if it is not there.

    An archive that lies in ``root`` already is unpacked without a network. Where nothing can be had, nothing is left.

    Raises:
        UserError: it is not there and may not or cannot be fetched.
    """
    target = root / name
    if target.exists():
        return target
    missing = f"dataset.path: there is no {name} in {root}"
    if not download:
        raise UserError(f"{missing} and dataset.download is false. Unpack {urls[0]} there.")
    try:
        with alone(root), _folder(root):
            if not target.exists():  # unless another process has fetched it meanwhile
                _fetch(root, name, urls, md5)
    except (OSError, RuntimeError, EOFError, zlib.error) as error:
        raise UserError(f"{missing} and it could not be downloaded ({error}). Unpack {urls[0]} there.") from None
    return target


def _fetch(root: Path, name: str, urls: Sequence[str], md5: str) -> None:
    from torchvision.datasets.utils import check_integrity, download_url, extract_archive

    with tempfile.TemporaryDirectory(dir=root, prefix=".unpacking-") as folder:
        file = urls[0].rpartition("/")[2]
        archive = root / file
        if not check_integrity(archive, md5):
            archive = Path(folder, file)
            for url in urls:
                try:
                    download_url(url, folder, file, md5)
                    break
                except (OSError, RuntimeError):
                    if url == urls[-1]:
                        raise
        extract_archive(str(archive), folder)
        try:
            Path(folder, name).rename(root / name)
        except OSError:
            if not (root / name).exists():  # or another machine was faster
                raise


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """A folder, which goes away again with those above it that were made for it if nothing is put into it."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # not empty
            for folder in made:
                folder.rmdir()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time for ``folder``: the ranks of a run and the jobs of a sweep start together.

    It spares work and is no condition for doing it right: processes that share no cache folder, or cannot lock a file
    there, do it each for itself.
    """
    with ExitStack() as held:
        with suppress(OSError, RuntimeError, ImportError):
            import fcntl

            lock = cache_dir() / f"{hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:32]}.lock"
            lock.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(held.enter_context(lock.open("w")), fcntl.LOCK_EX)
        yield
