"""Searches networks for a task: which cell, how deep, how wide, how fast to learn.

    python examples/tune.py --task rows
    python examples/tune.py --task digits --cells IndRNN GRU --parameters 40000 --tuner bayesian
    python examples/tune.py --task rows --sensitivity --repeats 3

The tasks are the adding problem, MNIST by rows and by pixels, and spoken digits. Trials are scored
on data held out from training; the best network is tested once, saved, and exported for TensorFlow
Serving. A search that is killed goes on where it was when the same command is given again; with a
larger `--max-trials`, a finished one goes on too.

For cells at equal size there is `--parameters`, at equal time of a training step
`--max-milliseconds`: what is slower is not trained, and does not count as a trial. A random search
tries each cell as often as the others. `--sensitivity`
varies cell and learning rate only, with the same rates for all cells, and tells how wide the range
is in which a cell learns.

`--workers 4` searches with as many processes on this machine. On a cluster, give the same command
on each machine, with the variables KERASTUNER_TUNER_ID (`chief`, `tuner0`, `tuner1`, ...),
KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT set and --output in a folder that all can see; then
once more without them, for the results. It needs `pip install keras_rnncells[tune,plot]`, and for
MNIST and spoken digits the extra `data`.
"""

from __future__ import annotations

import argparse
import ast
import collections
import json
import math
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import keras
import search_plots
from experiment import (
    HERE,
    OF_THE_RUN,
    data_of_fit,
    device,
    need_matplotlib,
    parse,
    positive,
    positive_number,
    versions,
)
from files import whole
from table import best_first, number, text_of
from tasks import TASKS, Task

from keras_rnncells import datasets, models, serving
from keras_rnncells.cells import CELLS

try:
    from keras_rnncells.tuning import RNNHyperModel, divergence, oracles
except ImportError as error:  # which says what to install
    sys.exit(str(error))

import keras_tuner
from keras_tuner.engine import hyperparameters

from keras_rnncells.tuning.measure import first_batch, milliseconds
from keras_rnncells.tuning.space import KINDS

TUNERS = ("random", "hyperband", "bayesian", "grid")
# A search may go on with other values of these.
MAY_CHANGE = (*OF_THE_RUN, "max_trials", "workers")
RECORDED = ("parameters", "milliseconds", "seconds", "cpu_seconds")
WORKER = "KERASTUNER_TUNER_ID" in os.environ

# TensorFlow keeps the programs that it compiled, some megabytes a trial, as long as the process
# lives; so after some trials the search goes on in a new one.
TRIALS_OF_A_PROCESS = 8

# For the learning rate alone.
RATES = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
PLAINEST = {"normalization": "none", "dropout": 0.0, "clipnorm": 1.0, "schedule": "constant"}
OF_CELLS = {
    "IndRNN": {"normalization_place": "after", "gamma": 2.0, "last_memory": "long"},
    "IRNN": {"gain": 1.0},
}
SIZES = {
    "plain": {"layers": 2, "units": 128},
    "residual": {"blocks": 1, "units": 128},
    "dense": {"dense_blocks": "2", "growth": 16},
}
# Rates at which a cell keeps this share of what its best one gains on chance.
SHARE = 0.9


