"""What deep stacks are made of: a recurrent layer, its normalization and dropout, and a head."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import keras

from keras_rnncells import checks
from keras_rnncells.base import CellRNN, arguments, docs
from keras_rnncells.cells import CELLS, IndRNN
from keras_rnncells.models.normalization import StepBatchNormalization

# Of the recurrent layers, and not to be given: what each stack decides for itself.
DECIDED = (
    *("units", "return_sequences", "return_state", "go_backwards", "stateful", "scan"),
    *("input_kernel", "name"),
)
# The arguments that rule an input kernel, also where a Dense layer is the kernel of an IndRNN.
OF_KERNELS = ("kernel_initializer", "kernel_regularizer", "kernel_constraint")
OF_BIASES = ("bias_initializer", "bias_regularizer", "bias_constraint")

# The name of the output layer, and the VarianceScaling that its kernel starts from.
KAIMING_NORMAL = {"scale": 2.0, "mode": "fan_in", "distribution": "untruncated_normal"}
GLOROT_UNIFORM = {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform"}
HEADS = {
    "classification": ("logits", KAIMING_NORMAL),
    "regression": ("values", GLOROT_UNIFORM),
    "per_step": ("outputs", KAIMING_NORMAL),
}


class Stack:
    """Makes the layers of one stack, all by the same options, and names them in their order.

    The i-th recurrent layer is `recurrent_i`, what belongs to it `normalization_i` and `dropout_i`,
    and `kernel_i` is the dense layer in front of it, if any.

    Args:
        timesteps: Number of steps of the inputs, `None` if unknown.
        cell: Name of a cell in `keras_rnncells.cells.CELLS`, or a layer class of this package.
        normalized_output: Whether the output is normalized too where the normalization stands
            before the recurrence.
        cell_arguments: Dict of further arguments for all recurrent layers, such as
            `{"activation": "tanh"}`. Those of the input kernel (`kernel_regularizer`, ...) also
            reach the dense layers that take its place.
        head: `"classification"`: logits from the last step. `"regression"`: values from the last
            step. `"per_step"`: logits or values at every step. All are linear; they differ in the
            start of their kernel, Kaiming normal or (regression) Glorot uniform, and in the name
            of the output layer, `"logits"`, `"values"` and `"outputs"`.
        normalization: `"after"` the recurrence (converges faster), `"before"` it, between input
            kernel and recurrence (where states are carried from batch to batch; for `IndRNN`
            only), or `None`.
        statistics: Whose mean and variance the batch normalization takes: `"pooled"` over batch and
            time, or `"per_step"`, which the paper takes where each step has an output, since pooled
            statistics show a step something of the future. It needs a known number of steps, or
            `max_timesteps`.
        dropout: Float in [0, 1). Fraction of the features to drop after each recurrent layer, the
            same for all steps of a sequence.
        last_dropout: The same after the last recurrent layer, if it differs.
        max_timesteps: Positive integer, the number of steps over which IndRNN bounds the growth
            of gradients, and for which `"per_step"` keeps statistics. `None` is the number of
            steps of the inputs; the bound is 1 where that is unknown or the stack `stateful`.
        gamma: Number of at least 1, that growth.
        stateful: Whether each sequence starts from the last states of the sequence at the same
            place in the previous batch.
        batch_size: Positive integer, the static batch size that `stateful` needs.
        momentum: Number in [0, 1], how much of the running statistics of the normalization stays
            at each update. While the learning rate is high, a deep stack over many steps changes
            faster than they do, and is worse in validation than it is: take less then, or the
            callback `PopulationStatistics`.
        epsilon: Number, added to the variance in the normalization.
        scan: How time runs, as in `keras_rnncells.RNN`.
        name: Name of the model.

    Raises:
        ValueError: If an argument is not allowed.
    """

    def __init__(
        self,
        timesteps: int | None,
        cell: str | type[CellRNN] = "IndRNN",
        normalized_output: bool = False,
        *,
        cell_arguments: dict[str, Any] | None = None,
        head: str = "classification",
        normalization: str | None = "after",
        statistics: str = "pooled",
        dropout: float = 0.0,
        last_dropout: float | None = None,
        max_timesteps: int | None = None,
        gamma: float = 2.0,
        stateful: bool = False,
        batch_size: int | None = None,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        scan: str = "auto",
        name: str | None = None,
    ) -> None:
        self.layer = layer_class(cell)
        self.is_indrnn = issubclass(self.layer, IndRNN)
        self.cell_arguments = dict(cell_arguments or {})
        allowed = [n for n in arguments.names(self.layer) if n not in DECIDED]
        if not set(self.cell_arguments) <= set(allowed):
            raise ValueError(
                f"`cell_arguments` of {self.layer.__name__} may have {', '.join(allowed)}. "
                f"Received: {', '.join(map(str, self.cell_arguments))}. The rest is for the stack "
                "to decide."
            )
        self.head = checks.choice("head", head, HEADS)
        self.normalization = checks.choice(
            "normalization", normalization, ("after", "before", None)
        )
        if normalization == "before" and not self.is_indrnn:
            raise ValueError(
                'normalization="before" stands between the input kernel and the recurrence, which '
                f"IndRNN alone lets apart. Received: cell={self.layer.__name__}. Use "
                '"after" or None, or cell="IndRNN".'
            )
        self.statistics = checks.choice("statistics", statistics, ("pooled", "per_step"))
        self.dropout = checks.rate("dropout", dropout)
        self.last_dropout = last_dropout
        if last_dropout is not None:
            checks.rate("last_dropout", last_dropout)
        if max_timesteps is not None:
            checks.positive_integer("max_timesteps", max_timesteps)
        checks.number("gamma", gamma, 1)
        self.normalized_steps = timesteps or max_timesteps
        if statistics == "per_step" and normalization and self.normalized_steps is None:
            raise ValueError(
                'statistics="per_step" needs to know for how many steps. Received an unknown '
                "number of steps and max_timesteps=None. Give one of the two, or take "
                'statistics="pooled".'
            )
        if batch_size is not None:
            checks.positive_integer("batch_size", batch_size)
        if stateful and batch_size is None:
            raise ValueError(
                "`stateful` carries the state of each sequence to the same place in the next "
                "batch, and needs a static batch size. Received: batch_size=None. Give it."
            )
        self.normalized_output = normalized_output
        self.stateful = bool(stateful)
        self.batch_size = batch_size
        self.momentum = checks.fraction("momentum", momentum)
        self.epsilon = checks.number("epsilon", epsilon, 0)
        self.scan = scan
        self.name = name
        self.count = 0  # recurrent layers so far
        self.of_indrnn: dict[str, Any] = {}
        if self.is_indrnn:
            # A state that is carried on has no last step.
            bound_steps = max_timesteps or (None if stateful else timesteps)
            self.of_indrnn = {"max_timesteps": bound_steps, "gamma": gamma}

    @property
    def every_step(self) -> bool:
        return self.head == "per_step"

    def kernel(self, x: Any, units: int) -> Any:
        """A dense layer in front of the next recurrent layer; for an IndRNN, its kernel."""
        taken = (*OF_KERNELS, *OF_BIASES, "use_bias") if self.is_indrnn else OF_KERNELS[1:2]
        given = {
            k: self._resolved(k, v)
            for k, v in self._of_cell().items()
            if k in taken and v is not None
        }
        start = keras.initializers.VarianceScaling(2 / 65, "fan_in", "uniform")
        given = {"kernel_initializer": start, **given}
        return keras.layers.Dense(units, name=f"kernel_{self.count + 1}", **given)(x)

    def _of_cell(self) -> dict[str, Any]:
        """The further arguments for one layer; an initializer would give all layers one start."""
        return {
            k: type(v).from_config(v.get_config())
            if isinstance(v, keras.initializers.Initializer)
            else v
            for k, v in self.cell_arguments.items()
        }

    @staticmethod
    def _resolved(name: str, value: Any) -> Any:
        """A dense layer does not know the bare names of our regularizers."""
        kind = name.rsplit("_", 1)[-1]
        return value if name == "use_bias" else arguments.resolve(kind, value)

    def recurrent(
        self,
        x: Any,
        units: int,
        *,
        kernel: bool = True,
        last: bool = False,
        dropout: float | None = None,
    ) -> Any:
        """The next recurrent layer, with its normalization and dropout.

        Args:
            x: `[B, T, D]`.
            units: U, its size.
            kernel: Whether an IndRNN has an input kernel. Other cells always do.
            last: Whether it is the last one of the stack.
            dropout: The rate, if it is not the one of the stack.
        """
        before = self.normalization == "before"
        if kernel and before:
            x = self.kernel(x, units)
        self.count += 1
        if before:
            x = self.normalize(x, f"normalization_{self.count}")
        x = self._layer(units, kernel and not before, last)(x)
        if self.normalization == "after":
            x = self.normalize(x, f"normalization_{self.count}")
        if last and before and self.normalized_output:
            x = self.normalize(x, "normalization_of_output")
        rates = [self.last_dropout if last else None, dropout, self.dropout]
        rate = next(r for r in rates if r is not None)
        return self.drop(x, rate, f"dropout_{self.count}")

    def _layer(self, units: int, kernel: bool, last: bool) -> Any:
        one_step = last and not self.every_step
        of_cell = {**self.of_indrnn, **self._of_cell()}
        if self.is_indrnn:
            of_cell["input_kernel"] = kernel
            # Whoever sets the start of the recurrent kernel sets it for all layers.
            if one_step and of_cell.get("recurrent_initializer") is None:
                of_cell.setdefault("memory", "long")
        return self.layer(
            units,
            return_sequences=not one_step,
            stateful=self.stateful,
            scan=self.scan,
            name=f"recurrent_{self.count}",
            **of_cell,
        )

    def normalize(self, x: Any, name: str) -> Any:
        """Batch normalization of `[B, T, D]`, or of the `[B, D]` of one step."""
        common = {"momentum": self.momentum, "epsilon": self.epsilon, "name": name}
        if self.statistics == "per_step" and len(x.shape) == 3:
            return StepBatchNormalization(self.normalized_steps, **common)(x)
        return keras.layers.BatchNormalization(**common)(x)

    @staticmethod
    def drop(x: Any, rate: float, name: str) -> Any:
        """Dropout with one mask for all steps."""
        if not rate:
            return x
        one_step = len(x.shape) == 2
        kind = keras.layers.Dropout if one_step else keras.layers.SpatialDropout1D
        return kind(rate, name=name)(x)

    def readout(self, x: Any, outputs: int) -> Any:
        """The head: a linear layer on the last step, or on every step."""
        name, scaling = HEADS[self.head]
        start = keras.initializers.VarianceScaling(**scaling)
        return keras.layers.Dense(outputs, kernel_initializer=start, name=name)(x)


def layer_class(cell: str | type[CellRNN]) -> type[CellRNN]:
    """The layer class from itself or its name."""
    if isinstance(cell, type) and issubclass(cell, CellRNN) and cell is not CellRNN:
        return cell
    if isinstance(cell, str) and cell in CELLS:
        return CELLS[cell].layer
    raise ValueError(
        f"`cell` must be one of {', '.join(map(repr, CELLS))}, or a layer class of keras_rnncells, "
        f"such as keras_rnncells.IndRNN. Received: cell={cell!r}."
    )


def with_options(*without: str) -> Callable:
    """Lets a function that hands `**options` on to `Stack` show them as its own.

    Args:
        *without: the options that it does not have.
    """

    def decorate(function: Callable) -> Callable:
        own = inspect.signature(function)
        kinds = inspect.Parameter
        shown = [p for p in own.parameters.values() if p.kind is not kinds.VAR_KEYWORD]
        options = inspect.signature(Stack).parameters.values()
        shown += [p for p in options if p.kind is kinds.KEYWORD_ONLY and p.name not in without]
        signature = arguments.ordered(shown).replace(return_annotation=own.return_annotation)

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{function.__name__}: {error}. It has {signature}.") from None
            return function(*args, **kwargs)

        checked.__signature__ = signature
        docs.complete(checked, Stack)
        return checked

    return decorate


def positive_integers(name: str, values: Any) -> list[int]:
    """`values` as a list, if they are positive integers, at least one."""
    if isinstance(values, Iterable) and not isinstance(values, (str, bytes)):
        values = list(values)
        if values:
            return [checks.positive_integer(name, v) for v in values]
    raise ValueError(f"`{name}` must be a list of positive integers. Received: {name}={values!r}.")
