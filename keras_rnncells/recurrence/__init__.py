"""How a recurrence runs over time. Knows steps and states, and no cell.

`run` is the only door; each way to run is one file behind it, chosen by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_rnncells.recurrence import keras_loop, sequential
from keras_rnncells.recurrence.masking import hold, masked, select
from keras_rnncells.recurrence.sequential import Problem, engine

SCANS = ("auto", "sequential", "keras")

__all__ = ["SCANS", "Problem", "engine", "hold", "run", "select"]


def run(
    step: Callable,
    sequences: Any,
    states: Any,
    *,
    mask: Any = None,
    held: Callable | None = None,
    zero_output_for_mask: bool = False,
    unroll: bool = False,
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
        unroll: whether to write the loop out, step by step. Needs a static T.
        return_sequences: whether all outputs are wanted, or the last only.
        scan: which loop runs. `"sequential"` is the fused loop of `problem`, `"keras"` is Keras'
            own. `"auto"` is `"sequential"` on TensorFlow, else `"keras"`. Keras' loop takes over
            where there is no fused one: without a `problem`, on other backends, when unrolled, and
            for a step that depends on more than it is given.
        problem: the same step as a fused loop needs it, with `states` a list and `held` its output.

    Returns:
        The outputs `[B, T, ...]`, or the last output `[B, ...]`; and the last states.
    """
    if scan != "keras" and problem is not None and problem.engine is not None and not unroll:
        found = sequential.run(
            problem, sequences, states, mask, held, zero_output_for_mask, return_sequences
        )
        if found is not None:
            return found

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
        keras.tree.flatten(states),
        unroll=unroll,
        return_sequences=return_sequences,
    )
    return outputs, keras.tree.pack_sequence_as(states, last)
