"""The fused ways to run a recurrence: which one, and what goes in and comes out."""

from __future__ import annotations

from functools import cache
from typing import Any

import keras
from keras import ops

from keras_rnncells.recurrence import parallel
from keras_rnncells.recurrence.masking import select
from keras_rnncells.recurrence.problem import Fixed, Given, Impure, Problem

# From this many steps on, an accelerator takes the log-depth scan; fewer were not measured.
LONG = 64
# Element-wise steps in one turn of the loop on an accelerator, where the turn costs more than they.
UNROLL = 16


def choose(scan: str, problem: Problem, steps: int | None, dtype: str) -> str:
    """`"sequential"` or `"parallel"`.

    `"auto"` is sequential on a CPU, where the loop was the faster one at every length measured
    (`benchmarks/README.md`). On an accelerator, where each turn of a loop waits for the last, it is
    parallel for the steps that a scan solves exactly, from `LONG` steps on
    (`benchmarks/README.md`, on a GPU). A T that is not known while tracing runs sequentially in any
    case, and so do states in half precision, in which a scan cannot tell whether it is right.
    """
    if scan == "auto":
        activation = problem.engine.step.activation
        exact = activation is not None and parallel.bounds(activation) is not None
        long = steps is not None and steps >= LONG
        scan = "parallel" if exact and long and accelerated() else "sequential"
    return "sequential" if steps is None or dtype in ("float16", "bfloat16") else scan


def turn(problem: Problem) -> int:
    """The steps in one turn of the sequential loop, where the user does not say."""
    elementwise = problem.engine.step.activation is not None
    return UNROLL if elementwise and accelerated() else 1


@cache
def accelerated() -> bool:
    """Whether the backend computes on something else than a CPU."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() != "cpu"
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("TPU"))


def run(
    problem: Problem,
    sequences: Any,
    states: list[Any],
    mask: Any,
    *,
    zero_output_for_mask: bool,
    return_sequences: bool,
    scan: str,
    unroll: int | None,
) -> tuple[Any, list[Any]] | None:
    """Runs a problem over time; see `recurrence.run`. `None` if the step is not pure."""
    engine = problem.engine
    weights = [v.value for v in engine.step.variables()]
    dtype = keras.backend.standardize_dtype(sequences.dtype)
    given = Given(sequences, list(states), problem.shared, problem.rows, weights)
    # Where the output is one of the first states, the others are not needed at all steps.
    shown = problem.output(states)
    keep = next((i + 1 for i, s in enumerate(states) if s is shown), len(states))
    try:
        found, last = engine.run(
            given,
            Fixed(problem.by_row, problem.by_step, mask),
            keep=keep if return_sequences else 0,
            method=choose(scan, problem, sequences.shape[1], dtype),
            unroll=unroll or turn(problem),
            training=problem.training,
        )
    except Impure:
        return None
    outputs = problem.output(found if return_sequences else last)
    if mask is not None and zero_output_for_mask:
        real = mask if return_sequences else mask[:, -1]
        outputs = select(real, outputs, ops.zeros_like(outputs))
    return outputs, last
