"""The statistics of batch normalizations, measured with the weights that are there now."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_rnncells import checks
from keras_rnncells.models.normalization import StepBatchNormalization

NORMALIZATIONS = (keras.layers.BatchNormalization, StepBatchNormalization)
# Stands for a variance where the batch has nothing to take one of.
UNSEEN = -1.0


class PopulationStatistics(keras.callbacks.Callback):
    """Measures the statistics of all batch normalizations before each validation.

    In training the running statistics follow those of the batches: by a fast average that is noisy,
    or by a slow one that is late. Deep recurrent stacks feel both. With this callback they are, at
    every validation, the mean over some batches of training data at the present weights, as
    [Ioffe & Szegedy, 2015](https://arxiv.org/abs/1502.03167) have it for inference;
    [Wu & Johnson, 2021](https://arxiv.org/abs/2105.07576) call it PreciseBN.

    The training steps are not touched: in training a batch is normalized with its own statistics,
    whatever the running ones are, and states of stateful layers and random number generators get
    back the values they had. What acts on validations, as early stopping does, sees other ones. A
    pass costs the forward computation of `steps` batches.

    It measures before each validation of `fit` and each `evaluate` that it is given to, and at the
    end of an epoch that has no validation. Put it before callbacks that save the model. What is
    measured is every `keras.layers.BatchNormalization` and `StepBatchNormalization` that is
    trainable, in the model or in models in it; one that a batch passes more than once (a shared
    layer) gets the statistics of the last time, and one in a wrapper keeps its running ones. Of
    batches of several lengths, a step of `StepBatchNormalization` gets the mean over those that
    have it, and keeps its running statistics if none has.

    Args:
        batches: The training data as batches that can be gone through again and again, such as a
            `tf.data.Dataset`, a `keras.utils.PyDataset` or a list. A batch is the inputs, or a
            tuple that begins with them, as for `fit`.
        steps: Positive integer, how many batches to take, all if there are fewer.

    Raises:
        ValueError: If `steps` is no positive integer, or there is no batch.

    Example:

    >>> import numpy as np
    >>> from keras_rnncells import models
    >>> model = models.plain((None, 3), outputs=2, units=8, layers=2, max_timesteps=10)
    >>> model.compile("adam", "mse")
    >>> x, y = np.random.normal(size=(64, 10, 3)), np.zeros((64, 2))
    >>> batches = [(x[i : i + 16], y[i : i + 16]) for i in range(0, 64, 16)]
    >>> history = model.fit(x, y, batch_size=16, verbose=0, validation_data=(x, y),
    ...     callbacks=[models.PopulationStatistics(batches)])
    """

    def __init__(self, batches: Iterable[Any], steps: int = 100) -> None:
        super().__init__()
        self.batches = batches
        self.steps = checks.positive_integer("steps", steps)
        self._reader: _Reader | None = None
        self._measured = False

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._measured = False

    def on_test_begin(self, logs: dict | None = None) -> None:
        self.measure()
        self._measured = True

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if not self._measured:
            self.measure()

    def measure(self) -> None:
        """Gives the normalizations of the model their statistics."""
        if self._reader is None or self._reader.read is not self.model:
            self._reader = _Reader(self.model)
        reader = self._reader
        if not reader.statistics:
            return
        means = [np.zeros(v.shape) for v in reader.statistics]
        counts = [np.zeros(v.shape, int) for v in reader.statistics]
        batch = None
        with reader.batch_by_batch():
            for batch in self._some():
                x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
                values = reader.predict_on_batch(x)
                # A mean, its variance, the next mean, ...
                seen = [variance != UNSEEN for variance in values[1::2] for _ in range(2)]
                for mean, count, value, there in zip(means, counts, values, seen, strict=True):
                    count += there
                    mean += np.where(there, value - mean, 0) / np.maximum(count, 1)
        if batch is None:
            raise ValueError(
                "PopulationStatistics needs at least one batch, anew for each validation. "
                f"Received: {type(self.batches).__name__} that brought none. An iterator or a "
                "generator ends after the first time: give a dataset or a list."
            )
        for variable, mean, count in zip(reader.statistics, means, counts, strict=True):
            variable.assign(np.where(count, mean, ops.convert_to_numpy(variable)))

    def _some(self) -> Iterator[Any]:
        """The first batches."""
        if not isinstance(self.batches, keras.utils.PyDataset):
            return itertools.islice(iter(self.batches), self.steps)
        # Its length tells where it ends, and not an IndexError. It may be endless.
        there = self.batches.num_batches
        steps = self.steps if there is None else min(self.steps, there)
        return (self.batches[i] for i in range(steps))


class _Reader(keras.Model):
    """Runs a model as in training. The outputs are the statistics of the batch.

    A model of its own, since Keras compiles `predict` on every backend.

    Args:
        read: the model.
    """

    def __init__(self, read: keras.Model) -> None:
        super().__init__(name="reader")
        self.read = read
        self.normalizations = [each for each in _normalizations(read) if each.trainable]
        self.statistics = [
            variable
            for each in self.normalizations
            for variable in (each.moving_mean, each.moving_variance)
        ]
        self.compile(run_eagerly=read.run_eagerly, jit_compile=read.jit_compile)

    def call(self, inputs: Any) -> list[Any]:
        for each in self.normalizations:
            each.moving_variance.assign(ops.full(each.moving_variance.shape, UNSEEN))
        self.read(inputs, training=True)
        return [ops.convert_to_tensor(v) for v in self.statistics]

    @contextlib.contextmanager
    def batch_by_batch(self) -> Iterator[None]:
        """Has the running statistics be those of the last batch, and leaves all else as it was."""
        momenta = [each.momentum for each in self.normalizations]
        before = [(v, np.array(ops.convert_to_numpy(v))) for v in self.read.non_trainable_variables]
        for each in self.normalizations:
            each.momentum = 0.0
        try:
            yield
        finally:
            for each, momentum in zip(self.normalizations, momenta, strict=True):
                each.momentum = momentum
            for variable, value in before:
                variable.assign(value)


def _normalizations(layer: Any) -> Iterator[keras.layers.Layer]:
    """All batch normalizations in a model, and in models in it."""
    if isinstance(layer, NORMALIZATIONS):
        yield layer
    elif isinstance(layer, keras.Model):
        for each in layer.layers:
            yield from _normalizations(each)
