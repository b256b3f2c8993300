"""What a masked step does: it keeps every state and repeats the output that goes with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops


def masked(step: Callable, mask: Any, held: Callable, zero_output: bool) -> Callable:
    """`step`, skipped wherever `mask` is `False`.

    Args:
        step: `step(t, inputs, states) -> output, new states`.
        mask: boolean `[B, T]`.
        held: `held(states)`, the output of a masked step.
        zero_output: whether a masked step outputs zeros instead.
    """

    def masked_step(t: Any, inputs: Any, states: list[Any]) -> tuple[Any, list[Any]]:
        real = ops.take(mask, t, axis=1)
        output, after = step(t, inputs, states)
        otherwise = ops.zeros_like(output) if zero_output else held(states)
        return select(real, output, otherwise), [
            select(real, a, b) for a, b in zip(after, states, strict=True)
        ]

    return masked_step


def select(mask: Any, x: Any, y: Any) -> Any:
    """`x` where `mask` is `True`, else `y`: the mask has the leading axes of both."""
    return ops.where(ops.reshape(mask, ops.shape(mask) + (1,) * (x.ndim - mask.ndim)), x, y)


def hold(values: Any, mask: Any, initial: Any) -> Any:
    """Each masked step repeats the last real one before it, or `initial`: all steps at once.

    Args:
        values: `[B, T, S]`.
        mask: boolean `[B, T]`.
        initial: `[B, S]`.
    """
    timesteps = ops.shape(values)[1]
    steps = ops.arange(timesteps)
    real_so_far = ops.cumsum(ops.cast(mask, steps.dtype), axis=1)
    real_steps = ops.argsort(ops.where(mask, steps, steps + timesteps), axis=1)
    last_real = ops.take_along_axis(real_steps, ops.maximum(real_so_far - 1, 0), axis=1)
    held = ops.take_along_axis(values, ops.cast(last_real, "int32")[..., None], axis=1)
    return select(real_so_far > 0, held, ops.broadcast_to(initial[:, None], ops.shape(values)))
