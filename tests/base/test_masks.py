"""Masked steps: they keep the state, wherever they stand, on every backend and in every scan."""

import keras
import numpy as np
import pytest

import keras_rnncells as kr
from tests.cells import numpy_cells
from tests.tools import ROWS, VARIANTS, B, D, T, U, asymmetric, inputs, numpy, states_of

# Leading steps, a whole row, a gap and the end.
MASK = np.array(
    [
        [0, 0, 1, 1, 0, 1, 1],
        [0, 0, 0, 0, 0, 0, 0],
        [1, 0, 1, 1, 1, 0, 0],
    ],
    dtype=bool,
)
ATOL = 5e-6


def reference(row, arguments, layer, x, start, mask=MASK):
    weights = [w.astype("float64") for w in layer.get_weights()]
    return numpy_cells.run(row.name, arguments, x.astype("float64"), start, weights, mask)


def close(found, expected):
    np.testing.assert_allclose(numpy(found), expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize(("row", "arguments"), VARIANTS)
def test_against_numpy(row, arguments, unroll):
    layer = asymmetric(
        row.layer(U, return_sequences=True, return_state=True, unroll=unroll, **arguments)
    )
    x, start = inputs(), states_of(layer)
    outputs, *states = layer(x, initial_state=start, mask=MASK)
    expected, last = reference(row, arguments, layer, x, start)
    close(outputs, expected)
    for state, true in zip(states, last, strict=True):
        close(state, true)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("row", ROWS)
def test_zero_output_for_mask(row, sequences, zero):
    layer = asymmetric(row.layer(U, return_sequences=sequences, zero_output_for_mask=zero))
    zeros = [np.zeros((B, s.shape[1])) for s in states_of(layer)]
    expected, _ = reference(row, {}, layer, inputs(), zeros)
    if zero:
        expected = np.where(MASK[..., None], expected, 0)
    close(layer(inputs(), mask=MASK), expected if sequences else expected[:, -1])


@pytest.mark.parametrize("shape", [(B, T, 1), (B, T, D)])
@pytest.mark.parametrize("dtype", ["bool", "int32", "float32"])
def test_shape_and_dtype_of_the_mask(shape, dtype):
    layer = asymmetric(kr.IndRNN(U, return_sequences=True))
    wide = np.broadcast_to(MASK[..., None], shape).astype(dtype)
    close(layer(inputs(), mask=wide), numpy(layer(inputs(), mask=MASK)))


@pytest.mark.parametrize("row", ROWS)
def test_backwards(row):
    layer = asymmetric(row.layer(U, return_sequences=True, go_backwards=True))
    forwards = row.layer(U, return_sequences=True)
    forwards.build((B, T, D))
    forwards.set_weights(layer.get_weights())
    turned = forwards(inputs()[:, ::-1], mask=MASK[:, ::-1])
    close(layer(inputs(), mask=MASK), numpy(turned))


@pytest.mark.parametrize("row", ROWS)
def test_chunks_equal_the_whole(row):
    layer = asymmetric(row.layer(U, return_sequences=True, return_state=True))
    x, start = inputs(), states_of(layer)
    outputs, *states = layer(x, initial_state=start, mask=MASK)
    first, *between = layer(x[:, :2], initial_state=start, mask=MASK[:, :2])
    second, *last = layer(x[:, 2:], initial_state=between, mask=MASK[:, 2:])
    close(outputs, np.concatenate([numpy(first), numpy(second)], axis=1))
    for a, b in zip(states, last, strict=True):
        close(a, numpy(b))


@pytest.mark.parametrize("row", ROWS)
def test_two_masked_layers(row):
    x = np.where(MASK[..., None], inputs(), 0.0).astype("float32")
    layers = [row.layer(U, return_sequences=True), row.layer(U, return_sequences=True)]
    model = keras.Sequential([keras.Input((None, D)), keras.layers.Masking(0.0), *layers])
    rng = np.random.default_rng(5)
    model.set_weights([0.6 * rng.normal(size=w.shape) for w in model.weights])
    expected = x
    for layer in layers:
        zeros = [np.zeros((B, s.shape[1])) for s in states_of(layer)]
        expected, _ = reference(row, {}, layer, expected, zeros)
    close(model.predict(x, verbose=0), expected)
    close(model(x), expected)


def test_mask_of_the_input_with_an_initial_state():
    """Keras passes a mask on as `mask` only where the sequences are the one tensor."""
    layer = asymmetric(kr.ElmanRNN(U))
    x, [start] = np.where(MASK[..., None], inputs(), 0.0).astype("float32"), states_of(layer)
    sequences, state = keras.Input((T, D)), keras.Input((U,))
    masked = keras.layers.Masking(0.0)(sequences)
    model = keras.Model([sequences, state], layer(masked, initial_state=[state]))
    close(model.predict([x, start], verbose=0), numpy(layer(x, initial_state=[start], mask=MASK)))


@pytest.mark.parametrize("cell", ["keras", "stack", "wide"])
def test_foreign_cells(cell):
    """Keras' own cells, stacks, and cells whose output is no state follow the same rule."""
    mask = np.broadcast_to(MASK, (B, T))
    cells = {
        "keras": lambda: keras.layers.LSTMCell(U),
        "stack": lambda: keras.layers.StackedRNNCells(
            [keras.layers.GRUCell(U), kr.IndRNNCell(U), keras.layers.LSTMCell(U)]
        ),
        "wide": WideCell,
    }
    layer = asymmetric(kr.RNN(cells[cell](), return_sequences=True, return_state=True))
    outputs, *states = layer(inputs(), mask=mask)
    outputs = numpy(outputs)
    for row in range(B):
        real = inputs()[row : row + 1, mask[row]]
        if not real.shape[1]:
            close(outputs[row], np.zeros_like(outputs[row]))
            continue
        alone, *last = layer(real)
        close(outputs[row : row + 1][:, mask[row]], numpy(alone))
        for a, b in zip(keras.tree.flatten(states), keras.tree.flatten(last), strict=True):
            close(a[row : row + 1], numpy(b))
        held = np.maximum.accumulate(np.where(mask[row], np.cumsum(mask[row]), 0))
        padded = np.concatenate([np.zeros_like(numpy(alone)[0, :1]), numpy(alone)[0]])
        close(outputs[row], padded[held])


@keras.saving.register_keras_serializable(package="tests")
class WideCell(keras.layers.Layer):
    """A cell whose output is twice its state."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.state_size = U
        self.output_size = 2 * U

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], U))

    def call(self, inputs, states):
        h = keras.ops.tanh(keras.ops.matmul(inputs, self.kernel) + 0.5 * states[0])
        return keras.ops.concatenate([h, -h], axis=-1), [h]
