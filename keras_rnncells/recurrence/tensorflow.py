"""The fused loop on TensorFlow: one loop forward, and one backward that is written by hand.

Backward, a loop from the last step to the first finds how the loss depends on the states after each
step, the adjoints: one vjp of one step at a time. All other gradients are then a single vjp of all
steps at once, each a row of one large batch, so that the gradient of a kernel is one product.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import tensorflow as tf
from keras import ops

from keras_rnncells.recurrence.sequential import Fixed, Given, Impure, pure_step

# Each number of steps is compiled anew: beyond these, a layer takes plain kernels for new ones.
MOST_COMPILED = 32


class Engine:
    """Runs one step function over time; see `sequential.engine`."""

    def __init__(self, product: Callable, step: Callable, variables: Callable) -> None:
        self.variables = variables
        self._parts = product, step
        self._compiled_steps: set[int] = set()
        self._warned = False
        # Each direction is compiled on its own and the custom gradient stands outside: eager
        # training, plain tapes and steps_per_execution fail with the gradient inside.
        self._functions = {
            (direction, compiled): tf.function(
                partial(run, self, InPlace if compiled else Plain),
                jit_compile=True if compiled else None,
                autograph=False,
                reduce_retracing=True,
            )
            for direction, run in (("forward", _forward), ("backward", _backward))
            for compiled in (True, False)
        }

    def product(self, given: Given, fixed: Fixed) -> tf.Tensor:
        return self._parts[0](given.states, given.shared, fixed.by_row)

    def update(self, given: Given, recurrent: tf.Tensor, fixed: Fixed) -> list[tf.Tensor]:
        return pure_step(self._parts[1], self.variables(), given, recurrent, fixed)

    def step(self, given: Given, fixed: Fixed) -> list[tf.Tensor]:
        return self.update(given, self.product(given, fixed), fixed)

    def run(
        self,
        projected: tf.Tensor,
        states: list[tf.Tensor],
        shared: list[tf.Tensor],
        fixed: Fixed,
        keep: int,
        compiled: bool,
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Runs all steps.

        Args:
            projected: `[B, T, P]`.
            states: the initial states.
            shared: what all steps share, with a gradient.
            fixed: masks and noise.
            keep: the number of states, from the first on, that are wanted at all steps.
            compiled: whether XLA compiles the loop, where it can. Nothing that is exported may be.

        Returns:
            The first `keep` states at all steps, each `[B, T, S]`; and the last states.

        Raises:
            Impure: if the step depends on more than it was given.
        """
        weights = [tf.convert_to_tensor(v) for v in self.variables()]
        given = tf.nest.map_structure(
            tf.convert_to_tensor, Given(projected, list(states), shared, weights)
        )
        compiled = compiled and self._may_compile(given.projected.shape[1])
        forward, backward = (self._functions[d, compiled] for d in ("forward", "backward"))
        # The backward pass needs all states. Outside of training it is rare, and finds them again.
        saved = len(states) if compiled else keep
        if forward.get_concrete_function(given, fixed, saved).captured_inputs:
            raise Impure("The step reads tensors or variables that it was not given.")

        @tf.custom_gradient
        def differentiable(*flat):
            here = tf.nest.pack_sequence_as(given, [tf.stop_gradient(x) for x in flat])
            sequences, last = forward(here, fixed, saved)

            def gradient(*by):
                every = sequences
                if saved < len(states):
                    every, _ = forward(here, fixed, len(states))
                found = backward(here, fixed, every, list(by[:keep]), list(by[keep:]))
                return _once_differentiable(found, [*flat, *by])

            return (*sequences[:keep], *last), gradient

        found = differentiable(*tf.nest.flatten(given))
        return list(found[:keep]), list(found[keep:])

    def _may_compile(self, steps: int | None) -> bool:
        """Whether a loop of so many steps is worth compiling. An unknown number may be any."""
        if steps is None or not xla_works():
            return False
        if steps not in self._compiled_steps and len(self._compiled_steps) >= MOST_COMPILED:
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"A recurrent layer was trained on sequences of more than {MOST_COMPILED} "
                    "lengths, and compiles none beyond: further lengths take plain kernels, which "
                    "are slower. Bucket the sequences, i.e. pad them to a few lengths.",
                    stacklevel=2,
                )
            return False
        self._compiled_steps.add(steps)
        return True