def options(argv: list[str] | None) -> argparse.Namespace:
    made = argparse.ArgumentParser(
        prog="python examples/tune.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("--task", choices=TASKS, default="rows")
    add("--tuner", choices=TUNERS, help="(default: random)")
    add("--max-trials", type=positive, help="to train (default: 30; not for hyperband)")
    cells = ["IndRNN", "IRNN", "MinimalRNN", "LSTM"]
    add("--cells", nargs="+", choices=CELLS, default=cells, metavar="CELL", help="to be compared")
    add("--kinds", nargs="+", choices=KINDS, default=["plain"], metavar="KIND", help="of stacks")
    add("--parameters", type=positive, help="weights of each network, as many as fit into that")
    add("--max-parameters", type=positive, help="at most (default: 300,000)")
    add("--max-milliseconds", type=positive_number, help="of a training step; else not trained")
    add("--fix", nargs="+", default=[], metavar="NAME=VALUE", help="what is not to be searched")
    add("--sensitivity", action="store_true", help="vary cell and learning rate only")
    add("--rates", nargs="+", type=positive_number, help="learning rates (default: 1e-5 to 0.1)")
    add("--repeats", type=positive, default=1, help="trainings of each rate, by their own seeds")
    defaults = ", ".join(f"{name} {one.epochs}" for name, one in TASKS.items())
    add("--epochs", type=positive, help=f"of a trial (default: {defaults})")
    add("--batch-size", type=positive, default=32, help="(default: 32)")
    defaults = ", ".join(f"{name} {one.limit:,}" for name, one in TASKS.items())
    add("--limit", type=positive, help=f"training examples of an epoch (default: {defaults})")
    add("--timesteps", type=positive, help="of the adding problem (default: 100)")
    add("--workers", type=positive, default=1, help="processes that search (default: 1)")
    add("--data-dir", type=Path, help="folder of the dataset (default: that of TFDS, downloads)")
    add("--seed", type=int, default=0, help="of trials, weights, order and dropout (default: 0)")
    add("--output", type=Path, default=HERE / "output", help="folder of the results")
    add("--quick", action="store_true", help="a minute or two of it, to see it work")
    args = parse(made, argv)
    for word in args.fix:
        if "=" not in word:
            made.error(f"--fix takes NAME=VALUE, such as layers=2. Received: {word}")
    if args.sensitivity:
        if len(args.kinds) > 1:
            made.error("--sensitivity varies cell and learning rate only: give one of --kinds")
        if args.tuner:
            made.error("--sensitivity tries every rate, without a --tuner: leave that out")
        if any(word.startswith("learning_rate=") for word in args.fix):
            made.error("--sensitivity varies the learning rate: give --rates, not --fix")
        if any(word.startswith("kind=") for word in args.fix):
            made.error("--sensitivity takes the kind of stack from --kinds, not --fix")
        args.tuner = "grid"
        args.rates = args.rates or RATES
    elif args.rates or args.repeats > 1:
        made.error("--rates and --repeats belong to --sensitivity")
    args.tuner = args.tuner or "random"
    if args.tuner == "hyperband" and args.max_trials:
        made.error("--tuner hyperband takes as many trials as --epochs needs: no --max-trials")
    if args.tuner != "hyperband" and not args.sensitivity:
        args.max_trials = args.max_trials or 30
    if args.parameters and args.max_parameters:
        made.error("--parameters makes networks of that size: no --max-parameters beside it")
    if not args.parameters:
        args.max_parameters = args.max_parameters or 300_000
    if args.timesteps and args.task != "adding":
        made.error(f"--timesteps belongs to the adding problem: --task {args.task} has its own")
    args.timesteps = args.timesteps or 100
    args.epochs = args.epochs or TASKS[args.task].epochs
    args.limit = args.limit or TASKS[args.task].limit
    if args.quick:
        args.epochs, args.limit = min(args.epochs, 2), min(args.limit, 2_000)
        if args.sensitivity:
            args.rates = args.rates[1::3] if len(args.rates) > 4 else args.rates
        elif args.max_trials:
            args.max_trials = min(args.max_trials, 6)
    return args


def fixed(args: argparse.Namespace) -> dict[str, Any]:
    """The hyperparameters that are not searched."""
    found = {}
    if args.sensitivity:
        (kind,) = args.kinds
        found = {"kind": kind, **PLAINEST, **SIZES[kind]}
        if args.parameters:
            found = {k: v for k, v in found.items() if k not in ("units", "growth")}
        for cell in args.cells:
            found |= OF_CELLS.get(cell, {})
    for word in args.fix:
        name, value = word.split("=", 1)
        try:
            # Of these, 2 is a name as 3-2 is.
            found[name] = value if name == "dense_blocks" else ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


class RoomForTrained:
    """Counts the trials that are trained: one that is rejected makes room for another one."""

    def __init__(self, *args: Any, max_trials: int | None = None, **kwargs: Any) -> None:
        self.wanted = max_trials
        super().__init__(*args, max_trials=max_trials, **kwargs)

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.make_room()

    def end_trial(self, trial: Any) -> None:
        self.make_room()  # before another worker hears that the search is over
        super().end_trial(trial)

    def make_room(self) -> None:
        if self.wanted:
            rejected = sum(trial.metrics.exists("rejected") for trial in self.trials.values())
            # With bounds that nothing fits into, it has to end.
            self.max_trials = self.wanted + min(rejected, 4 * self.wanted)


class RandomSearch(RoomForTrained, oracles.RandomSearchOracle):
    """Random search with as many trials of each cell, so that the best of each can be compared."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        turns: dict[str, float] = collections.Counter()
        for trial in self.trials.values():
            # A cell that is often rejected is drawn more often, but not for ever.
            rejected = trial.metrics.exists("rejected")
            turns[trial.hyperparameters.get("cell")] += 0.25 if rejected else 1
        cells = next(each.values for each in self.get_space().space if each.name == "cell")
        fewest = min(turns[cell] for cell in cells)
        for _ in range(100):  # a cell that has nothing new left loses its turn
            found = super().populate_space(trial_id)
            if found["values"] is None or turns[found["values"]["cell"]] == fewest:
                break
        return found


class GridSearch(RoomForTrained, oracles.GridSearchOracle):
    pass


class BayesianOptimization(RoomForTrained, oracles.BayesianOptimizationOracle):
    pass


ORACLES = {"random": RandomSearch, "grid": GridSearch, "bayesian": BayesianOptimization}


class Network(RNNHyperModel):
    """The search space, with seeds of its own, and a record of each trial.

    Args:
        task: what to learn.
        args: the options.
    """

    def __init__(self, task: Task, args: argparse.Namespace) -> None:
        self.seed, self.rates, self.repeats = args.seed, args.rates, args.repeats
        self.batches, self.objective, self.worst = task.train, task.objective, task.worst
        self.compiled = 0  # trials of this process
        super().__init__(
            task.kind,
            task.input_shape,
            task.outputs,
            args.cells,
            args.kinds,
            fixed=fixed(args),
            parameters=args.parameters,
            max_parameters=args.max_parameters,
            max_milliseconds=args.max_milliseconds,
        )

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        repeat = 0
        if self.repeats > 1:
            repeat = self.ask(hp, "Choice", "repeat", list(range(self.repeats)))
        self.seed_of_trial = self.seed + repeat
        return super().build(hp)

    def _make(self, *args: Any, **kwargs: Any) -> keras.Model:
        # So that a trial that is repeated after a kill is the same, whatever was built before it:
        # the size is found by building several.
        keras.utils.set_random_seed(self.seed_of_trial)
        return super()._make(*args, **kwargs)

    def choose_learning_rate(self, hp: keras_tuner.HyperParameters, cell: str) -> float:
        if self.rates:
            return self.ask(hp, "Choice", "learning_rate", self.rates)
        return super().choose_learning_rate(hp, cell)

    def choose_callbacks(self, *args: Any) -> list[keras.callbacks.Callback]:
        return [*super().choose_callbacks(*args), datasets.FollowEpochs(self.batches)]

    def measure(self, *_: Any) -> float:
        return self.took  # by `fit`, which records it where there is no limit, too

    def fit(self, hp: keras_tuner.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any):
        """Trains, and leaves `record.json` in the folder of the trial."""
        tuner, trial = next(
            (each.tuner, each.trial) for each in kwargs["callbacks"] if hasattr(each, "tuner")
        )
        record = {"parameters": models.count_parameters(model)}
        if not self.max_parameters or record["parameters"] <= self.max_parameters:
            self.compiled += 1
            self.took = milliseconds(model, first_batch(self.batches), steps=10)
            record["milliseconds"] = round(self.took, 3)
        self.batches.epoch = kwargs.get("initial_epoch", 0)
        if self.batches.epoch and "steps_per_epoch" in kwargs:  # a dataset that starts at 0
            kwargs["x"] = self.batches.as_tf_dataset(None)
        began = time.perf_counter(), time.process_time()
        result = {self.objective: self.worst}
        try:
            trained = super().fit(hp, model, *args, **kwargs)
        except keras_tuner.errors.FailedTrialError as error:
            # As a failure it would be hidden from tuners that learn from the scores.
            record |= {"status": "rejected", "message": str(error)}
            result["rejected"] = 1.0
            divergence.save_weights(model, kwargs["callbacks"])
        else:
            if isinstance(trained, keras.callbacks.History):
                result = trained
            else:
                record["status"] = "diverged"
        record["seconds"] = round(time.perf_counter() - began[0], 1)
        # Of all cores together: what a busy machine does not stretch.
        record["cpu_seconds"] = round(time.process_time() - began[1], 1)
        with whole(Path(tuner.get_trial_dir(trial.trial_id), "record.json")) as new:
            new.write_text(json.dumps(record))
        return result


def name_of(args: argparse.Namespace) -> str:
    """Tells one search from others in the same folder."""
    parts = ["tune", args.task, "sensitivity" if args.sensitivity else args.tuner]
    if args.parameters:
        parts.append(f"{args.parameters}-weights")
    if args.max_milliseconds:
        parts.append(f"{args.max_milliseconds:g}-ms")
    return "-".join([*parts, *(["quick"] if args.quick else [])])


def claim(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The settings of the search, which no other one in this folder may differ from."""
    settings = {k: v for k, v in sorted(vars(args).items()) if k not in MAY_CHANGE}
    settings["backend"] = keras.backend.backend()
    path = folder / "settings.json"
    if not path.exists():
        with whole(path) as new:
            new.write_text(json.dumps(settings, indent=1) + "\n")
    before = json.loads(path.read_text())
    if before != settings:
        changed = sorted(k for k in settings | before if settings.get(k) != before.get(k))
        sys.exit(
            f"{folder} is of a search with other settings ({', '.join(changed)}): go on with "
            "those, remove the folder, or choose another --output."
        )
    return settings


def make_tuner(task: Task, args: argparse.Namespace, folder: Path) -> keras_tuner.Tuner:
    """The tuner, which knows the trials that are in the folder."""
    network = Network(task, args)
    # To KerasTuner, 0 is no seed.
    arguments = {"objective": task.objective, "seed": args.seed + 1}
    place = {"directory": folder.parent, "project_name": folder.name}
    if args.tuner == "hyperband":
        oracle = oracles.HyperbandOracle(max_epochs=args.epochs, **arguments)
        tuner = oracles.Hyperband(oracle, network, **place)
    else:
        oracle = ORACLES[args.tuner](max_trials=args.max_trials, **arguments)
        tuner = oracles.Tuner(oracle, network, **place)
    # Searched by a chief and workers, whose own files have other names.
    if not WORKER and not tuner.oracle.trials and (folder / "oracle.json").exists():
        tuner.oracle.reload()
    return tuner


def search(
    tuner: keras_tuner.Tuner, task: Task, args: argparse.Namespace, logs: Path, restart: bool
) -> None:
    def in_a_new_process() -> None:
        if tuner.hypermodel.compiled >= TRIALS_OF_A_PROCESS:
            print("Goes on in a new process.", flush=True)
            os.execv(sys.executable, sys.orig_argv)

    if restart:
        tuner.pre_create_trial = in_a_new_process
    callbacks = []
    if keras.backend.backend() == "tensorflow":  # KerasTuner logs hyperparameters there only
        callbacks.append(keras.callbacks.TensorBoard(logs, write_graph=False))
    tuner.search(
        **data_of_fit(task.train, task.validation, 500),
        epochs=args.epochs,
        callbacks=callbacks,
        shuffle=False,  # `train` has its own order
        verbose=1 if sys.stdout.isatty() else 2,
    )


def trials(tuner: keras_tuner.Tuner) -> list[dict[str, Any]]:
    """What became of each trial, in the order in which they were started."""
    found = []
    for trial_id in tuner.oracle.start_order:
        trial = tuner.oracle.trials[trial_id]
        record = Path(tuner.get_trial_dir(trial_id), "record.json")
        record = json.loads(record.read_text()) if record.exists() else {}
        status = record.get("status", trial.status.lower())
        message = record.get("message", trial.message)
        found.append(
            {
                "trial": trial_id,
                "status": status,
                # Of the trials of this process it is one of NumPy.
                "score": float(trial.score) if status == "completed" else None,
                "message": message and message.strip().splitlines()[-1],
                **{key: record.get(key) for key in RECORDED},
                "cell": trial.hyperparameters.values.get("cell"),
                **searched(tuner, trial.hyperparameters),
            }
        )
        if "tuner/epochs" in trial.hyperparameters.values:
            found[-1]["epochs"] = trial.hyperparameters.values["tuner/epochs"]
    return found


def plain_name(name: str) -> str:
    """Of a hyperparameter: the learning rate of a cell is the learning rate."""
    return "learning_rate" if name.startswith("learning_rate") else name


def searched(tuner: keras_tuner.Tuner, hp: keras_tuner.HyperParameters) -> dict[str, Any]:
    """The values of a trial that were searched, and its learning rate if that was not."""
    names = {*axes(tuner), "learning_rate"}
    return {
        plain_name(each.name): hp.values[each.name]
        for each in hp.space
        if plain_name(each.name) in names and hp.is_active(each) and each.name in hp.values
    }


def axes(tuner: keras_tuner.Tuner) -> dict[str, str]:
    """What was searched, and whether as a `"choice"`, in `"linear"` or in `"log"` steps."""
    found = {}
    for each in tuner.oracle.get_space().space:
        name = plain_name(each.name)
        if isinstance(each, hyperparameters.Choice):
            if len(each.values) > 1:
                found[name] = "choice"
        elif not isinstance(each, hyperparameters.Fixed) and "/" not in name:  # KerasTuner's own
            found[name] = "log" if each.sampling == "log" else "linear"
    return found


def width(found: list[dict[str, Any]], task: Task) -> dict[str, dict[str, Any]]:
    """For each cell, the learning rates around the best one at which it does nearly as well."""
    widths = {}
    for cell in dict.fromkeys(each["cell"] for each in found):
        gains: dict[float, list[float]] = {}  # on chance, which a diverged trial has
        for each in found:
            if each["cell"] == cell and each["status"] in ("completed", "diverged"):
                score = task.chance if each["score"] is None else each["score"]
                gain = abs(task.perfect - task.chance) - abs(task.perfect - score)
                gains.setdefault(each["learning_rate"], []).append(gain)
        if not gains:
            continue
        rates = sorted(gains)
        means = [sum(gains[rate]) / len(gains[rate]) for rate in rates]
        best = max(range(len(rates)), key=means.__getitem__)
        gain = means[best]
        widths[cell] = {
            "learning_rate": rates[best],
            "score": task.chance + math.copysign(gain, task.perfect - task.chance),
        }
        if gain < 0.1 * abs(task.perfect - task.chance):
            widths[cell]["learns"] = False
            continue
        low, high = (edge(rates, means, best, step, SHARE * gain) for step in (-1, 1))
        widths[cell] |= {
            "learns": True,
            "from": low,
            "to": high,
            "decades": round(math.log10(high / low), 2),
            # Then it may be wider.
            "within": low > rates[0] and high < rates[-1],
        }
    return widths


def edge(rates: list[float], means: list[float], best: int, step: int, enough: float) -> float:
    """Where the line through the means falls below `enough`, going from the best one."""
    i = best
    while 0 <= i + step < len(rates):
        if means[i + step] < enough:
            share = (means[i] - enough) / (means[i] - means[i + step])
            return rates[i] * (rates[i + step] / rates[i]) ** share
        i += step
    return rates[i]


def finish(
    tuner: keras_tuner.Tuner, task: Task, args: argparse.Namespace, name: str, settings: dict
) -> dict[str, Any]:
    """Writes the best model and the result, prints and draws it."""
    found = trials(tuner)
    result = {
        "experiment": "tune",
        "task": args.task,
        "metric": f"{task.metric}, held out",
        "direction": "max" if task.accuracy else "min",
        "chance": task.chance,
        "test": None,
        "best": None,
        "trials": found,
        "axes": axes(tuner),
        "fixed": tuner.hypermodel.fixed,
        "sensitivity": width(found, task) if args.sensitivity else None,
        "share": SHARE,
        "seconds": round(sum(each["seconds"] or 0 for each in found), 1),
        "backend": keras.backend.backend(),
        "device": device(),
        "versions": versions() | {"keras-tuner": keras_tuner.__version__},
        "seed": args.seed,
        "command": args.command,
        "settings": settings,
    }
    ranked = best_first(result)
    if ranked:
        result["best"] = ranked[0]
        with warnings.catch_warnings():
            # KerasTuner loads the weights before the optimizer, which is not needed, is built.
            warnings.filterwarnings("ignore", "Skipping variable loading")
            model = tuner.load_model(tuner.oracle.trials[ranked[0]["trial"]])
        tested = model.evaluate(*task.test, batch_size=500, verbose=0, return_dict=True)
        result["test"] = tested["accuracy" if task.accuracy else "loss"]
        save(model, args.output, name, result)
    with whole(args.output / f"{name}.json") as new:
        new.write_text(json.dumps(result, indent=1) + "\n")
    report(result)
    search_plots.draw(args.output / name, result)
    print(f"Results, pictures and the best model: {args.output / name}.*", flush=True)
    if not ranked:
        messages = [each["message"] for each in found if each["message"]]
        sys.exit(f"No trial came to an end. {messages[-1] if messages else ''}")
    return result


def save(model: keras.Model, output: Path, name: str, result: dict[str, Any]) -> None:
    model.optimizer.build(model.trainable_variables)  # of its state there was none left
    with whole(output / f"{name}.keras") as new:
        model.save(new)
    if keras.backend.backend() != "tensorflow":
        print("Not exported: that takes TensorFlow, which loads the .keras file too.")
        return
    with whole(output / "models" / name) as new:
        told = {key: result[key] for key in ("metric", "test", "command", "seed")}
        serving.export(model, new, streaming="auto", training_result=told)


def report(result: dict[str, Any], most: int = 10) -> None:
    """Prints the best trials, and the ranges of learning rates."""
    ranked = best_first(result)
    known = ("score", "cell", "parameters", "milliseconds", "learning_rate")
    others = [name for name in result["axes"] if name not in known]
    print(f"\n{result['metric']:>24}  {'cell':<11}{'weights':>9}{'ms/step':>9}{'rate':>10}  others")
    for each in ranked[:most]:
        rest = " ".join(f"{name}={text_of(each[name])}" for name in others if name in each)
        print(
            f"{each['score']:>24.4f}  {each['cell']:<11}{each['parameters']:>9,}"
            f"{each['milliseconds']:>9.3g}{each['learning_rate']:>10.2g}  {rest}"
        )
    statuses = [each["status"] for each in result["trials"]]
    counts = ", ".join(f"{statuses.count(one)} {one}" for one in dict.fromkeys(statuses))
    print(f"{len(statuses)} trials: {counts}; {result['seconds'] / 60:.1f} minutes.")
    for each in [one for one in result["trials"] if one["message"]][:3]:
        print(f"Trial {each['trial']} {each['status']}: {each['message']}")
    for cell, found in (result["sensitivity"] or {}).items():
        text = "does not learn at any rate"
        if found["learns"]:
            more = "" if found["within"] else ", to the end of the rates that were tried"
            text = f"{found['decades']} decades, {found['from']:.1g} to {found['to']:.1g}{more}"
        print(f"{cell}: best {found['score']:.4f} at {found['learning_rate']:g}; {text}")
    if result["best"]:
        print(f"The best one on test data: {number(round(result['test'], 4))}")


def main(argv: list[str] | None = None, restart: bool = False) -> None:
    args = options(argv)
    need_matplotlib()
    name = name_of(args)
    folder = args.output / "search" / name
    settings = claim(folder, args)
    launched = args.workers > 1 and not WORKER
    if launched:
        from keras_rnncells.tuning.launch import launch

        words = sys.argv[1:] if argv is None else argv
        if code := launch([sys.executable, __file__, *words], args.workers):
            sys.exit(code)
    try:
        task = TASKS[args.task].load(args)
    except (OSError, ValueError) as error:  # missing, damaged or impossible: one sentence
        sys.exit(str(error))
    try:
        tuner = make_tuner(task, args, folder)
    except ValueError as error:  # of hyperparameters that there are not
        sys.exit(str(error))
    if not launched:
        search(tuner, task, args, args.output / "logs" / name, restart)
    if not WORKER:
        finish(tuner, task, args, name, settings)


if __name__ == "__main__":
    main(restart=os.name == "posix")
