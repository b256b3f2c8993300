"""The fused loop: one loop forward, and one backward that is written by hand.

Backward, a loop from the last step to the first finds by one vjp of one step at a time how the loss
depends on the states, the input of each step and its product with the kernel; the gradient of the
kernel is then one product over all steps. Gradients of what a step reads besides (weights inside
`update`) are one vjp of all steps at once, each a row of one large batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from keras import ops

from keras_rnncells.recurrence.problem import (
    Fixed,
    Given,
    Step,
    at,
    delayed,
    in_rows,
    rows,
    timed,
)


class InPlace:
    """Sequences `[B, T, ...]` that a compiled loop reads and writes where they stand."""

    @staticmethod
    def read(sequence: Any, t: Any) -> Any:
        batch, _, *rest = ops.shape(sequence)
        here = ops.slice(sequence, [0, t, *[0] * len(rest)], [batch, 1, *rest])
        return ops.reshape(here, [batch, *rest])

    @staticmethod
    def new(like: Any, steps: Any) -> Any:
        batch, *rest = ops.shape(like)
        return ops.zeros([batch, steps, *rest], like.dtype)

    @staticmethod
    def write(sequence: Any, t: Any, value: Any) -> Any:
        start = [0, t, *[0] * (len(value.shape) - 1)]
        return ops.slice_update(sequence, start, value[:, None])

    @staticmethod
    def close(sequence: Any) -> Any:
        return sequence


def forward(
    tools: Any, step: Step, given: Given, fixed: Fixed, keep: int, unroll: int
) -> tuple[list[Any], list[Any]]:
    """The first `keep` states at all steps, and all states at the last.

    Args:
        tools: of the backend: `loop(count, body, start)` with `body(k, *carry) -> carry`,
            `vjp(function, arguments, upstream)` and the methods of `InPlace`.
        step: the step.
        given: of all steps.
        fixed: of all steps.
        keep: how many states are wanted at all steps.
        unroll: the number of steps in one turn of the loop.
    """
    steps = ops.shape(given.projected)[1]
    sources = timed(given, fixed)

    def read(t):
        return [tools.read(x, t) for x in sources]

    def body(t, now, states, sequences):
        here = iter(now)
        after = step(*at(lambda _: next(here), given._replace(states=states), fixed))
        written = [tools.write(s, t, a) for s, a in zip(sequences, after[:keep], strict=True)]
        return read(ops.minimum(t + 1, steps - 1)), after, written

    # The loop carries what the next step reads: XLA would make each use read it anew, and slowly.
    start = read(0), given.states, [tools.new(s, steps) for s in given.states[:keep]]
    _, last, sequences = _loop(tools, steps, body, start, unroll)
    return [tools.close(s) for s in sequences], last


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
    """The gradients by what is given; `None` by a weight that no step reads.

    Args:
        tools: as in `forward`.
        step: the step.
        given: of all steps.
        fixed: of all steps.
        every: all states at all steps.
        by_sequences: the upstream gradients, of the first states at all steps,
        by_last: and of all states at the last.
        unroll: the number of steps in one turn of the loop.
    """
    batch, steps = ops.shape(given.projected)[:2]
    before = [delayed(s, first) for s, first in zip(every, given.states, strict=True)]
    all_given, all_fixed = in_rows(given._replace(states=before), fixed)
    products = None
    if given.shared:  # one large product is faster than one at each step
        products = step.product(all_given, all_fixed)
        products = ops.reshape(products, (batch, steps, products.shape[-1]))

    def of_step(t, adjoints):
        """The gradients by all that one step is given."""
        read = partial(tools.read, t=t)
        before = [
            ops.where(t > 0, tools.read(s, ops.maximum(t - 1, 0)), first)
            for s, first in zip(every, given.states, strict=True)
        ]
        here, fixed_here = at(read, given._replace(states=before), fixed)

        def product(states):
            return [step.product(here._replace(states=states), fixed_here)]

        def update(projected, states, by_row, weights, recurrent=None):
            now = Given(projected, states, given.shared, by_row, weights)
            recurrent = step.product(now, fixed_here) if recurrent is None else recurrent
            return step.update(now, recurrent, fixed_here)

        arguments = here.projected, before, here.rows, here.weights
        if products is None:
            by_recurrent, found = None, tools.vjp(update, arguments, adjoints)
        else:
            *found, by_recurrent = tools.vjp(update, (*arguments, read(products)), adjoints)
            [through] = tools.vjp(product, (before,), [by_recurrent])
            found[1] = [a + b for a, b in zip(found[1], through, strict=True)]
        by_projected, by_before, by_rows, by_weights = found
        return by_recurrent, by_projected, by_before, by_rows, by_weights

    # One step on the side tells what there is to find; nothing of it remains.
    by_recurrent, by_projected, *_ = of_step(steps - 1, by_last)
    used = step.reads(*at(partial(tools.read, t=0), given, fixed))
    all_at_once = bool(used) and step.rowwise
    apart = by_recurrent is not None and by_recurrent is not by_projected

    def body(k, adjoints, sums, written):
        t = steps - 1 - k
        adjoints = list(adjoints)
        for i, by in enumerate(by_sequences):
            adjoints[i] = adjoints[i] + tools.read(by, t)
        by_recurrent, by_projected, by_before, by_rows, by_weights = of_step(t, adjoints)
        if all_at_once:
            found, values = adjoints, by_rows
        else:
            found = [by_projected, *([by_recurrent] if apart else [])]
            values = [*by_rows, *(by_weights[i] for i in used)]
        sums = [s + v for s, v in zip(sums, values, strict=True)]
        return by_before, sums, [tools.write(w, t, f) for w, f in zip(written, found, strict=True)]

    wanted = given.states if all_at_once else [by_projected, *([by_recurrent] if apart else [])]
    summed = [*given.rows, *([] if all_at_once else [given.weights[i] for i in used])]
    start = (
        by_last,
        [ops.zeros_like(s) for s in summed],
        [tools.new(w, steps) for w in wanted],
    )
    by_states, sums, written = _loop(tools, steps, body, start, unroll)
    written = [tools.close(w) for w in written]
    by_rows, by_used = list(sums[: len(given.rows)]), sums[len(given.rows) :]
    by_weights = [None] * len(given.weights)
    if not all_at_once:
        for i, by in zip(used, by_used, strict=True):
            by_weights[i] = by
        by_shared = []
        if given.shared:
            [by_shared] = tools.vjp(
                lambda shared: [step.product(all_given._replace(shared=shared), all_fixed)],
                (given.shared,),
                [rows(written[-1])],
            )
        return Given(written[0], list(by_states), by_shared, by_rows, by_weights)

    def all_steps(projected, shared, weights):
        here = all_given._replace(projected=rows(projected), shared=shared, weights=weights)
        return step(here, all_fixed)

    by_projected, by_shared, by_all = tools.vjp(
        all_steps, (given.projected, given.shared, given.weights), [rows(w) for w in written]
    )
    by_weights = [by if i in used else None for i, by in enumerate(by_all)]
    return Given(by_projected, list(by_states), by_shared, by_rows, by_weights)


def _loop(tools: Any, steps: Any, body: Callable, carry: tuple, unroll: int) -> tuple:
    """`body(t, *carry)` for each t in order, `unroll` steps in a turn of the loop."""
    if unroll == 1:
        return tools.loop(steps, body, carry)

    def several(k, *carry):
        for i in range(unroll):
            carry = body(k * unroll + i, *carry)
        return carry

    carry = tools.loop(steps // unroll, several, carry)
    rest = steps % unroll
    return tools.loop(rest, lambda k, *carry: body(steps - rest + k, *carry), carry)