@cache
def xla_works() -> bool:
    """Whether this TensorFlow can compile: some builds come without XLA."""
    try:
        with tf.init_scope():
            tf.function(lambda x: x + 1.0, jit_compile=True)(tf.zeros(()))
    except tf.errors.OpError:
        return False
    return True


class InPlace:
    """Sequences `[B, T, ...]` that a compiled loop reads and writes where they stand."""

    @staticmethod
    def read(sequence: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        batch, _, *rest = _shape(sequence)
        here = tf.slice(sequence, [0, t, *[0] * len(rest)], [batch, 1, *rest])
        return tf.reshape(here, [batch, *rest])

    @staticmethod
    def new(like: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        batch, *rest = _shape(like)
        return tf.zeros([batch, steps, *rest], like.dtype)

    @staticmethod
    def write(sequence: tf.Tensor, t: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        start = [0, t, *[0] * (len(value.shape) - 1)]
        return ops.slice_update(sequence, start, value[:, None])

    @staticmethod
    def close(sequence: tf.Tensor) -> tf.Tensor:
        return sequence


class Plain:
    """The same on plain kernels, where writing into a tensor would copy it."""

    @staticmethod
    def read(sequence: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        return sequence[:, t]

    @staticmethod
    def new(like: tf.Tensor, steps: tf.Tensor) -> tf.TensorArray:
        return tf.TensorArray(like.dtype, steps, element_shape=like.shape)

    @staticmethod
    def write(sequence: tf.TensorArray, t: tf.Tensor, value: tf.Tensor) -> tf.TensorArray:
        return sequence.write(t, value)

    @staticmethod
    def close(sequence: tf.TensorArray) -> tf.Tensor:
        by_time = sequence.stack()
        return tf.transpose(by_time, [1, 0, *range(2, len(by_time.shape))])


def _forward(
    engine: Engine, loop: type, given: Given, fixed: Fixed, keep: int
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """The first `keep` states at all steps, and all states at the last."""
    steps = _shape(given.projected)[1]
    timed = _timed(given, fixed)

    def read(t):
        return [loop.read(x, t) for x in timed]

    def body(t, now, states, sequences):
        here = iter(now)
        after = engine.step(*_at(lambda _: next(here), given._replace(states=states), fixed))
        for a, s in zip(after, given.states, strict=True):
            a.set_shape(s.shape)
        written = [loop.write(s, t, a) for s, a in zip(sequences, after[:keep], strict=True)]
        return t + 1, read(tf.minimum(t + 1, steps - 1)), after, written

    # The loop carries what the next step reads: XLA would make each use read it anew, and slowly.
    start = 0, read(0), given.states, [loop.new(s, steps) for s in given.states[:keep]]
    *_, last, sequences = tf.while_loop(
        lambda t, *_: t < steps, body, start, maximum_iterations=steps
    )
    return [loop.close(s) for s in sequences], last


def _backward(
    engine: Engine,
    loop: type,
    given: Given,
    fixed: Fixed,
    every: list[tf.Tensor],
    by_sequences: list[tf.Tensor],
    by_last: list[tf.Tensor],
) -> list[tf.Tensor | None]:
    """The gradients by the tensors of `given`.

    Args:
        engine: whose step it is.
        loop: how a loop reads and writes.
        given: of all steps.
        fixed: of all steps.
        every: all states at all steps.
        by_sequences: the upstream gradients, of the first states at all steps,
        by_last: and of all states at the last.
    """
    batch, steps, *_ = _shape(given.projected)
    before = [
        tf.concat([first[:, None], s[:, :-1]], axis=1)
        for s, first in zip(every, given.states, strict=True)
    ]
    in_rows = given._replace(projected=_rows(given.projected), states=[_rows(s) for s in before])
    fixed_in_rows = Fixed(
        _map(lambda x: tf.repeat(x, steps, axis=0), fixed.by_row), *_map(_rows, tuple(fixed[1:]))
    )
    products = None
    if given.shared:  # one large product is faster than one at each step
        products = engine.product(in_rows, fixed_in_rows)
        products = tf.reshape(products, [batch, steps, products.shape[-1]])

    def body(t, adjoints, sequences):
        read = partial(loop.read, t=t)
        for i, by in enumerate(by_sequences):
            adjoints[i] += read(by)
        before = [
            tf.where(t > 0, loop.read(s, tf.maximum(t - 1, 0)), first)
            for s, first in zip(every, given.states, strict=True)
        ]
        here, fixed_here = _at(read, given._replace(states=before), fixed)

        def product(*states):
            return [engine.product(here._replace(states=list(states)), fixed_here)]

        def update(recurrent, *states):
            return engine.update(here._replace(states=list(states)), recurrent, fixed_here)

        if products is None:
            by_before = _vjp(lambda *states: update(*product(*states), *states), before, adjoints)
        else:
            by_product, *by_before = _vjp(update, [read(products), *before], adjoints)
            through_product = _vjp(product, before, [by_product])
            by_before = [a + b for a, b in zip(by_before, through_product, strict=True)]
        written = [loop.write(s, t, a) for s, a in zip(sequences, adjoints, strict=True)]
        return t - 1, by_before, written

    start = steps - 1, by_last, [loop.new(s, steps) for s in given.states]
    _, by_states, adjoints = tf.while_loop(
        lambda t, *_: t >= 0, body, start, maximum_iterations=steps
    )

    def all_steps(*flat):
        projected, shared, weights = tf.nest.pack_sequence_as(others, flat)
        rows = Given(_rows(projected), in_rows.states, shared, weights)
        return engine.step(rows, fixed_in_rows)

    others = given.projected, given.shared, given.weights
    upstream = [_rows(loop.close(a)) for a in adjoints]
    none = tf.UnconnectedGradients.NONE
    by_projected, *by_others = _vjp(all_steps, tf.nest.flatten(others), upstream, none)
    return [by_projected, *by_states, *by_others]


def _timed(given: Given, fixed: Fixed) -> list[tf.Tensor]:
    """What `_at` reads, in its order."""
    found = []
    _at(found.append, given, fixed)
    return found


def _at(read: Callable, given: Given, fixed: Fixed) -> tuple[Given, Fixed]:
    """One step of what has steps."""
    by_step, mask = _map(read, (fixed.by_step, fixed.mask))
    return given._replace(projected=read(given.projected)), Fixed(fixed.by_row, by_step, mask)


def _vjp(
    function: Callable,
    arguments: list[tf.Tensor],
    upstream: list[tf.Tensor],
    unconnected: tf.UnconnectedGradients = tf.UnconnectedGradients.ZERO,
) -> list[tf.Tensor | None]:
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        values = function(*arguments)
    return tape.gradient(values, arguments, upstream, unconnected)


def _once_differentiable(
    gradients: list[tf.Tensor | None], sources: list[tf.Tensor]
) -> list[tf.Tensor | None]:
    """`gradients`, for which a gradient by `sources` is an error: it would be silently 0."""

    @tf.custom_gradient
    def guarded(*_):
        def gradient(*_):
            raise RuntimeError(
                'The fused loop has no second derivative. Use scan="keras" in this layer.'
            )

        return [tf.identity(g) for g in gradients if g is not None], gradient

    found = iter(guarded(*sources))
    return [None if g is None else next(found) for g in gradients]


def _map(function: Callable, structure: Any) -> Any:
    """Applies `function` to the tensors of a structure, and leaves numbers and `None`."""
    return tf.nest.map_structure(lambda x: function(x) if tf.is_tensor(x) else x, structure)


def _rows(sequence: tf.Tensor) -> tf.Tensor:
    """`[B, T, ...]` to `[B * T, ...]`."""
    return tf.reshape(sequence, [-1, *_shape(sequence)[2:]])


def _shape(x: tf.Tensor) -> list[Any]:
    """Each size as a number where it is known, else as a tensor."""
    dynamic = tf.shape(x)
    return [dynamic[i] if size is None else size for i, size in enumerate(x.shape)]
