"""Initializers for recurrent kernels and gate biases.

Most of them know fused kernels, in which the blocks of all gates lie side by side
along the last axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import keras
from keras import ops

from keras_rnncells import checks


class _Random(keras.initializers.RandomNormal):
    """Base of the random initializers here, for the way Keras treats `seed`.

    An integer gives the same values at every call, `None` draws an integer for this
    instance, a `keras.random.SeedGenerator` gives new values at every call. Keras
    has no public base class for this alone.
    """

    def __init__(self, seed: Any = None) -> None:
        super().__init__(seed=seed)

    def get_config(self) -> dict[str, Any]:
        return {"seed": super().get_config()["seed"]}


@keras.saving.register_keras_serializable(package="keras_rnncells")
class ScaledIdentity(keras.initializers.Initializer):
    """`gain` times the identity in every gate block of a recurrent kernel.

    A shape `(R, k * R)` gives `k` identity blocks side by side, where
    `keras.initializers.Identity` fills the first block only. Any other matrix gets
    `gain` on its main diagonal. A shape `(U,)`, the diagonal of a recurrent matrix,
    gives a vector of `gain`.

    Reference: Le, Jaitly & Hinton, 2015, "A Simple Way to Initialize Recurrent
    Networks of Rectified Linear Units" (arXiv 1504.00941).

    Args:
        gain: float. The factor of the identity; defaults to 1.

    Raises:
        ValueError: if `gain` is not a finite number, or at a call with a shape that
            is neither a vector nor a matrix.

    Example:

    >>> from keras import ops
    >>> from keras_rnncells.initializers import ScaledIdentity
    >>> ops.convert_to_numpy(ScaledIdentity(0.5)((2, 4))).tolist()
    [[0.5, 0.0, 0.5, 0.0], [0.0, 0.5, 0.0, 0.5]]
    """

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = checks.number("gain", gain)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        dtype = keras.backend.standardize_dtype(dtype)
        if len(shape) == 1:
            return ops.full(shape, self.gain, dtype)
        if len(shape) != 2:
            raise ValueError(
                "`ScaledIdentity` makes vectors and matrices. "
                f"Received: shape={tuple(shape)}. Use it for a recurrent kernel."
            )
        rows, columns = shape
        if columns % rows:
            return self.gain * ops.eye(rows, columns, dtype=dtype)
        return self.gain * ops.tile(ops.eye(rows, dtype=dtype), (1, columns // rows))

    def get_config(self) -> dict[str, Any]:
        return {"gain": self.gain}


@keras.saving.register_keras_serializable(package="keras_rnncells")
class PerGate(keras.initializers.Initializer):
    """Initialises each gate block of a fused weight on its own.

    The last axis is split into `gates` equal blocks. Each block gets its own call,
    with the shape of the block: a `GlorotUniform` sees the fan of one gate, an
    `Orthogonal` makes every gate orthogonal.

    Args:
        initializer: one identifier for all gates, or a list or tuple with one for
            each gate. An identifier is a number (a constant) or whatever
            `keras.initializers.get` takes. One random initializer for all gates
            gives different values in each: gate `i` uses its seed plus `i`. The
            items of a list are used as they are.
        gates: int, at least 1. Number of blocks along the last axis.

    Raises:
        ValueError: if `gates` is not a positive integer or `initializer` does not
            fit it, or at a call with a shape whose last axis `gates` does not divide.

    Example:

    >>> from keras import ops
    >>> from keras_rnncells.initializers import PerGate
    >>> ops.convert_to_numpy(PerGate(["zeros", 2, "ones"], gates=3)((6,))).tolist()
    [0.0, 0.0, 2.0, 2.0, 1.0, 1.0]
    """

    def __init__(self, initializer: Any, gates: int) -> None:
        if not isinstance(gates, int) or gates < 1:
            raise ValueError(
                f"`gates` must be an integer of at least 1. Received: gates={gates!r}. "
                "Pass the number of blocks along the last axis."
            )
        self.gates = gates
        if isinstance(initializer, (list, tuple)):
            if len(initializer) != gates:
                raise ValueError(
                    f"`initializer` must have one item for each of the {gates} gates. Received: "
                    f"initializer={initializer!r} of length {len(initializer)}. "
                    "Pass one identifier for all gates, or one for each."
                )
            self.initializer = [_initializer(item) for item in initializer]
            self._per_gate = self.initializer
        else:
            self.initializer = _initializer(initializer)
            self._per_gate = [reseeded(self.initializer, gate) for gate in range(gates)]

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        *rest, last = shape
        if last % self.gates:
            raise ValueError(
                f"The last axis must be a multiple of {self.gates}, the number of gates. "
                f"Received: shape={tuple(shape)}. Set `gates` to the number of gates of the cell."
            )
        block = (*rest, last // self.gates)
        return ops.concatenate([init(block, dtype=dtype) for init in self._per_gate], axis=-1)

    def get_config(self) -> dict[str, Any]:
        if isinstance(self.initializer, list):
            config = [keras.initializers.serialize(item) for item in self.initializer]
        else:
            config = keras.initializers.serialize(self.initializer)
        return {"initializer": config, "gates": self.gates}


def _initializer(identifier: Any) -> Any:
    if isinstance(identifier, Real):
        return keras.initializers.Constant(float(identifier))
    if identifier is None:
        raise ValueError(
            "`initializer` must be a number or an identifier of a Keras initializer. "
            "Received: None. Pass 'zeros' for a gate that starts at zero."
        )
    return keras.initializers.get(identifier)


def reseeded(initializer: Any, offset: int) -> Any:
    """A copy of a random initializer with another seed; anything else as it is."""
    config = initializer.get_config() if hasattr(initializer, "get_config") else {}
    seed = config.get("seed")
    if isinstance(seed, int):
        config = {**config, "seed": seed + offset}
    elif "seed" not in config or seed is not None:
        # Not random, or with a `SeedGenerator`, which never gives the same values twice.
        return initializer
    return type(initializer).from_config(config)


@keras.saving.register_keras_serializable(package="keras_rnncells")
class PositiveDefinite(_Random):
    """Random symmetric positive definite recurrent matrix with top eigenvalue 1.

    For `R` of shape `(N, N)` with standard normal entries, `A = R^T R / N` and `e`
    the largest eigenvalue of `A + I`, the value is `(A + I) / e`: one eigenvalue is
    1, all others lie between 0 and 1. Meant for ReLU units (np-RNN). A shape
    `(N, k * N)` gets an independent draw for each of its `k` blocks.

    Reference: Talathi & Vartak, 2015, "Improving performance of recurrent neural
    network with relu nonlinearity" (arXiv 1511.03771).

    Args:
        seed: int, `keras.random.SeedGenerator` or `None` (default), with the
            meaning it has for the random initializers of Keras.

    Raises:
        ValueError: at a call with a shape that is not `(N, k * N)`.

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from keras_rnncells.initializers import PositiveDefinite
    >>> kernel = ops.convert_to_numpy(PositiveDefinite(seed=0)((8, 8)))
    >>> eigenvalues = np.linalg.eigvalsh(kernel)
    >>> bool(eigenvalues.min() > 0), bool(np.isclose(eigenvalues.max(), 1, atol=1e-5))
    (True, True)
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        if len(shape) != 2 or shape[1] % shape[0]:
            raise ValueError(
                "`PositiveDefinite` makes square blocks: the shape must be (N, k * N). "
                f"Received: shape={tuple(shape)}. Use it for a recurrent kernel."
            )
        dtype = keras.backend.standardize_dtype(dtype)
        compute_dtype = checks.compute_dtype(dtype)
        size, columns = shape
        draws = (columns // size, size, size)
        root = keras.random.normal(draws, dtype=compute_dtype, seed=self.seed)
        gram = ops.matmul(ops.transpose(root, (0, 2, 1)), root) / size
        shifted = gram + ops.eye(size, dtype=compute_dtype)
        top = ops.eigh(shifted)[0][:, -1]
        blocks = shifted / ops.reshape(top, (-1, 1, 1))
        return ops.cast(ops.reshape(ops.transpose(blocks, (1, 0, 2)), shape), dtype)


@keras.saving.register_keras_serializable(package="keras_rnncells")
class RandomWalk(_Random):
    """Normal weights of a scale that keeps the back-propagated error from drifting.

    The value is `g * N(0, 1 / N)` with `N` the number of rows. With the right `g`
    the logarithm of the norm of the gradient does an unbiased random walk through
    the time steps (or layers):

    - `"linear"`: `g = exp(1 / (2 N))`,
    - `"relu"`: `g = sqrt(2) * exp(1.2 / (max(N, 6) - 2.4))`,
    - `"tanh"`: `g = 1.2`; the paper found values from 1.1 to 1.3 to work.

    Reference: Sussillo & Abbott, 2014, "Random Walk Initialization for Training
    Very Deep Feedforward Networks" (arXiv 1412.6558).

    Args:
        activation: `"relu"` (default), `"linear"` or `"tanh"`. The activation that
            follows, which sets `g`.
        gain: float, at least 0, or `None` (default). Used for `g` if given,
            whatever `activation` is.
        seed: int, `keras.random.SeedGenerator` or `None` (default), with the
            meaning it has for the random initializers of Keras.

    Raises:
        ValueError: if `activation` is unknown or `gain` is negative, or at a call
            with a shape that is not a matrix.

    Example:

    >>> from keras_rnncells.initializers import RandomWalk
    >>> RandomWalk(activation="relu", seed=0)((128, 128)).shape == (128, 128)
    True
    """

    def __init__(
        self, activation: str = "relu", gain: float | None = None, seed: Any = None
    ) -> None:
        super().__init__(seed)
        self.activation = checks.choice("activation", activation, ("linear", "relu", "tanh"))
        self.gain = None if gain is None else checks.number("gain", gain, 0)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        if len(shape) != 2:
            raise ValueError(
                f"`RandomWalk` makes matrices. Received: shape={tuple(shape)}. Use it for a kernel."
            )
        dtype = keras.backend.standardize_dtype(dtype)
        compute_dtype = checks.compute_dtype(dtype)
        stddev = self._gain(shape[0]) / math.sqrt(shape[0])
        values = keras.random.normal(shape, stddev=stddev, dtype=compute_dtype, seed=self.seed)
        return ops.cast(values, dtype)

    def _gain(self, rows: int) -> float:
        if self.gain is not None:
            return self.gain
        if self.activation == "linear":
            return math.exp(1 / (2 * rows))
        if self.activation == "relu":
            # The fit of the paper has a pole at 2.4 rows: stay clear of it.
            return math.sqrt(2) * math.exp(1.2 / (max(rows, 6) - 2.4))
        return 1.2

    def get_config(self) -> dict[str, Any]:
        return {"activation": self.activation, "gain": self.gain, **super().get_config()}


@keras.saving.register_keras_serializable(package="keras_rnncells")
class MemoryUniform(_Random):
    """Uniform recurrent weights of an IndRNN, up to the bound of `MemoryBound`.

    With `bound = gamma ** (1 / max_timesteps)` the values are drawn from
    `[0, bound]`: the units of a layer then remember for very different times. With
    `memory="long"` they are drawn from `[1 / bound, bound]`, so that every unit
    remembers the whole sequence; meant for a last layer of which only the last step
    is read.

    Reference: Li et al., 2018, "Independently Recurrent Neural Network (IndRNN):
    Building A Longer and Deeper RNN" (arXiv 1803.04831).

    Args:
        max_timesteps: number of time steps of the longest sequence, at least 1.
            `None` (default) means no limit, which gives the bound 1; with
            `memory="long"` all values are 1 then.
        gamma: float, at least 1. Largest growth over a whole sequence; defaults
            to 2.
        memory: `None` (default) or `"long"`.
        seed: int, `keras.random.SeedGenerator` or `None` (default), with the
            meaning it has for the random initializers of Keras.

    Raises:
        ValueError: if `max_timesteps` or `gamma` is below 1 or not a number, or if
            `memory` is unknown.

    Example:

    >>> from keras import ops
    >>> from keras_rnncells.initializers import MemoryUniform
    >>> values = ops.convert_to_numpy(MemoryUniform(max_timesteps=784, memory="long")((100,)))
    >>> bool((values**784 > 0.49).all() and (values**784 < 2.01).all())
    True
    """

    def __init__(
        self,
        max_timesteps: float | None = None,
        gamma: float = 2.0,
        memory: str | None = None,
        seed: Any = None,
    ) -> None:
        super().__init__(seed)
        self.bound = checks.memory_bound(max_timesteps, gamma)
        self.max_timesteps = max_timesteps
        self.gamma = gamma
        self.memory = checks.choice("memory", memory, (None, "long"))

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        dtype = keras.backend.standardize_dtype(dtype)
        compute_dtype = checks.compute_dtype(dtype)
        low = 1 / self.bound if self.memory == "long" else 0.0
        values = keras.random.uniform(shape, low, self.bound, dtype=compute_dtype, seed=self.seed)
        return ops.cast(values, dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            "max_timesteps": self.max_timesteps,
            "gamma": self.gamma,
            "memory": self.memory,
            **super().get_config(),
        }


@keras.saving.register_keras_serializable(package="keras_rnncells")
class ChronoBias(_Random):
    """Gate biases that spread the memory of the units over up to `max_timesteps` steps.

    A unit whose keep gate has the bias `log(t)` forgets over about `t` steps. The
    keep gate gets `log(U(1, max_timesteps - 1))`, the write gate minus the value of
    the same unit, every other gate zero.

    `gates` has one letter for each block of the bias along its last axis: `"f"` the
    keep gate, `"i"` the write gate, `"c"` the candidate, `"o"` the output gate,
    `"r"` the reset gate.

    - LSTM: `"ifco"` (default). The LSTM of Keras needs `unit_forget_bias=False`,
      otherwise it calls the initializer on parts of the bias.
    - GRU: `"frc"` (its first gate keeps the state).
    - MinimalRNN: `"f"`.
    - CFN: `"fi"`.

    For a bias of shape `(2, k * U)`, the input and the recurrent bias of a GRU with
    `reset_after=True`, the values go to the first row and the second is zero: the
    gate sees their sum.

    Reference: Tallec & Ollivier, 2018, "Can recurrent neural networks warp time?"
    (arXiv 1804.11188).

    Args:
        max_timesteps: number of time steps of the longest dependency expected, at
            least 3.
        gates: str of the letters above, with exactly one `"f"`.
        seed: int, `keras.random.SeedGenerator` or `None` (default), with the
            meaning it has for the random initializers of Keras.

    Raises:
        ValueError: if `max_timesteps` is below 3 or not a number, or if `gates` has
            another letter or not exactly one `"f"`, or at a call with a shape that
            is not `(k * U,)` or `(2, k * U)` for `k` gates.

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from keras_rnncells.initializers import ChronoBias
    >>> bias = ops.convert_to_numpy(ChronoBias(max_timesteps=100, seed=0)((4 * 3,)))
    >>> i, f, c, o = np.split(bias, 4)
    >>> bool((i == -f).all()), c.tolist(), o.tolist()
    (True, [0.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    """

    def __init__(self, max_timesteps: float, gates: str = "ifco", seed: Any = None) -> None:
        super().__init__(seed)
        # From 3 on, the interval from 1 to `max_timesteps - 1` is not empty.
        checks.number("max_timesteps", max_timesteps, 3)
        if not isinstance(gates, str) or set(gates) - set("ifcor") or gates.count("f") != 1:
            raise ValueError(
                "`gates` must be a string of the letters i, f, c, o, r with exactly one f. "
                f"Received: gates={gates!r}. Pass for instance 'ifco' (LSTM) or 'frc' (GRU)."
            )
        self.max_timesteps = max_timesteps
        self.gates = gates

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        count = len(self.gates)
        if len(shape) not in (1, 2) or (len(shape) == 2 and shape[0] != 2) or shape[-1] % count:
            raise ValueError(
                f"The bias of the {count} gates {self.gates!r} must have the shape ({count} * U,) "
                f"or (2, {count} * U). Received: shape={tuple(shape)}. "
                "Set `gates` to the gates of the cell, in their order."
            )
        dtype = keras.backend.standardize_dtype(dtype)
        compute_dtype = checks.compute_dtype(dtype)
        unit_shape = (shape[-1] // count,)
        steps = keras.random.uniform(
            unit_shape, 1.0, self.max_timesteps - 1.0, dtype=compute_dtype, seed=self.seed
        )
        keep = ops.log(steps)
        values = {"f": keep, "i": -keep}
        bias = ops.concatenate([values.get(gate, ops.zeros_like(keep)) for gate in self.gates])
        if len(shape) == 2:
            bias = ops.stack([bias, ops.zeros_like(bias)])
        return ops.cast(bias, dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            "max_timesteps": self.max_timesteps,
            "gates": self.gates,
            **super().get_config(),
        }
