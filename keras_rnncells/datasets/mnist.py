"""MNIST read pixel by pixel, in order or permuted, or row by row."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_rnncells import checks
from keras_rnncells.datasets import files

PIXELS = 784


class PixelMNIST(NamedTuple):
    """The splits of `pixel_mnist`, each `(x, y)`."""

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def permutation(seed: int) -> np.ndarray:
    """The order in which the pixels are read when they are permuted: pixel `p[t]` at step t."""
    # The numbers of `RandomState` are the same in every version of NumPy; those of newer
    # generators may change.
    return np.random.RandomState(seed).permutation(PIXELS)


def pixel_mnist(
    data_dir: str | Path | None = None,
    permuted: bool = False,
    seed: int = 0,
    held_out: int = 5_000,
    *,
    steps: int = PIXELS,
) -> PixelMNIST:
    """MNIST as sequences: 60,000 images to train on and 10,000 to test.

    An image of 28 x 28 pixels is read from left to right, row after row. To tell a digit, a
    network has to remember the first strokes until the last. Permuted, the pixels come in a
    random order, the same for all images, splits and runs of the same seed: then what belongs
    together lies far apart. (The published results each have a permutation of their own.)

    Reference: [Le et al. 2015](https://arxiv.org/abs/1504.00941).

    Args:
        data_dir: folder of TFDS that has `mnist`; or the file `mnist.npz` of
            `keras.datasets.mnist`, which needs no TensorFlow. `None` is TFDS' own folder, which
            downloads it (11 MB) if it is not there.
        permuted: whether the pixels are permuted.
        seed: integer of at least 0, of the permutation.
        held_out: integer of at least 0: so many of the training images, the last, are the
            validation split, to choose settings by.
        steps: 784 for a pixel at each step, 28 for 28 of them, in order a row of the image.

    Returns:
        `PixelMNIST(train, validation, test)`, each `(x, y)`: float32 of shape
        `[N, steps, 784 / steps]` in [0, 1], 0 the background, and int32 of shape `[N]`, the digits.

    Raises:
        ValueError: if an argument is not as described.
        Missing: if MNIST, or a package that reads it, is not there.
        Damaged: if a file of it is damaged.

    Example:

    ```python
    (x, y), validation, test = pixel_mnist(permuted=True)
    model.fit(x, y, validation_data=validation)
    ```
    """
    checks.choice("steps", steps, [28, PIXELS])
    order = permutation(checks.natural("seed", seed)) if permuted else slice(None)
    from_file = data_dir is not None and Path(data_dir).suffix == ".npz"
    splits = _of_keras(Path(data_dir).expanduser()) if from_file else files.load("mnist", data_dir)
    training = len(splits["train"]["label"]) - checks.natural("held_out", held_out)
    if training < 1:
        raise ValueError(
            f"`held_out` must leave images to train on. Received: held_out={held_out} of "
            f"{len(splits['train']['label'])}."
        )

    def sequences(split: str) -> tuple[np.ndarray, np.ndarray]:
        images, labels = splits[split]["image"], splits[split]["label"]
        x = images.reshape(len(images), PIXELS)[:, order].astype("float32")
        x /= 255
        return x.reshape(len(x), steps, -1), labels.astype("int32")

    x, y = sequences("train")
    return PixelMNIST((x[:training], y[:training]), (x[training:], y[training:]), sequences("test"))


def _of_keras(path: Path) -> dict[str, dict[str, Any]]:
    """The splits in a file of `keras.datasets.mnist`, named as TFDS names them."""
    get = (
        "this writes ~/.keras/datasets/mnist.npz: "
        'python -c "import keras; keras.datasets.mnist.load_data()"'
    )
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return {
                split: {"image": arrays[f"x_{split}"], "label": arrays[f"y_{split}"]}
                for split in ("train", "test")
            }
    except FileNotFoundError as error:
        raise files.Missing(f"{path} is not there; {get}") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise files.Damaged(f"{path} is damaged ({error}). Delete it; {get}") from error
