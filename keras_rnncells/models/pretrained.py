"""The trained models that come with the package."""

from __future__ import annotations

import json
import sysconfig
import zipfile
from pathlib import Path

import keras


def folders() -> list[Path]:
    """Where trained models may lie: beside the package in a clone, or installed with it."""
    user = sysconfig.get_preferred_scheme("user")
    installed = [sysconfig.get_path("data"), sysconfig.get_path("data", user)]
    return [
        Path(__file__).parents[2] / "saved_models",
        *(Path(data) / "share" / "keras_rnncells" / "saved_models" for data in installed),
    ]


def written_by(path: Path) -> str:
    """The version of Keras that wrote a file."""
    with zipfile.ZipFile(path) as file:
        return json.loads(file.read("metadata.json"))["keras_version"]


def release(version: str) -> tuple[int, ...]:
    """The first two numbers of a version, to be compared."""
    return tuple(int(number) for number in version.split(".")[:2])


def load(name: str) -> keras.Model:
    """Loads a trained model of this package.

    The models lie in `saved_models/` of the repository, each as `<name>/<name>.keras` with a model
    card beside it, and are installed with the package.

    Args:
        name: The name of the model, that of its folder.

    Returns:
        The Keras model.

    Raises:
        ValueError: If there is no model of that name; the message lists those there are. If the
            file was written by a newer Keras and cannot be read.

    Example:

    >>> import keras_rnncells
    >>> keras_rnncells.models.load("of nothing")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ValueError: There is no trained model 'of nothing'...
    """
    found: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.glob("*/*.keras")):
            if path.stem == path.parent.name:
                found.setdefault(path.stem, path)
    # A name is looked up among the found ones and never becomes part of a path.
    if name not in found:
        there = ", ".join(map(repr, sorted(found))) if found else "none"
        raise ValueError(
            f"There is no trained model {name!r}. Found: {there}. Install keras_rnncells with its "
            "data files, or work in a clone of its repository, where they lie in saved_models/."
        )
    try:
        return keras.saving.load_model(found[name])
    except (TypeError, ValueError) as error:
        written = written_by(found[name])
        if release(written) <= release(keras.__version__):
            raise
        raise ValueError(
            f"{found[name].name} was written by Keras {written}, and Keras {keras.__version__} "
            "cannot read it: run `pip install -U keras`."
        ) from error
