"""What is compared: our layers, and what a user would take instead. All return sequences."""

from __future__ import annotations

import os
from collections.abc import Callable

# What is reported is the CPU, unless the script says otherwise; and no word from TensorFlow between
# the lines of progress.
if os.environ.setdefault("JAX_PLATFORMS", "cpu") == "cpu":
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras

import keras_rnncells as kr

OF_KERAS = {"LSTM": keras.layers.LSTM, "GRU": keras.layers.GRU, "SimpleRNN": keras.layers.SimpleRNN}
# What of Keras a layer of ours takes the place of: first that, then ours.
COUNTERPARTS = [
    *((f"keras RNN({name}Cell)", name) for name in kr.cells.CELLS),
    ("keras SimpleRNN", "IRNN"),
    ("keras SimpleRNN", "ElmanRNN"),
    ("keras LSTM", "LSTM"),
    ("keras GRU", "GRU"),
]
KINDS = {"plain": False, "jit": True}  # what `compile` is told of jit_compile
# Keras' gradient under XLA copies the whole sequence at each step. Beyond so many numbers copied
# one step of training takes more than some seconds, and is left out.
MOST_COPIED = 15e9


def dense(units: int) -> keras.Layer:
    return keras.layers.Dense(units, activation="relu")


def layers(units: int) -> dict[str, Callable[[], keras.Layer]]:
    """Single layers, by name."""
    made = {"Dense": lambda: dense(units)}
    for name, row in kr.cells.CELLS.items():
        made[name] = lambda row=row: row.layer(units, return_sequences=True)
        made[f"keras RNN({name}Cell)"] = lambda row=row: keras.layers.RNN(
            row.cell(units), return_sequences=True
        )
    for name, layer in OF_KERAS.items():
        made[f"keras {name}"] = lambda layer=layer: layer(units, return_sequences=True)
    return made


def stacks(units: int) -> dict[str, Callable[[], keras.Layer]]:
    """Six layers, each with batch normalization, by name."""

    def six(make: Callable) -> keras.Layer:
        return keras.Sequential(
            [layer for _ in range(6) for layer in (make(), keras.layers.BatchNormalization())]
        )

    return {
        "6 x Dense + BN": lambda: six(lambda: dense(units)),
        "6 x IndRNN + BN": lambda: six(lambda: kr.IndRNN(units, return_sequences=True)),
    }


def too_slow(name: str, shape: tuple[int, ...], jit: bool) -> bool:
    """Whether a training step of this layer takes so long that it is left out."""
    batch, steps, _, units = shape
    # Without XLA, 4,096 steps took 2 s, and 16,384 did not end within a minute.
    slow = batch * steps**2 * units > MOST_COPIED if jit else steps > 5_000
    return name.startswith("keras") and slow
