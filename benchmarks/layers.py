"""Time of one training step of every layer, beside what a user would take instead.

    python benchmarks/layers.py [--shape 32x784x128x128] [--only IndRNN,LSTM] [--rounds 9]

Forward, backward and input gradient, float32. All are timed in turn, round after round, so that a
load on the machine falls on all of them. Run it alone on the machine. Writes
`results/layers-cpu.json` and the tables in `README.md`.
"""

from __future__ import annotations

from functools import partial

import contenders
import reporting
from contenders import COUNTERPARTS, KINDS
from measuring import in_turn
from reporting import Ratio
from steps import tensorflow_step

REFERENCE = "32x784x128x128"
SHAPES = {REFERENCE: 9, "16x5000x64x128": 3, "128x100x128x512": 5}  # with their rounds

# What is divided by what, how it has to compare, and the goals: plain, with jit_compile=True.
# A ratio is a cost where it may be at most the goal, else a speed-up of at least the goal.
COSTS = {("IndRNN", "Dense"): (2.0, 1.3), ("6 x IndRNN + BN", "6 x Dense + BN"): (None, 1.5)}
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
# At the other shapes little is asked, and the rest is reported.
OTHER_COSTS = {("IndRNN", "Dense"): (1.8, 1.8)}


def measure(shape: str, rounds: int, only: str | None) -> dict:
    """Milliseconds of each layer, plain and jit."""
    sizes = tuple(int(size) for size in shape.split("x"))
    made = {**contenders.layers(sizes[-1]), **contenders.stacks(sizes[-1])}
    names = only.split(",") if only else made
    return in_turn(
        {
            (kind, name): partial(tensorflow_step, made[name](), sizes, jit)
            for kind, jit in KINDS.items()
            for name in names
            if not contenders.too_slow(name, sizes, jit)
        },
        rounds,
    )


def ratios(shape: str, record: dict) -> list[list[Ratio]]:
    none = (None, None)
    costs, speedups = (
        (COSTS, SPEEDUPS)
        if shape == REFERENCE
        else (dict.fromkeys(COSTS, none) | OTHER_COSTS, dict.fromkeys(SPEEDUPS, none))
    )
    speedups = speedups | {pair: none for pair in COUNTERPARTS if pair not in speedups}
    return reporting.ratios(record["milliseconds"], shape, costs, speedups)


def text(records: dict[str, dict]) -> str:
    """The results in Markdown."""
    parts = [
        "## A training step",
        "Shapes are batch x steps x features x units, in float32; forward, backward and input "
        "gradient. Plain is `compile()` without flags, jit is `compile(jit_compile=True)`. BN is "
        "batch normalization. A dash: Keras under XLA takes a time that grows with the square of "
        "the number of steps, and is left out where it is longest.",
    ]
    return "\n\n".join([*parts, *reporting.by_shape(records, ratios)])


def main() -> None:
    parser = reporting.parser(__doc__)
    parser.add_argument("--shape", choices=SHAPES, help="only this one")
    parser.add_argument("--only", help="names, separated by commas; needs a --folder")
    options = reporting.parse(parser)
    report = reporting.Report("layers", options.folder)
    shapes = [] if options.table else [options.shape] if options.shape else SHAPES
    for shape in shapes:
        rounds = options.rounds or SHAPES[shape]
        shape = reporting.shrunk(shape, options.shrink)
        print(f"{shape}:", flush=True)
        times = measure(shape, rounds, options.only)
        report.add(shape, {"rounds": rounds, "milliseconds": times})
    report.publish(text(report.records()))


if __name__ == "__main__":
    main()
