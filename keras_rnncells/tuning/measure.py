"""How long a training step takes, found out before the training."""

from __future__ import annotations

import statistics
import time
from typing import Any

import keras


def first_batch(x: Any, y: Any = None, batch_size: int | None = None) -> tuple:
    """The first batch of what `fit` is given, inputs and targets."""
    if isinstance(x, keras.utils.PyDataset):
        return tuple(x[0])[:2]
    if all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(x)):
        # 32 is the batch size of `fit`.
        given = (x,) if y is None else (x, y)
        return keras.tree.map_structure(lambda a: a[: batch_size or 32], given)
    if iter(x) is x:
        raise ValueError(
            "`max_milliseconds` is measured on the first batch, which a generator gives only once. "
            f"Received: {type(x).__name__}. Pass arrays, a keras.utils.PyDataset or a dataset."
        )
    return tuple(next(iter(x)))[:2]


def milliseconds(model: keras.Model, batch: tuple, steps: int = 5) -> float:
    """The median time of a training step on one batch; the model is left as it was."""
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    values = [keras.ops.convert_to_numpy(v).copy() for v in variables]
    times = []
    for _ in range(2 + steps):
        start = time.perf_counter()
        model.train_on_batch(*batch)
        times.append(time.perf_counter() - start)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    # The first steps compile.
    return 1000 * statistics.median(times[2:])
