"""CFN: the chaos-free network (Laurent and von Brecht, 2016)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_rnncells.base import CellRNN, RecurrentCell, arguments
from keras_rnncells.initializers import PerGate


@keras.saving.register_keras_serializable(package="keras_rnncells")
class CFNCell(RecurrentCell):
    """The chaos-free network, one step.

    `theta = sigmoid(x Vt + h' Ut + bt)`, `eta = sigmoid(x Ve + h' Ue + be)`,
    `h = theta * tanh(h') + eta * tanh(x W)`
    ([Laurent and von Brecht, 2016](https://arxiv.org/abs/1612.06212)). Without input every state
    decays to 0.

    Weights: `kernel` `[D, 3 U]` (Vt, Ve, W), `recurrent_kernel` `[U, 2 U]` (Ut, Ue), `bias` `[2 U]`
    (bt, be), which start from U(-0.07, 0.07), but for bt = 1 and be = -1.

    Args:
        activation: Activation of h' and of x W.
        recurrent_activation: Activation of the two gates.

    Example:

    >>> import keras_rnncells
    >>> cell = keras_rnncells.CFNCell(2)
    >>> cell.build((None, 3))
    >>> cell.get_weights()[2].tolist()
    [1.0, 1.0, -1.0, -1.0]
    """

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = None,
        recurrent_initializer: Any = None,
        bias_initializer: Any = None,
        *args: Any,
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

    def build(self, input_shape: Any) -> None:
        units = self.units
        gates = PerGate([1.0, -1.0], 2)
        self.kernel = self.add("kernel", (input_shape[-1], 3 * units), self._small())
        self.recurrent_kernel = self.add("recurrent_kernel", (units, 2 * units), self._small())
        self.bias = self.add("bias", (2 * units,), gates) if self.use_bias else None

    @staticmethod
    def _small() -> keras.initializers.Initializer:
        return keras.initializers.RandomUniform(-0.07, 0.07)

    @property
    def product_kernel(self) -> Any:
        return self.recurrent_kernel

    def project(self, inputs: Any) -> Any:
        projected = self.linear(inputs, self.kernel)
        gates, candidate = ops.split(projected, [2 * self.units], axis=-1)
        if self.use_bias:
            gates = gates + self.bias
        return ops.concatenate([gates, self.activation(candidate)], axis=-1)

    def update(self, projected: Any, recurrent: Any, states: list[Any]) -> list[Any]:
        gates, candidate = ops.split(projected, [2 * self.units], axis=-1)
        theta, eta = ops.split(self.recurrent_activation(gates + recurrent), 2, axis=-1)
        return [theta * self.activation(states[0]) + eta * candidate]


@keras.saving.register_keras_serializable(package="keras_rnncells")
class CFN(CellRNN, cell=CFNCell):
    """The chaos-free network.

    Example:

    >>> import numpy as np, keras_rnncells
    >>> layer = keras_rnncells.CFN(4, return_sequences=True)
    >>> tuple(layer(np.ones((2, 5, 3), "float32")).shape)
    (2, 5, 4)
    """
