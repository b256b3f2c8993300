"""Time of one step of an exported model, beside the bare products of its kernels.

    python benchmarks/serving.py [--rounds 25]

One step of 1 session, and of 64 sessions in one batch: the signature `step` of the loaded
SavedModel, and `StreamingModel.step`, which keeps the states too; in float32, without a server and
its network. All are timed in turn, round after round, of which `--shrink` makes fewer. Run it alone
on the machine. Writes `results/serving-cpu.json` and the tables in `README.md`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import contenders  # first: it chooses the backend
import keras
import numpy as np
import reporting
from measuring import in_turn
from reporting import Ratio, spread, table

from keras_rnncells import models, serving

FEATURES = UNITS = 128
SESSIONS = (1, 64)
LAYERS = contenders.layers(UNITS)
ONE_LAYER = ("IndRNN", "LSTM", "GRU")
FLOOR = "products, TensorFlow"  # what a step is compared with


def exported() -> dict[str, Callable[[], keras.Model]]:
    """The models, by name."""
    made: dict[str, Callable] = {
        name: lambda name=name: keras.Sequential([keras.Input((None, FEATURES)), LAYERS[name]()])
        for name in ONE_LAYER
    }
    made["6 x IndRNN + BN"] = lambda: models.plain((None, FEATURES), 10, head="per_step")
    return made


def inputs(batch: int, features: int = FEATURES) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(batch, features)).astype("float32")


def numpy_products(kernels: list[np.ndarray], batch: int) -> Callable[[], Any]:
    pairs = [(inputs(batch, len(kernel)), kernel) for kernel in kernels]
    return lambda: [x @ kernel for x, kernel in pairs]


def tensorflow_products(kernels: list[np.ndarray], batch: int) -> Callable[[], Any]:
    """In one graph, from arrays to arrays: what any call of TensorFlow costs is in it."""
    import tensorflow as tf

    variables = [tf.Variable(kernel) for kernel in kernels]
    arrays = [inputs(batch, len(kernel)) for kernel in kernels]

    def products(rows):
        return [tf.matmul(x, kernel) for x, kernel in zip(rows, variables, strict=True)]

    graph = tf.function(products).get_concrete_function([tf.constant(x) for x in arrays])
    return lambda: [y.numpy() for y in graph([tf.constant(x) for x in arrays])]


def signature(folder: Path, batch: int) -> Callable[[], Any]:
    """The step as a server calls it: states come in and go out."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    specs = loaded.signatures["step"].structured_input_signature[1]
    states = specs.keys() & loaded.signatures["step"].structured_outputs.keys()
    arrays = {name: np.zeros((batch, *specs[name].shape[1:]), "float32") for name in states}
    (name,) = specs.keys() - states
    arrays[name] = inputs(batch)

    def run():
        # By `loaded`, whose variables live as long as it does.
        tensors = {name: tf.constant(array) for name, array in arrays.items()}
        found = loaded.signatures["step"](**tensors)
        found = {name: tensor.numpy() for name, tensor in found.items()}
        arrays.update({name: found[name] for name in states})

    return run


def stream(folder: Path, batch: int) -> Callable[[], Any]:
    model = serving.StreamingModel(folder)
    sessions = [model.session() for _ in range(batch)]
    return partial(model.step, inputs(batch), sessions)


def measure(batch: int, rounds: int) -> dict:
    """Milliseconds by model and way."""
    cases = {}
    with tempfile.TemporaryDirectory() as base:
        for name, make in exported().items():
            model = make()
            matrices = [w for w in model.weights if "kernel" in w.name and len(w.shape) == 2]
            kernels = [keras.ops.convert_to_numpy(w) for w in matrices]
            folder = serving.export(model, Path(base, str(len(cases))))
            cases[name, "products, NumPy"] = partial(numpy_products, kernels, batch)
            cases[name, FLOOR] = partial(tensorflow_products, kernels, batch)
            cases[name, "SavedModel"] = partial(signature, folder, batch)
            cases[name, "StreamingModel"] = partial(stream, folder, batch)
        return in_turn(cases, rounds)


def ratios(where: str, times: dict[str, dict]) -> list[Ratio]:
    """How many times as long a step takes as its products in TensorFlow."""
    return [
        Ratio(f"{way} / {FLOOR}", where, times[way]["median"] / times[FLOOR]["median"], "at most")
        for way in ("SavedModel", "StreamingModel")
    ]


def text(records: dict[str, dict]) -> str:
    """The results in Markdown."""
    parts = [
        "## A step of an exported model",
        f"{FEATURES} features, {UNITS} units, float32: one step for each session, all sessions in "
        "one batch, from NumPy arrays to NumPy arrays, without a server and its network. "
        "SavedModel is its signature `step`, StreamingModel `step` of what loads it and keeps the "
        "states of each session. Products are those of the step's kernels with as many rows, and "
        "no more; TensorFlow's are one graph, so that they hold what it takes to call one, and are "
        "what a step is compared with.",
    ]
    for sessions, record in records.items():
        times = record["milliseconds"]
        ways = list(next(iter(times.values())))
        found = {name: ratios(sessions, times[name]) for name in times}
        parts += [
            f"### {sessions}",
            reporting.made_on(record),
            table(
                ["milliseconds", *ways],
                ([name, *(spread(times[name][way]) for way in ways)] for name in times),
            ),
            table(
                ["ratio", *(ratio.what for ratio in next(iter(found.values())))],
                ([name, *of_model] for name, of_model in found.items()),
            ),
        ]
    return "\n\n".join(parts)


def main() -> None:
    options = reporting.parse(reporting.parser(__doc__))
    report = reporting.Report("serving", options.folder)
    rounds = reporting.fewer(options.rounds or 25, options.shrink)
    for batch in [] if options.table else SESSIONS:
        sessions = f"{batch} session{'s' if batch > 1 else ''}"
        print(f"{sessions}:", flush=True)
        report.add(sessions, {"rounds": rounds, "milliseconds": measure(batch, rounds)})
    report.publish(text(report.records()))


if __name__ == "__main__":
    main()
