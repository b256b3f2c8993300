"""The network of Jordan (1986): the output is fed back, not the hidden state."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
from keras import ops

from keras_rnncells import recurrence
from keras_rnncells.base import CellRNN, RecurrentCell, arguments, noise


@keras.saving.register_keras_serializable(package="keras_rnncells")
class JordanRNNCell(RecurrentCell):
    """The network of Jordan, one step: it owns its readout, whose output is its state.

    `h = activation(x W + y' R + b)`, `y = output_activation(h V + c)`
    (Jordan, 1986, Serial order: a parallel distributed processing approach). The output is y.

    Weights: `kernel` W `[D, U]`, `recurrent_kernel` R `[O, U]`, `bias` b `[U]`, `output_kernel` V
    `[U, O]`, `output_bias` c `[O]`, with O = `output_units`.

    Args:
        output_units: Positive integer O, the size of y. `None` means `units`.
        output_activation: Activation of y; `"linear"` for regression.
        output_initializer: Initializer of the readout V. Its bias starts at 0.

    Example:

    >>> import keras_rnncells
    >>> cell = keras_rnncells.JordanRNNCell(8, output_units=3)
    >>> cell.build((None, 2))
    >>> [tuple(w.shape) for w in cell.weights]
    [(2, 8), (3, 8), (8,), (8, 3), (3,)]
    """

    state_names = ("y",)

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        *args: Any,
        output_units: int | None = None,
        output_activation: Any = "softmax",
        output_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(units, activation, *args, **kwargs)
        if output_units is not None:
            output_units = arguments.positive_integer("output_units", output_units)
        self.output_units = output_units
        self.output_activation = arguments.activation(output_activation)
        self.output_initializer = arguments.resolve("initializer", output_initializer)
        self.state_size = self.output_size = output_units or self.units
        if self.output_size == 1 and self.output_activation is keras.activations.softmax:
            raise ValueError(
                "The softmax of a single output is always 1. Received: output_units=1 with "
                "output_activation='softmax'. Use output_activation='linear' or 'sigmoid'."
            )

    def build(self, input_shape: Any) -> None:
        outputs = self.output_size
        self.kernel = self.add("kernel", (input_shape[-1], self.units))
        self.recurrent_kernel = self.add("recurrent_kernel", (outputs, self.units))
        self.bias = self.add("bias", (self.units,)) if self.use_bias else None
        self.output_kernel = self.add_weight(
            name="output_kernel",
            shape=(self.units, outputs),
            initializer=self.output_initializer,
            autocast=False,
        )
        self.output_bias = None
        if self.use_bias:
            self.output_bias = self.add_weight(
                name="output_bias", shape=(outputs,), initializer="zeros", autocast=False
            )

    @property
    def product_kernel(self) -> Any:
        return self.recurrent_kernel

    def project(self, inputs: Any) -> Any:
        return self.linear(inputs, self.kernel, self.bias)

    def update(self, projected: Any, recurrent: Any, states: list[Any]) -> list[Any]:
        h = self.activation(projected + recurrent)
        return [self.output_activation(self.linear(h, self.output_kernel, self.output_bias))]


@keras.saving.register_keras_serializable(package="keras_rnncells")
class JordanRNN(CellRNN, cell=JordanRNNCell):
    """The network of Jordan, which owns its readout.

    `h = activation(x W + y' R + b)`, `y = output_activation(h V + c)`
    (Jordan, 1986, Serial order: a parallel distributed processing approach). The output is y.

    With `teacher=y` in the call, each step is fed the true output of the step before it in place of
    its own, and all steps run at once. Train with it and predict without: share the layer between a
    training model that has the targets as a second input, and a model that has not.

    Weights: `kernel` W `[D, U]`, `recurrent_kernel` R `[O, U]`, `bias` b `[U]`, `output_kernel` V
    `[U, O]`, `output_bias` c `[O]`, with O = `output_units`.

    Call arguments:
        sequences: `[B, T, D]`.
        initial_state: List of the state y' to start from, `[B, O]`; zeros if not given.
        mask: Boolean `[B, T]`; a step where it is `False` is skipped.
        training: Whether dropout, recurrent dropout and zoneout are on.
        teacher: `[B, T, O]`, the true outputs; step t is fed `teacher[:, t - 1]`, the first step
            the initial state.

    Example:

    >>> import keras, keras_rnncells
    >>> x, y = keras.Input((None, 4)), keras.Input((None, 3))
    >>> layer = keras_rnncells.JordanRNN(16, output_units=3, return_sequences=True)
    >>> train = keras.Model([x, y], layer(x, teacher=y))
    >>> predict = keras.Model(x, layer(x))
    """

    def call(
        self,
        sequences: Any,
        initial_state: Any = None,
        mask: Any = None,
        training: bool = False,
        teacher: Any = None,
        sequences_mask: Any = None,
    ) -> Any:
        mask = sequences_mask if mask is None else mask
        loop = self.inner_loop
        if teacher is not None:
            expected = (*sequences.shape[:2], self.cell.output_size)
            if len(teacher.shape) != 3 or any(
                None not in sizes and sizes[0] != sizes[1]
                for sizes in zip(teacher.shape, expected, strict=True)
            ):
                raise ValueError(
                    f"`teacher` must hold the true outputs, of shape {expected}. Received shape "
                    f"{tuple(teacher.shape)}."
                )
            loop = partial(self._teacher_forced, teacher=teacher)
        return self._call(loop, sequences, initial_state, mask, training)

    def _teacher_forced(
        self, sequences: Any, initial_state: Any, mask: Any, training: bool, teacher: Any
    ) -> tuple[Any, Any, list[Any]]:
        cell, [first] = self.cell, initial_state
        teacher = ops.cast(teacher, cell.state_dtype)
        if self.go_backwards:
            teacher = ops.flip(teacher, axis=1)
        if mask is not None:
            teacher = recurrence.hold(teacher, mask, first)
        before = ops.concatenate([first[:, None], teacher[:, :-1]], axis=1)

        drawn = noise.draw(cell, sequences, initial_state) if training else noise.expectation(cell)
        if drawn.inputs is not None:
            sequences = sequences * drawn.inputs
        dropped = None if drawn.recurrent is None else drawn.recurrent[:, None]
        after = cell.step(cell.project(sequences), [before], cell.product_kernel, dropped)
        [outputs] = drawn.hold([before], after)
        if mask is None:
            return outputs[:, -1], outputs, [outputs[:, -1]]
        held = recurrence.hold(outputs, mask, first)
        if self.zero_output_for_mask:
            outputs = recurrence.select(mask, outputs, ops.zeros_like(outputs))
        else:
            outputs = held
        return outputs[:, -1], outputs, [held[:, -1]]
