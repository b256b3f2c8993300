"""How long a step of `fit` takes, by how its batches come.

    python benchmarks/feeding.py

TensorFlow on a CPU, two layers of ours and one of Keras, each case in processes of its own: what
malloc has once done stays done. Writes `results/feeding-cpu.json` and the table in `README.md`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from statistics import median

import reporting
from measuring import look_up, machine, nested

SHAPE = "64x50x64x512"
LAYERS = ("IndRNN", "LSTM", "keras LSTM")
GENERATOR = "from_generator"
# What `fit` is given, and the environment.
WAYS = {
    "arrays": ("arrays", {}),
    "Shuffled.as_tf_dataset()": ("as_tf_dataset", {}),
    "Shuffled": ("batches", {}),
    "tf.data, from_generator": (GENERATOR, {}),
    "tf.data, from_generator, MALLOC_ARENA_MAX=1": (GENERATOR, {"MALLOC_ARENA_MAX": "1"}),
}
# What is ours may not be slower than arrays, but for a margin.
GOALS = {"Shuffled.as_tf_dataset()": 1.1}
STEPS = 40  # of an epoch
PROCESSES = 3


def measure(layer: str, way: str, steps: int) -> dict:
    """Milliseconds of a step, and page faults, in a process of its own."""
    fed, environment = WAYS[way]
    reply = subprocess.run(
        [sys.executable, __file__, "--fit", layer, fed, str(steps)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(reply.stdout.splitlines()[-1])


def fit(layer: str, fed: str, steps: int) -> None:
    """Trains for two epochs, and prints what the second one took."""
    import resource

    import contenders
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_rnncells import datasets

    batch, timesteps, features, units = map(int, SHAPE.split("x"))
    random = np.random.default_rng(0)
    x = random.normal(size=(batch * steps, timesteps, features)).astype("float32")
    y = random.normal(size=(batch * steps, timesteps, units)).astype("float32")
    batches = datasets.Shuffled(x, y, batch, 0)

    def generator():
        while True:
            for i in range(steps):
                yield batches[i]

    def from_generator():
        like = tuple(tf.TensorSpec(a.shape, a.dtype) for a in batches[0])
        return tf.data.Dataset.from_generator(generator, output_signature=like).prefetch(1)

    data = {
        "arrays": lambda: {"x": x, "y": y, "batch_size": batch},
        "as_tf_dataset": lambda: {"x": batches.as_tf_dataset(None), "steps_per_epoch": steps},
        "batches": lambda: {"x": batches},
        GENERATOR: lambda: {"x": from_generator(), "steps_per_epoch": steps},
    }[fed]()
    model = keras.Sequential(
        [keras.Input((timesteps, features)), contenders.layers(units)[layer]()]
    )
    model.compile("adam", "mse", jit_compile=False)

    def faults() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    class Timed(keras.callbacks.Callback):
        """Times an epoch without its first steps: what comes before them is not of a step."""

        def on_train_batch_end(self, batch, logs=None):
            if batch == steps // 4:
                self.began = time.perf_counter(), faults()
            elif batch == steps - 1:
                count = batch - steps // 4
                self.milliseconds = 1e3 * (time.perf_counter() - self.began[0]) / count
                self.faults = (faults() - self.began[1]) / count

    timed = Timed()
    model.fit(**data, epochs=2, shuffle=False, verbose=0, callbacks=[timed])
    found = {"milliseconds": timed.milliseconds, "faults": timed.faults, "on": machine()}
    print(json.dumps(found))


def text(records: dict[str, dict]) -> str:
    """The results in Markdown."""
    record = records[SHAPE]
    rows, ratios = [], []
    for way in WAYS:
        row = [way]
        for layer in LAYERS:
            times, arrays = (look_up(record["cases"], layer, w) for w in (way, "arrays"))
            value = median(times["milliseconds"]) / median(arrays["milliseconds"])
            ratio = reporting.Ratio(f"{way} / arrays", layer, value, "at most", GOALS.get(way))
            ratios.append(ratio)
            row += [ratio, f"{median(times['faults']):,.0f}"]
        rows.append(row)
    columns = [c for layer in LAYERS for c in (layer, "page faults")]
    parts = [
        "## A step of fit, by how its batches come",
        f"{SHAPE} is batch x steps x features x units, in float32; the optimizer is Adam. Ratios "
        "are of the time of a step to that with arrays, page faults are those of a step: memory "
        "that was given back to the system, and asked for again. Processes for each case, of which "
        f"the median counts: {record['processes']}.",
        f"{reporting.machine_of(record)}.",
        reporting.table(["", *columns], rows),
        reporting.lost(ratios),
    ]
    return "\n\n".join(parts)


def main() -> None:
    if sys.argv[1:2] == ["--fit"]:
        layer, fed, steps = sys.argv[2:]
        fit(layer, fed, int(steps))
        return
    options = reporting.parse(reporting.parser(__doc__))
    report = reporting.Report("feeding", options.folder)
    if not options.table:
        steps = max(8, reporting.fewer(STEPS, options.shrink))
        rounds = options.rounds or PROCESSES
        found: dict = {}
        for k in range(rounds):  # in turn: a load on the machine falls on all
            for layer in LAYERS:
                for way in WAYS:
                    one = measure(layer, way, steps)
                    case = found.setdefault((layer, way), {"milliseconds": [], "faults": []})
                    for what, values in case.items():
                        values.append(one[what])
                    print(
                        f"  {k + 1} of {rounds}, {layer}, {way}: {one['milliseconds']:.0f} ms",
                        flush=True,
                    )
        report.add(SHAPE, {"processes": rounds, "cases": nested(found), "on": one["on"]})
    report.publish(text(report.records()))


if __name__ == "__main__":
    main()
