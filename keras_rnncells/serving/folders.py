"""Numbered version folders, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


class Version:
    """A folder that is being written; `path` is where it came to stand in the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path: Path | None = None


@contextlib.contextmanager
def new_version(base: Path) -> Iterator[Version]:
    """A folder to fill, which becomes `base/<next free number>` at the end.

    A server that watches `base` sees it whole or not at all, an error leaves nothing behind, and
    of two writers at once each gets its own number.
    """
    missing = [p for p in (base, *base.parents) if not p.exists()]
    base.mkdir(parents=True, exist_ok=True)
    if not base.is_dir():
        raise NotADirectoryError(f"The versions of a model need a folder. Received: {base}.")
    try:
        # Inside `base`, since a rename is one step within a file system only.
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=base) as partial:
            version = Version(Path(partial, "version"))  # readable by others, unlike `partial`
            yield version
            version.path = _move(version.folder, base)
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):  # another writer has put something there
                path.rmdir()
        raise


def _move(folder: Path, base: Path) -> Path:
    number = max(versions(base), default=0)
    while True:
        number += 1
        try:
            os.rename(folder, base / str(number))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        else:
            return base / str(number)


def versions(base: Path) -> list[int]:
    """The numbers of the versions in `base`."""
    return [int(p.name) for p in base.iterdir() if p.name.isascii() and p.name.isdecimal()]
