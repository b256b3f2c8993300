"""Batches as pure functions of seed, epoch and number: a run that is resumed sees the same data."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_rnncells import checks


class Epochs(keras.utils.PyDataset):
    """Base of the datasets here: counts epochs, and knows the same batches as `tf.data`.

    A subclass says in `batch(epoch, index)` what batch `index` of any epoch is.
    """

    def __init__(self, steps: int, seed: int, epoch: int) -> None:
        super().__init__()
        self.steps = steps
        self.seed = checks.natural("seed", seed)
        self.epoch = checks.natural("epoch", epoch)
        # Which batches Keras has asked for in the epoch that it began.
        self._asked: set[int] | None = None

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, ...]:
        raise NotImplementedError

    def seed_of(self, *key: int) -> np.random.SeedSequence:
        """A seed for each key, independent of those of other keys and of the seed itself."""
        # As spawn key: in a list of entropy, [1] and [1, 0] are the same seed.
        return np.random.SeedSequence(self.seed, spawn_key=key)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        if not 0 <= index < self.steps:
            raise IndexError(f"An epoch has {self.steps} batches. Received: index={index}.")
        if self._asked is not None:
            self._asked.add(index)
        return self.batch(self.epoch, index)

    def on_epoch_begin(self) -> None:
        self._asked = set()

    def on_epoch_end(self) -> None:
        # Keras calls this once more before the first epoch, on JAX after a look at the first batch.
        if self._asked is not None and len(self._asked) == self.steps:
            self.epoch += 1
        self._asked = None

    def as_tf_dataset(self, epochs: int | None = 1) -> Any:
        """The same batches in the same order as a `tf.data.Dataset`.

        It starts at the epoch where this dataset stands now, and does not move it.

        Args:
            epochs: positive integer, how many epochs follow each other; `None`: without end (then
                `fit` needs `steps_per_epoch=len(batches)`).

        Returns:
            A `tf.data.Dataset` of batches.
        """
        import tensorflow as tf

        start = self.epoch * self.steps
        if epochs is None:
            numbers = tf.data.Dataset.counter(start)
        else:
            count = checks.positive_integer("epochs", epochs) * self.steps
            numbers = tf.data.Dataset.range(start, start + count)
        first, last = self.batch(self.epoch, 0), self.batch(self.epoch, self.steps - 1)
        types = [a.dtype for a in first]
        shapes = [
            (len(a) if len(a) == len(b) else None, *a.shape[1:])
            for a, b in zip(first, last, strict=True)
        ]

        def batch(number):
            return self.batch(*divmod(int(number), self.steps))

        # Not `from_generator`: after it a step of an LSTM takes twice as long, with 100,000 page
        # faults that MALLOC_ARENA_MAX=1 avoids: see benchmarks/feeding.py.
        def read(number):
            arrays = tf.numpy_function(batch, [number], types)
            return tuple(tf.ensure_shape(a, s) for a, s in zip(arrays, shapes, strict=True))

        options = tf.data.Options()
        # Of which the tuner keeps the end of an iteration waiting, for seconds.
        options.autotune.enabled = False
        return numbers.map(read).prefetch(1).with_options(options)


class Batches(Epochs):
    """Batches of new examples, generated as they are asked for.

    Batch `i` of epoch `e` depends on nothing but the seed, `e` and `i`. A run that was killed goes
    on with the data that it would have seen: `fit(..., initial_epoch=e)` with `epoch=e` here, or
    with `FollowEpochs` beside `keras.callbacks.BackupAndRestore`.

    `fit` shuffles the order of the batches in an epoch, by random numbers of its own, unless it
    gets `shuffle=False`. Leave out its `steps_per_epoch`: an epoch of Keras has to be one of the
    data. As validation data, each evaluation is an epoch, and brings new examples.

    Args:
        function: what makes examples, called as `function(batch_size, seed=..., **arguments)`:
            `adding_problem`, `copy_memory` or one of your own, which hands its seed to
            `numpy.random.default_rng` and returns a tuple of arrays.
        batch_size: positive integer, the examples of a batch.
        steps: positive integer, the batches of an epoch.
        seed: integer of at least 0. The batches share no random numbers with those of other
            seeds, nor with `function(..., seed=seed)`, which can thus be the validation data.
        epoch: integer of at least 0, where to start.
        **arguments: further arguments of `function`.

    Attributes:
        epoch: the number of the current epoch, to read and to set. An epoch of `fit` or
            `evaluate` that has seen every batch adds 1. (With `steps=1` on JAX, so does the look
            that Keras takes at the first batch to build a model: use `FollowEpochs` there.)

    Raises:
        ValueError: if a number is out of its range.

    Example:

    >>> from keras_rnncells import datasets
    >>> batches = datasets.Batches(datasets.adding_problem, 32, steps=100, timesteps=50)
    >>> x, y = batches[7]
    >>> len(batches), x.shape, y.shape
    (100, (32, 50, 2), (32, 1))
    """

    def __init__(
        self,
        function: Callable[..., tuple[np.ndarray, ...]],
        batch_size: int,
        steps: int,
        seed: int = 0,
        *,
        epoch: int = 0,
        **arguments: Any,
    ) -> None:
        super().__init__(checks.positive_integer("steps", steps), seed, epoch)
        self.function = function
        self.batch_size = checks.positive_integer("batch_size", batch_size)
        self.arguments = arguments

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, ...]:
        seed = self.seed_of(epoch, index)
        return self.function(self.batch_size, seed=seed, **self.arguments)


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, examples: int) -> np.ndarray:
    sequence = np.random.SeedSequence(seed, spawn_key=(epoch,))
    return np.random.default_rng(sequence).permutation(examples)


class Shuffled(Epochs):
    """Arrays in batches, in an order that depends on nothing but the seed and the epoch.

    Every epoch brings each example once. `fit(x, y, shuffle=True)` shuffles too, but by random
    numbers that a run resumed at epoch `e` no longer has; see `Batches` on resuming, on
    `shuffle=False` and on `steps_per_epoch`.

    Args:
        x, y: arrays with as many rows as there are examples. They are not copied.
        batch_size: positive integer, the examples of a batch.
        seed: integer of at least 0.
        drop_remainder: whether the last batch is left out if it is smaller. By default it is kept.
        epoch: integer of at least 0, where to start.

    Attributes:
        epoch: the number of the current epoch, see `Batches`.

    Raises:
        ValueError: if x and y have different numbers of rows, or too few for a batch.

    Example:

    >>> import numpy as np
    >>> from keras_rnncells import datasets
    >>> batches = datasets.Shuffled(np.arange(5), 2 * np.arange(5), batch_size=2)
    >>> [len(x) for x, y in batches]
    [2, 2, 1]
    """

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        batch_size: int,
        seed: int = 0,
        *,
        drop_remainder: bool = False,
        epoch: int = 0,
    ) -> None:
        if len(x) != len(y):
            raise ValueError(
                "`x` and `y` must have as many rows as there are examples. Received: "
                f"{len(x)} rows of x and {len(y)} of y."
            )
        batch_size = checks.positive_integer("batch_size", batch_size)
        steps = len(x) // batch_size if drop_remainder else -(-len(x) // batch_size)
        if not steps:
            raise ValueError(
                f"There is no batch of {batch_size} examples. Received: {len(x)} examples and "
                f"drop_remainder={drop_remainder}."
            )
        super().__init__(steps, seed, epoch)
        self.x, self.y, self.batch_size = x, y, batch_size

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, ...]:
        order = _order(self.seed, epoch, len(self.x))
        rows = order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.x[rows], self.y[rows]


class Streams(Epochs):
    """A long sequence as parallel streams of windows, for networks that carry their state.

    The sequence is cut into `batch_size` streams of the same length, give or take one. A batch is
    the next `window` steps of each: row `r` of batch `i + 1` goes on where row `r` of batch `i`
    ended. The target of each step is the next symbol. A recurrent layer with `stateful=True` thus
    reads each stream as a whole; reset its state before each epoch and each evaluation.

    Every symbol but the first is predicted exactly once. Where a stream has ended before the last
    window has, its last step is repeated with sample weight 0. Keras divides its *loss* by the
    number of steps, those of weight 0 too: read off the exact value by `weighted_metrics`, e.g.
    bits per character as `keras.metrics.SparseCategoricalCrossentropy(from_logits=True)`
    divided by `log(2)`.

    With `max_offset`, each epoch starts at a random symbol from 0 to it and ends as many symbols
    before the end as are left of it: so windows begin elsewhere in every epoch. The code of the
    IndRNN authors has up to `5 * window - 1`. For training only: `max_offset` symbols are not
    predicted in an epoch.

    In `fit`, `shuffle=False` is needed, see also `Batches` on resuming and on `steps_per_epoch`.

    Args:
        ids: integers of shape `[N]`.
        batch_size: positive integer B, the number of streams.
        window: positive integer T, the steps of each in a batch: gradients reach that far back.
        seed: integer of at least 0, of the offsets.
        max_offset: integer of at least 0, see above.
        epoch: integer of at least 0, where to start.

    Returns:
        As items `(x, y, weights)`, each of shape `[B, T]`: ids, the ids after them, and float32
        ones and zeros.

    Attributes:
        epoch: the number of the current epoch, see `Batches`.

    Raises:
        ValueError: if `ids` are not integers on one axis, or too few for so many streams; in
            `fit` without `shuffle=False`.

    Example:

    >>> from keras_rnncells import datasets
    >>> streams = datasets.Streams(range(11), batch_size=2, window=3)
    >>> for x, y, weights in streams:
    ...     print(x.tolist(), y.tolist(), weights.tolist())
    [[0, 1, 2], [5, 6, 7]] [[1, 2, 3], [6, 7, 8]] [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    [[3, 4, 4], [8, 9, 9]] [[4, 5, 5], [9, 10, 10]] [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]
    """

    def __init__(
        self,
        ids: np.ndarray,
        batch_size: int,
        window: int,
        seed: int = 0,
        *,
        max_offset: int = 0,
        epoch: int = 0,
    ) -> None:
        ids = np.asarray(ids)
        if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(
                "`ids` must be integers on one axis. Received: an array of shape "
                f"{ids.shape} and dtype {ids.dtype}."
            )
        batch_size = checks.positive_integer("batch_size", batch_size)
        window = checks.positive_integer("window", window)
        max_offset = checks.natural("max_offset", max_offset)
        predicted = len(ids) - 1 - max_offset
        if predicted < batch_size:
            raise ValueError(
                f"{len(ids)} symbols are too few for {batch_size} streams with "
                f"max_offset={max_offset}: at least {batch_size + 1 + max_offset} are needed."
            )
        longest = -(-predicted // batch_size)
        super().__init__(-(-longest // window), seed, epoch)
        self.ids, self.max_offset = ids, max_offset
        self.batch_size, self.window = batch_size, window
        self._bounds = predicted * np.arange(batch_size + 1, dtype="int64") // batch_size

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        if self._asked is not None and index > 0 and index - 1 not in self._asked:
            raise ValueError(
                f"Batch {index} was asked for before batch {index - 1}, whose state it goes on "
                "with. Pass `shuffle=False` to `fit`."
            )
        return super().__getitem__(index)

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, ...]:
        offset = np.random.default_rng(self.seed_of(epoch)).integers(self.max_offset + 1)
        start, end = self._bounds[:-1, None], self._bounds[1:, None]
        steps = start + index * self.window + np.arange(self.window)
        weights = (steps < end).astype("float32")
        places = offset + np.minimum(steps, end - 1)
        return self.ids[places], self.ids[places + 1], weights


class FollowEpochs(keras.callbacks.Callback):
    """Sets `epoch` of a dataset to that of `fit`.

    With it, `fit(..., initial_epoch=e)` and `keras.callbacks.BackupAndRestore` go on with the
    data of that epoch, without a word to the dataset.

    Args:
        batches: a `Batches`, `Shuffled` or `Streams`, the training data.
    """

    def __init__(self, batches: Epochs) -> None:
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.batches.epoch = epoch
