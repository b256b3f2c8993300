"""The simple recurrent network of Elman (1990)."""

from __future__ import annotations

from typing import Any

import keras

from keras_rnncells.base import CellRNN, RecurrentCell


@keras.saving.register_keras_serializable(package="keras_rnncells")
class ElmanRNNCell(RecurrentCell):
    """The simple recurrent network of Elman, one step.

    `h = activation(x W + h' R + b)`
    ([Elman, 1990](https://doi.org/10.1207/s15516709cog1402_1)).

    Weights: `kernel` W `[D, U]`, `recurrent_kernel` R `[U, U]`, `bias` b `[U]`; those of
    `keras.layers.SimpleRNN` fit.

    Example:

    >>> import numpy as np, keras_rnncells
    >>> cell = keras_rnncells.ElmanRNNCell(4)
    >>> output, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> len(states)
    1
    """

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add("kernel", (input_shape[-1], self.units))
        self.recurrent_kernel = self.add("recurrent_kernel", (self.units, self.units))
        self.bias = self.add("bias", (self.units,)) if self.use_bias else None

    @property
    def product_kernel(self) -> Any:
        return self.recurrent_kernel

    def project(self, inputs: Any) -> Any:
        return self.linear(inputs, self.kernel, self.bias)

    def update(self, projected: Any, recurrent: Any, states: list[Any]) -> list[Any]:
        return [self.activation(projected + recurrent)]


@keras.saving.register_keras_serializable(package="keras_rnncells")
class ElmanRNN(CellRNN, cell=ElmanRNNCell):
    """The simple recurrent network of Elman.

    Example:

    >>> import numpy as np, keras_rnncells
    >>> layer = keras_rnncells.ElmanRNN(4, return_sequences=True)
    >>> tuple(layer(np.ones((2, 5, 3), "float32")).shape)
    (2, 5, 4)
    """
