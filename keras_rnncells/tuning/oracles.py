"""The oracles of KerasTuner, whose searches go on after a kill as if there had been none."""

from __future__ import annotations

import functools
import json
import os
from typing import Any

import keras_tuner
import numpy as np


def write(path: str, state: dict[str, Any]) -> None:
    """Writes a file of a search whole, or not at all."""
    new = f"{path}.{os.getpid()}"
    with open(new, "w") as file:
        json.dump(state, file)
    os.replace(new, path)


class Durable:
    """Mixin of oracles: what they keep in files is whole, and fits together, whenever a kill comes.

    KerasTuner 1.4.8 empties a file before it writes it, and writes a trial before it knows of it.
    """

    def save(self) -> None:
        write(self._get_oracle_fname(), self.get_state())

    @keras_tuner.synchronized
    def end_trial(self, trial: Any) -> None:
        super().end_trial(trial)
        self.save()  # what KerasTuner saves has the trial as one that still runs

    def _save_trial(self, trial: Any) -> None:
        write(os.path.join(self._get_trial_dir(trial.trial_id), "trial.json"), trial.get_state())

    def set_state(self, state: dict[str, Any]) -> None:
        # Those that were never begun.
        self.trials = {i: self.trials[i] for i in state["start_order"]}
        super().set_state(state)


class RandomSearchOracle(Durable, keras_tuner.oracles.RandomSearchOracle):
    """Random search that goes on after a kill."""


class HyperbandOracle(Durable, keras_tuner.oracles.HyperbandOracle):
    """Hyperband that goes on after a kill; for the tuner `Hyperband` of this module."""


class GridSearchOracle(Durable, keras_tuner.oracles.GridSearchOracle):
    """Grid search that goes on after a kill.

    That of KerasTuner 1.4.8 does not keep which points it has tried, and ends with a `KeyError`
    (https://github.com/keras-team/keras-tuner/issues/1055), or too early.
    """

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        values = {i: self.trials[i].hyperparameters.values for i in self.start_order}
        compare = functools.cmp_to_key(lambda a, b: self._compare(values[a], values[b]))
        self._populate_next = sorted(values, key=compare)
        self._ordered_ids = type(self._ordered_ids)()
        for trial_id in self._populate_next:
            self._ordered_ids.insert(trial_id)


class BayesianOptimizationOracle(Durable, keras_tuner.oracles.BayesianOptimizationOracle):
    """Bayesian optimization that goes on after a kill.

    That of KerasTuner draws where to look for the next trial from a state that it does not keep;
    this one by the number of the trial.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        self._random_state = np.random.RandomState(self.seed + len(self.trials))
        return super().populate_space(trial_id)


class Tuner(keras_tuner.Tuner):
    """A tuner around an oracle of this module, which goes on after a kill too."""

    def save(self) -> None:
        if not self._is_worker():
            self.oracle.save()
        write(self._get_tuner_fname(), self.get_state())


class Hyperband(Tuner, keras_tuner.Hyperband):
    """A tuner around a `HyperbandOracle`."""

    def __init__(self, oracle: HyperbandOracle, hypermodel: Any, **kwargs: Any) -> None:
        keras_tuner.Tuner.__init__(self, oracle, hypermodel, **kwargs)
