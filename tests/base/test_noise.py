"""Dropout, recurrent dropout and zoneout: drawn once a sequence (zoneout: once a step), seeded."""

import keras
import numpy as np
import pytest

import keras_rnncells as kr
from keras_rnncells.base import noise
from tests.cells import numpy_cells
from tests.tools import ROWS, B, D, T, U, asymmetric, inputs, numpy, states_of

NOISE = {"dropout": 0.4, "recurrent_dropout": 0.3, "zoneout": 0.25}


def noisy(row, seed=1, **arguments):
    arguments = {**NOISE, "return_sequences": True, "return_state": True, **arguments}
    return asymmetric(row.layer(U, seed=seed, **arguments))


def same(a, b):
    pairs = zip(keras.tree.flatten(a), keras.tree.flatten(b), strict=True)
    return all(np.array_equal(numpy(x), numpy(y)) for x, y in pairs)


@pytest.mark.parametrize("row", ROWS)
def test_new_for_every_batch_and_reproducible(row):
    first, second = noisy(row), noisy(row)
    a, b = (layer(inputs(), training=True) for layer in (first, second))
    assert same(a, b)
    assert not same(a, first(inputs(), training=True))
    assert not same(a, noisy(row, seed=2)(inputs(), training=True))
    assert not same(a, first(inputs()))
    assert same(first(inputs()), second(inputs()))


@pytest.mark.parametrize("row", ROWS)
def test_same_in_every_scan(row):
    oracle, found = (noisy(row, scan=s)(inputs(), training=True) for s in ("keras", "auto"))
    for a, b in zip(keras.tree.flatten(found), keras.tree.flatten(oracle), strict=True):
        np.testing.assert_allclose(numpy(a), numpy(b), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("row", ROWS)
def test_against_numpy_on_the_same_masks(row, masked):
    """Dropped inputs and states and held states enter the equations as the papers say.

    Recurrent dropout leaves what is added alone: z * h' of a GRU keeps the whole h'.
    """
    layer = noisy(row)
    start = states_of(layer)
    twin = noisy(row)
    drawn = noise.draw(twin.cell, keras.ops.convert_to_tensor(inputs()), start)
    mask = np.random.default_rng(0).random((B, T)) < 0.7 if masked else np.ones((B, T), bool)
    outputs, *states = layer(inputs(), initial_state=start, mask=mask, training=True)
    x, dropped = inputs() * numpy(drawn.inputs), numpy(drawn.recurrent)
    weights, expected = [w.astype("float64") for w in layer.get_weights()], start
    for t in range(T):
        new = numpy_cells.STEPS[row.name](x[:, t], expected, weights, dropped=dropped)
        held = [numpy(z)[:, t] | ~mask[:, t, None] for z in drawn.zoneout]
        expected = [np.where(h, e, n) for h, e, n in zip(held, expected, new, strict=True)]
        np.testing.assert_allclose(numpy(outputs)[:, t], expected[0], atol=5e-6)
    for state, true in zip(states, expected, strict=True):
        np.testing.assert_allclose(numpy(state), true, atol=5e-6)


@pytest.mark.parametrize("row", ROWS)
def test_masks(row):
    layer = row.layer(200, **NOISE, seed=1)
    x = keras.ops.ones((50, 20, 30))
    layer.build(x.shape)
    drawn = noise.draw(layer.cell, x, layer.get_initial_state(50))
    assert drawn.inputs.shape == (50, 1, 30)
    for mask, rate in ((drawn.inputs, 0.4), (drawn.recurrent, 0.3)):
        values = numpy(mask)
        assert {round(float(v), 5) for v in np.unique(values)} == {0.0, round(1 / (1 - rate), 5)}
        assert abs((values == 0).mean() - rate) < 0.05
    assert drawn.recurrent.shape[0] == 50
    for mask in drawn.zoneout:
        values = numpy(mask)
        assert values.dtype == bool and values.shape[:2] == (50, 20)
        assert abs(values.mean() - 0.25) < 0.01
        assert not np.array_equal(values[:, 0], values[:, 1]), "zoneout is drawn at every step"


@pytest.mark.parametrize("row", ROWS)
def test_expectation_at_inference(row):
    layer = noisy(row, dropout=0.0, recurrent_dropout=0.0, zoneout=0.25)
    start = states_of(layer)
    outputs = numpy(layer(inputs(), initial_state=start)[0])
    weights, expected = [w.astype("float64") for w in layer.get_weights()], start
    for t in range(T):
        new = numpy_cells.STEPS[row.name](inputs()[:, t], expected, weights)
        expected = [0.25 * e + 0.75 * n for e, n in zip(expected, new, strict=True)]
        np.testing.assert_allclose(outputs[:, t], expected[0], atol=5e-6)
    in_keras = keras.layers.RNN(layer.cell, return_sequences=True)
    found = numpy(in_keras(inputs(), initial_state=start))
    np.testing.assert_allclose(found, outputs, rtol=1e-6, atol=1e-6)


def test_a_rate_for_each_state():
    layer = kr.LSTM(64, zoneout=[0.0, 0.5], return_state=True)
    x = inputs(B, 1, D)
    start = states_of(layer)
    _, h, c = layer(x, initial_state=start, training=True)
    held = numpy(c) == start[1]
    assert 0.3 < held.mean() < 0.7 and not (numpy(h) == start[0]).any()


@pytest.mark.parametrize("rate", ["dropout", "recurrent_dropout", "zoneout"])
@pytest.mark.parametrize("row", ROWS)
def test_training_in_a_bare_keras_rnn_is_an_error(row, rate):
    bare = keras.layers.RNN(row.cell(U, **{rate: 0.5}))
    assert bare(inputs()).shape[0] == B
    with pytest.raises(ValueError, match=rf"{rate}=0.5.*keras_rnncells.RNN\(cell\)"):
        bare(inputs(), training=True)
    assert kr.RNN(row.cell(U, **{rate: 0.5}))(inputs(), training=True).shape[0] == B


@pytest.mark.parametrize("rates", [(0.5, 0.0), (0.0, 0.3)])
def test_stacked_cells_draw_for_each_cell(rates):
    dropout, zoneout = rates
    cells = [kr.IndRNNCell(U, dropout=dropout, seed=1), kr.LSTMCell(U, zoneout=zoneout, seed=2)]
    layer = kr.RNN(cells)
    assert not same(layer(inputs(), training=True), layer(inputs(), training=True))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_alive_under_jit_and_after_reload(jit_compile, tmp_path):
    """Each batch of a compiled fit has masks of its own: the loss of constant data moves."""

    def losses(model):
        noted = []
        note = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda _, logs: noted.append(logs["loss"])
        )
        model.fit(np.ones((6, T, D)), np.ones((6, 1)), 2, verbose=0, callbacks=[note])
        return noted

    layer = kr.IndRNN(U, dropout=0.3, zoneout=0.2, seed=5)
    model = keras.Sequential([keras.Input((T, D)), layer, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=jit_compile)
    assert len(set(losses(model))) == 3
    model.save(tmp_path / "model.keras")
    assert len(set(losses(keras.saving.load_model(tmp_path / "model.keras")))) == 3
