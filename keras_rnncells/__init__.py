"""Simple recurrent networks with a long memory, for Keras 3.

Shapes in this package are written with one letter an axis: B batch, T time, D input features,
U units, P projected features, K recurrent features, S state features, O outputs of a readout.
`x'` is the value of x one step before.
"""

try:
    import keras as _keras  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in ("tensorflow", "jax", "torch"):
        raise
    raise ImportError(
        f"keras_rnncells needs a Keras backend, and {error.name} is not installed: run one of "
        "`pip install keras_rnncells[cpu]` (TensorFlow on the CPU), `[tensorflow]`, `[cuda]` or "
        "`[jax]` (and set KERAS_BACKEND=jax)."
    ) from None

from keras_rnncells import (
    base,
    cells,
    constraints,
    datasets,
    initializers,
    models,
    regularizers,
    serving,
)
from keras_rnncells.base import RNN
from keras_rnncells.cells.table import *  # noqa: F403
from keras_rnncells.version import __version__

__all__ = [
    "RNN",
    "__version__",
    "base",
    "cells",
    "constraints",
    "datasets",
    "initializers",
    "models",
    "regularizers",
    "serving",
    *(cls.__name__ for row in cells.CELLS.values() for cls in (row.layer, row.cell)),
]
