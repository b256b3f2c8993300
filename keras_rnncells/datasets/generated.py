"""Tasks that are generated: the adding problem and the copy memory task."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_rnncells import checks

ADDING_CHANCE = 1 / 6
"""Mean squared error on the adding problem of always answering 1, which remembers nothing."""


def adding_problem(examples: int, timesteps: int, seed: Any = 0) -> tuple[np.ndarray, np.ndarray]:
    """The adding problem: add the two marked numbers of a long sequence.

    Each step brings a number, uniform in [0, 1), and a mark, 0 or 1. One step is marked in either
    half of the sequence, each of its steps with the same probability: this is the variant of the
    IndRNN paper. (Others mark any two steps, or the first within ten steps: their shortest lags
    differ.) With an odd number of steps, the second half has one more.

    The sum of two such numbers has mean 1 and variance `ADDING_CHANCE` = 1/6: a mean squared
    error below it is memory.

    Reference: Hochreiter & Schmidhuber 1997; as in [Li et al. 2018](
    https://arxiv.org/abs/1803.04831).

    Args:
        examples: positive integer, the number N of sequences.
        timesteps: integer of at least 2, the number T of steps.
        seed: what `numpy.random.default_rng` takes. The same seed gives the same sequences.

    Returns:
        `(x, y)`, float32: `x` of shape `[N, T, 2]`, number and mark of each step, and `y` of shape
        `[N, 1]`, the sums.

    Raises:
        ValueError: if there are no examples, or fewer than two steps.

    Example:

    >>> from keras_rnncells.datasets import adding_problem
    >>> x, y = adding_problem(3, timesteps=10)
    >>> x.shape, y.shape
    ((3, 10, 2), (3, 1))
    >>> bool(abs((x[..., 0] * x[..., 1]).sum(1) - y[:, 0]).max() < 1e-6)
    True
    """
    examples = checks.positive_integer("examples", examples)
    if checks.positive_integer("timesteps", timesteps) < 2:
        raise ValueError(
            "The adding problem marks one step in each half of a sequence: `timesteps` must be at "
            f"least 2. Received: timesteps={timesteps}."
        )
    rng = np.random.default_rng(seed)
    rows, half = np.arange(examples), timesteps // 2
    first = rng.integers(0, half, examples)
    second = rng.integers(half, timesteps, examples)
    x = np.zeros((examples, timesteps, 2), "float32")
    x[..., 0] = rng.random((examples, timesteps), "float32")
    x[rows, first, 1] = x[rows, second, 1] = 1
    return x, (x[rows, first, 0] + x[rows, second, 0])[:, None]


def copy_memory(
    examples: int, delay: int, seed: Any = 0, *, length: int = 10, symbols: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """The copy memory task: repeat a few symbols after a long delay.

    A sequence is `length` symbols to remember, drawn uniformly from `0, ..., symbols - 1`;
    `delay - 1` blanks; the marker, which asks for the answer; and `length` blanks, while the
    answer is given. The target is blank until the last `length` steps, which are the symbols to
    remember, in their order. Each of them is asked for `delay + length` steps after it was shown.
    Blank is the number `symbols`, the marker `symbols + 1`.

    A network reads `x` through an `Embedding(symbols + 2, ...)` or a one-hot encoding, and gives
    `symbols + 1` logits at each step (the marker is never an answer), trained on y with
    `keras.losses.SparseCategoricalCrossentropy(from_logits=True)`. `copy_memory_chance` is the
    loss without memory. Almost all targets are blank, so an accuracy says little; take that of
    the last `length` steps, where chance is `1 / symbols`.

    Reference: [Arjovsky et al. 2015](https://arxiv.org/abs/1511.06464); their T is `delay`.

    Args:
        examples: positive integer, the number N of sequences.
        delay: positive integer, the steps from the last symbol to the marker.
        seed: what `numpy.random.default_rng` takes. The same seed gives the same sequences.
        length: positive integer, how many symbols are to be remembered.
        symbols: positive integer, the number of different ones.

    Returns:
        `(x, y)`, int32, both of shape `[N, delay + 2 * length]`.

    Raises:
        ValueError: if a number is not a positive integer.

    Example:

    >>> from keras_rnncells.datasets import copy_memory
    >>> x, y = copy_memory(1, delay=4, length=3)
    >>> x
    array([[6, 5, 4, 8, 8, 8, 9, 8, 8, 8]], dtype=int32)
    >>> y
    array([[8, 8, 8, 8, 8, 8, 8, 6, 5, 4]], dtype=int32)
    """
    examples = checks.positive_integer("examples", examples)
    delay = checks.positive_integer("delay", delay)
    length = checks.positive_integer("length", length)
    symbols = checks.positive_integer("symbols", symbols)
    blank, marker = symbols, symbols + 1
    remembered = np.random.default_rng(seed).integers(0, symbols, (examples, length), "int32")
    x = np.full((examples, delay + 2 * length), blank, "int32")
    y = x.copy()
    x[:, :length] = y[:, -length:] = remembered
    x[:, length + delay - 1] = marker
    return x, y


def copy_memory_chance(delay: int, *, length: int = 10, symbols: int = 8) -> float:
    """Cross-entropy on the copy memory task without memory, in nats, as a mean over all steps.

    It is that of blanks until the marker and then any symbol with the same probability.

    Args:
        delay, length, symbols: as for `copy_memory`.

    Returns:
        A float, `length * log(symbols) / (delay + 2 * length)`.

    Example:

    >>> from keras_rnncells.datasets import copy_memory_chance
    >>> round(copy_memory_chance(delay=100), 4)
    0.1733
    """
    return length * math.log(symbols) / (delay + 2 * length)
