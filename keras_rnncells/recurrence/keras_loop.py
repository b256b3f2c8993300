"""Keras' own loop: slow, and the oracle of every other way to run a recurrence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops


class _Step:
    """A step function in the clothes of a cell, so that `keras.layers.RNN` loops over it."""

    state_size = ()

    def __init__(self, step: Callable) -> None:
        self.step = step

    def call(self, inputs: Any, states: Any) -> tuple[Any, list[Any]]:
        t, *states = states
        output, states = self.step(t, inputs, states)
        return output, [t + 1, *states]

    __call__ = call


def run(
    step: Callable, sequences: Any, states: list[Any], *, unroll: bool, return_sequences: bool
) -> tuple[Any, list[Any]]:
    """Runs `step` over time; see `recurrence.run`."""
    loop = keras.layers.RNN(
        _Step(step), return_sequences=return_sequences, unroll=unroll, name="keras_loop"
    )
    # The number of the step travels as one more state: masks are read by it.
    start = ops.zeros((), dtype="int32")
    last, outputs, (_, *states) = loop.inner_loop(sequences, [start, *states], mask=None)
    return (outputs if return_sequences else last), states
