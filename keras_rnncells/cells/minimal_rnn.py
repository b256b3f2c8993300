"""MinimalRNN: one gate, and a state that stays in the space of the encoded input (Chen, 2017)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_rnncells.base import CellRNN, RecurrentCell, arguments


@keras.saving.register_keras_serializable(package="keras_rnncells")
class MinimalRNNCell(RecurrentCell):
    """The MinimalRNN, one step.

    `z = tanh(x We + be)`, `g = sigmoid(h' R + z W + b)`, `h = g * h' + (1 - g) * z`
    ([Chen, 2017](https://arxiv.org/abs/1711.06788)). The gate g keeps: a positive bias lengthens
    the memory (`ChronoBias(max_timesteps, gates="f")`).

    Weights: `encoder_kernel` We `[D, U]`, `encoder_bias` be `[U]` (both only without an `encoder`
    of your own), `kernel` W `[U, U]`, `recurrent_kernel` R `[U, U]`, `bias` b `[U]`.

    Args:
        activation: Activation of the encoder; not used with an `encoder` of your own.
        recurrent_activation: Activation of the gate.
        bias_initializer: Initializer of the bias of the gate. The bias of the encoder starts at 0.
        encoder: Layer that takes the place of `tanh(x We + be)`: it works on the last axis and
            returns U features.

    Example:

    >>> import keras, keras_rnncells
    >>> encoder = keras.Sequential([keras.layers.Dense(8, "relu"), keras.layers.Dense(4, "tanh")])
    >>> cell = keras_rnncells.MinimalRNNCell(4, encoder=encoder)
    >>> cell.build((None, 3))
    >>> [w.name for w in cell.weights][:3]
    ['kernel', 'recurrent_kernel', 'bias']
    """

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        *args: Any,
        encoder: keras.layers.Layer | dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, activation, *args, **kwargs)
        self.recurrent_activation = arguments.activation(recurrent_activation)
        if isinstance(encoder, dict):
            encoder = keras.saving.deserialize_keras_object(encoder)
        if not isinstance(encoder, (keras.layers.Layer, type(None))):
            raise ValueError(
                "`encoder` must be a Keras layer that returns `units` features, or None for one "
                f"dense layer. Received: encoder={encoder!r}."
            )
        self.encoder = encoder

    def build(self, input_shape: Any) -> None:
        units = self.units
        if self.encoder is None:
            self.encoder_kernel = self.add("encoder_kernel", (input_shape[-1], units))
            self.encoder_bias = None
            if self.use_bias:
                self.encoder_bias = self.add_weight(
                    name="encoder_bias", shape=(units,), initializer="zeros", autocast=False
                )
        else:
            if not self.encoder.built:
                self.encoder.build(input_shape)
            features = self.encoder.compute_output_shape(input_shape)[-1]
            if features != units:
                raise ValueError(
                    f"`encoder` must return units={units} features. Received an encoder that turns "
                    f"{tuple(input_shape)} into {features} features."
                )
        self.kernel = self.add("kernel", (units, units))
        self.recurrent_kernel = self.add("recurrent_kernel", (units, units))
        self.bias = self.add("bias", (units,)) if self.use_bias else None

    @property
    def product_kernel(self) -> Any:
        return self.recurrent_kernel

    def project(self, inputs: Any) -> Any:
        if self.encoder is None:
            z = self.activation(self.linear(inputs, self.encoder_kernel, self.encoder_bias))
        else:
            # One step or all of them: the encoder sees rows.
            *leading, features = ops.shape(inputs)
            z = self.encoder(ops.reshape(inputs, (-1, features)))
            z = ops.cast(ops.reshape(z, (*leading, self.units)), self.state_dtype)
        return ops.concatenate([z, self.linear(z, self.kernel, self.bias)], axis=-1)

    def update(self, projected: Any, recurrent: Any, states: list[Any]) -> list[Any]:
        z, gate = ops.split(projected, 2, axis=-1)
        g = self.recurrent_activation(gate + recurrent)
        return [g * states[0] + (1.0 - g) * z]


@keras.saving.register_keras_serializable(package="keras_rnncells")
class MinimalRNN(CellRNN, cell=MinimalRNNCell):
    """The MinimalRNN.

    Example:

    >>> import numpy as np, keras_rnncells
    >>> layer = keras_rnncells.MinimalRNN(4, return_sequences=True)
    >>> tuple(layer(np.ones((2, 5, 3), "float32")).shape)
    (2, 5, 4)
    """
