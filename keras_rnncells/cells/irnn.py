"""IRNN: a ReLU network that starts from the identity (Le, Jaitly and Hinton, 2015)."""

from __future__ import annotations

from typing import Any

import keras

from keras_rnncells.base import CellRNN, arguments
from keras_rnncells.cells.elman import ElmanRNNCell
from keras_rnncells.initializers import ScaledIdentity


@keras.saving.register_keras_serializable(package="keras_rnncells")
class IRNNCell(ElmanRNNCell):
    """A simple ReLU network that starts from the identity, one step.

    `h = relu(x W + h' R + b)`, at the start with R = gain * I, b = 0 and W from N(0, 0.001)
    ([Le et al., 2015](https://arxiv.org/abs/1504.00941)). It needs a small learning rate and
    gradient clipping.

    Weights: `kernel` W `[D, U]`, `recurrent_kernel` R `[U, U]`, `bias` b `[U]`.

    Args:
        gain: Number, the factor of the identity that the recurrent kernel starts from: 1, or less
            for a shorter memory (0.01 in the speech model of the paper).

    Example:

    >>> import numpy as np, keras_rnncells
    >>> cell = keras_rnncells.IRNNCell(4)
    >>> cell.build((None, 3))
    >>> bool((cell.get_weights()[1] == np.eye(4)).all())
    True
    """

    def __init__(
        self,
        units: int,
        activation: Any = "relu",
        use_bias: bool = True,
        kernel_initializer: Any = None,
        recurrent_initializer: Any = None,
        *args: Any,
        gain: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units, activation, use_bias, kernel_initializer, recurrent_initializer, *args, **kwargs
        )
        if recurrent_initializer is not None and gain != 1.0:
            raise ValueError(
                "`gain` scales the identity that the recurrent kernel starts from, and "
                "`recurrent_initializer` replaces it: give one of the two. Received: "
                f"gain={gain!r}, recurrent_initializer={recurrent_initializer!r}."
            )
        self.gain = arguments.number("gain", gain)

    def build(self, input_shape: Any) -> None:
        small = keras.initializers.RandomNormal(stddev=0.001)
        identity = ScaledIdentity(self.gain)
        self.kernel = self.add("kernel", (input_shape[-1], self.units), small)
        self.recurrent_kernel = self.add("recurrent_kernel", (self.units, self.units), identity)
        self.bias = self.add("bias", (self.units,)) if self.use_bias else None


@keras.saving.register_keras_serializable(package="keras_rnncells")
class IRNN(CellRNN, cell=IRNNCell):
    """A simple ReLU network that starts from the identity.

    Example:

    >>> import numpy as np, keras_rnncells
    >>> layer = keras_rnncells.IRNN(4, gain=0.01)
    >>> tuple(layer(np.ones((2, 5, 3), "float32")).shape)
    (2, 4)
    """
