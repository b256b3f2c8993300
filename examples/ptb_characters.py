"""Penn Treebank, character by character: which one comes next?

The state of the network is carried from one window of the text to the next, so that it may use
all it has read; the gradient sees one window. What counts is bits per character (BPC) on the test
text, of which every character but the first is predicted once.

    python examples/ptb_characters.py
    python examples/ptb_characters.py --layers 21 --kind residual
    python examples/ptb_characters.py --cell LSTM

Six layers of IndRNN, or one of another cell. The IndRNN paper (Li et al., 2018,
https://arxiv.org/abs/1803.04831) takes 2,000 units a layer. Here all networks have the same number
of weights, `--parameters`, which fits a CPU, unless `--units` says how wide they are.
Batch normalization follows the recurrence; in the paper it stands before: `--normalization before`.
"""

import argparse
import math
import sys

import keras
from experiment import Run, as_published, parse, parser, plot_curve, positive, positive_number

from keras_rnncells import constraints, datasets, models

PUBLISHED = {
    ("IndRNN", 6, "plain"): (1.26, "Li et al. 2018, 6 layers of 2000, T=50"),
    ("IndRNN", 21, "residual"): (1.21, "Li et al. 2018, residual, 21 layers of 2000, T=50"),
    ("LSTM", 1, "plain"): (1.36, "Zoneout paper 2016, LSTM of 1000 units, T=100"),
}

PARAMETERS = 1_000_000
EMBEDDING = 64
# Of an IndRNN.
CELL_ARGUMENTS = {
    # The scale for relu; smaller weights, the default, learn more slowly here.
    "kernel_initializer": "he_uniform",
    # As the paper starts its language models: the longest memories, through six layers, would
    # leave nothing of the last character.
    "recurrent_initializer": keras.initializers.RandomNormal(0.4, 0.2),
    # Half of a memory is gone after 69 characters. One near 1 grows all through the training text,
    # and the statistics of the normalization are then wrong at the start of every other text.
    "recurrent_constraint": constraints.MaxAbs(0.99),
}


class BitsPerCharacter(keras.metrics.SparseCategoricalCrossentropy):
    """The cross entropy of logits, in bits."""

    def __init__(self) -> None:
        super().__init__(name="bpc", from_logits=True)

    def result(self):
        return super().result() / math.log(2)


def options(argv: list[str] | None) -> argparse.Namespace:
    made = parser("ptb_characters", __doc__, units=None, epochs=12)
    add = made.add_argument
    add("--kind", choices=("plain", "residual"), default="plain", help="of stack (default: plain)")
    add(
        "--parameters",
        type=positive,
        default=PARAMETERS,
        help=f"weights in all (default: {PARAMETERS})",
    )
    add("--window", type=positive, default=50, help="characters of a window (default: 50)")
    add("--batch-size", type=positive, default=64, help="texts read side by side (default: 64)")
    add(
        "--learning-rate",
        type=positive_number,
        default=5e-3,
        help="at first (default: 0.005)",
    )
    add(
        "--embedding-scale",
        type=positive_number,
        help="symbols start within +- this (default: 0.01 of an IndRNN, as in the paper, else 1)",
    )
    add("--dropout", type=float, default=0.1, help="after each layer (default: 0.1)")
    add(
        "--normalization",
        choices=("after", "before"),
        default="after",
        help="the recurrence of an IndRNN; other cells have none (default: after)",
    )
    args = parse(made, argv)
    args.layers = as_published(args, 6)
    if args.kind == "residual" and (args.layers % 2 == 0 or args.layers < 3):
        made.error("a residual stack has two layers a block and one more: --layers 3, 5, 7, ...")
    if args.quick:
        args.epochs = min(args.epochs, 1)
    return args


def build_model(
    vocabulary: int, args: argparse.Namespace, units: int, batch_size: int | None = None
) -> keras.Model:
    """Embedding, stack and readout, with states that are carried on if there is a batch size."""
    # The paper starts with the symbols close together, where a small LSTM, which has no
    # normalization, learns slowly.
    scale = args.embedding_scale or (None if args.cell == "IndRNN" else 1)
    return models.language_model(
        vocabulary,
        embedding=EMBEDDING,
        units=units,
        # A residual block has two recurrent layers, and one more follows the last block.
        layers=args.layers if args.kind == "plain" else args.layers // 2,
        kind=args.kind,
        cell=args.cell,
        batch_size=batch_size,
        stateful=batch_size is not None,
        dropout=args.dropout,
        tied=False,  # of 50 symbols there is nothing to save
        normalization=args.normalization if args.cell == "IndRNN" else None,
        embeddings_initializer=scale and keras.initializers.RandomUniform(-scale, scale),
        cell_arguments=CELL_ARGUMENTS if args.cell == "IndRNN" else None,
    )


def main(argv: list[str] | None = None) -> None:
    args = options(argv)
    try:
        text = datasets.penn_treebank(args.data_dir)
    except OSError as error:  # missing or damaged: one sentence
        sys.exit(str(error))
    vocabulary = len(text.symbols)
    variant = f"{args.layers}-{args.kind}"
    if args.units:
        variant += f"-{args.units}"
    elif args.parameters != PARAMETERS:
        variant += f"-{args.parameters / 1000:g}k"
    args.units = args.units or models.units_for(
        lambda units: build_model(vocabulary, args, units), args.parameters
    )
    run = Run("ptb_characters", args, variant)
    model = build_model(vocabulary, args, args.units, args.batch_size)

    def streams(ids, **arguments):
        return datasets.Streams(ids, args.batch_size, args.window, **arguments)

    ids = text.train[: 200 * args.batch_size * args.window] if args.quick else text.train
    train = streams(ids, seed=args.seed, max_offset=5 * args.window - 1)
    steps = args.epochs * len(train)
    # The rate falls to a hundredth along a cosine.
    schedule = keras.optimizers.schedules.CosineDecay(args.learning_rate, steps, alpha=0.01)
    model.compile(
        keras.optimizers.Adam(schedule, global_clipnorm=1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[BitsPerCharacter()],
    )
    curve = run.fit(model, train, streams(text.validation), "val_bpc", [models.ResetStates()])

    test = model.evaluate(
        streams(text.test), callbacks=[models.ResetStates()], return_dict=True, verbose=0
    )
    published, source = None, None
    if not args.quick:
        published, source = PUBLISHED.get((args.cell, args.layers, args.kind), (None, None))
    title = f"Penn Treebank by character: {args.cell}, {args.layers} x {args.units}, {args.kind}"
    lines = {f"published, test: {published}": published} if published else {}
    labels = {"bpc": "training", "val_bpc": "validation"}
    plot_curve(run.path(".png"), curve, title, labels, "bits per character", lines)
    # What is kept reads any number of texts, each from its start.
    reader = build_model(vocabulary, args, args.units)
    reader.set_weights(model.get_weights())
    run.finish(
        reader,
        "test bits per character",
        round(test["bpc"], 4),
        published=published,
        source=source,
        symbols="".join(text.symbols),
    )


if __name__ == "__main__":
    main()
