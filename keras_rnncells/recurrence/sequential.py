"""The fused loop: what it is given, and which backend has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_rnncells.recurrence.masking import select


class Given(NamedTuple):
    """What a recurrence is differentiated by.

    Attributes:
        projected: `[B, T, P]`, the part of each step that needs no state.
        states: the initial states, each `[B, S]`.
        shared: list of tensors that all steps share, such as a kernel.
        weights: the values of the variables that a step may read.
    """

    projected: Any
    states: list[Any]
    shared: list[Any]
    weights: list[Any]


class Fixed(NamedTuple):
    """What is known before the loop and has no gradient.

    Attributes:
        by_row: `[B, ...]` tensors, the same at all steps, in any nested structure.
        by_step: `[B, T, ...]` tensors, in any nested structure. Numbers and `None` stay as they
            are, in both.
        mask: boolean `[B, T]`, or `None`. A step where it is `False` keeps the states.
    """

    by_row: Any
    by_step: Any
    mask: Any


class Problem(NamedTuple):
    """A recurrence for the fused loop.

    Attributes:
        engine: what `engine` returned for the step.
        shared: as in `Given`.
        by_row: as in `Fixed`.
        by_step: as in `Fixed`.
        training: whether a backward pass is expected. Only then may the loop be compiled:
            TensorFlow Serving cannot run what is.
    """

    engine: Any
    shared: list[Any]
    by_row: Any
    by_step: Any
    training: bool


class Impure(Exception):
    """A step reads, writes or makes what it was not given, or draws random numbers."""


def pure_step(
    step: Callable, variables: list[Any], given: Given, recurrent: Any, fixed: Fixed
) -> list[Any]:
    """The new states, as a function of the arguments alone, each at one step.

    Args:
        step: as in `engine`.
        variables: the Keras variables of `given.weights`.
        given: of one step.
        recurrent: the product of one step.
        fixed: of one step.
    """
    if len(variables) != len(given.weights):
        raise Impure("The step made a variable.")
    scope = keras.StatelessScope(list(zip(variables, given.weights, strict=True)))
    values = [scope.get_current_value(v) for v in variables]
    with scope:
        after = step(given.projected, recurrent, given.states, fixed.by_step)
    if any(scope.get_current_value(v) is not x for v, x in zip(variables, values, strict=True)):
        raise Impure("The step assigns to a variable.")
    if fixed.mask is None:
        return after
    return [select(fixed.mask, a, b) for a, b in zip(after, given.states, strict=True)]


def engine(product: Callable, step: Callable, variables: Callable) -> Any:
    """The fused loop of this backend for one recurrence, or `None` where there is none.

    Keep it: it remembers what it compiled. Both functions get tensors of one step.

    Args:
        product: `product(states, shared, by_row) -> recurrent`, linear in the states.
        step: `step(projected, recurrent, states, by_step) -> new states`.
        variables: `variables()` lists the Keras variables that `step` may read.
    """
    if keras.backend.backend() != "tensorflow":
        return None
    from keras_rnncells.recurrence.tensorflow import Engine

    return Engine(product, step, variables)


def run(
    problem: Problem,
    projected: Any,
    states: list[Any],
    mask: Any,
    output: Callable,
    zero_output_for_mask: bool,
    return_sequences: bool,
) -> tuple[Any, list[Any]] | None:
    """Runs a problem over time; see `recurrence.run`. `None` if the step is not pure."""
    # Where the output is the first state, the other states are not needed at all steps.
    keep = 1 if output(states) is states[0] else len(states)
    fixed = Fixed(problem.by_row, problem.by_step, mask)
    try:
        sequences, last = problem.engine.run(
            projected,
            states,
            problem.shared,
            fixed,
            keep=keep if return_sequences else 0,
            compiled=problem.training,
        )
    except Impure:
        return None
    outputs = output(sequences if return_sequences else last)
    if mask is not None and zero_output_for_mask:
        real = mask if return_sequences else mask[:, -1]
        outputs = select(real, outputs, ops.zeros_like(outputs))
    return outputs, last
