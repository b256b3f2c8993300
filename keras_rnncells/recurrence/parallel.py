"""The log-depth scan over time, for element-wise steps `h = activation(c + u * h')`.

With activations that only clip, a step is the map `h -> clip(u h + c, low, high)`. Such maps are
closed under composition, so that an associative scan finds every state in log T depth, exactly.
Other activations take Newton's iteration on the whole trajectory, each turn of which is a scan over
linear maps (Lim et al., 2023, https://arxiv.org/abs/2309.12252; Danieli et al., 2025,
https://arxiv.org/abs/2510.21450). The backward pass is a scan over linear maps in any case.

What a scan finds is put into the equation of each step before it is used. Where a state is off by
more than 1,000 rounding errors (Newton's iteration goes on to 32), as after an overflow of
products, the sequential loop runs instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_rnncells.recurrence import sequential
from keras_rnncells.recurrence.problem import Fixed, Given, Step, delayed, in_rows

INFINITY = float("inf")
# Turns of Newton's iteration before the sequential loop takes over.
MOST_TURNS = 16


def bounds(activation: Callable) -> tuple[float, float] | None:
    """`(low, high)` of an activation that is `clip(x, low, high)`, or `None` for any other."""
    activations = keras.activations
    known = {
        activations.linear: (-INFINITY, INFINITY),
        activations.relu: (0.0, INFINITY),
        activations.relu6: (0.0, 6.0),
        activations.hard_tanh: (-1.0, 1.0),
    }
    if isinstance(activation, keras.layers.ReLU):
        if activation.negative_slope or activation.threshold:
            return None
        return 0.0, INFINITY if activation.max_value is None else float(activation.max_value)
    return known.get(activation) if callable(activation) and _hashable(activation) else None


def forward(
    tools: Any, step: Step, given: Given, fixed: Fixed, keep: int, unroll: int
) -> tuple[list[Any], list[Any]]:
    """The first `keep` states at all steps, and all states at the last; see `sequential`."""
    [first] = given.states

    def residual(h):
        """How far each state is from what its step makes of the one before."""
        after = at_all(step, given, fixed)(delayed(h, first))
        return ops.abs(h - after)

    limits = bounds(step.activation)
    exact = limits is not None and not any(isinstance(z, float) for z in fixed.by_step)
    if exact:
        h = _clipped(given, fixed, *limits)
        found = _small(residual(h), h, _epsilon(h, 1000))
    else:
        h, found = _newton(tools, step, given, fixed)

    def otherwise():
        [sequence], _ = sequential.forward(tools, step, given, fixed, 1, unroll)
        return sequence

    h = ops.cond(found, lambda: h, otherwise)
    return [h][:keep], [h[:, -1]]


def backward(
    tools: Any,
    step: Step,
    given: Given,
    fixed: Fixed,
    every: list[Any],
    by_sequences: list[Any],
    by_last: list[Any],
    unroll: int,
) -> Given:
    """The gradients by what is given; see `sequential`."""
    [h], [first] = every, given.states
    previous = delayed(h, first)
    [slope] = tools.vjp(
        lambda h: [at_all(step, given, fixed)(h)], (previous,), [ops.ones_like(previous)]
    )
    upstream = by_sequences[0] if by_sequences else ops.zeros_like(h)
    upstream = ops.concatenate([upstream[:, :-1], upstream[:, -1:] + by_last[0][:, None]], axis=1)

    # adjoint[t] = upstream[t] + slope[t + 1] * adjoint[t + 1]
    later = ops.concatenate([slope[:, 1:], ops.zeros_like(slope[:, :1])], axis=1)
    _, adjoint = scan(_linear, (later, upstream), reverse=True)

    def expected(adjoint):
        return upstream + later * ops.roll(adjoint, -1, axis=1)

    def otherwise():
        steps = ops.shape(h)[1]

        def body(k, adjoint, sequence):
            t = steps - 1 - k
            adjoint = tools.read(upstream, t) + tools.read(later, t) * adjoint
            return adjoint, tools.write(sequence, t, adjoint)

        _, sequence = tools.loop(steps, body, (ops.zeros_like(first), tools.new(first, steps)))
        return tools.close(sequence)

    right = _small(ops.abs(adjoint - expected(adjoint)), adjoint, _epsilon(adjoint, 1000))
    adjoint = ops.cond(right, lambda: adjoint, otherwise)

    def of(projected, previous, rows, weights):
        now = given._replace(projected=projected, rows=rows, weights=weights)
        return [at_all(step, now, fixed)(previous)]

    by_projected, by_before, by_rows, by_weights = tools.vjp(
        of, (given.projected, previous, given.rows, given.weights), [adjoint]
    )
    used = step.reads(*in_rows(given._replace(states=[previous]), fixed))
    by_weights = [by if i in used else None for i, by in enumerate(by_weights)]
    return Given(by_projected, [by_before[:, 0]], [], by_rows, by_weights)


def at_all(step: Step, given: Given, fixed: Fixed) -> Callable:
    """The step as a function of the previous states `[B, T, U]`, at all steps at once."""

    def of(previous):
        [h] = step(*in_rows(given._replace(states=[previous]), fixed))
        return ops.reshape(h, ops.shape(previous))

    return of


def _clipped(given: Given, fixed: Fixed, low: float, high: float) -> Any:
    """The trajectory of a step that clips, by composition of all its maps."""
    [first], [zoneout] = given.states, fixed.by_step
    offset = given.projected
    slope = ops.broadcast_to(given.rows[0][:, None], ops.shape(offset))
    # Steps that keep the state, by mask or zoneout, are identity maps.
    kept = zoneout
    if fixed.mask is not None:
        masked = ops.logical_not(fixed.mask)[..., None]
        kept = masked if kept is None else ops.logical_or(masked, kept)
    if kept is not None:
        slope = ops.where(kept, ops.ones_like(slope), slope)
        offset = ops.where(kept, ops.zeros_like(offset), offset)
    if (low, high) == (-INFINITY, INFINITY):
        slope, offset = scan(_linear, (slope, offset))
        return slope * first[:, None] + offset
    low, high = ops.full_like(offset, low), ops.full_like(offset, high)
    if kept is not None:
        low = ops.where(kept, ops.full_like(low, -INFINITY), low)
        high = ops.where(kept, ops.full_like(high, INFINITY), high)
    slope, offset, low, high = scan(_clip_affine, (slope, offset, low, high))
    return ops.clip(slope * first[:, None] + offset, low, high)


def _newton(tools: Any, step: Step, given: Given, fixed: Fixed) -> tuple[Any, Any]:
    """The trajectory by Newton's iteration, and whether that found it."""
    [first] = given.states
    function = at_all(step, given, fixed)

    def evaluate(h):
        previous = delayed(h, first)
        after = function(previous)
        return after, _small(ops.abs(h - after), h, _epsilon(h, 32))

    def turn(turns, h, after, found):
        previous = delayed(h, first)
        [slope] = tools.vjp(lambda h: [function(h)], (previous,), [ops.ones_like(previous)])
        slope, offset = scan(_linear, (slope, after - slope * previous))
        h = slope * first[:, None] + offset
        return turns + 1, h, *evaluate(h)

    h = function(ops.zeros_like(given.projected))
    start = ops.zeros((), "int32"), h, *evaluate(h)
    _, h, _, found = ops.while_loop(
        lambda turns, h, after, found: ops.logical_and(turns < MOST_TURNS, ops.logical_not(found)),
        turn,
        start,
    )
    return h, found


