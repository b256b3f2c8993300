"""The fused loop: one loop forward, and one backward that is written by hand.

Backward, a loop from the last step to the first finds by one vjp of one step at a time how the loss
depends on the states, the input of each step and its product with the kernel; the gradient of the
kernel is then one product over all steps. Gradients of what a step reads besides (weights inside
`update`) are one vjp of all steps at once, each a row of one large batch.
"""

from __future__ import annotations

from collections.abc import Callable
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

    # Whether the loop carries what the next step reads, around a product: XLA would make each use
    # read it anew, and slowly.
    reads_ahead = True

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
    ahead = tools.reads_ahead and step.activation is None  # an element-wise step reads once

    def read(t):
        return [tools.read(x, t) for x in sources]

    def body(t, now, states, sequences):
        here = iter(now if ahead else read(t))
        after = step(*at(lambda _: next(here), given._replace(states=states), fixed))
        written = [tools.write(s, t, a) for s, a in zip(sequences, after[:keep], strict=True)]
        return read(ops.minimum(t + 1, steps - 1)) if ahead else [], after, written

    empty = [tools.new(s, steps) for s in given.states[:keep]]
    start = read(0) if ahead else [], given.states, empty
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
    of_step = _gradients_of_a_step(tools, step, given, fixed, every, products)

    # One step on the side tells what there is to find; nothing of it remains.
    by_recurrent, by_projected, *_ = of_step(steps - 1, by_last)
    read = step.reads(*at(lambda x: x[:, 0], given, fixed))
    by_weights: list[Any] = [None] * len(given.weights)

    def through_time(choose, sums, sequences):
        """Runs backward; `choose` says what of each step to sum up, and what to keep."""

        def body(k, adjoints, sums, sequences):
            t = steps - 1 - k
            adjoints = list(adjoints)
            for i, by in enumerate(by_sequences):
                adjoints[i] = adjoints[i] + tools.read(by, t)
            *by, by_before = of_step(t, adjoints)
            values, kept = choose(adjoints, *by)
            sums = [s + v for s, v in zip(sums, values, strict=True)]
            written = [tools.write(s, t, k) for s, k in zip(sequences, kept, strict=True)]
            return by_before, sums, written

        empty = [tools.new(s, steps) for s in sequences]
        start = by_last, [ops.zeros_like(s) for s in sums], empty
        by_states, sums, sequences = _loop(tools, steps, body, start, unroll)
        return list(by_states), list(sums), [tools.close(s) for s in sequences]

    if read and step.rowwise:

        def adjoints_alone(adjoints, by_recurrent, by_projected, by_rows, by_weights):
            return by_rows, adjoints

        by_states, by_rows, adjoints = through_time(adjoints_alone, given.rows, given.states)

        def all_steps(projected, shared, weights):
            here = all_given._replace(projected=rows(projected), shared=shared, weights=weights)
            return step(here, all_fixed)

        by_projected, by_shared, by_all = tools.vjp(
            all_steps, (given.projected, given.shared, given.weights), [rows(a) for a in adjoints]
        )
        for i in read:
            by_weights[i] = by_all[i]
        return Given(by_projected, by_states, by_shared, by_rows, by_weights)

    apart = by_recurrent is not None and by_recurrent is not by_projected

    def all_in_the_loop(adjoints, by_recurrent, by_projected, by_rows, by_weights):
        kept = [by_projected, by_recurrent] if apart else [by_projected]
        return [*by_rows, *(by_weights[i] for i in read)], kept

    sums = [*given.rows, *(given.weights[i] for i in read)]
    kept = [by_projected, by_recurrent] if apart else [by_projected]
    by_states, sums, kept = through_time(all_in_the_loop, sums, kept)
    for i, by in zip(read, sums[len(given.rows) :], strict=True):
        by_weights[i] = by
    by_shared = []
    if given.shared:

        def product(shared):
            return [step.product(all_given._replace(shared=shared), all_fixed)]

        [by_shared] = tools.vjp(product, (given.shared,), [rows(kept[-1])])
    return Given(kept[0], by_states, by_shared, sums[: len(given.rows)], by_weights)


def _gradients_of_a_step(
    tools: Any, step: Step, given: Given, fixed: Fixed, every: list[Any], products: Any
) -> Callable:
    """`of_step(t, adjoints)`, the gradients by all that the step t is given.

    They come in the order product (`None` if there are no `products`), projected, rows, weights,
    states before the step.
    """

    sources = timed(given, fixed)

    def of_step(t, adjoints):
        before = [
            ops.where(t > 0, tools.read(s, ops.maximum(t - 1, 0)), first)
            for s, first in zip(every, given.states, strict=True)
        ]
        now = iter([tools.read(x, t) for x in sources])
        here, fixed_here = at(lambda _: next(now), given._replace(states=before), fixed)

        def product(states):
            return [step.product(here._replace(states=states), fixed_here)]

        def update(projected, rows, weights, states, recurrent=None):
            now = Given(projected, states, given.shared, rows, weights)
            recurrent = step.product(now, fixed_here) if recurrent is None else recurrent
            return step.update(now, recurrent, fixed_here)

        arguments = here.projected, here.rows, here.weights, before
        if products is None:
            return None, *tools.vjp(update, arguments, adjoints)
        *by, by_before, by_recurrent = tools.vjp(
            update, (*arguments, tools.read(products, t)), adjoints
        )
        [through] = tools.vjp(product, (before,), [by_recurrent])
        by_before = [a + b for a, b in zip(by_before, through, strict=True)]
        return by_recurrent, *by, by_before

    return of_step


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
