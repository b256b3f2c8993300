"""Spoken digits, recognized while they are spoken.

The network hears a recording frame by frame, 100 a second, and says after each frame how probable
each digit is by now. It is trained to answer at every frame, so that its probabilities can be
believed early: a digit is named once it has had 95 % for five frames.

    python examples/serving/train.py
    python examples/serving/train.py --cell GRU --layers 2

Three layers of any cell, on the Free Spoken Digit Dataset, 10 digits x 5 speakers x 50 recordings.
The test recordings are the official ones, numbers 0 to 4, read once, at the end; numbers 5 to 9 are
held out, to choose by. All speakers are in all three.
"""

import argparse
import sys

import keras
import numpy as np
from digits import BANDS, HOP, RATE, WINDOW, Decision, Recording, frames, recordings
from experiment import (  # one folder up, see digits.py
    Run,
    parse,
    parser,
    plot_curve,
    positive,
    positive_number,
    pyplot,
    save,
)

from keras_rnncells import datasets, models

STEPS = 60  # batches of an epoch
HEARD = 96  # frames of a recording in training, about a second; few are longer


def options(argv: list[str] | None) -> argparse.Namespace:
    made = parser("spoken_digits", __doc__, units=128, epochs=30)
    made.prog = "python examples/serving/train.py"
    add = made.add_argument
    add("--batch-size", type=positive, default=32, help="(default: 32)")
    add(
        "--learning-rate",
        type=positive_number,
        default=4e-3,
        help="at first (default: 0.004)",
    )
    add("--dropout", type=float, default=0.2, help="after each layer (default: 0.2)")
    args = parse(made, argv)
    args.layers = args.layers or 3
    if args.quick:
        args.epochs = min(args.epochs, 3)
    return args


