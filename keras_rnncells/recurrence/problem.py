"""A recurrence as the fused loops need it: what it is given, and a step that reads nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_rnncells.recurrence.masking import select


class Given(NamedTuple):
    """What a recurrence is differentiated by.

    Attributes:
        projected: `[B, T, ...]`, the part of each step that needs no state.
        states: the initial states, each `[B, ...]`.
        shared: list of tensors that the product of all steps shares: its kernel.
        rows: list of `[B, ...]` tensors, each row the same at all steps.
        weights: the values of the variables that a step may read.
    """

    projected: Any
    states: list[Any]
    shared: list[Any]
    rows: list[Any]
    weights: list[Any]


class Fixed(NamedTuple):
    """What is known before the loop and has no gradient.

    Attributes:
        by_row: `[B, ...]` tensors, the same at all steps, in any nested structure.
        by_step: `[B, T, ...]` tensors, in any nested structure. Numbers and `None` stay as they
            are, in both.
        mask: boolean `[B, T]`, or `None`. A step where it is `False` keeps the states.
    """

    by_row: Any
    by_step: Any
    mask: Any


class Problem(NamedTuple):
    """A recurrence for the fused loops.

    Attributes:
        engine: what `engine` returned for the step.
        shared: as in `Given`.
        rows: as in `Given`.
        by_row: as in `Fixed`.
        by_step: as in `Fixed`.
        output: `output(states)`, the output of a step from its new states.
        training: whether a backward pass is expected. Only then may the loop be compiled:
            TensorFlow Serving cannot run what is.
    """

    engine: Any
    shared: list[Any]
    rows: list[Any]
    by_row: Any
    by_step: Any
    output: Callable
    training: bool


class Impure(Exception):
    """A step reads, writes or makes what it was not given, or draws random numbers."""


class Step:
    """One step of a recurrence, as a function of its arguments alone.

    Args:
        product: `product(states, shared, rows, by_row) -> recurrent`, linear in the states.
        update: `update(projected, recurrent, states, by_step) -> new states`.
        variables: `variables()` lists the Keras variables that `update` may read.
        rowwise: whether each row of the batch is computed for itself, so that all steps of all
            sequences can be the rows of one large batch.
        activation: makes the step element-wise: `activation(projected + rows[0] * h)`, but for
            masks and what `by_step` holds. `None` for any other step.
    """

    def __init__(
        self,
        product: Callable,
        update: Callable,
        variables: Callable,
        rowwise: bool = True,
        activation: Callable | None = None,
    ) -> None:
        self._product = product
        self._update = update
        self.variables = variables
        self.rowwise = rowwise
        self.activation = activation

    def product(self, given: Given, fixed: Fixed) -> Any:
        return self._product(given.states, given.shared, given.rows, fixed.by_row)

    def update(self, given: Given, recurrent: Any, fixed: Fixed) -> list[Any]:
        """The new states.

        Raises:
            Impure: if the step depends on more than its arguments.
        """
        after, _ = self._updated(given, recurrent, fixed)
        return after

    def reads(self, given: Given, fixed: Fixed) -> list[int]:
        """Which of the weights a step reads."""
        _, read = self._updated(given, self.product(given, fixed), fixed)
        return [i for i, variable in enumerate(self.variables()) if id(variable) in read]

    def _updated(self, given: Given, recurrent: Any, fixed: Fixed) -> tuple[list[Any], set[int]]:
        variables = self.variables()
        if len(variables) != len(given.weights):
            raise Impure("The step made a variable.")
        scope = _OnlyGiven(list(zip(variables, given.weights, strict=True)))
        with scope:
            after = self._update(given.projected, recurrent, given.states, fixed.by_step)
        for a, b in zip(after, given.states, strict=True):
            if a.dtype != b.dtype:
                raise Impure("The step changes the dtype of a state.")
        if fixed.mask is not None:
            pairs = zip(after, given.states, strict=True)
            after = [select(fixed.mask, a, b) for a, b in pairs]
        return list(after), scope.read

    def __call__(self, given: Given, fixed: Fixed) -> list[Any]:
        return self.update(given, self.product(given, fixed), fixed)


class _OnlyGiven(keras.StatelessScope):
    """In this scope the given variables have the given values, and nothing else is allowed."""

    def __init__(self, values: list[tuple[Any, Any]]) -> None:
        super().__init__(values)
        self.read: set[int] = set()

    def get_current_value(self, variable: Any) -> Any:
        value = super().get_current_value(variable)
        if value is None:
            raise Impure(f"The step reads the variable {variable.path}, which is not of its cell.")
        self.read.add(id(variable))
        return value

    def add_update(self, update: Any) -> None:
        raise Impure(f"The step assigns to the variable {update[0].path}.")

    def add_loss(self, loss: Any) -> None:
        raise Impure("The step adds a loss.")


def engine(step: Step) -> Any:
    """The fused loops of this backend over one step, or `None` where there are none.

    Keep it: it remembers what it compiled.
    """
    if keras.backend.backend() == "tensorflow":
        from keras_rnncells.recurrence.tensorflow import Engine
    elif keras.backend.backend() == "jax":
        from keras_rnncells.recurrence.jax import Engine
    else:
        return None
    return Engine(step)


def at(read: Callable, given: Given, fixed: Fixed) -> tuple[Given, Fixed]:
    """One step of what has steps."""
    by_step, mask = each(read, (fixed.by_step, fixed.mask))
    return given._replace(projected=read(given.projected)), Fixed(fixed.by_row, by_step, mask)


def timed(given: Given, fixed: Fixed) -> list[Any]:
    """What `at` reads, in its order."""
    found = []
    at(lambda x: found.append(x) or x, given, fixed)
    return found


def each(function: Callable, structure: Any) -> Any:
    """Applies `function` to the tensors of a structure, and leaves numbers and `None`."""
    return keras.tree.map_structure(lambda x: function(x) if ops.is_tensor(x) else x, structure)


def delayed(states: Any, first: Any) -> Any:
    """The state before each step, `[B, T, ...]`, from those after each, and the initial one."""
    return ops.concatenate([first[:, None], states[:, :-1]], axis=1)


def rows(sequence: Any) -> Any:
    """`[B, T, ...]` to `[B * T, ...]`."""
    return ops.reshape(sequence, (-1, *ops.shape(sequence)[2:]))


def in_rows(given: Given, fixed: Fixed) -> tuple[Given, Fixed]:
    """Each step of each sequence as a row of one large batch.

    Args:
        given: of all steps, with the states before each step, `[B, T, ...]`.
        fixed: of all steps.
    """
    steps = ops.shape(given.projected)[1]

    def repeated(x):
        batch, *rest = ops.shape(x)
        return rows(ops.broadcast_to(x[:, None], (batch, steps, *rest)))

    return given._replace(
        projected=rows(given.projected),
        states=[rows(s) for s in given.states],
        rows=[repeated(r) for r in given.rows],
    ), Fixed(each(repeated, fixed.by_row), *each(rows, tuple(fixed[1:])))
