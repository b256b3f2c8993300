"""Mixed precision: products in the compute dtype, states in float32. All in half is that."""

import inspect

import keras
import numpy as np
import pytest

import keras_rnncells as kr
from tests.tools import (
    ROWS,
    VARIANTS,
    B,
    D,
    T,
    U,
    asymmetric,
    gradients,
    inputs,
    numpy,
    states_of,
)

POLICIES = ["mixed_bfloat16", "mixed_float16"]


def dtype(x):
    return keras.backend.standardize_dtype(x.dtype)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("row", ROWS)
def test_dtypes(row, policy):
    layer = asymmetric(row.layer(U, dtype=policy, return_sequences=True, return_state=True))
    exact = row.layer(U, return_sequences=True, return_state=True)
    exact.build((B, T, D))
    exact.set_weights(layer.get_weights())
    start = states_of(layer)
    output, *states = layer(inputs(), initial_state=start)
    assert dtype(output) == policy.removeprefix("mixed_")
    assert {dtype(s) for s in states} == {"float32"}
    assert {dtype(w) for w in layer.weights} == {"float32"}
    for a, b in zip([output, *states], exact(inputs(), initial_state=start), strict=True):
        close = {"rtol": 0.05, "atol": 0.05}
        np.testing.assert_allclose(numpy(a).astype("float32"), numpy(b), **close)
    symbolic = layer(keras.Input((None, D)))
    assert [s.dtype for s in symbolic] == [dtype(output)] + ["float32"] * len(states)


@pytest.mark.parametrize("policy", ["bfloat16", "float16"])
@pytest.mark.parametrize(("row", "arguments"), VARIANTS)
def test_all_in_half_precision(row, arguments, policy):
    default = inspect.signature(row.layer).parameters["recurrent_initializer"].default
    if default == "orthogonal":  # in half precision Keras cannot draw that on every backend
        arguments = {**arguments, "recurrent_initializer": "uniform"}
    layer = row.layer(
        U, dtype=policy, return_state=True, dropout=0.1, recurrent_dropout=0.1, zoneout=0.1,
        **arguments,
    )  # fmt: skip
    exact = asymmetric(row.layer(U, return_state=True, zoneout=0.1, **arguments))
    layer.build((B, T, D))
    layer.set_weights(exact.get_weights())
    found = layer(inputs())
    assert {dtype(x) for x in (*found, *layer.weights)} == {policy}
    for a, b in zip(found, exact(inputs()), strict=True):
        np.testing.assert_allclose(numpy(a).astype("float32"), numpy(b), rtol=0.1, atol=0.1)
    found = gradients(layer, lambda x: keras.ops.sum(layer(x, training=True)[0]), inputs())
    assert all(np.isfinite(g.astype("float32")).all() for g in found)


@pytest.mark.parametrize("policy", [*POLICIES, "float64"])
def test_integers_are_not_rounded(policy):
    encoder = keras.layers.Embedding(2000, U)
    layer = kr.MinimalRNN(U, encoder=encoder, dtype=policy)
    names = np.arange(990, 1010).reshape(-1, 1, 1)
    assert len(np.unique(numpy(layer(names)).astype("float32"), axis=0)) == len(names)


@pytest.mark.parametrize("policy", POLICIES)
def test_products_are_in_half_precision(policy):
    """In which this kernel is 1."""
    layer = kr.IndRNN(1, "linear", dtype=policy, return_state=True)
    layer.build((None, None, 1))
    layer.set_weights([np.full((1, 1), 1 + 2**-12), np.ones(1), np.zeros(1)])
    _, state = layer(np.ones((1, 1, 1)))
    assert numpy(state) == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_a_long_sum_does_not_stall(policy):
    """1000 x 0.01 summed in bfloat16 gives 4."""
    layer = kr.IndRNN(1, "linear", dtype=policy, return_state=True, kernel_initializer="ones")
    layer.build((None, None, 1))
    layer.set_weights([np.ones((1, 1)), np.ones(1), np.zeros(1)])
    _, state = layer(np.full((1, 1000, 1), 0.01))
    np.testing.assert_allclose(numpy(state), 10.0, rtol=2e-3)
    _, again = layer(np.zeros((1, 1, 1)), initial_state=[np.array([[4.0001]], "float32")])
    np.testing.assert_array_equal(numpy(again), np.array([[4.0001]], "float32"))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_bound_near_one_survives(policy):
    """2^(1/5000) = 1.00014 is 1 in bfloat16."""
    u = 2 ** (1 / 5000)
    weights = [np.zeros((1, 1)), np.array([u]), np.ones(1)]
    layer = kr.IndRNN(1, "linear", max_timesteps=5000, dtype=policy)
    within = kr.IndRNN(1, "linear", max_timesteps=5000, dtype=policy)
    wrapped = keras.layers.TimeDistributed(within, dtype=policy)
    x = np.zeros((1, 1000, 1), "float32")
    layer.build(x.shape)
    wrapped.build((1, *x.shape))
    expected = (u**1000 - 1) / (u - 1)
    for made, inner, inputs_ in ((layer, layer, x), (wrapped, within, x[None])):
        inner.set_weights(weights)
        found = float(numpy(made(inputs_)).astype("float32").squeeze())
        np.testing.assert_allclose(found, expected, rtol=4e-3)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("row", ROWS)
def test_fits_in_mixed_precision(row, policy):
    keras.config.set_dtype_policy(policy)
    layer = row.layer(U, dropout=0.2, zoneout=0.1)
    readout = keras.layers.Dense(1, dtype="float32")
    model = keras.Sequential([keras.Input((T, D)), layer, readout])
    model.compile("sgd", "mse", jit_compile=False)
    loss = model.fit(inputs(), np.ones((B, 1)), verbose=0).history["loss"]
    assert np.isfinite(loss).all()


def test_stacked_cells_keep_float32_states():
    cells = [kr.LSTMCell(U, dtype="mixed_bfloat16"), kr.IndRNNCell(U, dtype="mixed_bfloat16")]
    layer = kr.RNN(cells, return_state=True, dtype="mixed_bfloat16")
    _, *states = layer(inputs())
    assert {dtype(s) for s in keras.tree.flatten(states)} == {"float32"}
    theirs = keras.layers.RNN(keras.layers.StackedRNNCells(cells), dtype="mixed_bfloat16")
    found, expected = (numpy(y).astype("float32") for y in (layer(inputs())[0], theirs(inputs())))
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_foreign_cell_in_mixed_precision():
    layer = kr.RNN(keras.layers.GRUCell(U, dtype="mixed_bfloat16"), dtype="mixed_bfloat16")
    assert dtype(layer(inputs())) == "bfloat16"