def padded(sounds: list[np.ndarray], steps: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Frames `[B, steps, BANDS]`, with zeros behind the shorter ones, and their numbers `[B]`."""
    lengths = np.array([(len(sound) - WINDOW) // HOP + 1 for sound in sounds])
    steps = steps or max(lengths)
    joined = np.zeros((len(sounds), (steps - 1) * HOP + WINDOW), "float32")
    for row, sound in zip(joined, sounds, strict=True):
        row[: len(sound)] = sound[: len(row)]
    x = frames(joined)
    x[np.arange(steps) >= lengths[:, None]] = 0
    return x, np.minimum(lengths, steps)


def varied(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As if it were said a bit later, nearer or farther, faster or slower, in a noisier room."""
    speed = rng.uniform(0.9, 1.1)
    places = np.arange(0, len(sound) - 1, speed)
    sound = np.interp(places, np.arange(len(sound)), sound)
    sound = np.concatenate([np.zeros(rng.integers(RATE // 5)), sound])  # up to 0.2 s before it
    noise = 10 ** rng.uniform(-4, -2) * rng.normal(size=len(sound))
    return (10 ** rng.uniform(-0.5, 0.5) * sound + noise).astype("float32")


def examples(batch_size: int, seed: np.random.SeedSequence, training: list[Recording]):
    """A batch: frames, the digit at each frame, and which frames count."""
    rng = np.random.default_rng(seed)
    chosen = [training[i] for i in rng.integers(len(training), size=batch_size)]
    x, lengths = padded([varied(one.sound, rng) for one in chosen], HEARD)
    real = np.arange(x.shape[1]) < lengths[:, None]
    y = np.where(real, [[one.digit] for one in chosen], 0)
    return x, y, real.astype("float32")


def with_mask(network: keras.Model) -> keras.Model:
    """`network` for padded sequences: the batch normalization must not see padding either."""
    chain = network.layers[1:]
    return keras.Sequential([keras.Input((None, BANDS)), keras.layers.Masking(), *chain])


def decide(probabilities: np.ndarray) -> tuple[int, int, bool]:
    """The digit that is named for `[T, 10]`, after how many frames, and whether for sure."""
    decision = Decision()
    for one in probabilities:
        if decision.hear(one) is not None:
            return decision.digit, decision.heard, True
    return int(probabilities[-1].argmax()), len(probabilities), False


def main(argv: list[str] | None = None) -> None:
    args = options(argv)
    run = Run("spoken_digits", args)
    try:
        found = recordings(args.data_dir)
    except OSError as error:  # missing: one sentence
        sys.exit(str(error))
    parts = {split: [r for r in found if r.split == split] for split in ("train", "validation")}
    test = [r for r in found if r.split == "test"]

    network = models.plain(
        (None, BANDS),
        10,
        cell=args.cell,
        units=args.units,
        layers=args.layers,
        head="per_step",
        normalization="after",
        dropout=args.dropout,
    )
    model = with_mask(network)
    train = datasets.Batches(examples, args.batch_size, STEPS, args.seed, training=parts["train"])
    schedule = keras.optimizers.schedules.CosineDecay(
        args.learning_rate, args.epochs * STEPS, alpha=0.01
    )
    model.compile(
        keras.optimizers.Adam(schedule, global_clipnorm=1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=["accuracy"],
    )
    x, lengths = padded([one.sound for one in parts["validation"]])
    digits = np.array([one.digit for one in parts["validation"]])
    y = np.repeat(digits[:, None], x.shape[1], axis=1)
    last = np.arange(x.shape[1]) == lengths[:, None] - 1  # what is said in the end is what counts
    validation = (x, y, last.astype("float32"))
    curve = run.fit(model, train, validation, "val_accuracy", validation_batch_size=250)

    x, lengths = padded([one.sound for one in test])
    logits = network.predict(x, batch_size=250, verbose=0)
    answers = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    answers = [one[:n] for one, n in zip(answers, lengths, strict=True)]
    digits = np.array([one.digit for one in test])
    accuracy = 100 * float(np.mean([a[-1].argmax() for a in answers] == digits))
    named, heard, sure = map(np.array, zip(*map(decide, answers), strict=True))
    seconds = ((heard - 1) * HOP + WINDOW) / RATE
    early = {
        "rule": "named once it has 95 % for 5 frames, else at the end",
        "accuracy_of_named": round(100 * float(np.mean(named == digits)), 2),
        "sure_before_the_end": round(100 * float(np.mean(sure & (heard < lengths))), 1),
        "median_seconds_heard": round(float(np.median(seconds)), 3),
        "mean_percent_heard": round(100 * float(np.mean(heard / lengths)), 1),
        "median_seconds_of_a_recording": round(
            float(np.median([len(one.sound) for one in test])) / RATE, 3
        ),
    }
    title = f"Spoken digits: {args.cell}, {args.layers} x {args.units}: {accuracy:.2f} % (test)"
    labels = {"accuracy": "training, each frame", "val_accuracy": "held out, at the end"}
    plot_curve(run.path(".png"), curve, title, labels, "accuracy", {})
    plot_heard(run, answers, digits, early)
    run.finish(network, "test accuracy, %", round(accuracy, 2), early=early)
    print(early)


def plot_heard(run: Run, answers: list[np.ndarray], digits: np.ndarray, early: dict) -> None:
    """How much of a recording it takes to know it."""
    shares = np.linspace(0.02, 1, 50)
    right = [
        np.mean([a[max(0, round(s * len(a)) - 1)].argmax() for a in answers] == digits)
        for s in shares
    ]
    figure, axes = pyplot().subplots(figsize=(7, 4.5), layout="constrained")
    axes.plot(100 * shares, 100 * np.array(right), label="if asked then")
    axes.plot(early["mean_percent_heard"], early["accuracy_of_named"], "o", label="when it is sure")
    axes.set(title="Test recordings", xlabel="heard of a recording, %", ylabel="accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, run.path("-heard.png"))


if __name__ == "__main__":
    main()
