"""Dropout, recurrent dropout and zoneout: all random masks of a sequence, drawn before the loop."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops


class Noise(NamedTuple):
    """The masks of one sequence.

    Attributes:
        inputs: `[B, 1, D]`, what the inputs are multiplied by, or `None`.
        recurrent: `[B, U]`, what h' is multiplied by where it enters a product, or `None`.
        zoneout: for each state a boolean `[B, T, S]` (`True` holds the old value), the rate (the
            expectation, at inference), or `None`.
    """

    inputs: Any
    recurrent: Any
    zoneout: list[Any]

    def hold(self, before: list[Any], after: list[Any], t: Any = None) -> list[Any]:
        """Zoneout: keeps part of each state as it was `before` the step.

        Args:
            before: states of the previous step.
            after: states that the step computed.
            t: the step, or `None` where the states hold all steps, `[B, T, S]`.
        """
        return [_hold(*args, t) for args in zip(self.zoneout, before, after, strict=True)]


def _hold(zoneout, before, after, t):
    if zoneout is None:
        return after
    if isinstance(zoneout, float):
        return zoneout * before + (1.0 - zoneout) * after
    return ops.where(zoneout if t is None else ops.take(zoneout, t, axis=1), before, after)


def expectation(cell: Any) -> Noise:
    """The noise of `cell` at inference: none, but for the expectation of zoneout."""
    return Noise(None, None, [rate or None for rate in cell.zoneout_rates])


def draw(cell: Any, sequences: Any, states: list[Any]) -> Noise:
    """The noise of `cell` in training, for sequences `[B, T, D]` that start from `states`."""
    batch, timesteps = ops.shape(sequences)[:2]
    seed = cell.seed_generator

    def dropout(shape, rate, dtype):
        # One mask for all steps: a new one at each step would erase a long memory.
        return keras.random.dropout(ops.ones(shape, dtype), rate, seed=seed) if rate else None

    def zoneout(size, rate):
        return keras.random.uniform((batch, timesteps, size), seed=seed) < rate if rate else None

    return Noise(
        dropout((batch, 1, sequences.shape[-1]), cell.dropout, sequences.dtype),
        dropout((batch, states[0].shape[-1]), cell.recurrent_dropout, states[0].dtype),
        [zoneout(state.shape[-1], r) for state, r in zip(states, cell.zoneout_rates, strict=True)],
    )
