"""How a training step grows: with the number of steps, the way time runs, and the batch.

    python benchmarks/scaling.py [--part scans] [--rounds 3]

Forward, backward and input gradient, float32. All of a part are timed in turn, round after round.
Run it alone on the machine. Writes `results/scaling-cpu.json` and the tables in `README.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import contenders
import keras
import reporting
from contenders import KINDS
from measuring import in_turn, look_up
from reporting import Ratio, spread, table
from steps import tensorflow_step

from keras_rnncells import IndRNN
from keras_rnncells.cells import CELLS
from keras_rnncells.recurrence import SCANS

FEATURES = UNITS = 128
LAYERS = contenders.layers(UNITS)
SCAN_ARGUMENTS = {
    **{scan: {"scan": scan} for scan in SCANS if scan != "auto"},  # which is one of the others
    "sequential, unroll=8": {"scan": "sequential", "unroll": 8},
}


class Part(NamedTuple):
    """Some layers against some sizes.

    Attributes:
        about: what it shows.
        layers: what makes the layers, by name.
        sizes: batches and numbers of steps.
        rounds: how often each is timed.
        speedups: what is divided by what: at least 1.
        compiling: how many seconds a layer may take to compile, by name.
        growth: how many times as long the second size may take as the first, if that is asked.
    """

    about: str
    layers: dict[str, Callable[[], keras.Layer]]
    sizes: list[tuple[int, int]]
    rounds: int
    speedups: list[tuple[str, str]]
    compiling: dict[str, float]
    growth: float | None = None


PARTS = {
    "cells": Part(
        "Every cell, at four times as many steps",
        {cell: LAYERS[cell] for cell in CELLS},
        [(32, 800), (32, 3200)],
        5,
        speedups=[],
        compiling=dict.fromkeys(CELLS, 10),
        growth=4.6,
    ),
    "scans": Part(
        "An IndRNN in each way that time can run",
        {
            name: partial(IndRNN, UNITS, return_sequences=True, **arguments)
            for name, arguments in SCAN_ARGUMENTS.items()
        },
        [(4, steps) for steps in (16, 64, 256, 1024, 4096, 16384, 65536)],
        3,
        speedups=[("keras", scan) for scan in SCAN_ARGUMENTS if scan != "keras"],
        compiling={"sequential": 10, "sequential, unroll=8": 10, "parallel": 30},
    ),
    "batches": Part(
        "From one sequence to many",
        {name: LAYERS[name] for name in ("Dense", "IndRNN", "LSTM", "keras LSTM")},
        [(batch, 784) for batch in (1, 8, 32, 128, 512)],
        3,
        speedups=[("keras LSTM", "IndRNN"), ("keras LSTM", "LSTM")],
        compiling={},
    ),
}


def measure(part: Part, shrink: int, rounds: int) -> dict:
    """Milliseconds by kind, layer and size."""
    cases = {}
    for kind, jit in KINDS.items():
        for name, make in part.layers.items():
            for batch, steps in part.sizes:
                shape = (batch, reporting.fewer(steps, shrink), FEATURES, UNITS)
                if accepted(make) and not contenders.too_slow(name, shape, jit):
                    size = f"{batch} x {shape[1]}"
                    cases[kind, name, size] = partial(tensorflow_step, make(), shape, jit)
    return in_turn(cases, rounds)


def accepted(make: Callable[[], keras.Layer]) -> bool:
    """Whether the layer takes its arguments: not all can be run in all ways."""
    try:
        make()
    except ValueError:
        return False
    return True


def growth(times: dict, goal: float) -> list[list[Ratio]]:
    """How many times as long the second size takes as the first; a row for each layer."""
    rows = []
    for name in times["plain"]:
        row = []
        for kind in KINDS:
            (a, first), (b, second) = times[kind][name].items()
            value = second["median"] / first["median"]
            row.append(Ratio(f"{name}, {b} / {a}", kind, value, "at most", goal))
        rows.append(row)
    return rows


def speedups(times: dict, pairs: list[tuple[str, str]], sizes: list[str]) -> list[Ratio]:
    ratios = []
    for kind in KINDS:
        for pair in pairs:
            for size in sizes:
                a, b = (look_up(times, kind, name, size) for name in pair)
                value = a["median"] / b["median"] if a and b else None
                ratios.append(Ratio(" / ".join(pair), f"{size}, {kind}", value, "at least"))
    return ratios


def compiling(name: str, where: str, times: dict | None, goals: dict[str, float]) -> Ratio:
    """Seconds by which the first call was longer than a later one."""
    value = times and (times["first_call"] - times["median"]) / 1e3
    return Ratio(f"seconds to compile {name}", where, value, "at most", goals.get(name))


def text_of(part: Part, record: dict) -> tuple[list[str], list[Ratio]]:
    """The tables of one part, in Markdown, and all that is asked."""
    times = record["milliseconds"]
    sizes = list(next(iter(times["plain"].values())))
    rows: list[list[Any]] = []
    compiled: list[list[Any]] = []
    for kind in KINDS:
        for name, found in times[kind].items():
            of_sizes = [found.get(size) for size in sizes]
            rows.append([f"{name}, {kind}", *map(spread, of_sizes)])
            compiled.append(
                [
                    compiling(name, f"{size}, {kind}", one, part.compiling)
                    for size, one in zip(sizes, of_sizes, strict=True)
                ]
            )
    grown = growth(times, part.growth) if part.growth else []
    tables = [
        table(["milliseconds", *sizes], rows),
        table(
            ["seconds to compile", *sizes],
            ([row[0], *seconds] for row, seconds in zip(rows, compiled, strict=True)),
        ),
        *([table(["ratio", *KINDS], ([row[0].what, *row] for row in grown))] if grown else []),
    ]
    asked = [ratio for row in (*grown, *compiled) for ratio in row]
    return tables, asked + speedups(times, part.speedups, sizes)


def text(records: dict[str, dict]) -> str:
    """The results in Markdown."""
    paragraphs, asked = (
        [
            "## How a training step grows",
            "Sizes are batch x steps, with 128 features and 128 units; else as above. Seconds to "
            "compile are those of the first call beyond the median.",
        ],
        [],
    )
    for name, record in records.items():
        tables, of_part = text_of(PARTS[name], record)
        paragraphs += [f"### {PARTS[name].about}", reporting.made_on(record), *tables]
        asked += of_part
    return "\n\n".join([*paragraphs, reporting.lost(asked)])


def main() -> None:
    parser = reporting.parser(__doc__)
    parser.add_argument("--part", choices=PARTS, help="only this one")
    options = reporting.parse(parser)
    report = reporting.Report("scaling", options.folder)
    names = [] if options.table else [options.part] if options.part else PARTS
    for name in names:
        print(f"{name}:", flush=True)
        rounds = options.rounds or PARTS[name].rounds
        times = measure(PARTS[name], options.shrink, rounds)
        report.add(name, {"rounds": rounds, "milliseconds": times})
    report.publish(text(report.records()))


if __name__ == "__main__":
    main()
