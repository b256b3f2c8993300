"""The adding problem: find two marked numbers in a long sequence, and add them.

Each step brings a random number and a mark; two steps are marked, one in either half of the
sequence. To answer their sum after the last step, a network has to remember a number of long ago
and to ignore all others. Always answering 1 has a mean squared error of 1/6: what is below is
memory.

    python examples/adding_problem.py
    python examples/adding_problem.py --cell LSTM --timesteps 500

Two layers of IndRNN, or one of another cell. The protocol is that of the IndRNN paper (Li et
al., 2018, https://arxiv.org/abs/1803.04831), with batches of 32 as in its code, and two
differences: the LSTM of the paper has peepholes, and the gradients of IndRNN are not clipped (see
`--clipvalue`). What counts is the number of training steps until the error on 1,000 new sequences,
seen every 100 steps, is below 0.01. `test_mse` is the error of the best weights on 1,000 others.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
from experiment import Run, as_published, parse, parser, plot_curve, positive, positive_number

from keras_rnncells import datasets
from keras_rnncells.cells import CELLS

SOLVED = 0.01
UNITS = 128
# Steps until the MSE fell below 0.01, by cell, layers, and the length of the sequences: read off
# the curves of the paper. Its LSTM and IRNN fail at longer ones, up to 1,000.
PUBLISHED_STEPS = {
    ("IndRNN", 2): {100: 1600, 500: 2000, 1000: 3200, 5000: 15000},
    ("LSTM", 1): {100: 1900, 500: 5600},
    ("IRNN", 1): {100: 7700},
}
SOURCE = "Li et al. 2018, figure 2, read off"
RELU_CELLS = ("IndRNN", "IRNN")
STEPS_PER_EVALUATION = 100


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


def default_clipvalue(cell: str) -> float | None:
    """The bound of each gradient.

    Those of IndRNN are bounded by its weights. As sums over all steps they are large all the same:
    clipped one by one they lose their direction.
    """
    return None if cell == "IndRNN" else 10.0


class StopAt(keras.callbacks.Callback):
    """Ends training at an MSE below `target`, and shows the chance level beside each MSE."""

    def __init__(self, target: float) -> None:
        super().__init__()
        self.target = target

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        # The progress bar shows all there is in `logs`.
        logs["chance"] = datasets.ADDING_CHANCE
        if logs["val_loss"] < self.target:
            self.model.stop_training = True


def options(argv: list[str] | None) -> argparse.Namespace:
    made = parser("adding_problem", __doc__, units=UNITS, epochs=100)
    add = made.add_argument
    add("--timesteps", type=positive, default=100, help="length of the sequences (default: 100)")
    add("--batch-size", type=positive, default=32, help="sequences in a step (default: 32)")
    add("--learning-rate", type=positive_number, help="of Adam (default: as in the paper, by cell)")
    add("--clipvalue", type=positive_number, help="bound of each gradient (10; IndRNN: none)")
    add("--target", type=float, default=1e-3, help="MSE to stop at (default: 0.001)")
    add("--reload", type=Path, help=argparse.SUPPRESS)
    args = parse(made, argv)
    args.layers = as_published(args, 2)
    args.learning_rate = args.learning_rate or default_learning_rate(args.cell, args.timesteps)
    if args.quick:
        args.epochs = min(args.epochs, 4)
    return args


def show_sums(path: Path, seed: int) -> None:
    """Loads the saved model and asks it for ten sums."""
    model = keras.models.load_model(path)
    sequences, sums = datasets.adding_problem(10, model.input_shape[1], seed)
    print(f"{'true':>12}{'answered':>12}")
    for row in np.concatenate([sums, model.predict(sequences, verbose=0)], axis=1):
        print("".join(f"{value:12.3f}" for value in row))


def main(argv: list[str] | None = None) -> None:
    args = options(argv)
    if args.reload:
        show_sums(args.reload, args.seed + 1)
        return

    clipped = f"clipped-at-{args.clipvalue:g}" if args.clipvalue else ""
    run = Run("adding_problem", args, "-".join(filter(None, [str(args.timesteps), clipped])))
    model = build_model(args.cell, args.timesteps, args.units, args.layers)
    # A tenth every 20,000 steps, which matters for the longest sequences only.
    schedule = keras.optimizers.schedules.ExponentialDecay(
        args.learning_rate, decay_steps=20_000, decay_rate=0.1, staircase=True
    )
    clipvalue = args.clipvalue or default_clipvalue(args.cell)
    model.compile(keras.optimizers.Adam(schedule, clipvalue=clipvalue), loss="mse")
    train = datasets.Batches(
        datasets.adding_problem,
        args.batch_size,
        STEPS_PER_EVALUATION,
        args.seed,
        timesteps=args.timesteps,
    )
    # Other sequences than those of training, also by the same seed.
    validation = datasets.adding_problem(1000, args.timesteps, args.seed)
    stop = StopAt(args.target)
    curve = run.fit(model, train, validation, "val_loss", [stop], validation_batch_size=100)

    test_mse = model.evaluate(
        *datasets.adding_problem(1000, args.timesteps, args.seed + 1), batch_size=100, verbose=0
    )
    points = zip(curve["steps"], curve["val_loss"], strict=True)
    solved = [step for step, mse in points if mse < SOLVED]
    published = None
    if args.units == UNITS and not args.quick:
        published = PUBLISHED_STEPS.get((args.cell, args.layers), {}).get(args.timesteps)
    plot_curve(
        run.path(".png"),
        curve,
        f"Adding problem, {args.timesteps:,} time steps",
        {"val_loss": f"{args.cell}, {args.layers} x {args.units}"},
        "mean squared error, new sequences",
        {"always answering 1": datasets.ADDING_CHANCE, "solved": SOLVED},
        published and (f"the paper: {published:,} steps", published, SOLVED),
    )
    run.finish(
        model,
        f"steps until the MSE is below {SOLVED}",
        solved[0] if solved else None,
        published=published,
        source=SOURCE,
        test_mse=test_mse,
        chance=datasets.ADDING_CHANCE,
    )

    # A fresh process: nothing but the file can be what answers.
    command = [sys.executable, __file__, "--reload", run.path(".keras"), "--seed", str(args.seed)]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
