"""A search space that starts from what the papers know."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
import keras_tuner

from keras_rnncells import checks, models
from keras_rnncells.tuning import divergence, memory
from keras_rnncells.tuning.measure import first_batch, milliseconds
from keras_rnncells.tuning.space import KINDS, SearchSpace


class RNNHyperModel(SearchSpace):
    """A search space of deep recurrent networks, for every tuner of KerasTuner.

    It has the hyperparameters `cell`, `kind`, `layers` (plain), `blocks` (residual), `dense_blocks`
    (dense), `units` or (dense) `growth`, `normalization`, `dropout`, `clipnorm`, `schedule` and
    `learning_rate`, the last by cell where there are several (`learning_rate_IRNN`). Those that
    concern one cell only are active with it: of IndRNN `normalization_place`, `gamma` (or
    `max_timesteps`, where the number of steps is not known) and `last_memory`, of IRNN `gain`.
    A language model has `embedding` too.

    A trial that diverges is scored with `diverged_score`. One that is too large or too slow fails
    before it is trained, and its message says why; a tuner stops after three such in a row unless
    it is given a larger `max_consecutive_failed_trials`.

    To change a part, give `fixed`, or override the method `choose_...` of that part. Arguments of
    the tuner such as `loss` and `metrics` replace those of the task.

    Args:
        task: `"classification"`, of sequences, with integer labels; `"regression"`, of numbers from
            the last step; or `"language"`, the next of integer tokens at every step.
        input_shape: (T, D), number of steps, which may be `None`, and of features; for language
            (T,).
        outputs: Positive integer, the number of classes, of numbers or of tokens.
        cells: Names of cells in `keras_rnncells.cells.CELLS`.
        kinds: Of `"plain"`, `"residual"` and `"dense"`.
        fixed: Dict of values, by the name of the hyperparameter, that are not searched.
        parameters: Positive integer. Chooses the units, so that each network has the most weights
            up to this number.
        max_parameters: Positive integer. Networks with more weights fail.
        max_milliseconds: Number. Networks whose training step takes longer, measured on the first
            batch, fail.
        batch_size: Positive integer, for language: the number of texts side by side, whose states
            are carried on from batch to batch of an epoch. With `None` each sequence starts anew.
        diverged_score: Number above 0, the loss of a trial whose loss was not finite or larger
            than that; its negative for an objective to be maximized.

    Raises:
        ValueError: If an argument is not allowed.

    Example:

    ```python
    hypermodel = keras_rnncells.tuning.RNNHyperModel(
        "classification", (784, 1), 10, cells=("IndRNN", "LSTM"), parameters=100_000)
    tuner = keras_tuner.RandomSearch(hypermodel, "val_accuracy", max_trials=20)
    tuner.search(x, y, validation_split=0.1, epochs=5)
    ```
    """

    def __init__(
        self,
        task: str,
        input_shape: tuple[int | None, ...],
        outputs: int,
        cells: Sequence[str] = ("IndRNN", "MinimalRNN", "LSTM"),
        kinds: Sequence[str] = KINDS,
        *,
        fixed: dict[str, Any] | None = None,
        parameters: int | None = None,
        max_parameters: int | None = None,
        max_milliseconds: float | None = None,
        batch_size: int | None = None,
        diverged_score: float = 1e4,
        name: str | None = None,
        tunable: bool = True,
    ) -> None:
        super().__init__(task, input_shape, cells, kinds, fixed, batch_size, name, tunable)
        self.outputs = checks.positive_integer("outputs", outputs)
        limits = {"parameters": parameters, "max_parameters": max_parameters}
        for limit, value in limits.items():
            if value is not None:
                checks.positive_integer(limit, value)
        if max_milliseconds is not None:
            checks.number("max_milliseconds", max_milliseconds, 0, above=True)
        self.parameters = parameters
        self.max_parameters = max_parameters
        self.max_milliseconds = max_milliseconds
        self.diverged_score = checks.number("diverged_score", diverged_score, 0, above=True)
        self._units: dict[str, int] = {}  # those found for `parameters`
        self._gradients = memory.custom_gradients()  # those of other models

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The compiled model of a trial."""
        self._gradients = memory.custom_gradients()
        cell = self.ask(hp, "Choice", "cell", self.cells)
        kind = self.ask(hp, "Choice", "kind", self.kinds)
        depth = self.choose_depth(hp, kind)
        options = {
            "cell": cell,
            "normalization": self.choose_normalization(hp, cell),
            "dropout": self.choose_dropout(hp),
            "cell_arguments": self.choose_cell_arguments(hp, cell),
            **self.choose_memory_bound(hp, cell),
        }
        if self.task == "language":
            options["embedding"] = self.choose_embedding(hp)
        make = functools.partial(self._make, kind, depth, options)
        units = None if self.parameters else self.choose_units(hp, kind)
        optimizer = self.choose_optimizer(hp, cell)
        self.choose_schedule(hp)  # which `fit` asks for
        self.check_fixed()
        if units is None:
            key = repr((kind, depth, sorted(options.items())))
            if key not in self._units:
                self._units[key] = models.units_for(make, self.parameters)
            units = self._units[key]
        model = make(units)
        losses = keras.losses
        if self.task == "regression":
            model.compile(optimizer, losses.MeanSquaredError(), metrics=["mae"])
        else:
            loss = losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(optimizer, loss, metrics=["accuracy"])
        return model

    def _make(self, kind: str, depth: Any, options: dict[str, Any], units: int) -> keras.Model:
        if self.task == "language":
            return models.language_model(
                self.outputs,
                units=units,
                layers=depth,
                kind=kind,
                timesteps=self.input_shape[0],
                batch_size=self.batch_size,
                stateful=self.batch_size is not None,
                **options,
            )
        size, count = {
            "plain": ("units", "layers"),
            "residual": ("units", "blocks"),
            "dense": ("growth", "blocks"),
        }[kind]
        sizes = {size: units, count: depth}
        stack = getattr(models, kind)
        return stack(self.input_shape, self.outputs, head=self.task, **sizes, **options)

    def choose_callbacks(
        self, hp: keras_tuner.HyperParameters, model: keras.Model, epochs: int, monitor: str
    ) -> list[keras.callbacks.Callback]:
        """What accompanies the training."""
        chosen: list[keras.callbacks.Callback] = [keras.callbacks.TerminateOnNaN()]
        if self.batch_size is not None:
            chosen.append(models.ResetStates())
        schedule = self.choose_schedule(hp)
        if schedule == "cosine":
            rate = float(model.optimizer.learning_rate)
            chosen.append(
                keras.callbacks.LearningRateScheduler(
                    lambda epoch: rate * (1 + math.cos(math.pi * epoch / epochs)) / 2
                )
            )
        elif schedule == "plateau":
            # The authors of IndRNN divide by 5 or 10.
            patience = max(1, epochs // 10)
            chosen.append(keras.callbacks.ReduceLROnPlateau(monitor, 0.2, patience))
        return chosen

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: keras.Model,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        *,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Trains the model of a trial, with the arguments that `search` was given."""
        given = list(callbacks or [])
        validated = kwargs.get("validation_data") is not None or kwargs.get("validation_split")
        monitor = "val_loss" if validated else "loss"
        callbacks = [*given, *self.choose_callbacks(hp, model, epochs, monitor)]
        try:
            self._reject(model, x, y, batch_size)
            history = model.fit(
                x, y, batch_size=batch_size, epochs=epochs, callbacks=callbacks, **kwargs
            )
        finally:
            memory.forget_custom_gradients(but=self._gradients)
        if not divergence.diverged(history, self.diverged_score):
            return history
        divergence.save_weights(model, given)
        objective = next((c.tuner.oracle.objective for c in given if hasattr(c, "tuner")), None)
        return divergence.worst(objective, self.diverged_score)

    def measure(self, model: keras.Model, x: Any, y: Any, batch_size: int | None) -> float:
        """How many milliseconds a training step takes."""
        return milliseconds(model, first_batch(x, y, batch_size))

    def _reject(self, model: keras.Model, x: Any, y: Any, batch_size: int | None) -> None:
        """Ends a trial of which it is known before training that it is not wanted."""
        count = models.count_parameters(model)
        for name in ("parameters", "max_parameters"):
            limit = getattr(self, name)
            if limit is not None and count > limit:
                raise keras_tuner.errors.FailedTrialError(f"{count} weights, with {name}={limit}.")
        if self.max_milliseconds is not None:
            took = self.measure(model, x, y, batch_size)
            if took > self.max_milliseconds:
                raise keras_tuner.errors.FailedTrialError(
                    f"A training step takes {took:.3g} ms, with "
                    f"max_milliseconds={self.max_milliseconds:g}."
                )
