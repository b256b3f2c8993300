"""The recurrent layer: everything that `keras.layers.RNN` does, for any cell."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any

import keras
from keras import ops

from keras_rnncells import recurrence
from keras_rnncells.base import arguments, docs, noise
from keras_rnncells.base.cell import RecurrentCell

# Cells whose output is their first state, and need not be carried beside it.
SHOW_THEIR_STATE = (keras.layers.LSTMCell, keras.layers.GRUCell, keras.layers.SimpleRNNCell)


@keras.saving.register_keras_serializable(package="keras_rnncells")
class RNN(keras.layers.RNN):
    """Runs a cell over time: `keras.layers.RNN` for any cell, Keras' own and yours included.

    It takes the place of `keras.layers.RNN` and differs where that one falls short:

    - the input projection of a `RecurrentCell` is one product for all steps, outside the loop;
    - states stay in float32 under mixed precision, also when they are returned or carried;
    - a masked step keeps the states and repeats the output that goes with them, wherever it
      stands, on every backend;
    - `stateful` carries the states in `fit`, `evaluate` and `predict` on every backend.

    Args:
        cell: A cell, or a list of cells to be stacked: a `keras_rnncells` cell, a Keras cell, or
            any object with `state_size`, `get_initial_state(batch_size)` and
            `call(inputs, states) -> output, new_states`.
        return_sequences: Whether to return all outputs, or the last only.
        return_state: Whether to return the last states too.
        go_backwards: Whether to go through the sequence from its end; outputs come in the order
            in which they were computed.
        stateful: Whether each sequence starts from the last states of the sequence at the same
            place in the previous batch. Needs a static batch size.
        unroll: `True` writes the loop out, step by step, and needs a static number of steps. An
            integer n >= 2 runs n steps in one turn of the loop, for any number of steps. `False` is
            one step a turn; on a GPU or TPU 16 for cells whose units do not see each other.
        zero_output_for_mask: Whether a masked step outputs zeros.
        scan: How time runs. `"sequential"` is one fused loop with a backward pass of its own, which
            compiles itself in training on TensorFlow. `"parallel"` is a scan of logarithmic depth,
            for cells whose units do not see each other (`IndRNN`): exact where the activation
            clips (linear, ReLU, ReLU6, hard tanh), else by Newton's iteration; a sequence of
            unknown length runs sequentially, as does a layer that is all in half precision.
            `"keras"` is Keras' own loop. `"auto"` (default) is `"sequential"` on a CPU; on a GPU or
            TPU `"parallel"` where that is exact and the sequence has 64 steps or more. A step that
            the fused loops cannot run (it draws random numbers, assigns to variables or reads what
            is not of its cell) takes Keras' loop, and so does PyTorch.
        activity_regularizer: Regularizer of the output.
        **kwargs: `name`, `dtype` and `trainable`, as for any Keras layer.

    Call arguments:
        sequences: `[B, T, D]`.
        initial_state: List of the states to start from; zeros if not given.
        mask: Boolean `[B, T]`; a step where it is `False` is skipped.
        training: Whether dropout, recurrent dropout and zoneout are on.
        sequences_mask: Filled in by Keras: the mask that the sequences carry, when an initial state
            is passed too.

    Input shape:
        `[batch, time, features]`; batch and time may be unknown.

    Output shape:
        `[batch, units]`, with `return_sequences` `[batch, time, units]`; with `return_state` a
        tuple of that and each state `[batch, units]`.

    Raises:
        ValueError: If an argument is not allowed, or an input is not `[batch, time, features]`.

    Example:

    >>> import numpy as np, keras, keras_rnncells
    >>> layer = keras_rnncells.RNN(keras.layers.LSTMCell(8), return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape[1:] == (5, 8)
    True
    """

    def __init__(
        self,
        cell: Any,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool | int = False,
        zero_output_for_mask: bool = False,
        activity_regularizer: Any = None,
        *,
        scan: str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=_unroll(unroll),
            zero_output_for_mask=zero_output_for_mask,
            activity_regularizer=arguments.resolve("regularizer", activity_regularizer),
            autocast=False,  # would round the states that are passed in
            **kwargs,
        )
        self.scan = arguments.choice("scan", scan, recurrence.SCANS)
        if scan == "parallel" and not all(_elementwise(c) for c in _cells(self.cell)):
            names = ", ".join(type(c).__name__ for c in _cells(self.cell))
            raise ValueError(
                'scan="parallel" needs cells whose units do not see each other, each for itself a '
                "function of its own last state: IndRNNCell, or your own with the property "
                f'`elementwise`. Received: {names}. Use scan="auto" or "sequential".'
            )
        self.supports_masking = True

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        self._check_rank(sequences_shape)
        super().build(sequences_shape, initial_state_shape)

    @property
    def variables(self) -> list[Any]:
        # Keras leaves the states of a stateful layer out, and a stateless backend then loses them.
        return super().variables + (keras.tree.flatten(self.states) if self.states else [])

    def reset_state(self) -> None:
        for state in keras.tree.flatten(self.states or []):  # of a stack, a list for each cell
            state.assign(ops.zeros_like(state.value))

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        spec = super().compute_output_spec(*args, **kwargs)
        if not self.return_state:
            return spec
        output, *states = spec
        dtypes = keras.tree.map_structure(lambda s: s.dtype, self.get_initial_state(1))
        return output, *keras.tree.map_structure(
            lambda s, dtype: keras.KerasTensor(s.shape, dtype=dtype), states, dtypes
        )

    def call(
        self,
        sequences: Any,
        initial_state: Any = None,
        mask: Any = None,
        training: bool = False,
        sequences_mask: Any = None,
    ) -> Any:
        # The mask of the sequences comes as `sequences_mask` when Keras sees a second tensor.
        mask = sequences_mask if mask is None else mask
        return self._call(self.inner_loop, sequences, initial_state, mask, training)

    def _call(
        self, loop: Callable, sequences: Any, initial_state: Any, mask: Any, training: bool
    ) -> Any:
        """Everything around the loop: dtypes, masks, direction, states in and out."""
        self._check_rank(sequences.shape)
        if self.unroll is True and sequences.shape[1] is None:
            raise ValueError(
                f"{self.name} cannot be unrolled, since the number of steps is unknown. Received "
                f"inputs of shape {tuple(sequences.shape)}. Give the Input a fixed number of "
                "steps, or set unroll to False or to an integer."
            )
        if keras.backend.is_float_dtype(sequences.dtype):  # a cell may well read integers
            sequences = ops.cast(sequences, self.compute_dtype)
        if mask is not None:
            mask = ops.cast(keras.tree.flatten(mask)[0], "bool")
            mask = ops.any(mask, axis=tuple(range(2, mask.ndim))) if mask.ndim > 2 else mask
        if self.go_backwards:
            sequences = ops.flip(sequences, axis=1)
            mask = None if mask is None else ops.flip(mask, axis=1)

        last, outputs, states = loop(
            sequences, self._first_states(sequences, initial_state), mask, training=training
        )
        if self.stateful:
            for variable, state in zip(
                keras.tree.flatten(self.states), keras.tree.flatten(states), strict=True
            ):
                variable.assign(state)
        output = ops.cast(outputs if self.return_sequences else last, self.compute_dtype)
        return (output, *states) if self.return_state else output

    def _first_states(self, sequences: Any, initial_state: Any) -> list[Any]:
        batch = ops.shape(sequences)[0]
        zeros = self.get_initial_state(batch)
        if initial_state is None:
            if not self.stateful:
                return zeros
            initial_state = self.states
            expected = keras.tree.flatten(initial_state)[0].shape[0]
            if sequences.shape[0] not in (None, expected):
                raise ValueError(
                    f"{self.name} is stateful and was built for batches of {expected}. Received a "
                    f"batch of {sequences.shape[0]}. Use the same size for every batch."
                )
        flat, wanted = keras.tree.flatten(initial_state), keras.tree.flatten(zeros)
        if [s.shape[1:] for s in flat] != [z.shape[1:] for z in wanted]:
            raise ValueError(
                f"{self.name} needs initial_state to be {len(wanted)} tensors of shape "
                f"{[('batch', *z.shape[1:]) for z in wanted]}. Received "
                f"{len(flat)}, of shape {[tuple(s.shape) for s in flat]}."
            )
        return keras.tree.pack_sequence_as(
            zeros, [ops.cast(s, z.dtype) for s, z in zip(flat, wanted, strict=True)]
        )

    def inner_loop(
        self, sequences: Any, initial_state: list[Any], mask: Any, training: bool = False
    ) -> tuple[Any, Any, list[Any]]:
        outputs, states = self._run(
            self.cell,
            sequences,
            initial_state,
            training,
            mask=mask,
            return_sequences=self.return_sequences,
            zero_output_for_mask=self.zero_output_for_mask,
        )
        return (outputs[:, -1] if self.return_sequences else outputs), outputs, states

    def _run(
        self, cell: Any, sequences: Any, states: Any, training: bool, **options: Any
    ) -> tuple[Any, Any]:
        """Runs one cell over time; `options` are those of `recurrence.run`."""
        if type(cell) is keras.layers.StackedRNNCells:
            return self._run_stack(cell, sequences, states, training, **options)
        options = {**options, "scan": self.scan, "unroll": self.unroll}
        run = self._run_ours if isinstance(cell, RecurrentCell) else self._run_foreign
        return run(cell, sequences, states, training, **options)

    def _run_stack(
        self, stack: Any, sequences: Any, states: Any, training: bool, **options: Any
    ) -> tuple[Any, list[Any]]:
        """Runs the cells of a stack one after the other, each over all steps."""
        inner = {**options, "return_sequences": True, "zero_output_for_mask": False}
        after = []
        for cell, before in zip(stack.cells, states, strict=True):
            listed = before if keras.tree.is_nested(before) else [before]
            choices = options if cell is stack.cells[-1] else inner
            sequences, new = self._run(cell, sequences, listed, training, **choices)
            after.append(keras.tree.pack_sequence_as(before, keras.tree.flatten(new)))
        return sequences, after

    def _run_ours(
        self, cell: RecurrentCell, sequences: Any, states: Any, training: bool, **options: Any
    ) -> tuple[Any, list[Any]]:
        # Integers are names, which the half precision of a mixed one would mix up.
        floats = keras.backend.is_float_dtype(sequences.dtype)
        sequences = ops.cast(sequences, cell.compute_dtype if floats else cell.state_dtype)
        drawn = noise.draw(cell, sequences, states) if training else noise.expectation(cell)
        if drawn.inputs is not None:
            sequences = sequences * drawn.inputs
        kernel = cell.product_kernel

        def step(t, projected, before):
            after = cell.step(projected, before, kernel, drawn.recurrent)
            after = drawn.hold(before, after, t)
            return cell.output(after), after

        return recurrence.run(
            step,
            cell.project(sequences),
            list(states),
            held=cell.output,
            problem=cell.problem(states, drawn, training),
            **options,
        )

    def _run_foreign(
        self, cell: Any, sequences: Any, states: Any, training: bool, **options: Any
    ) -> tuple[Any, Any]:
        takes_training = "training" in inspect.signature(getattr(cell, "call", cell)).parameters
        kwargs = {"training": bool(training)} if takes_training else {}
        first = keras.tree.flatten(states)[0]
        dtype, structure = first.dtype, keras.tree.map_structure(lambda _: 0, states)
        shown = [] if type(cell) in SHOW_THEIR_STATE else [self._first_output(cell, first)]
        carries_output = bool(shown)

        def step(t, inputs, before):
            output, after = cell(inputs, before[-1], **kwargs)
            after = keras.tree.pack_sequence_as(structure, keras.tree.flatten(after))
            return output, [*([ops.cast(output, dtype)] if carries_output else []), after]

        def update(inputs, recurrent, flat, by_step):
            cell_states = keras.tree.pack_sequence_as(structure, flat[carries_output:])
            _, after = step(None, inputs, [cell_states])
            return keras.tree.flatten(after)

        # Keras draws the dropout masks of its own cells ahead of the loop.
        self._maybe_config_dropout_masks(cell, sequences[:, 0], states)
        outputs, (*_, states) = recurrence.run(
            step,
            sequences,
            [*shown, states],
            held=lambda before: keras.tree.flatten(before)[0],
            problem=self._foreign_problem(cell, update, [sequences, *shown, states], training),
            **options,
        )
        self._maybe_reset_dropout_masks(cell)
        return outputs, states

    @staticmethod
    def _first_output(cell: Any, first: Any) -> Any:
        """What a masked step shows before the first real one: a state if it can, else zeros."""
        size = getattr(cell, "output_size", None)
        if not isinstance(size, int) or size == first.shape[-1]:
            return first
        return ops.zeros((ops.shape(first)[0], size), first.dtype)

    def _foreign_problem(
        self, cell: Any, update: Callable, tensors: list[Any], training: bool
    ) -> recurrence.Problem | None:
        """A cell of others as the fused loop needs it: nothing but its calls is known of it."""
        if not all(keras.backend.is_float_dtype(x.dtype) for x in keras.tree.flatten(tensors)):
            return None  # the loop takes gradients by all of them
        key = id(cell), bool(training)
        if key not in self._engines:

            def variables():
                found = getattr(cell, "variables", [])
                return [v for v in found if keras.backend.is_float_dtype(v.dtype)]

            self._engines[key] = recurrence.engine(
                recurrence.Step(lambda states, *_: states[0], update, variables, rowwise=False)
            )
        return recurrence.Problem(
            self._engines[key], [], [], None, None, lambda states: states[0], bool(training)
        )

    @cached_property
    def _engines(self) -> dict:
        """The fused loops over the cells of others, which remember what they compiled."""
        return {}

    def _check_rank(self, shape: Any) -> None:
        ours = isinstance(self.cell, RecurrentCell)
        if len(shape) < 3 or (ours and len(shape) > 3):
            raise ValueError(
                f"{self.name} needs inputs of shape [batch, time, features]. Received "
                f"{tuple(shape)}. Add the missing axis, e.g. keras.ops.expand_dims(x, -1) for one "
                "feature per step."
            )

    def get_config(self) -> dict[str, Any]:
        regularizer = keras.regularizers.serialize(self.activity_regularizer)
        return {**super().get_config(), "activity_regularizer": regularizer, "scan": self.scan}


def _unroll(value: Any) -> bool | int:
    if isinstance(value, bool) or (isinstance(value, int) and value >= 2):
        return value
    raise ValueError(
        "`unroll` must be True, False or the number of steps in one turn of the loop, an integer "
        f"of 2 or more. Received: unroll={value!r}."
    )


def _cells(cell: Any) -> list[Any]:
    return cell.cells if isinstance(cell, keras.layers.StackedRNNCells) else [cell]


def _elementwise(cell: Any) -> bool:
    return isinstance(cell, RecurrentCell) and cell.elementwise


class CellRNN(RNN):
    """Base class of the layers that are one cell, run over time: `class X(CellRNN, cell=XCell)`.

    Such a layer has the arguments of its cell, those of `RNN` and nothing of its own.
    """

    cell_class: type[RecurrentCell]

    def __init_subclass__(cls, cell: type[RecurrentCell] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cell is None:
            return
        cls.cell_class = cell
        if "__init__" not in cls.__dict__:
            cls.__init__ = lambda self, *args, **kwargs: CellRNN.__init__(self, *args, **kwargs)
        _, *of_rnn = inspect.signature(RNN).parameters.values()
        of_cell = inspect.signature(cell).parameters.values()
        # A subclass may have an `__init__` of its own, which hands on some of these.
        cls._signature = arguments.ordered([*of_cell, *of_rnn])
        arguments.show_signature(cls, cls._signature)
        docs.complete(cls, cell, RNN)
        for name in arguments.names(cell):
            setattr(cls, name, property(lambda self, name=name: self.cell.argument(name)))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        for name in self.cell_class.ignored_arguments:
            kwargs.pop(name, None)
        try:
            given = self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}: {error}. It has {self._signature}.") from None
        common = given.pop("kwargs", {})
        of_cell = arguments.names(self.cell_class)
        cell_kwargs = {k: v for k, v in common.items() if k in ("dtype", "trainable")}
        cell = self.cell_class(**{k: given.pop(k) for k in of_cell if k in given}, **cell_kwargs)
        super().__init__(cell, **given, **common)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["cell"]
        of_cell = self.cell.get_config()
        names = arguments.names(self.cell_class)
        return {**config, **{name: of_cell[name] for name in names}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CellRNN:
        return cls(**config)
