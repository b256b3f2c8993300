"""Handwritten digits, read pixel by pixel: an image as a sequence of 784 steps.

To tell a digit, a network has to remember its first strokes until the last. With `--permuted` the
pixels come in one random order, the same for all images, so that nothing near is near any more;
with `--timesteps 28` an image comes row by row, which is 28 times as quick.

    python examples/pixel_mnist.py
    python examples/pixel_mnist.py --permuted
    python examples/pixel_mnist.py --cell LSTM --timesteps 28

Layers of IndRNN, each with batch normalization after the recurrence, as in the IndRNN paper (Li et
al., 2018, https://arxiv.org/abs/1803.04831): six, or `--layers 12`. Of the other cells one. The
last 5,000 training images are held out, to choose by; the test images are read once, at the end.
"""

import argparse
import sys

import keras
import numpy as np
from experiment import (
    Run,
    as_published,
    parse,
    parser,
    plot_curve,
    positive,
    positive_number,
    pyplot,
    save,
)

from keras_rnncells import datasets, models

LAYERS, UNITS = 6, 128
HELD_OUT = 5_000
PUBLISHED = {
    ("IndRNN", "pixels", 6): (99.0, "Li et al. 2018, 6 layers"),
    ("IndRNN", "pixels", 12): (99.37, "Li et al. 2018, 12 layers"),
    ("IndRNN", "permuted", 6): (96.0, "Li et al. 2018, 6 layers"),
    ("IndRNN", "permuted", 12): (96.84, "Li et al. 2018, 12 layers"),
    ("IRNN", "pixels", 1): (97.0, "Le et al. 2015, 1 layer of 100"),
    ("IRNN", "permuted", 1): (82.0, "Le et al. 2015, 1 layer of 100"),
    ("LSTM", "pixels", 1): (98.9, "Cooijmans et al. 2016, 1 layer of 100"),
    ("LSTM", "permuted", 1): (90.2, "Cooijmans et al. 2016, 1 layer of 100"),
    ("GRU", "pixels", 1): (96.8, "Campos et al. 2018, 1 layer"),
}


def options(argv: list[str] | None) -> argparse.Namespace:
    made = parser("pixel_mnist", __doc__, units=UNITS, epochs=30)
    add = made.add_argument
    add("--timesteps", type=int, choices=(28, 784), default=784, help="rows or pixels")
    add("--permuted", action="store_true", help="pixels in a random order, always the same")
    add("--batch-size", type=positive, default=50, help="(default: 50)")
    add(
        "--learning-rate",
        type=positive_number,
        default=1e-3,
        help="at first (default: 0.001)",
    )
    add("--dropout", type=float, default=0.1, help="after each layer (default: 0.1)")
    add("--limit", type=positive, help="training images at most (default: all)")
    args = parse(made, argv)
    args.layers = as_published(args, LAYERS)
    if args.permuted and args.timesteps != 784:
        made.error("--permuted is about pixels: leave --timesteps at 784")
    if args.quick:
        args.epochs, args.limit = min(args.epochs, 2), min(args.limit or 3_000, 3_000)
    return args


def plot_confusion(run: Run, confusion: np.ndarray, title: str) -> None:
    """How often each digit was read as each other."""
    figure, axes = pyplot().subplots(figsize=(6.5, 6), layout="constrained")
    # Colored by the mistakes: right answers are a hundred times as many.
    mistakes = confusion - np.diag(np.diag(confusion))
    axes.imshow(mistakes, cmap="Reds", vmax=max(mistakes.max() * 1.5, 1))
    for (true, read), count in np.ndenumerate(confusion):
        axes.text(read, true, count or "", ha="center", va="center")
    axes.set(title=title, xlabel="read", ylabel="true", xticks=range(10), yticks=range(10))
    save(figure, run.path("-confusion.png"))


def main(argv: list[str] | None = None) -> None:
    args = options(argv)
    kind = "permuted" if args.permuted else "pixels" if args.timesteps == 784 else "rows"
    depth = "" if args.layers in (1, LAYERS) else f"-{args.layers}"
    run = Run("pixel_mnist", args, kind + depth)
    try:
        data = datasets.pixel_mnist(
            args.data_dir, args.permuted, held_out=HELD_OUT, steps=args.timesteps
        )
    except OSError as error:  # missing or damaged: one sentence
        sys.exit(str(error))
    x, y = (part[: args.limit] for part in data.train)

    model = models.plain(
        x.shape[1:],
        10,
        cell=args.cell,
        units=args.units,
        layers=args.layers,
        normalization="after",
        dropout=args.dropout,
        max_timesteps=args.timesteps,
    )
    train = datasets.Shuffled(x, y, args.batch_size, args.seed)
    steps = args.epochs * len(train)
    # The rate falls to a hundredth along a cosine.
    schedule = keras.optimizers.schedules.CosineDecay(args.learning_rate, steps, alpha=0.01)
    model.compile(
        keras.optimizers.Adam(schedule, global_clipnorm=1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    curve = run.fit(model, train, data.validation, "val_accuracy", validation_batch_size=500)

    test_x, test_y = data.test
    read = model.predict(test_x, batch_size=500, verbose=0).argmax(-1)
    accuracy = 100 * float((read == test_y).mean())
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (test_y, read), 1)
    published, source = None, None
    if args.units == UNITS and not args.limit:
        published, source = PUBLISHED.get((args.cell, kind, args.layers), (None, None))
    labels = {"accuracy": "training", "val_accuracy": "held-out images"}
    lines = {f"published, test: {published} %": published / 100} if published else {}
    read_as = "permuted pixels" if args.permuted else kind
    network = f"{args.cell}, {args.layers} x {args.units}"
    title = f"MNIST by {read_as}, {network}: {accuracy:.2f} % (test)"
    plot_curve(run.path(".png"), curve, title, labels, "accuracy", lines)
    plot_confusion(run, confusion, title)
    run.finish(
        model,
        "test accuracy, %",
        round(accuracy, 2),
        published=published,
        source=source,
        confusion=confusion.tolist(),
    )


if __name__ == "__main__":
    main()
