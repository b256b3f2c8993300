"""The adding problem: find two marked numbers in a long sequence, and add them.

Each step brings a random number and a mark; two steps are marked, one in either half of the
sequence. To answer their sum after the last step, a network has to remember a number of long ago
and to ignore all others. Always answering 1 has a mean squared error of 1/6: what is below is
memory.

    python examples/adding_problem.py
    python examples/adding_problem.py --cell LSTM --timesteps 500

The protocol is that of the IndRNN paper (Li et al., 2018, https://arxiv.org/abs/1803.04831).
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from files import whole

from keras_rnncells.cells import CELLS

CHANCE = 1 / 6
# Steps until the MSE of IndRNN fell below 0.01, by the length of the sequences: read off the curves
# of the paper.
PUBLISHED_STEPS = {100: 1600, 500: 2000, 1000: 3200, 5000: 15000}
RELU_CELLS = ("IndRNN", "IRNN")
STEPS_PER_EVALUATION = 100
# Where a server looks for version 1 of the model `adding_problem`.
SERVED = Path(__file__).resolve().parents[1] / "saved_models" / "adding_problem" / "1"


def adding_problem(timesteps: int, batch_size: int, seed: int) -> Iterator[tuple]:
    """Endless batches of new sequences `[B, T, 2]` and their sums `[B, 1]`."""
    rng = np.random.default_rng(seed)
    rows = np.arange(batch_size)
    while True:
        values = rng.uniform(size=(batch_size, timesteps))
        first = rng.integers(0, timesteps // 2, batch_size)
        second = rng.integers(timesteps // 2, timesteps, batch_size)
        marks = np.zeros_like(values)
        marks[rows, first] = marks[rows, second] = 1
        sums = values[rows, first] + values[rows, second]
        yield np.stack([values, marks], -1).astype("float32"), sums[:, None].astype("float32")


def build_model(cell: str, timesteps: int, units: int, layers: int) -> keras.Model:
    """Recurrent layers of one kind, and a linear readout of the last step."""
    model = keras.Sequential([keras.Input((timesteps, 2), name="sequence")])
    for i in range(layers):
        is_last = i == layers - 1
        arguments = {}
        if cell == "IndRNN":
            arguments = {
                "max_timesteps": timesteps,
                # Only the last step is read out, so the last layer has to remember them all. The
                # layers before it may forget: they tell marked numbers from the others.
                "memory": "long" if is_last else None,
                "kernel_initializer": keras.initializers.RandomNormal(stddev=0.001),
            }
        model.add(CELLS[cell].layer(units, return_sequences=not is_last, **arguments))
    model.add(keras.layers.Dense(1, name="sum"))
    return model


def default_learning_rate(cell: str, timesteps: int) -> float:
    """What the paper takes: ReLU cells have no bound on what a large step may do."""
    if cell == "IRNN" and timesteps >= 500:
        return 1e-5
    return 2e-4 if cell in RELU_CELLS else 2e-3


class StopAt(keras.callbacks.Callback):
    """Ends training at an MSE below `target`, and shows the chance level beside each MSE."""

    def __init__(self, target: float) -> None:
        super().__init__()
        self.target = target

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        # The progress bar shows all there is in `logs`.
        logs["chance"] = CHANCE
        if logs["val_loss"] < self.target:
            self.model.stop_training = True


def train(model: keras.Model, args: argparse.Namespace) -> dict[str, list[float]]:
    """Trains until the target or the last step; returns the learning curve."""
    # A tenth every 20,000 steps, which matters for the longest sequences only.
    schedule = keras.optimizers.schedules.ExponentialDecay(
        args.learning_rate, decay_steps=20_000, decay_rate=0.1, staircase=True
    )
    # Within +-10 as in the authors' code: a guard that a good run does not touch.
    optimizer = keras.optimizers.Adam(schedule, clipvalue=10.0)
    model.compile(optimizer, loss="mse")
    steps = min(STEPS_PER_EVALUATION, args.steps)
    history = model.fit(
        adding_problem(args.timesteps, args.batch_size, args.seed),
        steps_per_epoch=steps,
        epochs=args.steps // steps,
        # Other seeds than those of training, whatever these are.
        validation_data=adding_problem(args.timesteps, 1000, args.seed + 2**32),
        validation_steps=1,
        callbacks=[StopAt(args.target)],
        shuffle=False,
    ).history
    return {
        "steps": [steps * (i + 1) for i in range(len(history["loss"]))],
        "mse_training": history["loss"],
        "mse": history["val_loss"],
    }


def plot(path: Path, curve: dict, args: argparse.Namespace) -> None:
    """The error against steps, beside the chance level and what the paper reached."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.semilogy(curve["steps"], curve["mse"], label=f"{args.cell}, {args.layers} x {args.units}")
    axes.axhline(CHANCE, color="gray", linestyle="--", label="always answering 1")
    if args.timesteps in PUBLISHED_STEPS:
        published = PUBLISHED_STEPS[args.timesteps]
        label = f"IndRNN paper: 0.01 at {published} steps"
        axes.plot(published, 0.01, "k*", markersize=12, label=label)
    axes.set(
        title=f"Adding problem, {args.timesteps} time steps",
        xlabel=f"training steps of {args.batch_size} sequences",
        ylabel="mean squared error, new sequences",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    with whole(path) as new:
        figure.savefig(new, dpi=150)
    plt.close(figure)


def export(model: keras.Model, folder: Path) -> None:
    """Writes a SavedModel, which TensorFlow runs without Keras and without this package."""
    with whole(folder) as new:
        model.export(new, format="tf_saved_model", verbose=False)
    print(f"SavedModel: {folder}")


def show_sums(path: Path, exported: Path | None, seed: int) -> None:
    """Loads the saved model and asks it for ten sums."""
    model = keras.models.load_model(path)
    sequences, sums = next(adding_problem(model.input_shape[1], 10, seed))
    columns = {"true": sums, path.suffix: model.predict(sequences, verbose=0)}
    if exported:
        import tensorflow as tf

        # The functions of a SavedModel live as long as the object they came from.
        saved_model = tf.saved_model.load(str(exported))
        columns["SavedModel"] = saved_model.serve(sequences).numpy()
    print("".join(f"{name:>12}" for name in columns))
    for row in np.concatenate(list(columns.values()), axis=1):
        print("".join(f"{value:12.3f}" for value in row))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--cell", choices=CELLS, default="IndRNN")
    add("--timesteps", type=int, default=100, help="length of the sequences (default: 100)")
    add("--units", type=int, default=128, help="units in each layer (default: 128)")
    add("--layers", type=int, help="recurrent layers (default: 2 for IndRNN, else 1)")
    add("--steps", type=int, default=10_000, help="training steps at most (default: 10000)")
    add("--batch-size", type=int, default=32, help="sequences in a step (default: 32)")
    add("--learning-rate", type=float, help="of Adam (default: as in the paper, by cell)")
    add("--target", type=float, default=1e-3, help="MSE to stop at (default: 0.001)")
    add("--seed", type=int, default=0, help="of weights and sequences (default: 0)")
    add(
        "--output",
        type=Path,
        default=Path(__file__).parent / "output" / "adding_problem",
        help="folder of the results (default: output/adding_problem beside this script)",
    )
    add(
        "--export",
        help="folder of the SavedModel, '' for none (default: saved_models/adding_problem/1 in "
        "the repository for IndRNN, none for other cells)",
    )
    add("--reload", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.layers is None:
        args.layers = 2 if args.cell == "IndRNN" else 1
    if args.learning_rate is None:
        args.learning_rate = default_learning_rate(args.cell, args.timesteps)
    if args.export is None and args.cell == "IndRNN":
        args.export = SERVED
    args.export = Path(args.export) if args.export else None
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    if args.reload:
        show_sums(args.reload, args.export, args.seed + 2**33)
        return

    keras.utils.set_random_seed(args.seed)
    model = build_model(args.cell, args.timesteps, args.units, args.layers)
    print(f"{args.cell}, {model.count_params()} weights. Stops at val_loss < {args.target:g}.")
    start = time.perf_counter()
    curve = train(model, args)
    seconds = time.perf_counter() - start
    print(
        f"MSE {curve['mse'][-1]:.5f} after {curve['steps'][-1]} steps and {seconds:.0f} s; "
        f"chance is {CHANCE:.5f}."
    )

    name = f"{args.cell}-{args.timesteps}"
    path = args.output / f"{name}.keras"
    with whole(path) as new:
        model.save(new)
    plot(args.output / f"{name}.png", curve, args)
    settings = {k: v for k, v in vars(args).items() if k not in ("output", "export", "reload")}
    settings["backend"] = keras.backend.backend()
    result = {"settings": settings, "seconds": round(seconds, 1), "curve": curve}
    with whole(args.output / f"{name}.json") as new:
        new.write_text(json.dumps(result, indent=1) + "\n")
    print(f"Model, learning curve and settings: {args.output / name}.*", flush=True)

    exports = args.export and keras.backend.backend() == "tensorflow"
    if exports:
        export(model, args.export)
    elif args.export:
        print("No SavedModel is exported: that needs KERAS_BACKEND=tensorflow.")

    # A fresh process: nothing but the files can be what answers.
    command = [sys.executable, __file__, "--reload", path, "--seed", str(args.seed)]
    subprocess.run([*command, "--export", str(args.export) if exports else ""], check=True)


if __name__ == "__main__":
    main()
