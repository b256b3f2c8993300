"""Language models: tokens in, logits of the next token out, states carried on."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras

from keras_rnncells import checks
from keras_rnncells.base import CellRNN, arguments
from keras_rnncells.cells import IndRNN
from keras_rnncells.models.embedding import TiedEmbedding
from keras_rnncells.models.stack import Stack, layer_class, with_options
from keras_rnncells.models.stacks import dense_layers, plain_layers, residual_layers

# For each kind its layers, and its sizes (units, layers) if none are given.
KINDS = {
    "plain": (plain_layers, 128, 6),
    "residual": (residual_layers, 128, 5),
    "dense": (functools.partial(dense_layers, first=False), 16, (8, 6, 4)),
}


@with_options("head", "normalization")
def language_model(
    vocabulary: int,
    embedding: int = 128,
    units: int | None = None,
    layers: int | Sequence[int] | None = None,
    kind: str = "plain",
    cell: str | type[CellRNN] = "IndRNN",
    *,
    timesteps: int | None = None,
    batch_size: int | None = None,
    stateful: bool = True,
    tied: bool = True,
    normalization: str | None = "auto",
    embeddings_initializer: Any = None,
    embedding_dropout: float | None = None,
    bottleneck_dropout: float | None = None,
    transition_dropout: float | None = None,
    **options: Any,
) -> keras.Model:
    """A model that predicts the next token at each step of a text.

    Tokens are embedded, go through a stack, and the output of each step gives the logits of the
    token that follows. A text is trained on in windows, one after the other; with `stateful` each
    starts from the states in which the last one ended, which is what the normalization before the
    recurrence is for ([Li et al., 2018](https://arxiv.org/abs/1803.04831)). `reset_states(model)`
    starts a new text.

    The state of a unit whose recurrent weight is near 1 grows over all the windows of the training
    text. The moving statistics of a normalization then fit the middle of a text and not its start,
    where the model predicts badly. A bound below 1 ends such memories:
    `cell_arguments={"recurrent_constraint": keras_rnncells.constraints.MaxAbs(0.98)}`.

    With `tied` the output layer is the transpose of the embedding
    ([Press and Wolf, 2017](https://arxiv.org/abs/1608.05859)). If the stack has another width, it
    ends in one more recurrent layer, of the width of the embedding; in a dense stack that is the
    last transition. With `normalization="before"` the output is normalized too, and a dense stack
    starts with its blocks. For the words of the Penn Treebank
    ([Li et al., 2019](https://arxiv.org/abs/1910.06251)) the authors take `vocabulary=10000,
    embedding=600` and a residual stack with `units=2000` or a dense one with `units=256`.

    Args:
        vocabulary: Positive integer V, the number of tokens.
        embedding: Positive integer, the size of the embedding.
        units: Positive integer, the size of each layer; of a dense stack its growth. `None` is 128,
            dense 16.
        layers: The depth: for plain the number of recurrent layers, for residual the number of
            blocks of two, for dense the number of layers of each block. `None` is 6, 5 and
            (8, 6, 4).
        kind: `"plain"`, `"residual"` or `"dense"`, the stack of that name.
        timesteps: Positive integer, the number of steps of a window; `None` allows any.
        batch_size: Positive integer, the number of texts side by side; `stateful` needs it.
        stateful: Whether a window goes on from the last one.
        tied: Whether the output layer shares its kernel with the embedding.
        normalization: As in the stacks; `"auto"` is `"before"` for `IndRNN` and `None` for others.
        embeddings_initializer: Initializer of the embedding. `None` is uniform from -0.01 to 0.01,
            as the authors have it. A normalization makes up for the scale; a stack without one
            may learn slowly from so little, and an embedding that is not `tied` may start larger.
        embedding_dropout: Rate after the embedding, if it is not `dropout`.
        bottleneck_dropout: As in `dense`, and only there.
        transition_dropout: As in `dense`, and only there.

    Returns:
        A functional `keras.Model` from `"tokens"`, integers `[B, T]`, to logits `[B, T, V]`.

    Example:

    >>> import numpy as np, keras_rnncells
    >>> model = keras_rnncells.models.language_model(
    ...     50, embedding=8, units=16, layers=2, batch_size=4)
    >>> logits = model(np.zeros((4, 10), "int32"))
    >>> tuple(logits.shape)
    (4, 10, 50)
    >>> keras_rnncells.models.reset_states(model)
    """
    checks.positive_integer("vocabulary", vocabulary)
    checks.positive_integer("embedding", embedding)
    make, default_units, default_layers = KINDS[checks.choice("kind", kind, KINDS)]
    if timesteps is not None:
        checks.positive_integer("timesteps", timesteps)
    if embedding_dropout is not None:
        checks.rate("embedding_dropout", embedding_dropout)
    sizes: dict[str, Any] = {"features": embedding} if tied else {}
    rates = {"bottleneck_dropout": bottleneck_dropout, "transition_dropout": transition_dropout}
    if kind == "dense":
        sizes.update(rates)
    elif set(rates.values()) != {None}:
        raise ValueError(
            "`bottleneck_dropout` and `transition_dropout` are rates of a dense stack. Received: "
            f'kind={kind!r}. Use `dropout`, or kind="dense".'
        )
    if normalization == "auto":
        normalization = "before" if issubclass(layer_class(cell), IndRNN) else None
    stack = Stack(
        timesteps,
        cell,
        normalized_output=True,
        head="per_step",
        normalization=normalization,
        stateful=stateful,
        batch_size=batch_size,
        **options,
    )

    tokens = keras.Input((timesteps,), batch_size=batch_size, dtype="int32", name="tokens")
    kind_of_embedding = TiedEmbedding if tied else keras.layers.Embedding
    if embeddings_initializer is None:
        embeddings_initializer = keras.initializers.RandomUniform(-0.01, 0.01)
    start = arguments.resolve("initializer", embeddings_initializer)
    embed = kind_of_embedding(vocabulary, embedding, start, name="embedding")
    rate = stack.dropout if embedding_dropout is None else embedding_dropout
    x = stack.drop(embed(tokens), rate, "embedding_dropout")

    units = default_units if units is None else units
    layers = default_layers if layers is None else layers
    x = make(stack, x, units, layers, **sizes)
    if tied:
        # Keras names an output after its layer: not after the embedding.
        logits = keras.layers.Activation("linear", name="logits")(embed(x, reverse=True))
    else:
        logits = keras.layers.Dense(vocabulary, name="logits")(x)
    return keras.Model(tokens, logits, name=stack.name or "language_model")


def reset_states(model: keras.Model) -> None:
    """Sets the states of all stateful layers of a model to zeros, for a new text or sequence.

    Args:
        model: A Keras model, with models and wrappers such as `Bidirectional` in it.

    Example:

    >>> import keras, keras_rnncells
    >>> layer = keras_rnncells.IndRNN(2, stateful=True)
    >>> model = keras.Sequential([layer])
    >>> y = model(keras.ops.ones((1, 5, 3)))
    >>> keras_rnncells.models.reset_states(model)
    >>> keras.ops.convert_to_numpy(layer.states[0]).tolist()
    [[0.0, 0.0]]
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            reset_states(layer)
        elif getattr(layer, "stateful", False):
            layer.reset_state()


class ResetStates(keras.callbacks.Callback):
    """Starts each epoch, and each evaluation, of a stateful model from states of zeros.

    Give it to `fit` and `evaluate` where one pass over the data is one reading of a text.

    Example:

    >>> import numpy as np, keras_rnncells
    >>> from keras_rnncells import models
    >>> model = models.language_model(50, embedding=8, units=16, layers=2, batch_size=4)
    >>> model.compile(loss="mse")
    >>> history = model.fit(np.zeros((8, 5), "int32"), np.zeros((8, 5, 50)), batch_size=4,
    ...     shuffle=False, verbose=0, callbacks=[models.ResetStates()])
    """

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        reset_states(self.model)

    def on_test_begin(self, logs: dict | None = None) -> None:
        reset_states(self.model)
