"""How the memory of a training step grows with the number of steps, for every cell.

    python benchmarks/memory.py

Forward, backward and input gradient, float32, each case in a process of its own. Needs Linux.
Writes `results/memory-cpu.json` and the table in `README.md`.
"""

from __future__ import annotations

import contenders
import reporting
from reporting import Ratio, table
from worker import Worker

from keras_rnncells.cells import CELLS

BATCH = 128  # so large that what compiles a step, tens of MiB, counts for little
FEW = 16  # so many steps need hardly more than the model and what compiles it
SHORT, LONG = 800, 3200
GROWTH = 4.6  # from SHORT to LONG, at most


def measure(kind: str, lengths: list[int]) -> dict[str, dict[str, float]]:
    """Mebibytes by cell and number of steps."""
    found: dict = {cell: {} for cell in CELLS}
    for cell in CELLS:
        for steps in lengths:
            shape = (BATCH, steps, 128, 128)
            case = {"backend": "tensorflow", "layer": cell, "shape": shape}
            with Worker({**case, "jit": contenders.KINDS[kind]}) as worker:
                worker.step()
            found[cell][str(steps)] = worker.memory
            print(f"  {kind}, {cell}, {steps} steps: {worker.memory:.0f} MiB", flush=True)
    return found


def text(records: dict[str, dict]) -> str:
    """The results in Markdown."""
    parts = [
        "## Memory of a training step",
        f"MiB, batch {BATCH}, 128 features, 128 units, float32: the most that a process takes for "
        "one training step, compiling included, above its libraries, weights and inputs. Each "
        "number is of a process of its own. The ratio is of what is above the first column, which "
        "is the model's own. Plain and jit as above.",
    ]
    ratios = []
    for kind, record in records.items():
        rows = []
        for cell, found in record["mebibytes"].items():
            few, short, long = found.values()
            growth = (long - few) / (short - few)
            ratios.append(Ratio("growth of memory", f"{cell}, {kind}", growth, "at most", GROWTH))
            rows.append([cell, *(f"{x:.0f}" for x in found.values()), ratios[-1]])
        columns = [f"{steps} steps" for steps in found]
        parts += [
            f"{reporting.machine_of(record)}.",
            table([kind, *columns, f"{columns[2]} / {columns[1]}"], rows),
        ]
    return "\n\n".join([*parts, reporting.lost(ratios)])


def main() -> None:
    options = reporting.parse(reporting.parser(__doc__))
    report = reporting.Report("memory", options.folder)
    lengths = [reporting.fewer(steps, options.shrink) for steps in (FEW, SHORT, LONG)]
    for kind in [] if options.table else contenders.KINDS:
        report.add(kind, {"mebibytes": measure(kind, lengths)})
    report.publish(text(report.records()))


if __name__ == "__main__":
    main()
