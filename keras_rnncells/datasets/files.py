"""Datasets that lie in files: reading them, and saying in a sentence what is missing or damaged."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import json
import zlib
from pathlib import Path
from typing import Any


class Missing(FileNotFoundError):
    """A dataset, or a package that reads it, is not there. The message says how to get it."""


class Damaged(OSError):
    """A file does not hold what it should. The message names it."""


def load(
    name: str, data_dir: str | Path | None, builder: str | None = None, batched: bool = True
) -> dict[str, Any]:
    """All splits of a dataset of TFDS, as arrays.

    A folder that is named should have it; TFDS' own folder is filled on first use.

    Args:
        name: name of the dataset.
        data_dir: folder of TFDS, or None for its own.
        builder: module whose import makes the dataset known to TFDS, if it is not one of its own.
        batched: whether a split is one example of stacked arrays, or a list of examples, whose
            lengths may differ.
    """
    try:
        import tensorflow  # noqa: F401
        import tensorflow_datasets as tfds
    except ModuleNotFoundError as error:
        raise _without_package(name, error) from error

    try:
        if builder:
            importlib.import_module(builder)
        batch_size = -1 if batched else None
        splits = tfds.load(
            name, data_dir=data_dir, batch_size=batch_size, download=data_dir is None
        )
        return {
            split: tfds.as_numpy(examples) if batched else list(tfds.as_numpy(examples))
            for split, examples in splits.items()
        }
    except ModuleNotFoundError as error:  # TFDS imports some packages late.
        raise _without_package(name, error) from error
    except (Missing, Damaged):
        raise
    except Exception as error:
        reason = type(error).__name__
        there = f", data_dir={str(data_dir)!r}" if data_dir else ""
        modules = f"tensorflow_datasets as tfds{f', {builder}' if builder else ''}"
        command = f"import {modules}; tfds.load({name!r}{there})"
        get = f'with a network, this gets it: python -c "{command}"'
        root = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
        prepared = sorted(path.parent for path in root.glob(f"{name}/*/dataset_info.json"))
        if damaged := [str(path) for folder in prepared for path in _damaged(folder)]:
            raise Damaged(
                f"{name} is damaged ({reason}): {', '.join(damaged)}. Delete {root / name}; {get}"
            ) from error
        # It is not in the folder; there is no network; the server does not have it.
        if isinstance(error, (AssertionError, OSError, tfds.download.DownloadError)):
            place = data_dir or "the TFDS folder"
            raise Missing(
                f"{name} is not in {place} and was not downloaded ({reason}); {get}"
            ) from error
        raise


def _without_package(dataset: str, error: ModuleNotFoundError) -> Missing:
    extras = {"tensorflow": "cpu", "tensorflow_datasets": "data", "importlib_resources": "data"}
    extra = extras.get(error.name)
    get = f"keras_rnncells[{extra}]" if extra else error.name  # which one dataset needs alone
    return Missing(
        f"Reading {dataset} needs the package {error.name}, which is not installed: run "
        f"`pip install {get}`."
    )


def _damaged(folder: Path) -> list[Path]:
    """The files of a prepared dataset that do not hold what its description says."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    def is_json(path: Path) -> bool:
        try:
            json.loads(path.read_bytes())
        except ValueError:
            return False
        return True

    def records(path: Path) -> int | None:
        try:
            return sum(1 for _ in tf.data.TFRecordDataset(str(path)))
        except tf.errors.OpError:
            return None

    if found := [path for path in sorted(folder.glob("*.json")) if not is_json(path)]:
        return found
    splits = tfds.builder_from_directory(folder).info.splits.values()
    return [
        Path(path)
        for split in splits
        for path, length in zip(split.filepaths, split.shard_lengths, strict=True)
        if records(path) != length
    ]


def read_text(path: Path, sha256: str | None) -> str:
    """The text of a file, plain or `.gz`, if its checksum is `sha256` (`None`: any)."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise Damaged(f"{path} is damaged ({error}). Delete it and get it again.") from error
    found = hashlib.sha256(data).hexdigest()
    if sha256 not in (None, found):
        raise Damaged(
            f"{path} is damaged or another file: the SHA-256 of its text is {found} and should "
            f"be {sha256}. Delete it and get it again."
        )
    return data.decode()
