"""The deep IndRNN networks of Li et al. (2018, 2019), for any cell: plain, residual, dense.

Each network is a function from a tensor to a tensor, written with `Stack`, and a model around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_rnncells import checks
from keras_rnncells.base import CellRNN
from keras_rnncells.models.stack import Stack, positive_integers, with_options


def plain_layers(stack: Stack, x: Any, units: int, layers: int, features: int | None = None) -> Any:
    """`layers` recurrent layers, and one more of `features` units if that is another width."""
    widths = [checks.positive_integer("units", units)] * checks.positive_integer("layers", layers)
    if features not in (None, units):
        widths.append(features)
    for i, width in enumerate(widths):
        x = stack.recurrent(x, width, last=i == len(widths) - 1)
    return x


def residual_layers(
    stack: Stack, x: Any, units: int, blocks: int, features: int | None = None
) -> Any:
    """`blocks` residual blocks and a recurrent layer, and one more of another width."""
    x = stack.kernel(x, checks.positive_integer("units", units))
    for block in range(checks.positive_integer("blocks", blocks)):
        branch = x
        for _ in range(2):
            branch = stack.recurrent(branch, units, kernel=False)
            branch = stack.kernel(branch, units)
        x = keras.layers.Add(name=f"add_{block + 1}")([x, branch])
    narrows = features not in (None, units)
    x = stack.recurrent(x, units, kernel=False, last=not narrows)
    return stack.recurrent(x, features, last=True) if narrows else x


def dense_layers(
    stack: Stack,
    x: Any,
    growth: int,
    blocks: Sequence[int],
    bottleneck_dropout: float | None = None,
    transition_dropout: float | None = None,
    features: int | None = None,
    first: bool = True,
) -> Any:
    """A `first` layer, and dense blocks, each with a transition; the last one to `features`."""
    checks.positive_integer("growth", growth)
    blocks = positive_integers("blocks", blocks)
    for name in ("bottleneck_dropout", "transition_dropout"):
        if locals()[name] is not None:
            checks.rate(name, locals()[name])
    x = stack.recurrent(x, 6 * growth) if first else x
    joined = 0
    for block, layers in enumerate(blocks):
        for _ in range(layers):
            new = stack.recurrent(x, 4 * growth, dropout=bottleneck_dropout)
            new = stack.recurrent(new, growth)
            joined += 1
            x = keras.layers.Concatenate(name=f"concatenate_{joined}")([x, new])
        last = block == len(blocks) - 1
        width = features if last and features is not None else x.shape[-1] // 2
        x = stack.recurrent(x, width, last=last, dropout=transition_dropout)
    return x


def _model(
    body: Callable,
    input_shape: Any,
    outputs: int,
    cell: Any,
    name: str,
    sizes: dict[str, Any],
    options: dict[str, Any],
) -> keras.Model:
    """Input, the recurrent layers that `body` makes, and head."""
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 2:
        raise ValueError(
            "`input_shape` must be (number of steps or None, number of features). Received: "
            f"input_shape={input_shape!r}."
        )
    steps, features = input_shape
    if steps is not None:
        checks.positive_integer("input_shape[0]", steps)
    checks.positive_integer("input_shape[1]", features)
    checks.positive_integer("outputs", outputs)
    stack = Stack(steps, cell, **options)
    inputs = keras.Input(tuple(input_shape), batch_size=stack.batch_size, name="sequence")
    x = stack.readout(body(stack, inputs, **sizes), outputs)
    return keras.Model(inputs, x, name=stack.name or name)


@with_options()
def plain(
    input_shape: tuple[int | None, int],
    outputs: int,
    cell: str | type[CellRNN] = "IndRNN",
    units: int = 128,
    layers: int = 6,
    **options: Any,
) -> keras.Model:
    """Recurrent layers, one on the other.

    Each layer is, with `normalization="after"`, input kernel, recurrence, batch normalization and
    dropout; with `"before"` input kernel, batch normalization, recurrence and dropout
    ([Li et al., 2018](https://arxiv.org/abs/1803.04831)). With 6 layers of 128 units this is the
    paper's network for MNIST by pixels, with `gamma=5` and `dropout=0.1` that of its code of 2019.

    Where the last step is read out, the last layer gives that step only. An IndRNN there starts
    with `memory="long"`, the others do not. Its normalization has the statistics of that step,
    where the code of the authors pools over all steps of that layer too.

    Args:
        input_shape: (T, D), number of steps and of features; T may be `None`.
        outputs: Positive integer, the number of outputs.
        units: Positive integer, the size of each layer.
        layers: Positive integer, the number of recurrent layers.

    Returns:
        A functional `keras.Model` from `"sequence"`, `[B, T, D]`, to `[B, outputs]`, with
        `head="per_step"` `[B, T, outputs]`.

    Example:

    >>> import numpy as np, keras_rnncells
    >>> model = keras_rnncells.models.plain((784, 1), 10)
    >>> print(sum(np.prod(w.shape) for w in model.trainable_weights))
    86410
    """
    sizes = {"units": units, "layers": layers}
    return _model(plain_layers, input_shape, outputs, cell, "plain", sizes, options)


@with_options()
def residual(
    input_shape: tuple[int | None, int],
    outputs: int,
    cell: str | type[CellRNN] = "IndRNN",
    units: int = 128,
    blocks: int = 5,
    **options: Any,
) -> keras.Model:
    """Recurrent layers with residual connections around every two.

    A dense layer, `blocks` blocks, and one more recurrent layer. A block adds to its input what
    comes of twice recurrence with normalization, dropout and a dense layer: pre-activation, nothing
    stands on the sum ([Li et al., 2019](https://arxiv.org/abs/1910.06251)). The dense layers are
    the input kernels of IndRNN; other cells have kernels of their own besides. 5 blocks are 11
    recurrent layers, the "12-layer" network of the paper for MNIST by pixels.

    Where the last step is read out, see `plain`.

    Args:
        input_shape: (T, D), number of steps and of features; T may be `None`.
        outputs: Positive integer, the number of outputs.
        units: Positive integer, the size of each layer.
        blocks: Positive integer, the number of blocks, of two recurrent layers each.

    Returns:
        A functional `keras.Model` from `"sequence"`, `[B, T, D]`, to `[B, outputs]`, with
        `head="per_step"` `[B, T, outputs]`.

    Example:

    >>> import keras_rnncells
    >>> model = keras_rnncells.models.residual((20, 3), 4, units=8, blocks=2)
    >>> [layer.name for layer in model.layers if layer.name.startswith("recurrent")]
    ['recurrent_1', 'recurrent_2', 'recurrent_3', 'recurrent_4', 'recurrent_5']
    """
    sizes = {"units": units, "blocks": blocks}
    return _model(residual_layers, input_shape, outputs, cell, "residual", sizes, options)


@with_options()
def dense(
    input_shape: tuple[int | None, int],
    outputs: int,
    cell: str | type[CellRNN] = "IndRNN",
    growth: int = 16,
    blocks: Sequence[int] = (8, 6, 4),
    *,
    bottleneck_dropout: float | None = None,
    transition_dropout: float | None = None,
    **options: Any,
) -> keras.Model:
    """Recurrent layers, each of which sees the outputs of all before it in its block.

    A recurrent layer of `6 * growth` units, then the blocks. A layer of a block is a bottleneck of
    `4 * growth` recurrent units and `growth` recurrent units on it, whose output is joined to what
    the layer saw. A recurrent layer of half the features, a transition, ends each block, the last
    one included ([Li et al., 2019](https://arxiv.org/abs/1910.06251)). Each recurrent layer has
    its normalization and dropout, as in `plain`. (8, 6, 4) layers make 40 recurrent ones.

    Where the last step is read out, see `plain`.

    Args:
        input_shape: (T, D), number of steps and of features; T may be `None`.
        outputs: Positive integer, the number of outputs.
        growth: Positive integer, the number of features that a layer of a block adds.
        blocks: For each block, the number of its layers.
        bottleneck_dropout: Rate after the bottlenecks, if it is not `dropout`.
        transition_dropout: Rate after the transitions, if it is not `dropout`; `last_dropout` is
            that after the last one.

    Returns:
        A functional `keras.Model` from `"sequence"`, `[B, T, D]`, to `[B, outputs]`, with
        `head="per_step"` `[B, T, outputs]`.

    Example:

    >>> import keras_rnncells
    >>> model = keras_rnncells.models.dense((20, 3), 4, growth=2, blocks=(2, 1))
    >>> [model.get_layer(f"recurrent_{i}").units for i in range(1, 10)]
    [12, 8, 2, 8, 2, 8, 8, 2, 5]
    """
    sizes = {
        "growth": growth,
        "blocks": blocks,
        "bottleneck_dropout": bottleneck_dropout,
        "transition_dropout": transition_dropout,
    }
    return _model(dense_layers, input_shape, outputs, cell, "dense", sizes, options)