def scan(combine: Callable, elements: tuple[Any, ...], reverse: bool = False) -> tuple[Any, ...]:
    """All prefixes of an associative composition along axis 1, of static length.

    `keras.ops.associative_scan` does not compile under XLA on TensorFlow.

    Args:
        combine: `combine(first, second)`, on tuples of tensors `[B, t, ...]`, for all t at once.
        elements: tensors `[B, T, ...]`.
        reverse: whether to go from the last step to the first.
    """
    if reverse:
        found = scan(combine, tuple(ops.flip(e, axis=1) for e in elements))
        return tuple(ops.flip(f, axis=1) for f in found)
    steps = elements[0].shape[1]
    if steps < 2:
        return elements
    pairs = combine(tuple(e[:, :-1:2] for e in elements), tuple(e[:, 1::2] for e in elements))
    odd = scan(combine, pairs)
    before_even = odd if steps % 2 else tuple(o[:, :-1] for o in odd)
    even = combine(before_even, tuple(e[:, 2::2] for e in elements))
    even = tuple(ops.concatenate([e[:, :1], v], 1) for e, v in zip(elements, even, strict=True))
    return tuple(_interleaved(e, o) for e, o in zip(even, odd, strict=True))


def _interleaved(even: Any, odd: Any) -> Any:
    batch, pairs, *rest = ops.shape(odd)
    both = ops.reshape(ops.stack([even[:, :pairs], odd], axis=2), (batch, 2 * pairs, *rest))
    return both if even.shape[1] == pairs else ops.concatenate([both, even[:, pairs:]], axis=1)


def _linear(first: tuple, second: tuple) -> tuple:
    """`h -> b h + c`, one after the other."""
    (b1, c1), (b2, c2) = first, second
    return _finite(b1 * b2), _finite(b2 * c1 + c2)


def _clip_affine(first: tuple, second: tuple) -> tuple:
    """`h -> clip(b h + c, low, high)`, one after the other."""
    (b1, c1, low1, high1), (b2, c2, low2, high2) = first, second
    # The images of the first bounds under the second line; 0 * infinity has none.
    flat = b2 == 0
    slope = ops.where(flat, ops.ones_like(b2), b2)
    ends = [ops.where(flat, c2, slope * x + c2) for x in (low1, high1)]
    low = ops.clip(ops.minimum(*ends), low2, high2)
    high = ops.clip(ops.maximum(*ends), low2, high2)
    return _finite(b1 * b2), _finite(b2 * c1 + c2), low, high


def _finite(x: Any) -> Any:
    """Keeps products of large numbers from infinity, which times 0 is not a number.

    The square of the limit is finite. A trajectory beyond it does not pass the check that follows,
    and takes the sequential loop.
    """
    limit = float(np.sqrt(np.finfo(keras.backend.standardize_dtype(x.dtype)).max)) / 2
    return ops.minimum(ops.maximum(x, -limit), limit)


def _small(residual: Any, h: Any, tolerance: float) -> Any:
    """Whether a residual is small beside the largest state of its unit. Not-a-number is not."""
    scale = 1.0 + ops.max(ops.abs(h), axis=1, keepdims=True)
    return ops.all(residual <= tolerance * scale)


def _epsilon(x: Any, factor: float) -> float:
    return factor * float(np.finfo(keras.backend.standardize_dtype(x.dtype)).eps)


def _hashable(x: Any) -> bool:
    try:
        hash(x)
    except TypeError:
        return False
    return True
