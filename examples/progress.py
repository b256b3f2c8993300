"""Training that goes on where it was killed, to the same curve."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from files import whole


def different(settings: dict, others: dict) -> str:
    """The names of the settings that two runs do not share."""
    names = settings.keys() | others.keys()
    return ", ".join(sorted(name for name in names if settings.get(name) != others.get(name)))


class Progress(keras.callbacks.Callback):
    """Keeps weights, optimizer, learning curve and best weights at the end of each epoch.

    Keras' `BackupAndRestore` does not know the curve and writes over its files: a kill meanwhile
    loses the run. Here each epoch is a folder that appears as a whole, and what an epoch brings
    (data, dropout) is a function of its number, so that a run that goes on is the run that was not
    killed.

    Args:
        folder: where to keep it.
        settings: of the run: another run does not go on from here.
        train: the batches of training, to be told the epoch.
        monitor: the log that decides which weights are the best.
        budget: minutes of training at most, but one epoch; those before a kill counted in.
        command: what to type to go on.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict,
        train: Any,
        monitor: str,
        budget: float | None,
        command: str = "",
    ) -> None:
        super().__init__()
        self.folder = folder
        self.settings = settings
        self.command = command
        self.train = train
        self.monitor = monitor
        self.budget = budget
        self.sign = -1 if "acc" in monitor else 1
        self.epoch = 0
        self.seconds = 0.0
        self.cpu_seconds = 0.0  # of all cores together: what a busy machine does not stretch
        self.ended: str | None = None
        self.curve: dict[str, list[float]] = {}
        self.best: dict[str, Any] = {}

    def resume(self, model: keras.Model) -> None:
        """Takes up what the last run left, if anything."""
        for folder in self.folder.glob(".partial-*"):  # a kill came between
            shutil.rmtree(folder, ignore_errors=True)  # another process may do so too
        kept = self._kept()
        if not kept:
            return
        state = json.loads((kept[-1] / "state.json").read_text())
        if changed := different(state["settings"], self.settings):
            sys.exit(
                f"{self.folder} is of an unfinished run with other settings ({changed}):"
                " finish that one, remove the folder, or choose another --output."
            )
        model.optimizer.build(model.trainable_variables)
        model.load_weights(kept[-1] / "latest.weights.h5")
        with np.load(kept[-1] / "best.npz") as best:
            self.best = {"weights": [best[name] for name in best.files], **state["best"]}
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        self.cpu_seconds = state["cpu_seconds"]
        self.ended, self.curve = state["ended"], state["curve"]
        print(f"Goes on after epoch {self.epoch}.", flush=True)

    def take_best(self, model: keras.Model) -> None:
        model.set_weights(self.best["weights"])

    def remove(self) -> None:
        for folder in self._kept():  # a kill meanwhile leaves nothing that looks like a run
            folder.rename(folder.with_name(f".partial-{folder.name}"))
        shutil.rmtree(self.folder, ignore_errors=True)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._began = time.perf_counter(), time.process_time()
        self.train.epoch = epoch
        for variable in self.model.variables:
            if variable.name == "seed_generator_state":
                # Its seed, and how many numbers were drawn: a start that no other epoch comes to.
                seed = keras.ops.convert_to_numpy(variable)[0]
                variable.assign(np.array([seed, epoch << 20], "uint32"))

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        self.epoch = epoch + 1
        seconds = time.perf_counter() - self._began[0]
        self.seconds += seconds
        self.cpu_seconds += time.process_time() - self._began[1]
        point = {
            "steps": int(keras.ops.convert_to_numpy(self.model.optimizer.iterations)),
            "seconds": round(self.seconds, 1),
            **{name: float(value) for name, value in logs.items()},
        }
        for name, value in point.items():
            self.curve.setdefault(name, []).append(value)
        value = point[self.monitor]
        if not self.best or self.sign * (value - self.best["value"]) < 0:
            self.best = {
                "weights": self.model.get_weights(),
                # Of a number that is none, the next one is better.
                "value": value if np.isfinite(value) else self.sign * 1e30,
                "epoch": self.epoch,
            }
        if self.model.stop_training:
            self.ended = "target"
        elif not np.isfinite(point["loss"]):
            self.ended = "divergence"  # of weights that are no numbers, no step makes numbers
            self.model.stop_training = True
        elif self.epoch == self.params["epochs"]:
            self.ended = "epochs"
        elif self.budget and self.seconds + seconds > 60 * self.budget:
            self.ended = "budget"
            self.model.stop_training = True
        self._keep()

    def _keep(self) -> None:
        old = self._kept()
        with whole(self.folder / f"{self.epoch:06d}") as new:
            new.mkdir()
            self.model.save_weights(new / "latest.weights.h5")
            np.savez(new / "best.npz", *self.best["weights"])
            state = {
                "settings": self.settings,
                "command": self.command,
                "epoch": self.epoch,
                "seconds": self.seconds,
                "cpu_seconds": self.cpu_seconds,
                "ended": self.ended,
                "best": {k: v for k, v in self.best.items() if k != "weights"},
                "curve": self.curve,
            }
            (new / "state.json").write_text(json.dumps(state))
        for folder in old:
            shutil.rmtree(folder)

    def _kept(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*"))
