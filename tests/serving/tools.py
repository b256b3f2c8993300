"""Tools of the tests of serving: models with weights, and the server's runtime in a process."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_rnncells as kr
from keras_rnncells.cells import CELLS

layers = keras.layers
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
REASON = "TensorFlow Serving runs what Keras makes on TensorFlow"
ONNX = all(importlib.util.find_spec(name) for name in ("tf2onnx", "onnx", "onnxruntime"))
B, T, D, U = 3, 7, 4, 5


def randomize(model, seed=5):
    """Gives a model random weights, moving statistics included; no two alike."""
    rng = np.random.default_rng(seed)
    model.set_weights(
        [
            rng.uniform(0.5, 2, w.shape) if "variance" in w.path else rng.normal(0, 0.5, w.shape)
            for w in model.weights
        ]
    )
    return model


def every_cell():
    """One output for each cell, one that is all steps and one that is the last in turn."""
    x = keras.Input((None, D), name="x")
    outputs = {
        name: row.layer(U, return_sequences=i % 2 == 0, zoneout=0.2, name=f"{name}_1")(x)
        for i, (name, row) in enumerate(CELLS.items())
    }
    stack = layers.StackedRNNCells([layers.LSTMCell(U), kr.SCRNCell(3), layers.GRUCell(2)])
    outputs["stack"] = layers.RNN(stack, return_sequences=True, name="stack")(x)
    outputs["keras"] = layers.SimpleRNN(U, name="keras")(outputs["stack"])
    return randomize(keras.Model(x, outputs))


def residual():
    """Tokens, causal convolutions, normalization, dropout, sums: two outputs of two kinds."""
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = layers.Embedding(20, D)(tokens)
    h = layers.Conv1D(D, 3, padding="causal", dilation_rate=2, activation="tanh")(x)
    h = layers.Dropout(0.5)(layers.BatchNormalization()(h))
    x = layers.Add()([x, h])
    h = kr.IndRNN(D, return_sequences=True, dropout=0.3, recurrent_dropout=0.3)(x)
    x = layers.LayerNormalization()(x + h)
    h = layers.Concatenate()([x, layers.LSTM(U, return_sequences=True)(x)])
    h = layers.TimeDistributed(layers.Dense(D, activation="relu"))(h)
    last = layers.Dense(2, name="last")(kr.GRU(U)(h))
    return randomize(keras.Model(tokens, [layers.Dense(3, name="each")(h), last]))


def arrays(name, batch=B, steps=T):
    """Inputs of `every_cell`, called "cells", or of `residual`."""
    rng = np.random.default_rng(1)
    if name == "cells":
        return {"x": rng.normal(size=(batch, steps, D)).astype("float32")}
    return {"tokens": rng.integers(0, 20, (batch, steps)).astype("int32")}


def answers(model, inputs):
    """What Keras answers, by the names of the outputs."""
    found = model(next(iter(inputs.values())), training=False)
    names = found if isinstance(found, dict) else ["each", "last"]
    values = found.values() if isinstance(found, dict) else found
    return {name: np.asarray(y) for name, y in zip(names, values, strict=True)}


def card(path):
    return json.loads((Path(path) / "assets.extra/model.json").read_text())


def serve(jobs, folder):
    """Runs jobs in one process as a server would: `(path, signature, inputs)` each.

    `"steps"` as the signature calls `step` for each step of the inputs.
    """
    if not sys.platform.startswith("linux"):
        pytest.skip("names of TensorFlow's libraries are those of Linux")
    described, tensors = [], {}
    for i, (path, signature, inputs) in enumerate(jobs):
        job = {"path": str(path), "signature": signature}
        if signature == "steps":
            job = {"path": str(path), "signature": "step", "states": card(path)["states"]}
        described.append(job)
        tensors.update({f"{i}/{name}": value for name, value in inputs.items()})
    folder.mkdir(exist_ok=True)
    np.savez(folder / "jobs.npz", jobs=np.array(json.dumps(described)), **tensors)
    tensorflow = importlib.util.find_spec("tensorflow").submodule_search_locations[0]
    program = Path(__file__).with_name("c_api.py")
    result = subprocess.run(
        [
            *(sys.executable, "-I", str(program), tensorflow),
            *(str(folder / "jobs.npz"), str(folder / "results.npz")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found = [{} for _ in jobs]
    with np.load(folder / "results.npz") as file:
        for key in file.files:
            i, name = key.split("/")
            found[int(i)][name] = file[key]
    return found
