"""Cells of others: Keras' own and a user's take the fused loop too, where they can."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_rnncells as kr
from tests.recurrence.test_sequential import TRAINING, everything, fused  # noqa: F401
from tests.tools import B, D, T, U, asymmetric, inputs, numpy


class TwiceCell(keras.layers.Layer):
    """Shows twice its state, and has states in a structure, of two sizes."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.state_size = [units, 2]
        self.output_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        self.recurrent = self.add_weight(shape=(self.units, self.units), name="recurrent")
        self.unused = self.add_weight(shape=(3,), name="unused")

    def call(self, inputs, states, training=False):
        h, context = states
        h = ops.tanh(ops.matmul(inputs, self.kernel) + ops.matmul(h, self.recurrent))
        h = h + ops.sum(context, axis=-1, keepdims=True)
        context = 0.9 * context + (0.1 if training else 0.2) * inputs[:, :2]
        return 2.0 * h, [h, context]


class WiderCell(TwiceCell):
    """Shows more than a state."""

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.output_size = 2 * units

    def call(self, inputs, states, training=False):
        output, states = super().call(inputs, states, training)
        return ops.concatenate([output, states[0]], axis=-1), states


class CenteredCell(TwiceCell):
    """Looks at the whole batch: its rows cannot be computed apart."""

    def call(self, inputs, states, training=False):
        return super().call(inputs - ops.mean(inputs, axis=0), states, training)


class Scaled(keras.layers.Layer):
    """One state that is no list, and no argument `training`."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.state_size = self.output_size = units

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(self.state_size,), name="scale")

    def call(self, inputs, state):
        state = state[0] if isinstance(state, (list, tuple)) else state
        h = ops.tanh(self.scale * state + inputs[:, :1])
        return h, [h]


CELLS = {
    "LSTM": lambda **o: keras.layers.LSTMCell(U, **o),
    "GRU": lambda **o: keras.layers.GRUCell(U, **o),
    "SimpleRNN": lambda **o: keras.layers.SimpleRNNCell(U, **o),
    "twice": lambda **o: TwiceCell(U, **o),
    "wider": lambda **o: WiderCell(U, **o),
    "centered": lambda **o: CenteredCell(U, **o),
    "scaled": lambda **o: Scaled(U, **o),
}


def compare(cell, training=True, mask=None, dtype="float32", tolerance=3e-5, **options):
    call = {} if mask is None else {"mask": ops.convert_to_tensor(mask)}
    found = []
    for scan in ("auto", "keras"):
        layer = kr.RNN(
            cell(dtype=dtype),
            return_state=True,
            dtype=dtype,
            scan=scan,
            **{"return_sequences": True, **options},
        )
        asymmetric(layer)
        sizes = keras.tree.flatten(layer.cell.state_size)
        start = [inputs(B, size, seed=4, dtype=dtype) for size in sizes]
        found.append(everything(layer, inputs(dtype=dtype), start, training, **call))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * (1 + np.abs(b).max()))


@pytest.mark.parametrize("training", TRAINING)
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_every_cell(cell, training, fused):  # noqa: F811
    compare(cell, training)
    assert fused["done"] > 0 and fused["declined"] == 0


@pytest.mark.parametrize("options", [{}, {"return_sequences": False}, {"unroll": 2}], ids=str)
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_masks(cell, options):
    mask = np.random.default_rng(0).random((B, T)) < 0.6
    mask[0, :3], mask[1] = False, False
    compare(cell, mask=mask, **options)


def test_in_float64():
    compare(CELLS["twice"], dtype="float64", tolerance=1e-6)


def test_a_masked_step_shows_the_last_output():
    layer = asymmetric(kr.RNN(TwiceCell(U), return_sequences=True))
    mask = np.ones((B, T), bool)
    mask[:, 3] = False
    found = numpy(layer(inputs(), mask=ops.convert_to_tensor(mask)))
    np.testing.assert_array_equal(found[:, 3], found[:, 2])


def test_a_stack_of_both(fused):  # noqa: F811
    found = []
    for scan in ("auto", "keras"):
        cells = [keras.layers.LSTMCell(U), kr.IndRNNCell(U), TwiceCell(U)]
        layer = asymmetric(kr.RNN(cells, scan=scan))
        found.append(numpy(layer(inputs(), training=True)))
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)
    assert fused["done"] == 3


def test_dropout_of_keras_takes_the_loop_of_keras(fused):  # noqa: F811
    """Its masks are drawn before the loop and kept in the cell: no argument of a step."""
    layer = kr.RNN(keras.layers.LSTMCell(U, dropout=0.5, seed=1), return_sequences=True)
    layer(inputs(), training=True)
    assert fused["done"] == 0
    layer(inputs(), training=False)
    assert fused["done"] == 1


def test_whole_numbers_take_the_loop_of_keras(fused):  # noqa: F811
    class LookupCell(Scaled):
        def build(self, input_shape):
            self.table = self.add_weight(shape=(9, self.state_size), name="table")

        def call(self, inputs, state):
            h = 0.5 * state[0] + ops.take(self.table, inputs[:, 0], axis=0)
            return h, [h]

    layer = kr.RNN(LookupCell(U))
    tokens = np.random.default_rng(0).integers(0, 9, (B, T, 1))
    layer.build(tokens.shape)
    assert layer(tokens).shape == (B, U)
    assert fused == {"done": 0, "declined": 0}


def test_an_object_that_is_no_layer(fused):  # noqa: F811
    class Sum:
        state_size = D

        def get_initial_state(self, batch_size):
            return [ops.zeros((batch_size, D))]

        def call(self, inputs, states):
            return inputs + states[0], [inputs + states[0]]

        __call__ = call

    found = kr.RNN(Sum(), return_sequences=True)(inputs())
    np.testing.assert_allclose(numpy(found), inputs().cumsum(1), rtol=1e-5, atol=1e-5)
    assert fused["done"] == 1


def test_training_and_saving(tmp_path):
    histories = []
    for scan in ("auto", "keras"):
        keras.utils.set_random_seed(0)
        layers = [kr.RNN(keras.layers.GRUCell(U), scan=scan), keras.layers.Dense(1)]
        model = keras.Sequential([keras.Input((T, D)), *layers])
        model.compile("sgd", "mse")
        x, y = inputs(10, T, D), inputs(10, 1, seed=2)
        history = model.fit(x, y, batch_size=4, epochs=3, shuffle=False, verbose=0)
        histories.append(history.history["loss"])
    np.testing.assert_allclose(*histories, rtol=1e-4)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
