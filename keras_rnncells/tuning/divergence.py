"""A trial that diverged has a score and weights as any other, so that every oracle can go on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import keras


def diverged(history: keras.callbacks.History, limit: float) -> bool:
    """Whether a loss was not finite or above `limit`."""
    losses = [v for k in ("loss", "val_loss") for v in history.history.get(k, [])]
    # Not `>`: NaN is neither.
    return not all(abs(loss) <= limit for loss in losses)


def worst(objective: Any, score: float) -> dict[str, float] | float:
    """The result of a trial that diverged: finite, since oracles calculate with it."""
    if objective is None:
        return score
    values = {
        o.name: score * (1 if o.direction == "min" else -1)
        for o in getattr(objective, "objectives", [objective])
    }
    return {**values, objective.name: objective.get_value(values)}


def save_weights(model: keras.Model, callbacks: Sequence[keras.callbacks.Callback]) -> None:
    """Saves weights where KerasTuner looks for them, if it has not done so.

    Its callback saves an epoch that is better than those before, which NaN never is. Hyperband,
    which goes on from the weights of other trials, and `get_best_models` would not find any.
    """
    for callback in callbacks:
        # Keras' own ModelCheckpoint has no objective.
        if hasattr(callback, "objective") and not os.path.exists(callback.filepath):
            model.save_weights(callback.filepath)
