"""SCRN: the structurally constrained recurrent network (Mikolov et al., 2014)."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_rnncells.base import CellRNN, RecurrentCell, arguments


@keras.saving.register_keras_serializable(package="keras_rnncells")
class SCRNCell(RecurrentCell):
    """The structurally constrained recurrent network, one step.

    `s = (1 - alpha) * x B + alpha * s'`, `h = sigmoid(s P + x A + h' R)`
    ([Mikolov et al., 2014](https://arxiv.org/abs/1412.7753)): a slow linear context s beside a
    simple network h. As in the paper, h sees the new s (the authors' code uses the previous one).

    Weights: `context_kernel` B `[D, S]`, `kernel` A `[D, U]`, `context_recurrent_kernel` P
    `[S, U]`, `recurrent_kernel` R `[U, U]`, all from N(0, 0.05), with S = `context_units`; `bias`
    `[U]` when `use_bias` (the paper has none); `alpha` `[S]` when learned, of which the sigmoid is
    taken.

    The states are h and s.

    Args:
        context_units: Positive integer S, the size of the context. `None` means `units`.
        alpha: Number in (0, 1), the part of the context that each step keeps.
        learn_alpha: Whether each context unit learns an alpha of its own, from that value on.
        return_context: Whether the output is [h, s] `[B, U + S]` in place of h.

    Example:

    >>> import keras_rnncells
    >>> cell = keras_rnncells.SCRNCell(100, context_units=40)
    >>> cell.state_size
    [100, 40]
    """

    state_names = ("h", "s")

    def __init__(
        self,
        units: int,
        activation: Any = "sigmoid",
        use_bias: bool = False,
        kernel_initializer: Any = None,
        recurrent_initializer: Any = None,
        *args: Any,
        context_units: int | None = None,
        alpha: float = 0.95,
        learn_alpha: bool = False,
        return_context: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units, activation, use_bias, kernel_initializer, recurrent_initializer, *args, **kwargs
        )
        if context_units is not None:
            context_units = arguments.positive_integer("context_units", context_units)
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha < 1:
            raise ValueError(
                "`alpha` must be a number above 0 and below 1, the part of the context that each "
                f"step keeps. Received: alpha={alpha!r}."
            )
        self.context_units = context_units
        self.alpha = self.initial_alpha = alpha
        self.learn_alpha = bool(learn_alpha)
        self.return_context = bool(return_context)
        self.state_size = [self.units, context_units or self.units]
        self.output_size = sum(self.state_size) if return_context else self.units

    def build(self, input_shape: Any) -> None:
        (units, context), features = self.state_size, input_shape[-1]
        self.context_kernel = self.add("context_kernel", (features, context), self._small())
        self.kernel = self.add("kernel", (features, units), self._small())
        self.context_recurrent_kernel = self.add(
            "context_recurrent_kernel", (context, units), self._small()
        )
        self.recurrent_kernel = self.add("recurrent_kernel", (units, units), self._small())
        self.bias = self.add("bias", (units,)) if self.use_bias else None
        if self.learn_alpha:
            logit = math.log(self.initial_alpha / (1 - self.initial_alpha))
            self.alpha = self.add_weight(
                name="alpha",
                shape=(context,),
                initializer=keras.initializers.Constant(logit),
                autocast=False,
            )

    @staticmethod
    def _small() -> keras.initializers.Initializer:
        return keras.initializers.RandomNormal(stddev=0.05)

    def _kept(self) -> Any:
        """alpha, `[S, 1]`."""
        if self.learn_alpha:
            return ops.sigmoid(self.alpha)[:, None]
        return ops.full((self.state_size[1], 1), self.initial_alpha, dtype=self.state_dtype)

    # s P = (1 - alpha) * x B P + s' (alpha P): the product with s' joins that with h', and the
    # part without state leaves the loop.

    @property
    def product_kernel(self) -> Any:
        return ops.concatenate(
            [self.recurrent_kernel, self._kept() * self.context_recurrent_kernel], axis=0
        )

    def project(self, inputs: Any) -> Any:
        context = (1.0 - self._kept()[:, 0]) * self.linear(inputs, self.context_kernel)
        hidden = self.linear(inputs, self.kernel, self.bias)
        hidden = hidden + self.linear(context, self.context_recurrent_kernel)
        return ops.concatenate([hidden, context], axis=-1)

    def update(self, projected: Any, recurrent: Any, states: list[Any]) -> list[Any]:
        hidden, context = ops.split(projected, [self.units], axis=-1)
        s = context + self._kept()[:, 0] * states[1]
        return [self.activation(hidden + recurrent), s]

    def output(self, states: list[Any]) -> Any:
        return ops.concatenate(states, axis=-1) if self.return_context else states[0]

    def argument(self, name: str) -> Any:
        # `alpha` is the weight, where it is learned.
        return self.initial_alpha if name == "alpha" else super().argument(name)


@keras.saving.register_keras_serializable(package="keras_rnncells")
class SCRN(CellRNN, cell=SCRNCell):
    """The structurally constrained recurrent network.

    Example:

    >>> import numpy as np, keras_rnncells
    >>> layer = keras_rnncells.SCRN(4, context_units=2, return_context=True)
    >>> tuple(layer(np.ones((2, 5, 3), "float32")).shape)
    (2, 6)
    """
