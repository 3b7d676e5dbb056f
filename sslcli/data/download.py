"""Downloads and unpacks published archives; a folder gets its final name only when it is complete."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sslcli.data.disk_cache import cache_dir, is_read_only, refuse
from sslcli.errors import UserError


def unpacked(root: Path, name: str, *, urls: Sequence[str], md5: str, download: bool) -> Path:
    """Return ``root / name``; if it does not exist, download it from the first of ``urls`` that works and unpack it.

    If the archive is in ``root`` already, it is not downloaded. After a failure no files or folders are left behind.

    Raises:
        UserError: it does not exist, and downloading fails or is not allowed.
    """
    target = root / name
    if target.exists():
        return target
    missing = f"dataset.path: there is no {name} in {root}"
    if not download:
        raise UserError(
            f"{missing} and dataset.download is false. Add dataset.download=true, or unpack {urls[0]} there."
        )
    refuse(f"the download of {urls[0]} to {root}")
    try:
        with alone(root), _folder(root):
            if not target.exists():  # another process may have fetched it in the meantime
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
            if not (root / name).exists():  # another machine may have unpacked it first
                raise


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Create a folder and its parents for a block; afterwards remove those that were created and are empty."""
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
    """Let one process at a time run a block for ``folder``; the ranks of a run and the jobs of a sweep start together.

    This only avoids doing work twice. Processes that share no cache folder, or cannot lock a file there, run the block
    at the same time, and the results are still correct.
    """
    with ExitStack() as held:
        with suppress(OSError, RuntimeError, ImportError):
            if is_read_only():
                raise OSError  # no file for the lock
            import fcntl

            lock = cache_dir() / f"{hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:32]}.lock"
            lock.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(held.enter_context(lock.open("w")), fcntl.LOCK_EX)
        yield
