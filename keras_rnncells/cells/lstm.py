"""LSTM: of 1997, with forget gate, and with peepholes."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_rnncells.base import CellRNN, RecurrentCell, arguments
from keras_rnncells.initializers import ChronoBias, PerGate, reseeded


@keras.saving.register_keras_serializable(package="keras_rnncells")
class LSTMCell(RecurrentCell):
    """The long short-term memory, one step.

    `i, f, o = sigmoid(x W + h' R + b)` (three blocks), `c = f * c' + i * tanh(x W + h' R + b)`,
    `h = o * tanh(c)`
    ([Hochreiter and Schmidhuber, 1997](https://doi.org/10.1162/neco.1997.9.8.1735); forget gate
    [Gers et al., 2000](https://doi.org/10.1162/089976600300015015)). With peepholes i and f see c'
    and o sees c, each unit its own (Gers and Schmidhuber, 2000).

    Weights: `kernel` W `[D, 4 U]`, `recurrent_kernel` R `[U, 4 U]`, `bias` b `[4 U]`, in the blocks
    i, f, c, o, as in `keras.layers.LSTM`, whose weights fit; `peephole_kernel` `[3 U]` (i, f, o)
    with `use_peepholes`, which starts as `"glorot_uniform"`, without regularizer and constraint.
    Without forget gate the blocks are i, c, o, and those of the peepholes i, o.

    The states are h and c.

    Args:
        activation: Activation of the candidate and of c.
        recurrent_activation: Activation of the gates; `"hard_sigmoid"` for hard gates.
        unit_forget_bias: Whether the bias of the forget gate starts at 1.
        forget_bias: Number that the bias of the forget gate starts at; overrides
            `unit_forget_bias`.
        use_peepholes: Whether the gates see the cell state.
        use_forget_gate: `False` for the cell of 1997, whose state is only ever added to.

    Example:

    >>> import keras_rnncells
    >>> cell = keras_rnncells.LSTMCell(2, forget_bias=4.0)
    >>> cell.build((None, 3))
    >>> cell.get_weights()[2].tolist()
    [0.0, 0.0, 4.0, 4.0, 0.0, 0.0, 0.0, 0.0]
    """

    state_names = ("h", "c")
    ignored_arguments = ("implementation", "use_cudnn")

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        *args: Any,
        forget_bias: float | None = None,
        use_peepholes: bool = False,
        use_forget_gate: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units,
            activation,
            use_bias,
            kernel_initializer,
            recurrent_initializer,
            bias_initializer,
            *args,
            **kwargs,
        )
        self.recurrent_activation = arguments.activation(recurrent_activation)
        self.unit_forget_bias = bool(unit_forget_bias)
        self.forget_bias = forget_bias
        if forget_bias is not None:
            self.forget_bias = arguments.number("forget_bias", forget_bias)
        self.use_peepholes = bool(use_peepholes)
        self.use_forget_gate = bool(use_forget_gate)
        if forget_bias is not None and not (use_forget_gate and use_bias):
            raise ValueError(
                "`forget_bias` needs a forget gate with a bias. Received: "
                f"forget_bias={forget_bias!r}, use_forget_gate={use_forget_gate!r}, "
                f"use_bias={use_bias!r}."
            )
        if (
            isinstance(self.bias_initializer, (ChronoBias, PerGate))
            and (unit_forget_bias or forget_bias is not None)
            and (use_forget_gate and use_bias)
        ):
            name = type(self.bias_initializer).__name__
            raise ValueError(
                f"{name} sets the bias of the forget gate, which `unit_forget_bias` and "
                f"`forget_bias` would overwrite. Received: bias_initializer={name} with "
                f"unit_forget_bias={unit_forget_bias!r} and forget_bias={forget_bias!r}; pass "
                "unit_forget_bias=False."
            )
        self.state_size = [self.units, self.units]

    def build(self, input_shape: Any) -> None:
        units, gates = self.units, 4 if self.use_forget_gate else 3
        self.kernel = self.add("kernel", (input_shape[-1], gates * units))
        self.recurrent_kernel = self.add("recurrent_kernel", (units, gates * units))
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(gates * units,),
                initializer=self._initial_bias(),
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                autocast=False,
            )
        if self.use_peepholes:
            # A vector: what is asked of kernels (orthogonal, a norm) does not suit it.
            self.peephole_kernel = self.add_weight(
                name="peephole_kernel",
                shape=((gates - 1) * units,),
                initializer="glorot_uniform",
                autocast=False,
            )

    def _initial_bias(self) -> Any:
        forget = 1.0 if self.unit_forget_bias else None
        forget = forget if self.forget_bias is None else self.forget_bias
        if forget is None or not self.use_forget_gate:
            return self.bias_initializer
        each = [reseeded(self.bias_initializer, gate) for gate in range(4)]
        each[1] = keras.initializers.Constant(forget)
        return PerGate(each, 4)

    @property
    def product_kernel(self) -> Any:
        return self.recurrent_kernel

    def project(self, inputs: Any) -> Any:
        return self.linear(inputs, self.kernel, self.bias)

    def update(self, projected: Any, recurrent: Any, states: list[Any]) -> list[Any]:
        gates = projected + recurrent
        c = states[1]
        if self.use_forget_gate:
            i, f, candidate, o = ops.split(gates, 4, axis=-1)
        else:
            i, candidate, o = ops.split(gates, 3, axis=-1)
        if self.use_peepholes:
            *before, after = ops.split(self.peephole_kernel, 3 if self.use_forget_gate else 2)
            i = i + before[0] * c
            f = f + before[1] * c if self.use_forget_gate else None
        added = self.recurrent_activation(i) * self.activation(candidate)
        c = (self.recurrent_activation(f) * c if self.use_forget_gate else c) + added
        if self.use_peepholes:
            o = o + after * c
        return [self.recurrent_activation(o) * self.activation(c), c]


@keras.saving.register_keras_serializable(package="keras_rnncells")
class LSTM(CellRNN, cell=LSTMCell):
    """The long short-term memory.

    Example:

    >>> import numpy as np, keras, keras_rnncells
    >>> x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    >>> of_keras, ours = keras.layers.LSTM(4), keras_rnncells.LSTM(4)
    >>> y = of_keras(x)
    >>> ours.build(x.shape)
    >>> ours.set_weights(of_keras.get_weights())
    >>> bool(keras.ops.max(keras.ops.abs(ours(x) - y)) < 1e-6)
    True
    """
