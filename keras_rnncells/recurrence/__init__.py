"""How a recurrence runs over time. Knows steps and states, and no cell.

`run` is the only door; each way to run is one file behind it, chosen by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_rnncells.recurrence import fused, keras_loop
from keras_rnncells.recurrence.masking import hold, masked, select
from keras_rnncells.recurrence.problem import Problem, Step, engine

SCANS = ("auto", "parallel", "sequential", "keras")

__all__ = ["SCANS", "Problem", "Step", "engine", "hold", "run", "select"]


def run(
    step: Callable,
    sequences: Any,
    states: Any,
    *,
    mask: Any = None,
    held: Callable | None = None,
    zero_output_for_mask: bool = False,
    unroll: bool | int = False,
    return_sequences: bool = True,
    scan: str = "auto",
    problem: Problem | None = None,
) -> tuple[Any, Any]:
    """Runs a step function over time.

    Args:
        step: `step(t, inputs, states) -> output, new states`, with t the number of the step (an
            int32 scalar), inputs `[B, ...]` and states in the structure of `states`.
        sequences: `[B, T, ...]`.
        states: the initial states, in any nested structure.
        mask: boolean `[B, T]`, or `None`. A step where it is `False` keeps the states.
        held: `held(states)`, the output of such a step. Needed with a mask.
        zero_output_for_mask: whether such a step outputs zeros instead.
        unroll: `True` writes Keras' loop out, step by step, and needs a static T. An integer is
            the number of steps in one turn of a fused loop; `False` leaves that to `fused.turn`.
        return_sequences: whether all outputs are wanted, or the last only.
        scan: which loop runs: `"keras"` is Keras' own, `"sequential"` the fused loop of `problem`,
            `"parallel"` its log-depth scan, for element-wise steps and a T that is known, and
            `"auto"` what `fused.choose` says. Keras' loop takes over where there is no fused one:
            without a `problem`, on PyTorch, with `unroll=True`, and for a step that depends on more
            than it is given.
        problem: the same step as the fused loops need it, over the flattened `states`.

    Returns:
        The outputs `[B, T, ...]`, or the last output `[B, ...]`; and the last states.
    """
    flat_states = keras.tree.flatten(states)
    if (
        scan != "keras"
        and problem is not None
        and problem.engine is not None
        and unroll is not True
    ):
        found = fused.run(
            problem,
            sequences,
            flat_states,
            mask,
            zero_output_for_mask=zero_output_for_mask,
            return_sequences=return_sequences,
            scan=scan,
            unroll=unroll or None,
        )
        if found is not None:
            outputs, last = found
            return outputs, keras.tree.pack_sequence_as(states, last)

    def flat_step(t, inputs, flat):
        output, after = step(t, inputs, keras.tree.pack_sequence_as(states, flat))
        return output, keras.tree.flatten(after)

    if mask is not None:
        flat_step = masked(
            flat_step,
            mask,
            lambda flat: held(keras.tree.pack_sequence_as(states, flat)),
            zero_output_for_mask,
        )
    outputs, last = keras_loop.run(
        flat_step,
        sequences,
        flat_states,
        unroll=unroll is True,
        return_sequences=return_sequences,
    )
    return outputs, keras.tree.pack_sequence_as(states, last)
