"""Regularizers for recurrent states and recurrent weights."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_rnncells import checks


def _safe_norm(x: Any, axis: int | None = None) -> Any:
    """Euclidean norm with gradient zero, not NaN, at the zero vector."""
    square = ops.sum(ops.square(x), axis=axis)
    zero = ops.equal(square, 0)
    # The inner `where` keeps the infinite slope of the root out of the gradient.
    root = ops.sqrt(ops.where(zero, ops.ones_like(square), square))
    return ops.where(zero, ops.zeros_like(square), root)


def _at_least_float32(x: Any) -> Any:
    x = ops.convert_to_tensor(x)
    return ops.cast(x, checks.compute_dtype(x.dtype))


@keras.saving.register_keras_serializable(package="keras_rnncells")
class NormStabilizer(keras.regularizers.Regularizer):
    """Activity regularizer that keeps the norm of the state steady over time.

    For states `h` of shape `(batch, time, units)` the value is

    `sum over the batch of beta / T * sum_{t=2..T} (||h_t|| - ||h_{t-1}||) ** 2`.

    Set it as `activity_regularizer` of a recurrent layer with
    `return_sequences=True`. From version 3.14 on, Keras divides the value of an
    activity regularizer by the batch size, so the loss is the mean over the batch.
    Earlier versions (3.8 to 3.13, for instance) add the sum: there, divide `beta`
    by the batch size to get the same loss. `keras.layers.SimpleRNN` drops its
    `activity_regularizer`; `keras.layers.RNN` with a `SimpleRNNCell` does not.

    A layer that is given a mask repeats its last output at masked steps, which
    adds nothing to the penalty, unless it has `zero_output_for_mask=True`.

    Reference: Krueger & Memisevic, 2015, "Regularizing RNNs by Stabilizing
    Activations" (arXiv 1511.08400).

    Args:
        beta: float, at least 0. Strength of the penalty.

    Raises:
        ValueError: if `beta` is negative or not a number, or if the regularizer is
            called with something that is not of rank 3.

    Example:

    >>> import numpy as np
    >>> from keras_rnncells.regularizers import NormStabilizer
    >>> states = np.array([[[3.0, 4.0], [0.0, 0.0]]], "float32")  # norms 5 and 0
    >>> float(NormStabilizer(beta=2.0)(states))
    25.0
    """

    def __init__(self, beta: float) -> None:
        self.beta = checks.number("beta", beta, 0)

    def __call__(self, states: Any) -> Any:
        if len(states.shape) != 3:
            raise ValueError(
                "`NormStabilizer` needs states of shape (batch, time, units). "
                f"Received: shape {tuple(states.shape)}. Use it as `activity_regularizer` of "
                "a layer with `return_sequences=True` and without `return_state`."
            )
        states = _at_least_float32(states)
        norms = _safe_norm(states, axis=-1)
        changes = ops.sum(ops.square(norms[:, 1:] - norms[:, :-1]))
        return self.beta * changes / ops.cast(ops.shape(states)[1], changes.dtype)

    def get_config(self) -> dict[str, Any]:
        return {"beta": self.beta}


@keras.saving.register_keras_serializable(package="keras_rnncells")
class MemoryPenalty(keras.regularizers.Regularizer):
    """Penalises recurrent weights whose magnitude is above a bound.

    The value is `rate * ||max(0, |u| - bound)||_2`, taken over all weights
    together; it is zero, with gradient zero, when all of them are within the bound.
    It is a soft alternative to the constraint `MemoryBound`, whose attribute
    `bound` can be passed on here.

    Args:
        bound: float, at least 0. Magnitude up to which a weight is free; defaults
            to 1.
        rate: float, at least 0. Strength of the penalty; defaults to 0.01.

    Raises:
        ValueError: if an argument is negative or not a number.

    Example:

    >>> import numpy as np
    >>> from keras_rnncells.regularizers import MemoryPenalty
    >>> weights = np.array([-4.0, 0.5, 5.0], "float32")  # 3 and 4 above the bound
    >>> float(MemoryPenalty(bound=1.0, rate=2.0)(weights))
    10.0
    """

    def __init__(self, bound: float = 1.0, rate: float = 0.01) -> None:
        self.bound = checks.number("bound", bound, 0)
        self.rate = checks.number("rate", rate, 0)

    def __call__(self, weights: Any) -> Any:
        excess = ops.relu(ops.abs(_at_least_float32(weights)) - self.bound)
        return self.rate * _safe_norm(excess)

    def get_config(self) -> dict[str, Any]:
        return {"bound": self.bound, "rate": self.rate}
