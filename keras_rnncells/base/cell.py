"""The contract of a cell: its equations, and nothing about time."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import keras
from keras import ops

from keras_rnncells import recurrence
from keras_rnncells.base import arguments, docs, noise
from keras_rnncells.initializers import reseeded


class RecurrentCell(keras.layers.Layer):
    """Base class of the cells: one recurrent system, written as its equations.

    A cell says what needs no state (`project`), which matrix multiplies the previous state
    (`product_kernel`) and what happens to each unit on its own (`update`). How these run over time,
    with masks, dropout, zoneout and states, is written once, in `keras_rnncells.RNN`.
    Kernels multiply from the right. Letters: B batch, T time, D input features, U units,
    P projected features, K recurrent features, S state features.

    A subclass writes `build` (its weights, each with `self.add`), `project` and `update`, and
    stores each constructor argument as an attribute of the same name. Arguments that it does not
    change are handed on through `*args, **kwargs`.

    Args:
        units: Positive integer U, the size of the output.
        activation: Activation function; `None` is linear.
        use_bias: Whether the cell adds a bias.
        kernel_initializer: Initializer of the weights that multiply the inputs. `None` is the
            start that the paper gives, as it is for the next two.
        recurrent_initializer: Initializer of the weights that multiply the previous state.
        bias_initializer: Initializer of the bias.
        kernel_regularizer: Regularizer of the input weights.
        recurrent_regularizer: Regularizer of the recurrent weights.
        bias_regularizer: Regularizer of the bias.
        kernel_constraint: Constraint on the input weights.
        recurrent_constraint: Constraint on the recurrent weights.
        bias_constraint: Constraint on the bias.
        dropout: Float in [0, 1). Fraction of the input features to drop, the same for all steps of
            a sequence.
        recurrent_dropout: Float in [0, 1). Fraction of h' to drop where it enters a product, the
            same for all steps of a sequence.
        seed: Integer seed of the random masks.
        zoneout: Float in [0, 1), or one for each state. Probability that a unit keeps its state in
            a step, drawn anew at every step; at inference the expectation is used
            ([Krueger et al., 2016](https://arxiv.org/abs/1606.01305)).
        **kwargs: `name`, `dtype` and `trainable`, as for any Keras layer.

    Call arguments:
        inputs: `[B, D]`.
        states: List of the previous states, each `[B, S]`.
        training: Whether the call is part of training.

    Input shape:
        `[batch, features]`, and each state `[batch, its size]`.

    Output shape:
        The output `[batch, output_size]` and the list of the new states, as in `keras.layers.RNN`.

    Raises:
        ValueError: If an argument is not allowed, and when a cell with a rate above 0 is trained
            inside a bare `keras.layers.RNN`.

    Example:

    >>> import keras, keras_rnncells
    >>> class LeakyCell(keras_rnncells.base.RecurrentCell):
    ...     def build(self, input_shape):
    ...         self.kernel = self.add("kernel", (input_shape[-1], self.units))
    ...         self.product_kernel = None
    ...     def project(self, inputs):
    ...         return self.linear(inputs, self.kernel)
    ...     def update(self, projected, recurrent, states):
    ...         return [0.9 * recurrent + 0.1 * self.activation(projected)]
    >>> layer = keras_rnncells.RNN(LeakyCell(4))
    >>> layer(keras.ops.ones((2, 10, 3))).shape[-1]
    4
    """

    state_names: tuple[str, ...] = ("h",)
    ignored_arguments: tuple[str, ...] = ()  # of Keras' own cells, without a meaning here

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        *,
        zoneout: float | list[float] = 0.0,
        **kwargs: Any,
    ) -> None:
        for name in self.ignored_arguments:
            kwargs.pop(name, None)
        # Weights keep their precision here: `linear` alone computes in the compute dtype.
        super().__init__(autocast=False, **kwargs)
        self.units = arguments.positive_integer("units", units)
        self.activation = arguments.activation(activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = arguments.resolve("initializer", kernel_initializer)
        self.recurrent_initializer = arguments.resolve("initializer", recurrent_initializer)
        self.bias_initializer = arguments.resolve("initializer", bias_initializer)
        self.kernel_regularizer = arguments.resolve("regularizer", kernel_regularizer)
        self.recurrent_regularizer = arguments.resolve("regularizer", recurrent_regularizer)
        self.bias_regularizer = arguments.resolve("regularizer", bias_regularizer)
        self.kernel_constraint = arguments.resolve("constraint", kernel_constraint)
        self.recurrent_constraint = arguments.resolve("constraint", recurrent_constraint)
        self.bias_constraint = arguments.resolve("constraint", bias_constraint)
        self.dropout = arguments.rate("dropout", dropout)
        self.recurrent_dropout = arguments.rate("recurrent_dropout", recurrent_dropout)
        self.zoneout = arguments.rates("zoneout", zoneout, self.state_names)
        self.seed = seed
        self.is_noisy = any((self.dropout, self.recurrent_dropout, *self.zoneout_rates))
        self.seed_generator = keras.random.SeedGenerator(seed) if self.is_noisy else None
        self.state_size: int | list[int] = self.units
        self.output_size = self.units

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        arguments.show_signature(cls, arguments.inherited_signature(cls))
        docs.complete(cls, next(c for c in cls.__mro__[1:] if issubclass(c, RecurrentCell)))

    @property
    def zoneout_rates(self) -> list[float]:
        """The zoneout rate of each state."""
        if isinstance(self.zoneout, float):
            return [self.zoneout] * len(self.state_names)
        return list(self.zoneout)

    @property
    def state_dtype(self) -> str:
        """The dtype of states, that of the weights: float32 under mixed precision, where sums over
        time would stall."""
        return self.variable_dtype

    # What a cell says about itself.

    product_kernel: Any = None
    """`[U, K]`, or `[sum of all state sizes, K]`, or `None` for a cell without product."""

    def project(self, inputs: Any) -> Any:
        """Everything that needs no state: `[..., D]` to `[..., P]`, for one step or all at once."""
        raise self._unwritten("project(inputs)")

    def update(self, projected: Any, recurrent: Any, states: list[Any]) -> list[Any]:
        """One step, unit by unit.

        Args:
            projected: `[..., P]`, what `project` returned for the step.
            recurrent: `[..., K]`, h' @ `product_kernel`; h' itself where that is `None`.
            states: the previous states, the first of them h'.

        Returns:
            The new states; the first is the output.
        """
        raise self._unwritten("update(projected, recurrent, states)")

    @property
    def elementwise(self) -> bool:
        """Whether `update` is `activation(projected + self.recurrent_kernel * recurrent)`.

        Such a cell can run in parallel over time. It has no `product_kernel` and one state.
        """
        return False

    def output(self, states: list[Any]) -> Any:
        """The output that goes with `states`."""
        return states[0]

    def _unwritten(self, method: str) -> TypeError:
        return TypeError(f"{type(self).__name__} has no method {method}. A cell must write it.")

    # What cells use.

    def add(
        self, name: str, shape: tuple[int, ...], initializer: Any = None, constraint: Any = None
    ) -> Any:
        """Adds a weight that is named after the arguments that rule it.

        `recurrent_kernel` and its like follow the `recurrent_...` arguments, `bias` and its like
        the `bias_...`, all others the `kernel_...`; what the user left at `None` is `initializer`
        and `constraint`.
        """
        role = _role(name)
        given = getattr(self, f"{role}_initializer")
        # One object gives the same values each time: the second weight of a role is not to be
        # the first one again.
        if given is not None and (others := sum(_role(w.name) == role for w in self.weights)):
            given = reseeded(given, others)
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=given or initializer,
            regularizer=getattr(self, f"{role}_regularizer"),
            constraint=getattr(self, f"{role}_constraint") or constraint,
            autocast=False,
        )

    def linear(self, inputs: Any, kernel: Any, bias: Any = None) -> Any:
        """`inputs @ kernel + bias`: the product in the compute dtype, the rest in `state_dtype`."""
        product = ops.matmul(*(ops.cast(x, self.compute_dtype) for x in (inputs, kernel)))
        product = ops.cast(product, self.state_dtype)
        return product if bias is None else product + bias

    # What runs a cell.

    def step(
        self, projected: Any, states: list[Any], kernel: Any, dropped: Any = None
    ) -> list[Any]:
        """One step from what `project` returned.

        Args:
            projected: `[B, P]`.
            states: list of `[B, S]` in `state_dtype`.
            kernel: `product_kernel`, read once before the loop.
            dropped: `[B, U]` mask on h' where it enters a product, or `None`.
        """
        return self._advance(projected, self._recurrent(states, kernel, dropped), states)

    def _recurrent(self, states: list[Any], kernel: Any, dropped: Any) -> Any:
        """What `update` gets as `recurrent`: linear in the states."""
        h = states[0] if dropped is None else states[0] * dropped
        if kernel is None:
            return h
        all_states = kernel.shape[0] != h.shape[-1]
        return self.linear(ops.concatenate([h, *states[1:]], axis=-1) if all_states else h, kernel)

    def _advance(self, projected: Any, recurrent: Any, states: list[Any]) -> list[Any]:
        # Some activations come back in another dtype: keras.ops.tanh of float64 on JAX, for one.
        after = self.update(projected, recurrent, states)
        return [ops.cast(state, self.state_dtype) for state in after]

    @cached_property
    def engine(self) -> Any:
        """The fused loops over this cell. Kept, since it remembers what it compiled."""
        elementwise = self.elementwise

        def product(states, shared, rows, dropped):
            if elementwise:
                return states[0] * rows[0]
            return self._recurrent(states, shared[0] if shared else None, dropped)

        def update(projected, recurrent, states, zoneout):
            if elementwise:
                after = [ops.cast(self.activation(projected + recurrent), self.state_dtype)]
            else:
                after = self._advance(projected, recurrent, states)
            return noise.Noise(None, None, zoneout).hold(states, after)

        return recurrence.engine(
            recurrence.Step(
                product,
                update,
                lambda: self.weights,
                activation=self.activation if elementwise else None,
            )
        )

    def problem(self, states: list[Any], drawn: noise.Noise, training: bool) -> recurrence.Problem:
        """This cell as the fused loops need it.

        Args:
            states: the initial states.
            drawn: the noise of the sequence.
            training: whether the call is part of training.
        """
        shared, rows, by_row = [], [], drawn.recurrent
        if self.elementwise:
            # Each row has its own copy of u, and a step only products of equal shapes.
            u, dropped = ops.cast(self.recurrent_kernel, self.state_dtype), drawn.recurrent
            u = ops.broadcast_to(u, ops.shape(states[0])) if dropped is None else u * dropped
            rows, by_row = [u], None
        elif self.product_kernel is not None:
            shared = [ops.convert_to_tensor(self.product_kernel)]
        return recurrence.Problem(
            self.engine, shared, rows, by_row, drawn.zoneout, self.output, bool(training)
        )

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Any, list[Any]]:
        """The step protocol of Keras, for `keras.layers.RNN` and `StackedRNNCells`.

        Args:
            inputs: `[B, D]`.
            states: the previous states, each `[B, S]`.
            training: whether the call is part of training.

        Returns:
            The output `[B, U]` and the list of new states, both in the dtype of the given states.
        """
        if training and self.is_noisy:
            raise ValueError(
                f"{type(self).__name__} has dropout={self.dropout}, recurrent_dropout="
                f"{self.recurrent_dropout} and zoneout={self.zoneout}, whose masks are drawn once "
                "for a whole sequence; a bare keras.layers.RNN cannot do that in training. Use "
                "keras_rnncells.RNN(cell) or the cell's own layer, or set the rates to 0."
            )
        given = [keras.backend.standardize_dtype(s.dtype) for s in states]
        before = [ops.cast(s, self.state_dtype) for s in states]
        after = self.step(self.project(inputs), before, self.product_kernel)
        after = noise.expectation(self).hold(before, after)
        output = ops.cast(self.output(after), given[0])
        return output, [ops.cast(s, dtype) for s, dtype in zip(after, given, strict=True)]

    def get_initial_state(self, batch_size: Any = None) -> list[Any]:
        """Zeros, `[batch_size, S]` for each state."""
        sizes = self.state_size if isinstance(self.state_size, list) else [self.state_size]
        return [ops.zeros((batch_size, size), dtype=self.state_dtype) for size in sizes]

    def get_config(self) -> dict[str, Any]:
        names = arguments.names(type(self))
        given = {name: arguments.serialize(self.argument(name)) for name in names}
        return {**super().get_config(), **given}

    def argument(self, name: str) -> Any:
        """The constructor argument `name`, kept as the attribute of that name."""
        if not hasattr(self, name):
            raise TypeError(
                f"{type(self).__name__} does not keep its constructor argument `{name}`. Store it "
                "as an attribute of the same name, or override `get_config()`."
            )
        return getattr(self, name)


def _role(name: str) -> str:
    """Which constructor arguments rule the weight of this name."""
    if name.endswith("recurrent_kernel"):
        return "recurrent"
    return "bias" if name.endswith("bias") else "kernel"
