"""What the experiments share: one face, training that outlives a kill, and a result to look at."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import keras
from files import whole
from progress import Progress, different

import keras_rnncells
from keras_rnncells.cells import CELLS
from keras_rnncells.models import PopulationStatistics, count_parameters

HERE = Path(__file__).parent
# What says where and for how long, not what is trained.
OF_THE_RUN = ("data_dir", "output", "budget", "command")


def positive(text: str) -> int:
    """A whole number from 1 on, as an option."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive whole number")
    return number


def positive_number(text: str) -> float:
    """A finite number above 0, as an option."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def parser(experiment: str, doc: str, *, units: int, epochs: int):
    """The options that every experiment has, as an `argparse.ArgumentParser`."""
    made = argparse.ArgumentParser(
        prog=f"python examples/{experiment}.py",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("--cell", choices=CELLS, default="IndRNN")
    add("--layers", type=positive, help="recurrent layers (default: see above)")
    add(
        "--units",
        type=positive,
        default=units,
        help=f"units in each layer (default: {units or 'by size'})",
    )
    add("--epochs", type=positive, default=epochs, help=f"validations (default: {epochs})")
    add("--data-dir", type=Path, help="folder of the dataset (default: that of TFDS, downloads)")
    add("--budget", type=positive_number, help="minutes of training at most, but one epoch")
    add("--seed", type=int, default=0, help="of weights, order and dropout (default: 0)")
    add("--output", type=Path, default=HERE / "output", help="folder of the results")
    add("--quick", action="store_true", help="a minute or two of it, to see it work")
    return made


def parse(made: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """The options, and as `command` what to type for them, wherever the data lie."""
    args = made.parse_args(argv)
    words = []
    for name, value in vars(args).items():
        if name not in ("data_dir", "output") and value != made.get_default(name):
            option = "--" + name.replace("_", "-")
            values = value if isinstance(value, list) else [value]
            words += [option] if value is True else [option, *map(str, values)]
    args.command = shlex.join([*made.prog.split(), *words])
    return args


def as_published(args: argparse.Namespace, layers: int) -> int:
    """The depth that was asked for; else `layers` of IndRNN, or one of another cell."""
    return args.layers or (layers if args.cell == "IndRNN" else 1)


class Run:
    """One run of an experiment.

    It writes `<name>.json`, `.png` and `.keras` into the folder `--output`, where the name is made
    of the experiment, the cell, the variant, and `gpu` or `tpu` if it runs there. Until then
    `checkpoints/<name>` has what the same command goes on from.

    Args:
        experiment: its name, that of the script.
        args: its options, from `parse`.
        variant: what tells this run from others of the same experiment and cell.
    """

    def __init__(self, experiment: str, args: argparse.Namespace, variant: str = "") -> None:
        self.experiment = experiment
        self.args = args
        kind, _ = accelerator()
        parts = [variant, kind, "quick" if args.quick else ""]
        self.variant = "-".join(filter(None, parts))
        self.name = "-".join(filter(None, [experiment, args.cell, self.variant]))
        settings = {**vars(args), "backend": keras.backend.backend()}
        self.settings = {k: v for k, v in sorted(settings.items()) if k not in OF_THE_RUN}
        self.progress = None
        self._check()
        keras.utils.set_random_seed(args.seed)

    def path(self, kind: str) -> Path:
        return self.args.output / f"{self.name}{kind}"

    def _check(self) -> None:
        """Says before the training what would make it useless after."""
        need_matplotlib()
        if self.path(".json").exists():
            settings = json.loads(self.path(".json").read_text())["settings"]
            if changed := different(settings, self.settings):
                sys.exit(
                    f"{self.path('.json')} is the result of other settings ({changed}): move it, "
                    "or choose another --output."
                )

    def fit(
        self,
        model: keras.Model,
        train: Any,
        validation: Any,
        monitor: str,
        callbacks: list[keras.callbacks.Callback] | None = None,
        validation_batch_size: int | None = None,
    ) -> dict[str, list[float]]:
        """Trains a compiled model, and gives it the weights that were the best in validation.

        Args:
            model: the model.
            train: batches of `keras_rnncells.datasets`, of which the epoch says what it brings.
            validation: batches, or arrays of inputs and targets.
            monitor: the log that decides: the higher the better if it is an accuracy, else the
                lower.
            callbacks: the experiment's own. Before theirs the normalizations are measured, so that
                what is validated, and kept, has the statistics of its weights.
            validation_batch_size: of arrays.

        Returns:
            The learning curve: training `steps` and `seconds` till then, and each log, at the end
            of each epoch.
        """
        print(f"{self.name}: {count_parameters(model):,} weights, {len(train):,} steps an epoch.")
        folder = self.args.output / "checkpoints" / self.name
        self.progress = Progress(
            folder, self.settings, train, monitor, self.args.budget, self.args.command
        )
        self.progress.resume(model)
        if self.progress.ended is None:
            train.epoch = self.progress.epoch
            model.fit(
                **data_of_fit(train, validation, validation_batch_size),
                epochs=self.args.epochs,
                initial_epoch=self.progress.epoch,
                callbacks=[
                    PopulationStatistics(train),
                    *(callbacks or []),
                    self.progress,
                    *self._tensorboard(),
                ],
                shuffle=False,  # by numbers that a run which goes on would not have
                verbose=1 if sys.stdout.isatty() else 2,
            )
        self.progress.take_best(model)
        return self.progress.curve

    def _tensorboard(self) -> list[keras.callbacks.Callback]:
        if not all(map(importlib.util.find_spec, ("tensorboard", "tensorflow"))):
            print("No logs for TensorBoard, which needs tensorboard and tensorflow.")
            return []
        return [keras.callbacks.TensorBoard(self.args.output / "logs" / self.name)]

    def finish(self, model: keras.Model, metric: str, value: float | None, **more: Any) -> dict:
        """Writes the model and the result, after all else that belongs to the run.

        Args:
            model: the trained model.
            metric: what was measured.
            value: what was found; `None` if it was not reached.
            **more: `published` and `source`, the number of the paper and where it stands, and what
                else belongs to this result.

        Returns:
            The result.
        """
        progress = self.progress
        result = {
            "experiment": self.experiment,
            "cell": self.args.cell,
            "variant": self.variant,
            "metric": metric,
            "value": value,
            "published": None,
            "source": None,
            **more,
            "layers": self.args.layers,
            "units": self.args.units,
            "parameters": count_parameters(model),
            "steps": progress.curve["steps"][-1],
            "epochs": progress.epoch,
            "seconds": round(progress.seconds, 1),
            "cpu_seconds": round(progress.cpu_seconds, 1),
            "ended_by": progress.ended,
            "backend": keras.backend.backend(),
            "device": device(),
            "versions": versions(),
            "seed": self.args.seed,
            "command": self.args.command,
            "settings": self.settings,
            "curve": progress.curve,
        }
        with whole(self.path(".keras")) as new:
            model.save(new)
        with whole(self.path(".json")) as new:
            new.write_text(json.dumps(result, indent=1) + "\n")
        progress.remove()
        print(
            f"{metric}: {'not reached' if value is None else f'{value:.4g}'} after "
            f"{result['steps']:,} steps and {progress.seconds / 60:.1f} minutes.\n"
            f"Model, result and picture: {self.path('.*')}",
            flush=True,
        )
        return result


def data_of_fit(train: Any, validation: Any, batch_size: int | None = None) -> dict[str, Any]:
    """The arguments of Keras' `fit` that are data.

    What Keras on TensorFlow makes of batches and arrays is tuned by tf.data, which at the end of
    each epoch waits until the tuner wakes up: a third of the time, of epochs of 4 or 40 seconds.

    Args:
        train: batches of `keras_rnncells.datasets`.
        validation: likewise, or a tuple of arrays.
        batch_size: of arrays.
    """
    if keras.backend.backend() != "tensorflow":
        return {"x": train, "validation_data": validation, "validation_batch_size": batch_size}
    import tensorflow as tf

    if isinstance(validation, tuple):
        options = tf.data.Options()
        options.autotune.enabled = False
        validation = tf.data.Dataset.from_tensor_slices(validation).batch(batch_size)
        validation = validation.with_options(options)
    else:
        validation = validation.as_tf_dataset()
    return {
        "x": train.as_tf_dataset(None),
        "steps_per_epoch": len(train),
        "validation_data": validation,
    }


def plot_curve(
    path: Path,
    curve: dict[str, list[float]],
    title: str,
    series: dict[str, str],
    ylabel: str,
    lines: dict[str, float],
    point: tuple[str, float, float] | None = None,
) -> None:
    """Writes the picture of a learning curve, on a logarithmic scale where it spans much.

    Args:
        path: of the picture.
        curve: what `Run.fit` returned.
        title: the title.
        series: the logs to draw, with their labels.
        ylabel: what they are.
        lines: values to compare them with, by their labels.
        point: what others reached: label, steps and value.
    """
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for key, label in series.items():
        axes.plot(curve["steps"], curve[key], label=label)
    for (label, value), style in zip(lines.items(), ("--", ":", "-."), strict=False):
        axes.axhline(value, color="gray", linestyle=style, label=label)
    if point:
        label, *where = point
        axes.plot(*where, "k*", markersize=12, label=label)
    values = [value for key in series for value in curve[key]]
    if max(values) > 20 * min(values) > 0:
        axes.set_yscale("log")
    axes.set(title=title, xlabel="training steps", ylabel=ylabel)
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, path)


def pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, path: Path) -> None:
    with whole(path) as new:
        figure.savefig(new, dpi=150)
    pyplot().close(figure)


def accelerator() -> tuple[str, str]:
    """What the backend computes on: `"gpu"` or `"tpu"`, and its name; twice `""` on a CPU."""
    if keras.backend.backend() == "jax":
        import jax

        if (kind := jax.default_backend()) != "cpu":
            return kind, jax.devices()[0].device_kind
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        for gpu in tf.config.list_physical_devices("GPU"):
            details = tf.config.experimental.get_device_details(gpu)
            return "gpu", details.get("device_name", "GPU")
    return "", ""


def need_matplotlib() -> None:
    """Ends the script where it could not draw what it found."""
    if not importlib.util.find_spec("matplotlib"):
        sys.exit("The pictures need matplotlib: run `pip install keras_rnncells[plot]`.")


def device() -> str:
    """What it ran on."""
    _, name = accelerator()
    if name:
        return name
    # Those that this process may use.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} CPU core{'s' if cores != 1 else ''}, {cpu()}"


def cpu() -> str:
    try:  # Linux; elsewhere Python knows
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ", 1)[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "keras_rnncells": keras_rnncells.__version__}
    for name in ("keras", "tensorflow", "tensorflow-cpu", "jax"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
