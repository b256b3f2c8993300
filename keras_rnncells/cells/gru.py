"""GRU: the gated recurrent unit (Cho et al., 2014)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_rnncells.base import CellRNN, RecurrentCell, arguments


@keras.saving.register_keras_serializable(package="keras_rnncells")
class GRUCell(RecurrentCell):
    """The gated recurrent unit, one step.

    `z, r = sigmoid(x W + h' R + b)` (two blocks), `h = z * h' + (1 - z) * candidate`
    ([Cho et al., 2014](https://arxiv.org/abs/1406.1078)): z keeps, as in Keras (the paper's z
    writes). The candidate is `tanh(x W + b + r * (h' R + b2))`, or with `reset_after=False`, as in
    the paper, `tanh(x W + (r * h') R + b)`.

    Weights: `kernel` W `[D, 3 U]`, `recurrent_kernel` R `[U, 3 U]`, `bias` `[2, 3 U]` (of the
    inputs, of the state) or, with `reset_after=False`, `[3 U]`, in the blocks z, r, candidate, as
    in `keras.layers.GRU`, whose weights fit.

    Args:
        activation: Activation of the candidate.
        recurrent_activation: Activation of the gates; `"hard_sigmoid"` for hard gates.
        reset_after: Whether the reset gate is applied after the product with the recurrent kernel.

    Example:

    >>> import keras_rnncells
    >>> cell = keras_rnncells.GRUCell(4)
    >>> cell.build((None, 3))
    >>> [tuple(w.shape) for w in cell.weights]
    [(3, 12), (4, 12), (2, 12)]
    """

    ignored_arguments = ("implementation", "use_cudnn")

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        *args: Any,
        reset_after: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, activation, *args, **kwargs)
        self.recurrent_activation = arguments.activation(recurrent_activation)
        self.reset_after = bool(reset_after)

    def build(self, input_shape: Any) -> None:
        units = self.units
        self.kernel = self.add("kernel", (input_shape[-1], 3 * units))
        self.recurrent_kernel = self.add("recurrent_kernel", (units, 3 * units))
        bias_shape = (2, 3 * units) if self.reset_after else (3 * units,)
        self.bias = self.add("bias", bias_shape) if self.use_bias else None

    @property
    def product_kernel(self) -> Any:
        # Reset before: the second product needs the gate of the same step, so both are in `update`.
        return self.recurrent_kernel if self.reset_after else None

    def project(self, inputs: Any) -> Any:
        with_two = self.use_bias and self.reset_after
        return self.linear(inputs, self.kernel, self.bias[0] if with_two else self.bias)

    def update(self, projected: Any, recurrent: Any, states: list[Any]) -> list[Any]:
        gates, candidate = ops.split(projected, [2 * self.units], axis=-1)
        if self.reset_after:
            recurrent = recurrent + self.bias[1] if self.use_bias else recurrent
            of_gates, of_candidate = ops.split(recurrent, [2 * self.units], axis=-1)
            z, r = ops.split(self.recurrent_activation(gates + of_gates), 2, axis=-1)
            of_candidate = r * of_candidate
        else:
            for_gates, for_candidate = ops.split(
                ops.convert_to_tensor(self.recurrent_kernel), [2 * self.units], axis=-1
            )
            gates = gates + self.linear(recurrent, for_gates)
            z, r = ops.split(self.recurrent_activation(gates), 2, axis=-1)
            of_candidate = self.linear(r * recurrent, for_candidate)
        return [z * states[0] + (1.0 - z) * self.activation(candidate + of_candidate)]


@keras.saving.register_keras_serializable(package="keras_rnncells")
class GRU(CellRNN, cell=GRUCell):
    """The gated recurrent unit.

    Example:

    >>> import numpy as np, keras_rnncells
    >>> layer = keras_rnncells.GRU(4, return_sequences=True)
    >>> tuple(layer(np.ones((2, 5, 3), "float32")).shape)
    (2, 5, 4)
    """
