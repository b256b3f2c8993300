"""The tasks that `tune.py` searches networks for, as batches and arrays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_rnncells import datasets

HELD_OUT = 5_000
FRAMES = 96  # of a recording, about a second; few are longer
COPIES = 4  # of each recording in training: itself, and variations


class Task(NamedTuple):
    """What is to be learned, and how it is scored.

    Attributes:
        kind: as `RNNHyperModel` calls it.
        train: batches to train on.
        validation: `(x, y)`, which score a trial.
        test: `(x, y)`, to be looked at once.
        outputs: the classes, or numbers, to answer with.
    """

    kind: str
    train: Any
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    outputs: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.validation[0].shape[1:]

    @property
    def accuracy(self) -> bool:
        """Whether it is scored by accuracy, and not by the mean squared error."""
        return self.kind == "classification"

    @property
    def objective(self) -> str:
        return "val_accuracy" if self.accuracy else "val_loss"

    @property
    def metric(self) -> str:
        return "accuracy" if self.accuracy else "mean squared error"

    @property
    def chance(self) -> float:
        """The score of knowing nothing."""
        return 1 / self.outputs if self.accuracy else datasets.ADDING_CHANCE

    @property
    def perfect(self) -> float:
        return 1.0 if self.accuracy else 0.0

    @property
    def worst(self) -> float:
        """The score of a trial that diverged."""
        return 0.0 if self.accuracy else 10.0


def adding(args: Any) -> Task:
    """Sums of two marked numbers, of new sequences in each batch."""
    batches = datasets.Batches(
        datasets.adding_problem,
        args.batch_size,
        max(1, args.limit // args.batch_size),
        args.seed,
        timesteps=args.timesteps,
    )
    validation, test = (
        datasets.adding_problem(1000, args.timesteps, seed) for seed in (args.seed, [args.seed, 1])
    )
    return Task("regression", batches, validation, test, 1)


def images(args: Any, steps: int) -> Task:
    data = datasets.pixel_mnist(args.data_dir, held_out=HELD_OUT, steps=steps)
    x, y = (part[: args.limit] for part in data.train)
    batches = datasets.Shuffled(x, y, args.batch_size, args.seed)
    return Task("classification", batches, data.validation, data.test, 10)


def rows(args: Any) -> Task:
    """MNIST, a row at each step."""
    return images(args, 28)


def pixels(args: Any) -> Task:
    """MNIST, a pixel at each step."""
    return images(args, 784)


def digits(args: Any) -> Task:
    """Spoken digits, to be named at the end of the recording."""
    sys.path.append(str(Path(__file__).parent / "serving"))
    from digits import recordings
    from train import varied

    found = recordings(args.data_dir)
    rng = np.random.default_rng(args.seed)

    def split(name: str, copies: int = 1) -> tuple[np.ndarray, np.ndarray]:
        chosen = [one for one in found if one.split == name]
        sounds = [one.sound for one in chosen]
        for _ in range(copies - 1):
            sounds += [varied(one.sound, rng) for one in chosen]
        y = np.tile(np.array([one.digit for one in chosen], "int32"), copies)
        return heard(sounds), y

    x, y = split("train", COPIES)
    # They are in the order of the digits.
    order = rng.permutation(len(x))[: args.limit]
    batches = datasets.Shuffled(x[order], y[order], args.batch_size, args.seed)
    return Task("classification", batches, split("validation"), split("test"), 10)


def heard(sounds: Sequence[np.ndarray]) -> np.ndarray:
    """The frames of sounds `[N, FRAMES, bands]`: those of shorter ones begin with silence."""
    from digits import HOP, WINDOW, frames

    samples = (FRAMES - 1) * HOP + WINDOW
    made = []
    for start in range(0, len(sounds), 250):
        some = [sound[:samples] for sound in sounds[start : start + 250]]
        made.append(frames(np.stack([np.pad(one, (samples - len(one), 0)) for one in some])))
    return np.concatenate(made)


class Default(NamedTuple):
    """A task, and what it takes unless told otherwise."""

    load: Callable[[Any], Task]
    epochs: int
    limit: int  # training examples of an epoch at most


TASKS = {
    "adding": Default(adding, epochs=20, limit=3_200),
    "rows": Default(rows, epochs=5, limit=55_000),
    "pixels": Default(pixels, epochs=5, limit=10_000),
    "digits": Default(digits, epochs=10, limit=8_000),
}
