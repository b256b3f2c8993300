"""Every cell against loops in NumPy: states, outputs and gradients."""

import keras
import numpy as np
import pytest

from tests.cells import numpy_cells
from tests.tools import (
    VARIANTS,
    U,
    asymmetric,
    gradients,
    in_full_precision,
    inputs,
    numpy,
    states_of,
)

TOLERANCE = {"float64": 1e-10, "float32": 5e-6}


def make(row, arguments, dtype="float64", **kwargs):
    arguments = in_full_precision(row, arguments, dtype)
    options = {"return_sequences": True, "return_state": True, **kwargs}
    return asymmetric(row.layer(U, dtype=dtype, **arguments, **options))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("row", "arguments"), VARIANTS)
def test_outputs_and_states(row, arguments, dtype):
    layer = make(row, arguments, dtype)
    x, start = inputs(dtype=dtype), states_of(layer, dtype=dtype)
    outputs, *states = layer(x, initial_state=start)
    wide = [a.astype("float64") for a in (x, *start)]
    weights = [w.astype("float64") for w in layer.get_weights()]
    expected, last = numpy_cells.run(row.name, arguments, wide[0], wide[1:], weights)
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    np.testing.assert_allclose(numpy(outputs), expected, **tolerance)
    for state, true in zip(states, last, strict=True):
        np.testing.assert_allclose(numpy(state), true, **tolerance)
        assert keras.backend.standardize_dtype(state.dtype) == dtype


def objective(outputs, states):
    """A scalar that depends on every output and state, each in its own way."""
    total = 0
    for k, a in enumerate([outputs, *states]):
        factors = np.cos(1.0 + k + np.arange(np.prod(a.shape))).reshape(a.shape)
        total = total + (a * factors.astype(keras.backend.standardize_dtype(a.dtype))).sum()
    return total


def loss_of(layer):
    def loss(x, *start):
        outputs, *states = layer(x, initial_state=list(start))
        total = 0
        for k, a in enumerate([outputs, *states]):
            factors = np.cos(1.0 + k + np.arange(np.prod(a.shape))).reshape(a.shape)
            total = total + keras.ops.sum(a * keras.ops.cast(factors, a.dtype))
        return total

    return loss


@pytest.mark.parametrize(("row", "arguments"), VARIANTS)
def test_gradients_by_central_differences(row, arguments):
    layer = make(row, arguments)
    arrays = [inputs(dtype="float64"), *states_of(layer, dtype="float64")]
    found = gradients(layer, loss_of(layer), *arrays)
    weights = layer.get_weights()

    def value(weights, x, *start):
        outputs, states = numpy_cells.run(row.name, arguments, x, list(start), weights)
        return objective(outputs, states)

    everything = [*weights, *arrays]
    n, step = len(weights), 1e-5
    for k, (array, gradient) in enumerate(zip(everything, found, strict=True)):
        numeric = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            sides = []
            for sign in (1, -1):
                moved = array.copy()
                moved[index] += sign * step
                others = [moved if j == k else a for j, a in enumerate(everything)]
                sides.append(value(others[:n], *others[n:]))
            numeric[index] = (sides[0] - sides[1]) / (2 * step)
        scale = np.abs(numeric).max() + 1e-12
        np.testing.assert_allclose(gradient / scale, numeric / scale, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("row", "arguments"), VARIANTS)
def test_float32_gradients_against_float64(row, arguments):
    found = []
    for dtype in ("float32", "float64"):
        layer = make(row, arguments, dtype)
        arrays = [inputs(dtype=dtype), *states_of(layer, dtype=dtype)]
        found.append(gradients(layer, loss_of(layer), *arrays))
    for narrow, wide in zip(*found, strict=True):
        scale = np.abs(wide).max()
        np.testing.assert_allclose(narrow / scale, wide / scale, rtol=0, atol=1e-4)
