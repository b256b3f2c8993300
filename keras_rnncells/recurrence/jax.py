"""The fused loops on JAX: what differs by backend."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from keras_rnncells.recurrence import parallel, sequential
from keras_rnncells.recurrence.problem import Fixed, Given, Impure, Step, at

METHODS = {"sequential": sequential, "parallel": parallel}


class Tools(sequential.InPlace):
    """What the loops need of a backend."""

    @staticmethod
    def loop(count: int, body: Callable, start: tuple) -> tuple:
        return jax.lax.fori_loop(0, count, lambda k, carry: tuple(body(k, *carry)), start)

    @staticmethod
    def vjp(function: Callable, arguments: tuple, upstream: list[Any]) -> tuple:
        _, pull = jax.vjp(function, *arguments)
        return pull(upstream)


class Engine:
    """Runs one step function over time; see `problem.engine`."""

    def __init__(self, step: Step) -> None:
        self.step = step
        static = ("numbers", "method", "unroll")
        self._forward = jax.jit(self._run_forward, static_argnames=(*static, "keep"))
        self._backward = jax.jit(self._run_backward, static_argnames=static)

    def run(
        self,
        given: Given,
        fixed: Fixed,
        *,
        keep: int,
        method: str,
        unroll: int,
        training: bool,
    ) -> tuple[list[Any], list[Any]]:
        """Runs all steps.

        Args:
            given: of all steps.
            fixed: of all steps.
            keep: the number of states, from the first on, that are wanted at all steps.
            method: a key of `METHODS`.
            unroll: the number of steps in one turn of the loop.
            training: not needed here.

        Returns:
            The first `keep` states at all steps, each `[B, T, S]`; and the last states.

        Raises:
            Impure: if the step depends on more than it was given.
        """
        arrays, numbers = _without_numbers(fixed)
        options = {"numbers": numbers, "method": method, "unroll": unroll}

        @jax.custom_vjp
        def differentiable(given, arrays):
            sequences, last = self._forward(given, arrays, keep=keep, **options)
            return sequences, last

        def forward(given, arrays):
            every, last = self._forward(given, arrays, keep=len(given.states), **options)
            return (every[:keep], last), (given, arrays, every)

        def backward(saved, by):
            found = self._backward(*saved, *by, **options)
            return _once_differentiable((found, saved, by)), None

        differentiable.defvjp(forward, backward)
        try:
            return differentiable(given, arrays)
        except TypeError as error:
            if "forward-mode" in str(error):
                raise RuntimeError(
                    'The fused loop has no forward-mode derivative. Use scan="keras" in this layer.'
                ) from error
            raise

    def _run_forward(self, given, arrays, *, numbers, method, unroll, keep):
        fixed = _with_numbers(arrays, numbers)
        self._check(given, fixed)
        return METHODS[method].forward(Tools, self.step, given, fixed, keep, unroll)

    def _run_backward(
        self, given, arrays, every, by_sequences, by_last, *, numbers, method, unroll
    ):
        fixed = _with_numbers(arrays, numbers)
        return METHODS[method].backward(
            Tools, self.step, given, fixed, every, list(by_sequences), list(by_last), unroll
        )

    def _check(self, given: Given, fixed: Fixed) -> None:
        """Raises `Impure` if a step captures an array or draws random numbers."""
        here, fixed_here = at(lambda x: x[:, 0], given, fixed)
        arrays, numbers = _without_numbers(fixed_here)

        def one(given, arrays):
            return self.step(given, _with_numbers(arrays, numbers))

        program = jax.make_jaxpr(one)(here, arrays)
        if program.consts:
            raise Impure("The step reads arrays that it was not given.")
        if _draws(program.jaxpr):
            raise Impure("The step draws random numbers.")


def _draws(program: Any) -> bool:
    """Whether a program draws random numbers."""
    for equation in program.eqns:
        name = equation.primitive.name
        if "random" in name or "threefry" in name or name.startswith("rng"):
            return True
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(value) and _draws(getattr(value, "jaxpr", value)):
                return True
    return False


def _is_program(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")


@partial(jax.custom_jvp)
def _once_differentiable(found_and_sources: tuple) -> Given:
    """The gradients that were found, for which a gradient by their sources is an error."""
    return found_and_sources[0]


@_once_differentiable.defjvp
def _second_derivative(primals: Any, tangents: Any) -> Any:
    raise RuntimeError('The fused loop has no second derivative. Use scan="keras" in this layer.')


def _without_numbers(fixed: Fixed) -> tuple[Fixed, tuple]:
    """The arrays of `fixed`, with `None` for numbers; and the numbers, with `None` for arrays."""
    leaves, structure = jax.tree.flatten(tuple(fixed), is_leaf=lambda x: x is None)
    arrays = [None if isinstance(x, (int, float)) else x for x in leaves]
    numbers = tuple(x if isinstance(x, (int, float)) else None for x in leaves)
    return structure.unflatten(arrays), (structure, numbers)


def _with_numbers(arrays: tuple, numbers: tuple) -> Fixed:
    structure, values = numbers
    leaves = structure.flatten_up_to(arrays)
    both = [a if n is None else n for a, n in zip(leaves, values, strict=True)]
    return Fixed(*structure.unflatten(both))
