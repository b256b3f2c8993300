"""The fused loops on TensorFlow: what differs by backend, and what is compiled when."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import tensorflow as tf

from keras_rnncells.recurrence import parallel, sequential
from keras_rnncells.recurrence.problem import Fixed, Given, Impure, Step

METHODS = {"sequential": sequential, "parallel": parallel}
# Each number of steps is compiled anew: beyond these, a layer takes plain kernels for new ones.
MOST_COMPILED = 32


class Tools:
    """What the loops need of a backend."""

    @staticmethod
    def loop(count: Any, body: Callable, start: tuple) -> tuple:
        def turn(k, carry):
            after = body(k, *carry)
            for a, s in zip(tf.nest.flatten(after), tf.nest.flatten(start), strict=True):
                if tf.is_tensor(a):
                    a.set_shape(s.shape)
            return k + 1, tf.nest.pack_sequence_as(start, tf.nest.flatten(after))

        _, found = tf.while_loop(lambda k, _: k < count, turn, (0, start))
        return found

    @staticmethod
    def vjp(function: Callable, arguments: Any, upstream: list[tf.Tensor]) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(tf.nest.flatten(arguments))
            values = function(*arguments)
        return tape.gradient(values, arguments, upstream, tf.UnconnectedGradients.ZERO)


class Compiled(Tools, sequential.InPlace):
    """For a function that XLA compiles."""


class Plain(Tools):
    """For plain kernels, where each operation of each step counts and nothing is in place."""

    reads_ahead = False

    @staticmethod
    def read(sequence: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        return tf.gather(sequence, t, axis=1)

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


class Engine:
    """Runs one step function over time; see `problem.engine`."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self._compiled_steps: set[int] = set()
        self._warned = False
        self._functions = self._new_functions()

    def _new_functions(self) -> dict[tuple[str, bool], Any]:
        # Each direction is compiled on its own and the custom gradient stands outside: eager
        # training, plain tapes and steps_per_execution fail with the gradient inside.
        return {
            (direction, compiled): tf.function(
                partial(run, Compiled if compiled else Plain),
                jit_compile=True if compiled else None,
                autograph=False,
                reduce_retracing=True,
            )
            for direction, run in (("forward", self._forward), ("backward", self._backward))
            for compiled in (True, False)
        }

    def run(
        self,
        given: Given,
        fixed: Fixed,
        *,
        keep: int,
        method: str,
        unroll: int,
        training: bool,
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Runs all steps.

        Args:
            given: of all steps.
            fixed: of all steps.
            keep: the number of states, from the first on, that are wanted at all steps.
            method: a key of `METHODS`.
            unroll: the number of steps in one turn of the loop.
            training: whether a backward pass is expected: only then, or inside of what is compiled
                anyway, does XLA compile the loop. Nothing that is exported may be.

        Returns:
            The first `keep` states at all steps, each `[B, T, S]`; and the last states.

        Raises:
            Impure: if the step depends on more than it was given.
        """
        given = tf.nest.map_structure(tf.convert_to_tensor, given)
        compiled = inside_xla() or (training and self._may_compile(given.projected.shape[1]))
        forward, backward = (self._functions[d, compiled] for d in ("forward", "backward"))
        # The backward pass needs all states. Outside of training it is rare, and finds them again.
        count = len(given.states)
        saved = count if compiled else keep
        # A parallel program is one of a known number of steps, which `reduce_retracing` would
        # forget at a second one if it were not an argument.
        how = method, unroll, given.projected.shape[1] if method == "parallel" else None
        try:
            traced = forward.get_concrete_function(given, fixed, saved, *how)
        except Impure:
            self._functions = self._new_functions()  # those are of no use after an error
            raise
        if traced.captured_inputs:
            raise Impure("The step reads tensors or variables that it was not given.")

        @tf.custom_gradient
        def differentiable(*flat):
            here = tf.nest.pack_sequence_as(given, [tf.stop_gradient(x) for x in flat])
            sequences, last = forward(here, fixed, saved, *how)

            def gradient(*by):
                every = sequences
                if saved < count:
                    every, _ = forward(here, fixed, count, *how)
                upstream = [tf.stop_gradient(b) for b in by]
                by_sequences, by_last = upstream[:keep], upstream[keep:]
                found = backward(here, fixed, every, by_sequences, by_last, *how)
                return _once_differentiable(tf.nest.flatten(found), [*flat, *by])

            return (*sequences[:keep], *last), gradient

        try:
            found = differentiable(*tf.nest.flatten(given))
        except LookupError as error:  # of the gradient of an operation in the loop
            raise RuntimeError(
                'The fused loop has no forward-mode derivative. Use scan="keras" in this layer.'
            ) from error
        return list(found[:keep]), list(found[keep:])

    def _forward(self, tools, given, fixed, keep, method, unroll, steps):
        found = METHODS[method].forward(tools, self.step, given, fixed, keep, unroll)
        _refuse_random_numbers(tf.compat.v1.get_default_graph())
        return found

    def _backward(self, tools, given, fixed, every, by_sequences, by_last, method, unroll, steps):
        return METHODS[method].backward(
            tools, self.step, given, fixed, every, by_sequences, by_last, unroll
        )

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


def inside_xla() -> bool:
    """Whether what is traced now is part of a compiled function, as with `jit_compile=True`."""
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    while graph is not None:
        # TensorFlow says so nowhere in public.
        context = graph._get_control_flow_context()
        if context is not None and context.IsXLAContext():
            return True
        graph = getattr(graph, "outer_graph", None)
    return False


def _refuse_random_numbers(graph: tf.Graph) -> None:
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    if any("Random" in node.op for node in nodes):
        raise Impure("The step draws random numbers.")


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
