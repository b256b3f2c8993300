"""A small search, killed once in mid-trial: what the tests run in processes of its own.

`python search.py FOLDER ID` kills the process with this id of KerasTuner in its second trial.
"""

import os
import pathlib
import signal
import sys

import keras
import keras_tuner
import numpy as np

from keras_rnncells.tuning import RNNHyperModel

TRIALS = 5
SHAPE = (6, 2)


class Killed(RNNHyperModel):
    """Kills its process in its second trial, unless that has been done already."""

    def __init__(self, folder, victim, **arguments):
        super().__init__("classification", SHAPE, 3, ["IndRNN"], ["plain"], **arguments)
        self.folder, self.victim, self.trials = folder, victim, 0

    def choose_callbacks(self, *args):
        self.trials += 1
        done = self.folder / "killed"
        me = os.environ.get("KERASTUNER_TUNER_ID", "tuner0")
        return [
            *super().choose_callbacks(*args),
            keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: self.strike(me, done)),
        ]

    def strike(self, me, done):
        if me == self.victim and self.trials == 2 and not done.exists():
            done.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Noting(keras_tuner.RandomSearch):
    """Notes who begins which trial."""

    def on_trial_begin(self, trial):
        with open(pathlib.Path(self.directory) / "begun.txt", "a") as file:
            file.write(f"{self.tuner_id} {trial.trial_id}\n")
        super().on_trial_begin(trial)


def search(folder, victim=None):
    fixed = {"layers": 1, "units": 4, "normalization": "none", "schedule": "constant"}
    hypermodel = Killed(folder, victim, fixed=fixed)
    tuner = Noting(hypermodel, "val_loss", max_trials=TRIALS, seed=3, directory=folder)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, *SHAPE)).astype("float32"), rng.integers(3, size=16)
    tuner.search(x, y, validation_data=(x, y), epochs=2, batch_size=8, verbose=0)
    return tuner


if __name__ == "__main__":
    search(pathlib.Path(sys.argv[1]), sys.argv[2])
