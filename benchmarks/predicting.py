"""Time of one prediction of every layer, beside Keras' own.

    python benchmarks/predicting.py [--rounds 5]

Forward only: `predict_on_batch` of a model of the one layer, float32. All are timed in turn, round
after round. Run it alone on the machine. Writes `results/predicting-cpu.json` and the tables in
`README.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import contenders
import keras
import reporting
from contenders import COUNTERPARTS, KINDS
from measuring import in_turn
from reporting import Ratio
from steps import sequences

# With their rounds. What is asked, is asked of the first two: how many times as fast as Keras.
ASKED = {"1x784x128x128": 9, "32x784x128x128": 9}
SHAPES = {**ASKED, "16x5000x64x128": 3, "128x100x128x512": 5}
GOALS = (0.9, 2)  # plain, jit


def prediction(layer: keras.Layer, shape: tuple[int, ...], jit: bool) -> Callable:
    inputs = sequences(shape)
    model = keras.Sequential([keras.Input(inputs.shape[1:]), layer])
    model.compile(jit_compile=jit)
    return lambda: model.predict_on_batch(inputs)


def measure(shape: str, rounds: int) -> dict:
    """Milliseconds of each layer, plain and jit."""
    sizes = tuple(int(size) for size in shape.split("x"))
    return in_turn(
        {
            (kind, name): partial(prediction, make(), sizes, jit)
            for kind, jit in KINDS.items()
            for name, make in contenders.layers(sizes[-1]).items()
        },
        rounds,
    )


def ratios(shape: str, record: dict) -> list[list[Ratio]]:
    goals = GOALS if shape in ASKED else (None, None)
    return reporting.ratios(record["milliseconds"], shape, {}, dict.fromkeys(COUNTERPARTS, goals))


def text(records: dict[str, dict]) -> str:
    """The results in Markdown."""
    parts = [
        "## A prediction",
        "Shapes are batch x steps x features x units, in float32; `predict_on_batch` of a model of "
        "one layer, forward only. Plain is `compile()` without flags, jit is "
        "`compile(jit_compile=True)`.",
    ]
    return "\n\n".join([*parts, *reporting.by_shape(records, ratios)])


def main() -> None:
    options = reporting.parse(reporting.parser(__doc__))
    report = reporting.Report("predicting", options.folder)
    for shape, rounds in {} if options.table else SHAPES.items():
        shape, rounds = reporting.shrunk(shape, options.shrink), options.rounds or rounds
        print(f"{shape}:", flush=True)
        report.add(shape, {"rounds": rounds, "milliseconds": measure(shape, rounds)})
    report.publish(text(report.records()))


if __name__ == "__main__":
    main()
