"""One matrix that turns tokens into vectors, and vectors into logits of tokens."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_rnncells import checks
from keras_rnncells.base import arguments


@keras.saving.register_keras_serializable(package="keras_rnncells")
class TiedEmbedding(keras.layers.Layer):
    """An embedding whose transpose is the output layer of a language model.

    `layer(tokens)` are the rows of E that belong to the tokens, and
    `layer(vectors, reverse=True)` is `vectors E^T + b`, the logits
    ([Press and Wolf, 2017](https://arxiv.org/abs/1608.05859)).

    Weights: `embeddings` E `[input_dim, output_dim]`, `bias` b `[input_dim]`.

    Args:
        input_dim: Positive integer, the size of the vocabulary.
        output_dim: Positive integer, the size of a vector.
        embeddings_initializer: Initializer of E.
        **kwargs: `name`, `dtype` and `trainable`, as for any Keras layer.

    Call arguments:
        inputs: Integer tokens of any shape, or with `reverse=True` vectors `[..., output_dim]`.
        reverse: Whether to go from vectors to logits.

    Input shape:
        `[...]`; with `reverse=True` `[..., output_dim]`.

    Output shape:
        `[..., output_dim]`; with `reverse=True` `[..., input_dim]`.

    Raises:
        ValueError: If a size is not a positive integer.

    Example:

    >>> import numpy as np, keras_rnncells
    >>> layer = keras_rnncells.models.TiedEmbedding(50, 8)
    >>> vectors = layer(np.array([[3, 1, 4]]))
    >>> tuple(vectors.shape), tuple(layer(vectors, reverse=True).shape)
    ((1, 3, 8), (1, 3, 50))
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.input_dim = checks.positive_integer("input_dim", input_dim)
        self.output_dim = checks.positive_integer("output_dim", output_dim)
        self.embeddings_initializer = arguments.resolve("initializer", embeddings_initializer)

    def build(self, input_shape: Any = None) -> None:
        shape = (self.input_dim, self.output_dim)
        self.embeddings = self.add_weight(
            name="embeddings", shape=shape, initializer=self.embeddings_initializer
        )
        self.bias = self.add_weight(name="bias", shape=(self.input_dim,), initializer="zeros")

    def call(self, inputs: Any, reverse: bool = False) -> Any:
        if reverse:
            return ops.matmul(inputs, ops.transpose(self.embeddings)) + self.bias
        return ops.take(self.embeddings, ops.cast(inputs, "int32"), axis=0)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "embeddings_initializer": arguments.serialize(self.embeddings_initializer),
        }
