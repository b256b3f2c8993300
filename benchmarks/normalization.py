"""What running statistics of batch normalizations cost in validation, and what cures it.

    python benchmarks/normalization.py --mnist DIR --text DIR

After a training: the trained model of the characters, its weights left as they are, with statistics
that run at several momenta or are measured by `PopulationStatistics`. In the middle of one: pixel
MNIST, each 250 steps at the full rate. The folders are those of `--data-dir` of
`examples/pixel_mnist.py` and `examples/ptb_characters.py`. No time is taken: the machine may be
busy. Writes `results/normalization-cpu.json` and the tables in `README.md`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import reporting

CHARACTERS, PIXELS = "characters", "pixels"
MOMENTA = (0.5, 0.9, 0.99)
# The running statistics follow so many batches between two looks.
FOLLOWED, LOOKS = 40, 5
BATCHES = (1, 10, 100)
# Of the pixels: training steps between two looks, looks, images of a step, held-out images.
STEPS, PIXEL_LOOKS, IMAGES, HELD_OUT = 250, 6, 16, 2000


def normalizations(model: Any) -> list[Any]:
    import keras

    return [each for each in model.layers if isinstance(each, keras.layers.BatchNormalization)]


def characters(folder: Path, shrink: int) -> dict[str, list[float]]:
    """Bits per character of the validation text, by where the statistics come from."""
    import keras

    from keras_rnncells import datasets, models

    sys.path.append(str(Path(__file__).parents[1] / "examples"))
    import ptb_characters

    text = datasets.penn_treebank(folder)
    trained = models.load("ptb_characters")
    args = ptb_characters.options(["--layers", "21", "--kind", "residual", "--dropout", "0"])
    units = trained.get_layer("recurrent_1").cell.units
    # As in training, with states that are carried on.
    model = ptb_characters.build_model(len(text.symbols), args, units, args.batch_size)
    model.set_weights(trained.get_weights())

    def streams(ids, **more):
        return datasets.Streams(ids, args.batch_size, args.window, **more)

    train = streams(text.train, max_offset=5 * args.window - 1)
    validation = streams(text.validation[: len(text.validation) // shrink])
    found = {}

    def compiled() -> None:
        model.compile(
            keras.optimizers.SGD(0.0),  # the statistics run, the weights stay
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            weighted_metrics=[ptb_characters.BitsPerCharacter()],
        )

    compiled()
    for count in BATCHES:
        callbacks = [models.PopulationStatistics(train, count), models.ResetStates()]
        logs = model.evaluate(validation, callbacks=callbacks, return_dict=True, verbose=0)
        found[f"measured, batches: {count}"] = [logs["bpc"]]
    for momentum in MOMENTA:
        for each in normalizations(model):
            each.momentum = momentum
        compiled()
        found[f"running, momentum: {momentum}"] = model.fit(
            train.as_tf_dataset(None),
            steps_per_epoch=max(2, FOLLOWED // shrink),
            epochs=LOOKS,
            validation_data=validation.as_tf_dataset(),
            callbacks=[models.ResetStates()],
            shuffle=False,
            verbose=0,
        ).history["val_bpc"]
    return found


def pixels(folder: Path, shrink: int) -> dict[str, list[float]]:
    """Accuracies of training and of held-out images, in the first steps of a training."""
    import keras

    from keras_rnncells import datasets, models

    keras.utils.set_random_seed(0)
    data = datasets.pixel_mnist(folder, held_out=HELD_OUT)
    x, y = (part[: HELD_OUT // shrink] for part in data.validation)
    model = models.plain(
        (784, 1), 10, units=128, layers=6, normalization="after", dropout=0.0, max_timesteps=784
    )
    model.compile(
        keras.optimizers.Adam(1e-3, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    train = datasets.Shuffled(*data.train, IMAGES)
    steps = max(2, STEPS // shrink)
    measured = models.PopulationStatistics(train, max(2, 50 // shrink))
    found: dict[str, list[float]] = {"steps": [], "training": [], "running": [], "measured": []}

    class Look(keras.callbacks.Callback):
        """Validates with both statistics, and leaves those that run."""

        def on_epoch_end(self, epoch: int, logs: dict) -> None:
            found["steps"].append((epoch + 1) * steps)
            found["training"].append(float(logs["accuracy"]))
            before = model.get_weights()
            for kind, callbacks in (("running", []), ("measured", [measured])):
                logs = model.evaluate(
                    x, y, batch_size=250, callbacks=callbacks, return_dict=True, verbose=0
                )
                found[kind].append(logs["accuracy"])
            model.set_weights(before)
            print({kind: round(values[-1], 3) for kind, values in found.items()}, flush=True)

    model.fit(
        train.as_tf_dataset(None),
        steps_per_epoch=steps,
        epochs=PIXEL_LOOKS,
        callbacks=[Look()],
        shuffle=False,
        verbose=0,
    )
    return found


def text(records: dict[str, dict]) -> str:
    """The results in Markdown."""
    parts = ["## Statistics of batch normalizations in validation"]
    record = records[CHARACTERS]
    rows = [
        [
            case,
            f"{sum(values) / len(values):.4f}",
            f"{min(values):.4f} to {max(values):.4f}" if len(values) > 1 else "",
        ]
        for case, values in record["bits"].items()
    ]
    parts += [
        "Bits per character of the validation text of Penn Treebank, by the trained 21 layers of "
        "`saved_models/ptb_characters`, whose weights stay as they are. *Measured* is "
        f"`PopulationStatistics`; *running* is Keras' own, looked at {LOOKS} times, each after "
        f"{FOLLOWED} more batches. A row goes on from the statistics, and where it measures from "
        "the states, that the row above left.",
        f"{reporting.machine_of(record)}.",
        reporting.table(["statistics", "bits", "lowest to highest"], rows),
    ]
    record = records[PIXELS]
    found = record["accuracy"]
    rows = zip(
        found["steps"],
        *([f"{100 * v:.1f}" for v in found[kind]] for kind in ("training", "running", "measured")),
        strict=True,
    )
    parts += [
        f"Accuracy in % of pixel MNIST, 6 layers of 128, in the first steps of {IMAGES} images at "
        "a rate of 0.001: of the training images since the row above, and of "
        f"{HELD_OUT:,} held-out ones, with running statistics of momentum 0.9 and with measured "
        "ones of 50 batches.",
        f"{reporting.machine_of(record)}.",
        reporting.table(["steps", "training", "running", "measured"], rows),
    ]
    return "\n\n".join(parts)


def main() -> None:
    made = reporting.parser(__doc__)
    made.add_argument("--mnist", type=Path, help="folder of MNIST (default: that of TFDS)")
    made.add_argument("--text", type=Path, help="folder of Penn Treebank (default: that of TFDS)")
    options = reporting.parse(made)
    report = reporting.Report("normalization", options.folder)
    if not options.table:
        report.add(CHARACTERS, {"bits": characters(options.text, options.shrink)})
        report.add(PIXELS, {"accuracy": pixels(options.mnist, options.shrink)})
    report.publish(text(report.records()))


if __name__ == "__main__":
    main()
