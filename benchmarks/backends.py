"""Time and memory of a training step on TensorFlow, JAX and PyTorch, in float32 and bfloat16.

    python benchmarks/backends.py [--torch-python other/bin/python] [--rounds 5]

Forward, backward and input gradient, each case in a process of its own; all of a shape are timed
in turn, round after round. PyTorch takes part where `--torch-python` is an interpreter that has
torch and torchrecurrent. Run it alone on the machine, which needs Linux. Writes
`results/backends-cpu.json` and the tables in `README.md`.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

import reporting
from measuring import in_turn
from reporting import Ratio, spread, table
from worker import Worker

SHAPES = {"32x784x128x128": 5, "16x5000x64x128": 3, "128x100x128x512": 5}  # with their rounds
LAYERS = {
    "float32": ("Dense", "IndRNN", "LSTM", "keras LSTM"),
    "mixed_bfloat16": ("IndRNN", "LSTM"),
}
BACKENDS = ("tensorflow", "jax")  # plain, and compiled: what `fit` does unless told otherwise
OF_TORCH = ("Dense", "torch LSTM", "torchrecurrent IndRNN")

# What a user of PyTorch would take / what takes its place: at least 1.
SPEEDUPS = [
    ("torchrecurrent IndRNN, torch, float32", "IndRNN, {}, float32"),
    ("torch LSTM, torch, float32", "IndRNN, {}, float32"),
    ("torch LSTM, torch, float32", "LSTM, {}, float32"),
    ("IndRNN, {}, float32", "IndRNN, {}, mixed_bfloat16"),
    ("LSTM, {}, float32", "LSTM, {}, mixed_bfloat16"),
]


def cases(torch: bool) -> dict[str, dict]:
    """What is timed, by name."""
    made = [
        {"layer": layer, "backend": backend, "dtype": dtype}
        for backend in BACKENDS
        for dtype, layers in LAYERS.items()
        for layer in layers
    ]
    if torch:
        made += [{"layer": name, "backend": "torch", "dtype": "float32"} for name in OF_TORCH]
    return {", ".join(case.values()): case for case in made}


def measure(shape: str, rounds: int, torch_python: str | None) -> dict:
    """Milliseconds and mebibytes of each case, and the versions of all."""
    sizes = [int(size) for size in shape.split("x")]
    workers: dict[str, Worker] = {}
    with ExitStack() as stack:

        def start(name, case):
            python = torch_python if case["backend"] == "torch" else sys.executable
            workers[name] = stack.enter_context(Worker({**case, "shape": sizes}, python))
            return workers[name].step

        makers = {
            (name,): lambda name=name, case=case: start(name, case)
            for name, case in cases(bool(torch_python)).items()
        }
        return {
            "rounds": rounds,
            "milliseconds": in_turn(makers, rounds),
            "mebibytes": {name: worker.memory for name, worker in workers.items()},
            "on": {k: v for worker in reversed(workers.values()) for k, v in worker.on.items()},
        }


def ratios(shape: str, record: dict) -> list[Ratio]:
    times, found = record["milliseconds"], []
    for backend in BACKENDS:
        for pair in SPEEDUPS:
            a, b = (name.format(backend) for name in pair)
            value = times[a]["median"] / times[b]["median"] if a in times else None
            found.append(Ratio(f"{a} / {b}", shape, value, "at least"))
    return found


def text(records: dict[str, dict]) -> str:
    """The results in Markdown."""
    parts = [
        "## Beside other backends",
        "Shapes are batch x steps x features x units; a training step is forward, backward and "
        "input gradient. TensorFlow plain, JAX compiled, as their `fit` is without flags; PyTorch "
        "without `torch.compile`. Each case in a process of its own; MiB are the most that it "
        "takes, compiling included, above its libraries, weights and inputs.",
    ]
    every = []
    for shape, record in records.items():
        found = ratios(shape, record)
        times, memory = record["milliseconds"], record["mebibytes"]
        parts += [
            f"### {shape}",
            reporting.made_on(record),
            table(
                ["layer, backend, precision", "milliseconds", "MiB"],
                ((name, spread(times[name]), f"{memory[name]:.0f}") for name in times),
            ),
            table(["ratio", "of times"], ((r.what, r) for r in found if r.value)),
        ]
        every += found
    return "\n\n".join([*parts, reporting.lost(every)])


def main() -> None:
    parser = reporting.parser(__doc__)
    parser.add_argument("--torch-python", help="an interpreter with torch and torchrecurrent")
    options = reporting.parse(parser)
    report = reporting.Report("backends", options.folder)
    for shape, rounds in {} if options.table else SHAPES.items():
        shape = reporting.shrunk(shape, options.shrink)
        print(f"{shape}:", flush=True)
        report.add(shape, measure(shape, options.rounds or rounds, options.torch_python))
    report.publish(text(report.records()))


if __name__ == "__main__":
    main()
