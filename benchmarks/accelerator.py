"""A training step on a GPU or TPU: every layer, and each way that time can run.

    python benchmarks/accelerator.py [--part scans] [--rounds 5]

Forward, backward and input gradient on JAX, float32 (products in the accelerator's own precision).
All of a part are timed in turn, round after round. Before, what each way returns is compared with
what Keras' loop returns. Writes `results/accelerator-<gpu or tpu>.json` and the tables in
`README.md`; without an accelerator it stops.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

os.environ.update(KERAS_BACKEND="jax", JAX_PLATFORMS="")  # JAX takes the accelerator

import contenders
import jax
import keras
import numpy as np
import reporting
from measuring import in_turn
from reporting import spread, table
from steps import jax_step, sequences

from keras_rnncells import IndRNN
from keras_rnncells.cells import CELLS
from keras_rnncells.recurrence import fused

ONE = "sequential, one step a turn"
SHAPE = (32, 784, 128, 128)
LAYERS = ("Dense", *CELLS, "keras LSTM", "keras GRU", "keras SimpleRNN", "6 x IndRNN + BN")
SCANS: dict[str, dict[str, Any]] = {
    "parallel": {"scan": "parallel"},
    "sequential": {"scan": "sequential"},
    ONE: {"scan": "sequential"},
    "keras": {"scan": "keras"},
}
BATCHES_AND_STEPS = [(32, 64), (32, 256), (32, 1024), (32, 4096)]


def cases(part: str, shrink: int) -> dict[tuple[str, ...], Callable]:
    """What is timed, by name."""
    if part == "layers":
        batch, steps, *sizes = SHAPE
        shape = (batch, reporting.fewer(steps, shrink), *sizes)
        made = {**contenders.layers(shape[-1]), **contenders.stacks(shape[-1])}
        return {(name, size_of(shape)): partial(jax_step, made[name](), shape) for name in LAYERS}
    found = {}
    for batch, steps in BATCHES_AND_STEPS:
        shape = (batch, reporting.fewer(steps, shrink), *SHAPE[2:])
        for name, arguments in SCANS.items():
            layer = IndRNN(shape[-1], return_sequences=True, **arguments)
            make = one_step_a_turn if name == ONE else jax_step
            found[name, size_of(shape)] = partial(make, layer, shape)
    return found


def one_step_a_turn(layer: keras.Layer, shape: tuple[int, ...]) -> Callable[[], Any]:
    """The loop as it runs on a CPU."""
    step = jax_step(layer, shape)

    def run():
        with mock.patch.object(fused, "UNROLL", 1):
            return step()

    return run


def size_of(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def differences(shrink: int) -> dict[str, float]:
    """How far outputs and gradients of each scan are from those of Keras' loop, at most.

    Each beside the largest number of its kind; products in full float32.
    """
    batch, steps, *sizes = SHAPE
    inputs = sequences((batch, reporting.fewer(steps, shrink), *sizes))
    found, expected = {}, None
    for name in reversed(SCANS):
        keras.utils.set_random_seed(0)
        layer = IndRNN(sizes[-1], return_sequences=True, max_timesteps=steps, **SCANS[name])
        layer.build(inputs.shape)
        weights = [w.value for w in layer.trainable_variables]

        def loss(weights, x, layer=layer):
            outputs, _ = layer.stateless_call(weights, [], x)
            return (outputs**2).mean(), outputs

        unroll = mock.patch.object(fused, "UNROLL", 1 if name == ONE else fused.UNROLL)
        with unroll, jax.default_matmul_precision("highest"):
            step = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
            (by_weights, by_x), outputs = step(weights, inputs)
        values = [np.asarray(value) for value in (outputs, *by_weights, by_x)]
        expected = expected or values
        found[name] = max(
            float(np.abs(a - b).max() / np.abs(b).max())
            for a, b in zip(values, expected, strict=True)
        )
    return found


def text(records: dict[str, dict]) -> str:
    """The results in Markdown."""
    paragraphs = [
        "## On an accelerator",
        "Shapes are batch x steps x features x units; forward, backward and input gradient on JAX. "
        f"`sequential` is the default up to {fused.LONG - 1} steps, `parallel` from then on.",
    ]
    if "layers" in records:
        times = records["layers"]["milliseconds"]
        size = next(iter(next(iter(times.values()))))
        indrnn = times["IndRNN"][size]["median"]
        rows = (
            [name, spread(of[size]), f"{of[size]['median'] / indrnn:.2f}"]
            for name, of in times.items()
        )
        paragraphs += [
            f"### Every layer, {size}",
            reporting.made_on(records["layers"]),
            table(["milliseconds", "a training step", "/ IndRNN"], rows),
        ]
    if "scans" in records:
        record = records["scans"]
        times = record["milliseconds"]
        sizes = list(next(iter(times.values())))
        rows = ([name, *(spread(of[size]) for size in sizes)] for name, of in times.items())
        compiled = (
            [name, *(f"{(of[s]['first_call'] - of[s]['median']) / 1e3:.1f}" for s in sizes)]
            for name, of in times.items()
        )
        differs = ((name, f"{value:.1e}") for name, value in record["differences"].items())
        paragraphs += [
            "### An IndRNN in each way that time can run",
            reporting.made_on(record),
            table(["milliseconds", *sizes], rows),
            table(["seconds to compile", *sizes], compiled),
            f"Outputs and gradients at {SHAPE[1]} steps, the largest difference from Keras' loop "
            "beside the largest value, products in full float32:",
            table(["scan", "difference"], differs),
        ]
    return "\n\n".join(paragraphs)


def main() -> None:
    parser = reporting.parser(__doc__)
    parser.add_argument("--part", choices=("layers", "scans"), help="only this one")
    options = reporting.parse(parser)
    device = "gpu" if options.table else jax.default_backend()
    if device == "cpu":
        sys.exit("JAX finds no accelerator: this script measures nothing else.")
    report = reporting.Report("accelerator", options.folder, device)
    for part in [] if options.table else [options.part] if options.part else ("scans", "layers"):
        print(f"{part}:", flush=True)
        rounds = options.rounds or 5
        record = {"rounds": rounds, "milliseconds": in_turn(cases(part, options.shrink), rounds)}
        if part == "scans":
            record["differences"] = differences(options.shrink)
        report.add(part, record)
    report.publish(text(report.records()))


if __name__ == "__main__":
    main()
