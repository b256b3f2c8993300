"""What the examples share: results that are written whole, or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write a file or folder to, which takes the place of `path` at the end.

    Nobody who reads `path` meanwhile sees half a result, and an error leaves the old one there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A sibling of `path`: a rename is one step within a file system only.
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=path.parent) as folder:
        new = Path(folder, path.name)
        yield new
        if path.is_dir():
            # A folder can be moved to a free place only.
            path.rename(Path(folder, "old"))
        os.replace(new, path)
