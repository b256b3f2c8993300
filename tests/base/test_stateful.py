"""`stateful` carries the states between batches, on every backend, in fit, evaluate and predict."""

import keras
import numpy as np
import pytest

import keras_rnncells as kr
from tests.tools import ROWS, B, D, U, asymmetric, inputs, numpy


def model_of(layer, steps, batch=B):
    model = keras.Sequential([keras.Input(batch_shape=(batch, steps, D)), layer])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


@pytest.mark.parametrize("row", ROWS)
def test_three_batches_equal_one_long_sequence(row):
    x = inputs(B, 12, D)
    pieces = np.concatenate([x[:, :4], x[:, 4:8], x[:, 8:]])
    whole = asymmetric(row.layer(U, return_sequences=True))
    expected = numpy(whole(x))
    layer = row.layer(U, return_sequences=True, stateful=True)
    model = model_of(layer, 4)
    layer.set_weights(whole.get_weights())
    assert len(layer.weights) == len(whole.weights), "states are no weights"

    found = np.concatenate(np.split(model.predict(pieces, batch_size=B, verbose=0), 3), axis=1)
    np.testing.assert_allclose(found, expected, atol=5e-6)

    # The loss against zeros tells which states the batches saw.
    losses = [float((part**2).mean()) for part in np.split(expected, 3, axis=1)]
    zeros = np.zeros((3 * B, 4, expected.shape[-1]))
    layer.reset_state()
    np.testing.assert_allclose(
        model.evaluate(pieces, zeros, batch_size=B, verbose=0), np.mean(losses), rtol=1e-5
    )
    layer.reset_state()
    history = model.fit(pieces, zeros, batch_size=B, shuffle=False, verbose=0)
    np.testing.assert_allclose(history.history["loss"], np.mean(losses), rtol=1e-5)
    last = numpy(layer.states[0])
    again = model.predict(x[:, :4], batch_size=B, verbose=0)
    assert not np.allclose(again, expected[:, :4]), "fit left its states behind"
    layer.reset_state()
    assert last.any() and not numpy(layer.states[0]).any()
    np.testing.assert_allclose(
        model.predict(x[:, :4], batch_size=B, verbose=0), expected[:, :4], atol=5e-6
    )


def test_reset_of_a_stack():
    layer = kr.RNN([kr.LSTMCell(3), kr.IndRNNCell(U)], stateful=True)
    layer.reset_state()  # nothing to reset yet
    first = numpy(layer(inputs(B, 4, D)))
    assert not np.allclose(numpy(layer(inputs(B, 4, D))), first)
    layer.reset_state()
    np.testing.assert_array_equal(numpy(layer(inputs(B, 4, D))), first)


def test_states_stay_float32():
    layer = kr.IndRNN(1, "linear", stateful=True, dtype="mixed_bfloat16")
    layer.build((1, 100, 1))
    layer.set_weights([np.ones((1, 1)), np.ones(1), np.zeros(1)])
    for _ in range(10):
        layer(np.full((1, 100, 1), 0.01))
    np.testing.assert_allclose(numpy(layer.states[0]), 10.0, rtol=2e-3)


def test_two_stateful_layers_and_bidirectional():
    layers = [kr.LSTM(U, return_sequences=True, stateful=True), kr.GRU(U, stateful=True)]
    model = keras.Sequential([keras.Input(batch_shape=(B, 4, D)), *layers])
    first, second = (model.predict(inputs(B, 4, D), batch_size=B, verbose=0) for _ in range(2))
    assert not np.allclose(first, second)
    both = keras.layers.Bidirectional(kr.IndRNN(U, stateful=True))
    a, b = numpy(both(inputs())), numpy(both(inputs()))
    assert not np.allclose(a, b)
    both.reset_state()
    np.testing.assert_allclose(numpy(both(inputs())), a, atol=1e-6)


def test_stacked_cells():
    layer = kr.RNN([kr.LSTMCell(U), kr.IndRNNCell(U)], stateful=True)
    x = inputs(B, 8, D)
    layer.build((B, 4, D))
    expected = kr.RNN(layer.cell)(x)
    layer(x[:, :4])
    np.testing.assert_allclose(numpy(layer(x[:, 4:])), numpy(expected), atol=1e-6)


def test_save_and_load(tmp_path):
    layer = kr.CFN(U, stateful=True)
    model = model_of(layer, 4)
    x = inputs(B, 4, D)
    expected = model.predict(x, batch_size=B, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(x, batch_size=B, verbose=0), expected, atol=1e-6)


def test_wrong_batches():
    with pytest.raises(ValueError, match="batch size must be static"):
        kr.IndRNN(U, stateful=True)(keras.Input((4, D)))
    layer = kr.IndRNN(U, stateful=True)
    layer(inputs(B, 4, D))
    with pytest.raises(ValueError, match=f"built for batches of {B}.*batch of 2"):
        layer(inputs(2, 4, D))
