"""What is searched: the choices of a trial, each in the range that the papers know."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import keras
import keras_tuner

from keras_rnncells import checks
from keras_rnncells.cells import CELLS
from keras_rnncells.tuning.ranges import learning_rates

TASKS = ("classification", "regression", "language")
KINDS = ("plain", "residual", "dense")


class SearchSpace(keras_tuner.HyperModel):
    """The choices of `RNNHyperModel`, whose docstring has the arguments."""

    def __init__(
        self,
        task: str,
        input_shape: tuple[int | None, ...],
        cells: Sequence[str],
        kinds: Sequence[str],
        fixed: dict[str, Any] | None,
        batch_size: int | None,
        name: str | None,
        tunable: bool,
    ) -> None:
        self.task = checks.choice("task", task, TASKS)
        axes = 1 if task == "language" else 2
        if not isinstance(input_shape, (tuple, list)) or len(input_shape) != axes:
            raise ValueError(
                "`input_shape` must be (number of steps or None, number of features), for language "
                f"(number of steps or None,). Received: task={task!r}, input_shape={input_shape!r}."
            )
        self.input_shape = tuple(input_shape)
        if batch_size is not None:
            checks.positive_integer("batch_size", batch_size)
            if task != "language":
                raise ValueError(
                    "`batch_size` is for language models, which carry their states. Received: "
                    f"task={task!r}, batch_size={batch_size}. Give it to `search`."
                )
        self.batch_size = batch_size
        self.fixed = dict(fixed or {})
        self.cells = self._values("cell", "cells", cells, CELLS)
        self.kinds = self._values("kind", "kinds", kinds, KINDS)
        self._asked: set[str] = set()
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

    def check_fixed(self) -> None:
        """Raises if `fixed` has what nothing has asked for."""
        if unknown := set(self.fixed) - self._asked:
            raise ValueError(
                f"`fixed` may have {', '.join(sorted(self._asked))} in this search. Received: "
                f"{', '.join(sorted(unknown))}."
            )

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
        memory = None
        if self.task != "language":  # which has no last step
            of_indrnn = ("cell", ["IndRNN"])
            memory = self.ask(hp, "Choice", "last_memory", ["long", "mixed"], where=of_indrnn)
        if gain is not None:
            return {"gain": gain}
        return {"memory": None} if memory == "mixed" else {}

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
