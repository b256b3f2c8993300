"""What the ways to distribute share: the network, the data, checkpoints, and the loss curve."""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

sys.path.append(str(Path(__file__).parents[1]))  # what all examples share
from adding_problem import build_model, default_clipvalue
from experiment import positive, positive_number
from files import whole
from progress import Progress

from keras_rnncells import datasets
from keras_rnncells.cells import CELLS

OPTIMIZERS = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}


def options(engine: str, doc: str, argv: list[str] | None, **more: str) -> argparse.Namespace:
    """The options of a script; `more` are its own, integers that may be left out: their help."""
    made = argparse.ArgumentParser(
        prog=f"python examples/distributed/{engine}.py",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("--cell", choices=CELLS, default="IndRNN")
    add("--layers", type=positive, default=2, help="recurrent layers (default: 2)")
    add("--units", type=positive, default=128, help="units in each layer (default: 128)")
    add("--timesteps", type=positive, default=100, help="length of the sequences (default: 100)")
    add("--batch-size", type=positive, default=32, help="of all devices together (default: 32)")
    add("--steps", type=positive, default=100, help="of an epoch (default: 100)")
    add("--epochs", type=positive, default=30, help="checkpoints (default: 30)")
    add("--optimizer", choices=OPTIMIZERS, default="adam")
    add("--learning-rate", type=positive_number, default=2e-4, help="(default: 0.0002)")
    add("--seed", type=int, default=0, help="of weights and data (default: 0)")
    add("--output", type=Path, default=Path(__file__).parents[1] / "output" / "distributed")
    for name, text in more.items():
        add("--" + name.replace("_", "-"), type=int, help=text)
    args = made.parse_args(argv)
    args.engine = engine
    args.settings = {
        name: value
        for name, value in vars(args).items()
        if name != "output" and name not in more  # the curve does not depend on these
    }
    return args


def check_batch(args: argparse.Namespace, devices: int) -> None:
    """Devices with unequal shares would count an example more or less than others."""
    if args.batch_size % devices:
        sys.exit(f"--batch-size {args.batch_size} must be a multiple of the {devices} devices.")


def model(args: argparse.Namespace) -> keras.Model:
    keras.utils.set_random_seed(args.seed)  # the same start in all processes
    return build_model(args.cell, args.timesteps, args.units, args.layers)


def optimizer(args: argparse.Namespace) -> keras.optimizers.Optimizer:
    return OPTIMIZERS[args.optimizer](args.learning_rate, clipvalue=default_clipvalue(args.cell))


def share(examples: int, timesteps: int, process: int, processes: int, seed):
    """The examples of one process among those of all."""
    x, y = datasets.adding_problem(examples, timesteps, seed)
    return x[process::processes], y[process::processes]


def batches(args: argparse.Namespace, process: int = 0, processes: int = 1) -> datasets.Batches:
    """What batch i of epoch e is depends on the seed, e and i alone, on any number of devices."""
    return datasets.Batches(
        share,
        args.batch_size,
        args.steps,
        args.seed,
        timesteps=args.timesteps,
        process=process,
        processes=processes,
    )


@contextlib.contextmanager
def written(path: Path, chief: bool) -> Iterator[Path]:
    """Where a process writes what is kept of the first one only.

    All have to write: Keras makes and reads variables at it, which may need every process.
    """
    if chief:
        with whole(path) as new:
            yield new
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder, path.name)


class Checkpoints(Progress):
    """The state at the end of each epoch: the first process writes it, and all go on from it.

    One writer, so that all processes go on from the same epoch wherever they were when one died.
    On several machines the folder has to be one that all of them see.
    """

    def __init__(self, args: argparse.Namespace, train: datasets.Batches, chief: bool) -> None:
        folder = args.output / "checkpoints" / args.engine
        super().__init__(folder, args.settings, train, monitor="loss", budget=None)
        self.chief = chief

    def _keep(self) -> None:
        if self.chief:
            super()._keep()
        else:
            with written(self.folder / "latest.weights.h5", chief=False) as path:
                self.model.save_weights(path)


def resume(
    args: argparse.Namespace, model: keras.Model, train: datasets.Batches, chief: bool = True
) -> Checkpoints:
    """Takes up what the last run left, if anything. What returns is a callback for `fit`."""
    made = Checkpoints(args, train, chief)
    made.resume(model)
    train.epoch = made.epoch
    return made


def finish(
    args: argparse.Namespace, model: keras.Model, checkpoints: Checkpoints, devices: int
) -> None:
    """Writes the model and the loss curve.

    The checkpoint stays: a process that dies now starts all of them again, to find all done.
    """
    result = {
        "engine": args.engine,
        "devices": devices,
        "backend": keras.backend.backend(),
        "settings": args.settings,
        "steps": checkpoints.curve["steps"],
        "loss": checkpoints.curve["loss"],
    }
    with written(args.output / f"{args.engine}.keras", checkpoints.chief) as new:
        model.save(new)
    if checkpoints.chief:
        with whole(args.output / f"{args.engine}.json") as new:
            new.write_text(json.dumps(result, indent=1) + "\n")
        print("loss:", *(f"{np.float32(loss):.6g}" for loss in result["loss"]), flush=True)
