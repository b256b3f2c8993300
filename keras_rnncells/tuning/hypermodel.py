"""A search space that starts from what the papers know."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
import keras_tuner

from keras_rnncells import checks, models
from keras_rnncells.cells import CELLS
from keras_rnncells.tuning.measure import first_batch, milliseconds
from keras_rnncells.tuning.ranges import learning_rates

TASKS = ("classification", "regression", "language")
KINDS = ("plain", "residual", "dense")


class RNNHyperModel(keras_tuner.HyperModel):
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
        self.task = checks.choice("task", task, TASKS)
        axes = 1 if task == "language" else 2
        if not isinstance(input_shape, (tuple, list)) or len(input_shape) != axes:
            raise ValueError(
                "`input_shape` must be (number of steps or None, number of features), for language "
                f"(number of steps or None,). Received: task={task!r}, input_shape={input_shape!r}."
            )
        self.input_shape = tuple(input_shape)
        self.outputs = checks.positive_integer("outputs", outputs)
        self.fixed = dict(fixed or {})
        self.cells = self._values("cell", "cells", cells, CELLS)
        self.kinds = self._values("kind", "kinds", kinds, KINDS)
        limits = {"parameters": parameters, "max_parameters": max_parameters}
        for limit, value in limits.items():
            if value is not None:
                checks.positive_integer(limit, value)
        if max_milliseconds is not None:
            checks.number("max_milliseconds", max_milliseconds, 0, above=True)
        if batch_size is not None:
            checks.positive_integer("batch_size", batch_size)
            if task != "language":
                raise ValueError(
                    "`batch_size` is for language models, which carry their states. Received: "
                    f"task={task!r}, batch_size={batch_size}. Give it to `search`."
                )
        self.parameters = parameters
        self.max_parameters = max_parameters
        self.max_milliseconds = max_milliseconds
        self.batch_size = batch_size
        self.diverged_score = checks.number("diverged_score", diverged_score, 0, above=True)
        self._asked: set[str] = set()
        self._units: dict[str, int] = {}  # those found for `parameters`
        super().__init__(name, tunable)

    def _values(self, name: str, argument: str, values: Any, allowed: Any) -> list[str]:
        """The values that `cell` or `kind` may take."""
        values = [self.fixed[name]] if name in self.fixed else values
        if isinstance(values, str) or not values:
            raise ValueError(
                f"`{argument}` must be a list of {', '.join(map(repr, allowed))}. Received: "
                f"{argument}={values!r}."
            )
        return [checks.choice(argument, value, allowed) for value in values]

    def ask(
        self,
        hp: keras_tuner.HyperParameters,
        method: str,
        name: str,
        *args: Any,
        where: tuple[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The value of a hyperparameter: the fixed one, or one to be searched.

        Args:
            hp: the hyperparameters of the trial.
            method: its kind, as a method of `hp`, such as `"Choice"`.
            name: its name.
            *args: the other arguments of that method.
            where: the hyperparameter on which it depends, and its values with which it is active.
                One only: KerasTuner finds no second one inside the scope of the first.
            **kwargs: the other arguments of that method.

        Returns:
            Its value, `None` if it is not active.
        """
        scope = contextlib.nullcontext()
        if where is not None:
            parent, values = where
            possible = {"cell": self.cells, "kind": self.kinds}.get(parent, values)
            values = [v for v in values if v in possible]
            if not values:
                return None
            scope = hp.conditional_scope(parent, values)
        with scope:
            self._asked.add(name)
            if name in self.fixed:
                return hp.Fixed(name, self.fixed[name])
            return getattr(hp, method)(name, *args, **kwargs)

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The compiled model of a trial."""
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
        if unknown := set(self.fixed) - self._asked:
            raise ValueError(
                f"`fixed` may have {', '.join(sorted(self._asked))} in this search. Received: "
                f"{', '.join(sorted(unknown))}."
            )
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

    def choose_depth(self, hp: keras_tuner.HyperParameters, kind: str) -> int | list[int]:
        """The number of layers, of blocks, or for dense the layers of each block."""
        layers = self.ask(hp, "Int", "layers", 1, 6, default=2, where=("kind", ["plain"]))
        blocks = self.ask(hp, "Int", "blocks", 1, 5, where=("kind", ["residual"]))
        choices = ["2", "3-2", "4-3-2", "8-6-4"]
        dense = self.ask(hp, "Choice", "dense_blocks", choices, where=("kind", ["dense"]))
        if kind == "dense":
            return [int(n) for n in dense.split("-")]
        return layers if kind == "plain" else blocks

    def choose_units(self, hp: keras_tuner.HyperParameters, kind: str) -> int:
        """The units of each layer, for dense its growth."""
        powers = {"step": 2, "sampling": "log"}
        wide = [k for k in KINDS if k != "dense"]
        units = self.ask(hp, "Int", "units", 32, 512, default=128, where=("kind", wide), **powers)
        dense = ("kind", ["dense"])
        growth = self.ask(hp, "Int", "growth", 8, 32, default=16, where=dense, **powers)
        return growth if kind == "dense" else units

    def choose_normalization(self, hp: keras_tuner.HyperParameters, cell: str) -> str | None:
        """Whether there is a batch normalization, and for IndRNN its place."""
        normalization = self.ask(hp, "Choice", "normalization", ["batch", "none"])
        # States that are carried on ask for the normalization before the recurrence.
        places = ["before", "after"] if self.task == "language" else ["after", "before"]
        of_indrnn = ("cell", ["IndRNN"])
        place = self.ask(hp, "Choice", "normalization_place", places, where=of_indrnn)
        return None if normalization == "none" else place or "after"

    def choose_dropout(self, hp: keras_tuner.HyperParameters) -> float:
        """The rate after each layer."""
        return self.ask(hp, "Float", "dropout", 0.0, 0.5, step=0.1, default=0.1)

    def choose_memory_bound(self, hp: keras_tuner.HyperParameters, cell: str) -> dict[str, Any]:
        """`max_timesteps` and `gamma` of IndRNN, as far as they are not the defaults."""
        if self.batch_size is not None:  # no last step: |u| is at most 1
            return {}
        of_indrnn = ("cell", ["IndRNN"])
        if self.input_shape[0] is None:
            steps = [1000, 100, 10000]
            bound = self.ask(hp, "Choice", "max_timesteps", steps, where=of_indrnn)
            chosen = {"max_timesteps": bound}
        else:
            # 2 in the paper of 2018, 5 in the code of 2019; 1 bounds |u| by 1.
            chosen = {"gamma": self.ask(hp, "Choice", "gamma", [2.0, 5.0, 1.0], where=of_indrnn)}
        return {k: v for k, v in chosen.items() if v is not None}

    def choose_cell_arguments(self, hp: keras_tuner.HyperParameters, cell: str) -> dict[str, Any]:
        """Arguments of the cell: where its memory starts."""
        gain = self.ask(hp, "Choice", "gain", [1.0, 0.1, 0.01], where=("cell", ["IRNN"]))
        if gain is not None:
            return {"gain": gain}
        if self.task != "language":  # which has no last step
            choices = ["long", "mixed"]
            of_indrnn = ("cell", ["IndRNN"])
            memory = self.ask(hp, "Choice", "last_memory", choices, where=of_indrnn)
            if memory == "mixed":
                return {"memory": None}
        return {}

    def choose_embedding(self, hp: keras_tuner.HyperParameters) -> int:
        """The size of the embedding."""
        return self.ask(hp, "Choice", "embedding", [128, 64, 256])

    def choose_learning_rate(self, hp: keras_tuner.HyperParameters, cell: str) -> float:
        """The learning rate, in the range of the cell."""
        if "learning_rate" in self.fixed:
            return self.ask(hp, "Float", "learning_rate")
        rates = {}
        for each in self.cells:
            # Of one name there may be one range only: GridSearch would mix them.
            name = "learning_rate" if len(self.cells) == 1 else f"learning_rate_{each}"
            low, high = learning_rates(each)
            where = ("cell", [each])
            rates[each] = self.ask(hp, "Float", name, low, high, sampling="log", where=where)
        return rates[cell]

    def choose_optimizer(
        self, hp: keras_tuner.HyperParameters, cell: str
    ) -> keras.optimizers.Optimizer:
        """Adam, and the norm to which the gradient is clipped, 0 for none."""
        clipnorm = self.ask(hp, "Choice", "clipnorm", [1.0, 10.0, 0.0])
        rate = self.choose_learning_rate(hp, cell)
        return keras.optimizers.Adam(rate, global_clipnorm=clipnorm or None)

    def choose_schedule(self, hp: keras_tuner.HyperParameters) -> str:
        """How the learning rate goes on: `"constant"`, `"cosine"` or `"plateau"`."""
        return self.ask(hp, "Choice", "schedule", ["constant", "cosine", "plateau"])

    def choose_callbacks(
        self, hp: keras_tuner.HyperParameters, model: keras.Model, epochs: int, monitor: str
    ) -> list[keras.callbacks.Callback]:
        """What accompanies the training."""
        chosen: list[keras.callbacks.Callback] = [keras.callbacks.TerminateOnNaN()]
        if self.batch_size is not None:
            chosen.append(FromTheStart())
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
        self._reject(model, x, y, batch_size)
        given = list(callbacks or [])
        validated = kwargs.get("validation_data") is not None or kwargs.get("validation_split")
        monitor = "val_loss" if validated else "loss"
        history = model.fit(
            x,
            y,
            batch_size=batch_size,
            epochs=epochs,
            callbacks=[*given, *self.choose_callbacks(hp, model, epochs, monitor)],
            **kwargs,
        )
        losses = [v for k in ("loss", "val_loss") for v in history.history.get(k, [])]
        # Not `>`: NaN is neither.
        if all(abs(loss) <= self.diverged_score for loss in losses):
            return history
        objective = next((c.tuner.oracle.objective for c in given if hasattr(c, "tuner")), None)
        return self._worst(objective)

    def _reject(self, model: keras.Model, x: Any, y: Any, batch_size: int | None) -> None:
        """Ends a trial of which it is known before training that it is not wanted."""
        count = models.count_parameters(model)
        for name in ("parameters", "max_parameters"):
            limit = getattr(self, name)
            if limit is not None and count > limit:
                raise keras_tuner.errors.FailedTrialError(f"{count} weights, with {name}={limit}.")
        if self.max_milliseconds is not None:
            took = milliseconds(model, first_batch(x, y, batch_size))
            if took > self.max_milliseconds:
                raise keras_tuner.errors.FailedTrialError(
                    f"A training step takes {took:.3g} ms, with "
                    f"max_milliseconds={self.max_milliseconds:g}."
                )

    def _worst(self, objective: Any) -> dict[str, float] | float:
        """The result of a trial that diverged: finite, since oracles calculate with it."""
        if objective is None:
            return self.diverged_score
        values = {
            o.name: self.diverged_score * (1 if o.direction == "min" else -1)
            for o in getattr(objective, "objectives", [objective])
        }
        return {**values, objective.name: objective.get_value(values)}


class FromTheStart(keras.callbacks.Callback):
    """Forgets the text read so far, where a text begins."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        models.reset_states(self.model)

    def on_test_begin(self, logs: dict | None = None) -> None:
        models.reset_states(self.model)
