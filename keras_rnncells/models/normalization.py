"""Batch normalization with the statistics of each step of its own."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_rnncells import checks


@keras.saving.register_keras_serializable(package="keras_rnncells")
class StepBatchNormalization(keras.layers.Layer):
    """Batch normalization of sequences, each step with a mean and a variance of its own.

    `keras.layers.BatchNormalization` pools over batch and time: in training, a step then sees
    something of those that follow it. Here the statistics are those of the batch at one step, which
    a network with an output at each step needs
    ([Li et al., 2019](https://arxiv.org/abs/1910.06251)). gamma and beta are shared by all steps.

    In training each step is normalized with its statistics in the batch, which also move the
    running statistics of the first `timesteps` steps. At inference, and when the layer is not
    trainable, each step takes its running statistics, and steps beyond `timesteps` those of the
    last one. Masked steps do not count in the statistics; a step that is masked in the whole batch
    leaves its running statistics as they are. All steps are normalized, masked or not, and the mask
    is passed on. Under `tf.distribute` each device takes the statistics of its share of the batch,
    and the running statistics follow the mean of those of all devices.

    Weights: `gamma` `[D]`, `beta` `[D]`, and, not trained, `moving_mean` `[timesteps, D]` and
    `moving_variance` `[timesteps, D]`.

    Args:
        timesteps: Positive integer, for how many steps to keep running statistics.
        momentum: Number in [0, 1], how much of the running statistics stays at each update.
        epsilon: Number of at least 0, added to the variance.
        **kwargs: `name`, `dtype` and `trainable`, as for any Keras layer.

    Call arguments:
        inputs: `[B, T, D]`.
        training: Whether to normalize with the statistics of the batch.
        mask: Boolean `[B, T]`.

    Input shape:
        `[batch, time, features]`; batch and time may be unknown.

    Output shape:
        That of the input.

    Raises:
        ValueError: If an argument is not allowed, or an input is not `[batch, time, features]`.

    Example:

    >>> import numpy as np, keras_rnncells
    >>> layer = keras_rnncells.models.StepBatchNormalization(timesteps=10)
    >>> x = np.random.normal(size=(64, 10, 3)) * np.arange(1, 11)[:, None]
    >>> y = np.array(layer(x, training=True))
    >>> bool(np.allclose(y.std(axis=0), 1, atol=1e-3))
    True
    """

    def __init__(
        self, timesteps: int, momentum: float = 0.9, epsilon: float = 1e-5, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.timesteps = checks.positive_integer("timesteps", timesteps)
        self.momentum = checks.fraction("momentum", momentum)
        self.epsilon = checks.number("epsilon", epsilon, 0)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        if len(input_shape) != 3:
            raise ValueError(
                f"{self.name} needs inputs of shape [batch, time, features]. Received "
                f"{tuple(input_shape)}. For one step use keras.layers.BatchNormalization."
            )
        features = input_shape[-1]

        def add(name, shape, initializer, **kwargs):
            return self.add_weight(
                name=name, shape=shape, initializer=initializer, autocast=False, **kwargs
            )

        self.gamma = add("gamma", (features,), "ones")
        self.beta = add("beta", (features,), "zeros")
        # On several devices each would otherwise keep its own.
        moving = {"trainable": False, "aggregation": "mean"}
        self.moving_mean = add("moving_mean", (self.timesteps, features), "zeros", **moving)
        self.moving_variance = add("moving_variance", (self.timesteps, features), "ones", **moving)

    def call(self, inputs: Any, training: bool = False, mask: Any = None) -> Any:
        dtype = checks.compute_dtype(inputs.dtype)
        x, steps = ops.cast(inputs, dtype), ops.shape(inputs)[1]
        if training and self.trainable:
            mean, variance, seen = self._statistics(x, mask)
            self._move(self.moving_mean, mean, seen, steps)
            self._move(self.moving_variance, variance, seen, steps)
        else:
            # A step beyond the last one that is known takes what is known of that.
            step = ops.minimum(ops.arange(steps), self.timesteps - 1)
            mean, variance = (
                ops.cast(ops.take(v, step, axis=0), dtype)
                for v in (self.moving_mean, self.moving_variance)
            )
        scale = ops.rsqrt(variance + self.epsilon) * ops.cast(self.gamma, dtype)
        outputs = (x - mean) * scale + ops.cast(self.beta, dtype)
        return ops.cast(outputs, self.compute_dtype)

    def _statistics(self, x: Any, mask: Any) -> tuple[Any, Any, Any]:
        """Mean and variance `[T, D]` of each step, and `[T, 1]` whether any sequence has it."""
        if mask is None:
            mean, variance = ops.moments(x, axes=[0])
            return mean, variance, ops.ones_like(mean[:, :1], dtype="bool")
        real = ops.cast(ops.expand_dims(mask, -1), x.dtype)
        count = ops.sum(real, axis=0)
        divisor = ops.maximum(count, 1)
        mean = ops.sum(x * real, axis=0) / divisor
        variance = ops.sum(ops.square(x - mean) * real, axis=0) / divisor
        return mean, variance, count > 0

    def _move(self, moving: Any, value: Any, seen: Any, steps: Any) -> None:
        """Moves the running statistics of the steps that the batch has towards `value`."""
        step = ops.arange(self.timesteps)
        within = ops.minimum(step, steps - 1)
        value = ops.cast(ops.take(value, within, axis=0), moving.dtype)
        seen = ops.logical_and(ops.expand_dims(step < steps, -1), ops.take(seen, within, axis=0))
        before = ops.convert_to_tensor(moving)
        moved = self.momentum * before + (1 - self.momentum) * value
        moving.assign(ops.where(seen, moved, before))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "timesteps": self.timesteps,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }
