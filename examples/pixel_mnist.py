"""Handwritten digits, read piece by piece: an image as a sequence of rows, or of pixels.

With `--steps 28` (default) a network reads one row of 28 pixels a step, with `--steps 784` one
pixel: to tell a digit it has to remember the first strokes until the last.

    python examples/pixel_mnist.py
    python examples/pixel_mnist.py --cell LSTM --layers 1

The last 5,000 training images are held out, to choose settings by; the test images are read once,
at the end. Pixels take 28 times as long as rows.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import keras
import numpy as np
from files import whole

from keras_rnncells.cells import CELLS

HELD_OUT = 5_000


def load(data_dir: Path | None) -> dict[str, dict[str, np.ndarray]]:
    """MNIST as arrays: `image [N, 28, 28, 1]` and `label [N]` of `train` and `test`."""
    import tensorflow_datasets as tfds

    try:
        # A folder that is named should have it; TFDS' own folder is filled on first use.
        splits = tfds.load("mnist", data_dir=data_dir, batch_size=-1, download=data_dir is None)
    except (AssertionError, OSError) as error:  # not there; no network
        folder = f", data_dir={str(data_dir)!r}" if data_dir else ""
        command = f"import tensorflow_datasets as tfds; tfds.load('mnist'{folder})"
        sys.exit(
            f"MNIST is not in {data_dir or 'the TFDS folder'} and was not downloaded "
            f'({type(error).__name__}); with a network, this gets it: python -c "{command}"'
        )
    return tfds.as_numpy(splits)


def to_sequences(images: np.ndarray, steps: int) -> np.ndarray:
    """Images `[N, 28, 28, 1]` as sequences `[N, steps, 784 / steps]` in [-1, 1]."""
    return images.reshape(len(images), steps, -1).astype("float32") / 127.5 - 1


def build_model(cell: str, steps: int, units: int, layers: int) -> keras.Model:
    """Recurrent layers of one kind with batch normalization after each, and ten logits."""
    model = keras.Sequential([keras.Input((steps, 784 // steps), name="image")])
    for i in range(layers):
        is_last = i == layers - 1
        arguments = {}
        if cell == "IndRNN":
            # Only the last step is read out, so only the last layer has to remember them all.
            arguments = {"max_timesteps": steps, "memory": "long" if is_last else None}
        model.add(
            CELLS[cell].layer(
                units,
                return_sequences=not is_last,
                # Between layers: a dropped pixel would be a lost one.
                dropout=0.1 if i else 0.0,
                **arguments,
            )
        )
        model.add(keras.layers.BatchNormalization())
    model.add(keras.layers.Dense(10, name="digit"))
    return model


def train(model: keras.Model, images: np.ndarray, labels: np.ndarray, args: argparse.Namespace):
    """Trains on all but the held-out images; returns what `fit` recorded."""
    training = len(images) - HELD_OUT
    steps = args.epochs * -(-training // args.batch_size)
    model.compile(
        # The rate falls to zero along a cosine. Clipping is a guard that a good run does not touch.
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(args.learning_rate, steps), clipvalue=10.0
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model.fit(
        images[:training],
        labels[:training],
        batch_size=args.batch_size,
        epochs=args.epochs,
        validation_data=(images[training:], labels[training:]),
        validation_batch_size=1000,
    ).history


def plot_confusion(path: Path, confusion: np.ndarray, title: str) -> None:
    """How often each digit was read as each other."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(6.5, 6), layout="constrained")
    # Colored by the mistakes: right answers are a hundred times as many.
    mistakes = confusion - np.diag(np.diag(confusion))
    axes.imshow(mistakes, cmap="Reds", vmax=max(mistakes.max() * 1.5, 1))
    for (true, read), count in np.ndenumerate(confusion):
        axes.text(read, true, count or "", ha="center", va="center")
    axes.set(title=title, xlabel="read", ylabel="true", xticks=range(10), yticks=range(10))
    save(figure, path)


def plot_misread(path: Path, images: np.ndarray, labels: np.ndarray, read: np.ndarray) -> None:
    """Ten digits that were misread, the first of the test set."""
    plt = pyplot()
    figure, axes = plt.subplots(2, 5, figsize=(8, 4), layout="constrained")
    wrong = np.flatnonzero(read != labels)
    for i, ax in enumerate(axes.flat):
        ax.axis("off")
        if i < len(wrong):
            ax.imshow(images[wrong[i], :, :, 0], cmap="gray_r")
            ax.set_title(f"{labels[wrong[i]]} read as {read[wrong[i]]}")
    save(figure, path)


def pyplot():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save(figure, path: Path) -> None:
    with whole(path) as new:
        figure.savefig(new, dpi=150)
    pyplot().close(figure)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data-dir", type=Path, help="folder of TFDS with mnist (default: TFDS' own, downloads)")
    add("--steps", type=int, choices=(28, 784), default=28, help="rows or pixels (default: 28)")
    add("--cell", choices=CELLS, default="IndRNN")
    add("--layers", type=int, default=3, help="recurrent layers (default: 3)")
    add("--units", type=int, default=128, help="units in each layer (default: 128)")
    add("--epochs", type=int, default=12, help="(default: 12)")
    add("--batch-size", type=int, default=128, help="(default: 128)")
    add("--learning-rate", type=float, default=2e-3, help="of Adam at the start (default: 0.002)")
    add("--limit", type=int, help="training images at most, for a quick try (default: all)")
    add("--seed", type=int, default=0, help="of weights, order and dropout (default: 0)")
    add(
        "--output",
        type=Path,
        default=Path(__file__).parent / "output" / "pixel_mnist",
        help="folder of the results (default: output/pixel_mnist beside this script)",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    data = load(args.data_dir)
    test_images, test_labels = data["test"]["image"], data["test"]["label"]
    # The held-out images stay the same ones, whatever the limit.
    training = data["train"]["image"].shape[0] - HELD_OUT
    kept = np.r_[: min(args.limit or training, training), training : training + HELD_OUT]
    images = to_sequences(data["train"]["image"][kept], args.steps)

    keras.utils.set_random_seed(args.seed)
    model = build_model(args.cell, args.steps, args.units, args.layers)
    model.summary()
    start = time.perf_counter()
    history = train(model, images, data["train"]["label"][kept], args)
    seconds = time.perf_counter() - start

    logits = model.predict(to_sequences(test_images, args.steps), batch_size=1000, verbose=0)
    read = logits.argmax(-1)
    accuracy = float((read == test_labels).mean())
    print(f"Test accuracy {accuracy:.2%} after {args.epochs} epochs and {seconds:.0f} s.")

    name = f"{args.cell}-{args.steps}"
    with whole(args.output / f"{name}.keras") as new:
        model.save(new)
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (test_labels, read), 1)
    title = f"{args.cell}, MNIST in {args.steps} steps: {accuracy:.2%} of {len(read)} right"
    plot_confusion(args.output / f"{name}-confusion.png", confusion, title)
    plot_misread(args.output / f"{name}-misread.png", test_images, test_labels, read)
    settings = {k: v for k, v in vars(args).items() if k not in ("output", "data_dir")}
    settings["backend"] = keras.backend.backend()
    result = {
        "settings": settings,
        "seconds": round(seconds, 1),
        "test_accuracy": accuracy,
        "validation_accuracy": history["val_accuracy"],
        "confusion": confusion.tolist(),
    }
    with whole(args.output / f"{name}.json") as new:
        new.write_text(json.dumps(result) + "\n")
    print(f"Model, plots and result: {args.output / name}*")


if __name__ == "__main__":
    main()
