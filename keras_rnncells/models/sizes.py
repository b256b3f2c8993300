"""The size of a model, and the units with which it has a given size."""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import numpy as np

from keras_rnncells import checks


def count_parameters(model: keras.Model) -> int:
    """The number of weights that are trained."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def units_for(build: Callable[[int], keras.Model], parameters: int) -> int:
    """The units with which a network has the most weights that are allowed.

    For comparing cells at equal size. `build` is called for a few sizes: the number of weights is a
    polynomial of degree 2 in the units of a stack, or in the growth of a dense one.

    Args:
        build: Function from the number of units to a built Keras model.
        parameters: Positive integer, the most weights to train.

    Returns:
        The number of units, at least 1, which may still be too many.

    Example:

    >>> import keras_rnncells
    >>> keras_rnncells.models.units_for(
    ...     lambda units: keras_rnncells.models.plain((50, 2), 1, units=units, layers=2), 1000)
    26
    """
    checks.positive_integer("parameters", parameters)
    sizes = [8, 16, 24]
    a, b, c = np.polyfit(sizes, [count_parameters(build(n)) for n in sizes], 2)
    room = parameters - c
    if room <= 0:
        return 1
    # The root of a x^2 + b x = room, in the form that allows a = 0: one IndRNN layer is linear.
    units = max(1, math.floor(2 * room / (b + math.sqrt(b * b + 4 * a * room)) + 1e-6))
    # Where a dense stack halves odd numbers, it is only nearly a polynomial.
    while units > 1 and count_parameters(build(units)) > parameters:
        units -= 1
    return units
