"""Oracles of KerasTuner that go on after a kill as if there had been none."""

from __future__ import annotations

import functools
from typing import Any

import keras_tuner
import numpy as np


class GridSearchOracle(keras_tuner.oracles.GridSearchOracle):
    """Knows after a reload which points of the grid it has tried.

    That of KerasTuner 1.4.8 does not keep it, and ends with a `KeyError`
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


class BayesianOptimizationOracle(keras_tuner.oracles.BayesianOptimizationOracle):
    """Draws where to look for the next trial by the number of the trial.

    That of KerasTuner draws on from where it stands, which a reload does not know.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        self._random_state = np.random.RandomState(self.seed + len(self.trials))
        return super().populate_space(trial_id)
