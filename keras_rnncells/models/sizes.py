"""The size of a model, and the units with which it has a given size."""

from __future__ import annotations

import functools
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

    For comparing cells at equal size. `build` is called for a few sizes: the number of weights is
    nearly a polynomial of degree 2 in the units of a stack, or in the growth of a dense one.

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
    sizes = [6, 14, 22]
    polynomial = np.polyfit(sizes, [count_parameters(build(n)) for n in sizes], 2)
    roots = np.roots(polynomial - [0, 0, parameters])
    guess = min((root.real for root in roots if root.imag == 0 and root.real > 0), default=1)

    # Not all is a polynomial: a dense stack halves odd numbers, and a tied embedding spares a layer
    # of its own width. From the guess the bounds move apart until one fits and one does not.
    @functools.cache
    def fits(units: int) -> bool:
        return count_parameters(build(units)) <= parameters

    low = max(1, math.floor(guess + 1e-6))
    high = low + 1
    step = 1
    while low > 1 and not fits(low):
        low, high, step = max(1, low - step), low, 2 * step
    while fits(high):
        low, high, step = high, high + step, 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
