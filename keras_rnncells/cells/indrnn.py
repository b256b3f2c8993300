"""IndRNN: each unit remembers only itself (Li et al., 2018)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_rnncells.base import CellRNN, RecurrentCell, arguments
from keras_rnncells.constraints import MemoryBound
from keras_rnncells.initializers import MemoryUniform


@keras.saving.register_keras_serializable(package="keras_rnncells")
class IndRNNCell(RecurrentCell):
    """The independently recurrent neural network, one step.

    `h = activation(x W + u * h' + b)` with a vector u: each unit sees its own past only, so that
    its memory is read off u and bounded with it
    ([Li et al., 2018](https://arxiv.org/abs/1803.04831)). Units meet in the next layer: stack two
    or more.

    After each update |u| is at most `gamma ** (1 / max_timesteps)`, for either sign, and u starts
    from U(0, bound) (tanh: U(-bound, bound)). An explicit `recurrent_initializer` or
    `recurrent_constraint` replaces its default.

    Weights: `kernel` W `[D, U]`, `recurrent_kernel` u `[U]`, `bias` b `[U]`.

    Args:
        max_timesteps: Positive integer, the number of steps over which the gradient must not grow
            by more than `gamma`; usually the length of the sequences. `None` bounds |u| by 1.
        gamma: Number of at least 1, that growth.
        memory: `"long"` starts u in [1 / bound, bound]: for the last of several layers, when only
            its last step is read out. Not together with `recurrent_initializer`.
        input_kernel: Whether the inputs are multiplied by a kernel. With `False` there is no kernel
            and no bias, and the inputs are the pre-activations `[B, T, U]`: for a normalization
            between product and recurrence.

    Example:

    >>> import keras_rnncells
    >>> cell = keras_rnncells.IndRNNCell(4, max_timesteps=100)
    >>> cell.build((None, 3))
    >>> [w.name for w in cell.weights]
    ['kernel', 'recurrent_kernel', 'bias']
    """

    product_kernel = None

    def __init__(
        self,
        units: int,
        activation: Any = "relu",
        use_bias: bool = True,
        kernel_initializer: Any = None,
        recurrent_initializer: Any = None,
        *args: Any,
        max_timesteps: int | None = None,
        gamma: float = 2.0,
        memory: str | None = None,
        input_kernel: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units, activation, use_bias, kernel_initializer, recurrent_initializer, *args, **kwargs
        )
        self.max_timesteps = max_timesteps
        self.gamma = gamma
        self.memory = arguments.choice("memory", memory, (None, "long"))
        self.input_kernel = bool(input_kernel)
        if memory is not None and recurrent_initializer is not None:
            raise ValueError(
                "`memory` chooses the start of the recurrent kernel, and `recurrent_initializer` "
                f"replaces it: give one of the two. Received: memory={memory!r}, "
                f"recurrent_initializer={recurrent_initializer!r}."
            )
        self._bound = MemoryBound(max_timesteps, gamma)

    def build(self, input_shape: Any) -> None:
        start = MemoryUniform(self.max_timesteps, self.gamma, self.memory)
        if self.memory is None and self.activation is keras.activations.tanh:
            start = keras.initializers.RandomUniform(-self._bound.bound, self._bound.bound)
        if self.input_kernel:
            self.kernel = self.add(
                "kernel",
                (input_shape[-1], self.units),
                keras.initializers.VarianceScaling(2 / 65, "fan_in", "uniform"),
            )
        elif input_shape[-1] != self.units:
            raise ValueError(
                f"With input_kernel=False the inputs are the pre-activations of the {self.units} "
                f"units. Received inputs of shape {tuple(input_shape)}: make the last axis "
                f"{self.units}, or leave input_kernel at True."
            )
        self.recurrent_kernel = self.add("recurrent_kernel", (self.units,), start, self._bound)
        has_bias = self.input_kernel and self.use_bias
        self.bias = self.add("bias", (self.units,)) if has_bias else None

    def project(self, inputs: Any) -> Any:
        if not self.input_kernel:
            return ops.cast(inputs, self.state_dtype)
        return self.linear(inputs, self.kernel, self.bias)

    def update(self, projected: Any, recurrent: Any, states: list[Any]) -> list[Any]:
        return [self.activation(projected + self.recurrent_kernel * recurrent)]

    @property
    def elementwise(self) -> bool:
        return type(self).update is IndRNNCell.update  # not that of a subclass


@keras.saving.register_keras_serializable(package="keras_rnncells")
class IndRNN(CellRNN, cell=IndRNNCell):
    """The independently recurrent neural network.

    Example:

    >>> import keras, keras_rnncells
    >>> model = keras.Sequential([
    ...     keras.Input((None, 2)),
    ...     keras_rnncells.IndRNN(128, max_timesteps=1000, return_sequences=True),
    ...     keras_rnncells.IndRNN(128, max_timesteps=1000, memory="long"),
    ...     keras.layers.Dense(1),
    ... ])
    >>> model.count_params()
    17281
    """
