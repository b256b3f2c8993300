"""Time of one training step of every layer, beside what a user would take instead.

    python benchmarks/layers.py [--shape 32x784x128x128] [--only IndRNN,LSTM] [--rounds 9]

Forward, backward and input gradient, float32. All are timed in turn, round after round, so that a
load on the machine falls on all of them. Run it alone on the machine. Writes
`results/layers-<device>.json` and, with all layers, the table in `README.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf

import keras_rnncells as kr

HERE = Path(__file__).parent
OF_KERAS = {"LSTM": keras.layers.LSTM, "GRU": keras.layers.GRU, "SimpleRNN": keras.layers.SimpleRNN}

# What is divided by what, how it has to compare, and the goals: plain, with jit_compile=True.
# A ratio is a cost where it may be at most the goal, else a speed-up of at least the goal.
COSTS = {("IndRNN", "Dense"): (2.0, 1.3)}
SPEEDUPS = {
    ("keras RNN(IndRNNCell)", "IndRNN"): (4, 30),
    ("keras LSTM", "IndRNN"): (12, 12),
    ("keras GRU", "IndRNN"): (12, 12),
    ("keras SimpleRNN", "IRNN"): (2, 12),
    ("keras SimpleRNN", "ElmanRNN"): (2, 12),
    ("keras RNN(MinimalRNNCell)", "MinimalRNN"): (1.5, 8),
    ("keras RNN(CFNCell)", "CFN"): (1.5, 8),
    ("keras LSTM", "LSTM"): (1.5, 5),
    ("keras GRU", "GRU"): (1.5, 5),
}


def layers(units: int) -> dict[str, Callable]:
    """What is timed, by name."""
    made = {"Dense": lambda: keras.layers.Dense(units, activation="relu")}
    for name, row in kr.cells.CELLS.items():
        made[name] = lambda row=row: row.layer(units, return_sequences=True)
        made[f"keras RNN({name}Cell)"] = lambda row=row: keras.layers.RNN(
            row.cell(units), return_sequences=True
        )
    for name, layer in OF_KERAS.items():
        made[f"keras {name}"] = lambda layer=layer: layer(units, return_sequences=True)
    return made


def training_step(layer: keras.Layer, inputs: tf.Tensor, jit: bool) -> Callable:
    """One step without optimizer, as `fit` runs it with or without `jit_compile=True`."""
    layer.build(inputs.shape)
    weights = [w.value for w in layer.trainable_variables]

    @tf.function(jit_compile=jit)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=True)
            loss = tf.reduce_mean(outputs * outputs)
        return [loss, *tape.gradient(loss, [*weights, x])]

    return lambda: step(inputs)[0].numpy()


def seconds(run: Callable) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(names: list[str], shape: tuple[int, ...], rounds: int, jit: bool) -> dict[str, dict]:
    """Milliseconds of each layer: median, fastest and slowest; and of the first call."""
    batch, steps, features, units = shape
    inputs = tf.constant(np.random.default_rng(0).normal(size=(batch, steps, features)), tf.float32)
    runs, first, times = {}, {}, {name: [] for name in names}
    for name in names:
        keras.utils.set_random_seed(0)
        runs[name] = training_step(layers(units)[name](), inputs, jit)
        first[name] = seconds(runs[name])
        runs[name]()
        print(f"  {name}: first call {first[name]:.1f} s", flush=True)
    for k in range(rounds):
        for name in names:
            times[name].append(1e3 * seconds(runs[name]))
        print(f"  round {k + 1} of {rounds}", flush=True)
    return {
        name: {
            "median": statistics.median(t),
            "fastest": min(t),
            "slowest": max(t),
            "first_call": 1e3 * first[name],
        }
        for name, t in times.items()
    }


def machine() -> dict[str, str]:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        model = lines[0].split(":")[1].strip() if lines else model
    return {
        "cpu": f"{model}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "keras_rnncells": kr.__version__,
    }


def ratios(results: dict[str, dict]) -> list[tuple[str, str, list[float | None], tuple]]:
    """Each comparison: what, what is asked, the ratios of the medians, the goals."""
    rows = []
    for asked, table in (("at most", COSTS), ("at least", SPEEDUPS)):
        for (a, b), goals in table.items():
            found = [
                r[a]["median"] / r[b]["median"] if a in r and b in r else None
                for r in (results["plain"], results["jit"])
            ]
            if any(found):
                rows.append((f"{a} / {b}", asked, found, goals))
    return rows


def table(document: dict) -> str:
    """The results in Markdown."""
    results, names = document["milliseconds"], list(document["milliseconds"]["plain"])
    batch, steps, features, units = document["shape"]
    lines = [
        f"Batch {batch}, {steps} steps, {features} features, {units} units, float32; forward, "
        f"backward and input gradient; {', '.join(f'{k} {v}' for k, v in document['on'].items())}. "
        f"Milliseconds: median (fastest to slowest) of {document['rounds']} rounds. Plain is "
        "`compile()` without flags, jit is `compile(jit_compile=True)`.",
        "",
        "| layer | plain | jit |",
        "|---|---|---|",
    ]
    for name in names:
        cells = [
            f"{r['median']:.0f} ({r['fastest']:.0f} to {r['slowest']:.0f})"
            for r in (results["plain"][name], results["jit"][name])
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| ratio | plain | jit |", "|---|---|---|"]
    for what, asked, found, goals in ratios(results):
        cells = [f"{ratio:.2f} ({asked} {goal})" for ratio, goal in zip(found, goals, strict=True)]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--shape", default="32x784x128x128", help="batch x steps x features x units"
    )
    parser.add_argument("--only", help="names, separated by commas; then the README stays")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    shape = tuple(int(size) for size in options.shape.split("x"))
    names = options.only.split(",") if options.only else list(layers(1))
    document = {"on": machine(), "shape": shape, "rounds": options.rounds, "milliseconds": {}}
    for kind, jit in (("plain", False), ("jit", True)):
        print(f"{kind}:", flush=True)
        document["milliseconds"][kind] = measure(names, shape, options.rounds, jit)
    text = table(document)
    print(text)
    if options.only:
        return
    path = HERE / "results" / "layers-cpu.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
    readme = HERE / "README.md"
    head = readme.read_text().split("<!-- layers -->")[0]
    readme.write_text(f"{head}<!-- layers -->\n{text}\n")


if __name__ == "__main__":
    main()
