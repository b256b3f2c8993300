"""How the memory of a process grows while it searches, trial after trial.

    python benchmarks/search_memory.py

A random search of KerasTuner in the space of `RNNHyperModel`, on TensorFlow and on JAX; and
`examples/tune.py`, which after some trials goes on in a new process. Each in a process of its own,
which writes down how much of it is in memory at the end of each trial. Needs Linux. Writes
`results/search_memory-cpu.json` and the table in `README.md`.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import measuring
import reporting
from worker import resident

MORE = 18  # trials after the second, in which nothing is new any more
STEPS, SEQUENCES = 50, 320
FIXED = {"layers": 2, "units": 32, "normalization": "none"}
SCRIPT = "tensorflow, examples/tune.py"
CASES = ("tensorflow", "jax", SCRIPT)


def measure(case: str, trials: int) -> dict:
    """Mebibytes after each trial, and the versions."""
    of_the_search = {
        "KERAS_BACKEND": case.split(",")[0],
        "CUDA_VISIBLE_DEVICES": "-1",
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, __file__, "--search", case, str(trials), folder],
            env={**os.environ, **of_the_search},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        lines = Path(folder, "memory.txt").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return {"mebibytes": [one["mebibytes"] for one in found], "on": found[-1]["on"]}


def search(case: str, trials: int, folder: Path) -> None:
    """Searches, and writes a line into `memory.txt` after each trial."""
    import keras_tuner

    end = keras_tuner.Tuner.on_trial_end

    def on_trial_end(self, trial):
        end(self, trial)
        gc.collect()
        with open(folder / "memory.txt", "a") as file:
            line = {"mebibytes": resident("VmRSS"), "on": measuring.machine()}
            file.write(json.dumps(line) + "\n")

    keras_tuner.Tuner.on_trial_end = on_trial_end
    if case == SCRIPT:
        by_script(trials, folder)
    else:
        by_hand(trials, folder)


def by_hand(trials: int, folder: Path) -> None:
    import keras_tuner

    from keras_rnncells import datasets, tuning

    x, y = datasets.adding_problem(SEQUENCES, STEPS, 0)
    space = tuning.RNNHyperModel("regression", x.shape[1:], 1, ["IndRNN"], ["plain"], fixed=FIXED)
    tuner = keras_tuner.RandomSearch(space, "val_loss", max_trials=trials, seed=1, directory=folder)
    tuner.search(x, y, validation_data=datasets.adding_problem(1000, STEPS, 1), verbose=0)


def by_script(trials: int, folder: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    import tune

    tune.finish = lambda *_: None  # what follows the search
    fixed = " ".join(f"{name}={value}" for name, value in FIXED.items())
    words = f"--task adding --timesteps {STEPS} --limit {SEQUENCES} --epochs 1 --cells IndRNN "
    words += f"--max-trials {trials} --fix {fixed}"
    # Its new processes run this script, with the same arguments.
    tune.main([*words.split(), "--output", str(folder)], restart=True)


def text(records: dict[str, dict]) -> str:
    """The results in Markdown."""
    rows = []
    for case, record in records.items():
        found = record["mebibytes"]
        numbers = (found[1], found[-1], max(found), (found[-1] - found[1]) / (len(found) - 2))
        rows.append([case, len(found), *(f"{x:.0f}" for x in numbers)])
    columns = ["search", "trials", "after the second", "after the last", "at most", "a trial"]
    parts = [
        "## Memory of a search",
        "MiB of the process that searches, at the end of a trial: two layers of 32 IndRNN, "
        f"{STEPS} steps of the adding problem, {SEQUENCES} sequences, one epoch. What is above "
        "the second trial is what the trials leave, by trial in the last column. "
        "`examples/tune.py` goes on in a new process after every eight.",
        f"{reporting.machine_of(next(iter(records.values())))}.",
        reporting.table(columns, rows),
    ]
    return "\n\n".join(parts)


def main() -> None:
    if sys.argv[1:2] == ["--search"]:
        case, trials, folder = sys.argv[2:]
        search(case, int(trials), Path(folder))
        return
    options = reporting.parse(reporting.parser(__doc__))
    report = reporting.Report("search_memory", options.folder)
    for case in [] if options.table else CASES:
        print(f"{case}:", flush=True)
        report.add(case, measure(case, 2 + reporting.fewer(MORE, options.shrink)))
    report.publish(text(report.records()))


if __name__ == "__main__":
    main()
