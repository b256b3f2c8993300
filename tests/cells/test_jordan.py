"""Teacher forcing: each step is fed the true output of the step before it."""

import keras
import numpy as np
import pytest

import keras_rnncells as kr
from tests.cells import numpy_cells
from tests.tools import B, D, T, U, asymmetric, inputs, numpy, states_of

O = 3  # noqa: E741
MASK = np.array([[0, 1, 1, 0, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0]], bool)


def make(**arguments):
    arguments = {"return_sequences": True, "return_state": True, **arguments}
    return asymmetric(kr.JordanRNN(U, output_units=O, **arguments))


def forced(layer, x, teacher, start, mask):
    """One step after the other, fed with the last true output that was not masked."""
    weights = [w.astype("float64") for w in layer.get_weights()]
    outputs, fed, held = [], start, start
    for t in range(T):
        [y] = numpy_cells.jordan(x[:, t], [fed], weights)
        held = np.where(mask[:, t, None], y, held)
        fed = np.where(mask[:, t, None], teacher[:, t], fed)
        outputs.append(held)
    return np.stack(outputs, axis=1), held


@pytest.mark.parametrize("masked", [False, True])
def test_against_numpy(masked):
    layer, teacher = make(), inputs(B, T, O, seed=9)
    [start] = states_of(layer)
    mask = MASK if masked else np.ones((B, T), bool)
    outputs, state = layer(
        inputs(), initial_state=[start], teacher=teacher, mask=mask if masked else None
    )
    expected, last = forced(layer, inputs(), teacher, start, mask)
    np.testing.assert_allclose(numpy(outputs), expected, atol=5e-6)
    np.testing.assert_allclose(numpy(state), last, atol=5e-6)


def test_backwards_and_zero_output():
    layer, teacher = make(go_backwards=True, zero_output_for_mask=True), inputs(B, T, O, seed=9)
    outputs, _ = layer(inputs(), teacher=teacher, mask=MASK)
    turned = [a[:, ::-1] for a in (inputs(), teacher, MASK)]
    expected, _ = forced(layer, *turned[:2], np.zeros((B, O)), turned[2])
    expected = np.where(turned[2][..., None], expected, 0)
    np.testing.assert_allclose(numpy(outputs), expected, atol=5e-6)


def test_own_outputs_as_teacher_change_nothing():
    layer = make()
    outputs, state = layer(inputs())
    again, last = layer(inputs(), teacher=outputs)
    np.testing.assert_allclose(numpy(again), numpy(outputs), atol=1e-6)
    np.testing.assert_allclose(numpy(last), numpy(state), atol=1e-6)


def test_train_with_a_teacher_and_predict_without():
    """One layer in two models. The task, y_t = x_t + y_{t-1}, is beyond a single step."""
    x, y = keras.Input((None, D)), keras.Input((None, O))
    layer = kr.JordanRNN(
        16, output_units=O, output_activation="linear", return_sequences=True, dropout=0.1, seed=1
    )
    train, predict = keras.Model([x, y], layer(x, teacher=y)), keras.Model(x, layer(x))
    data = 0.1 * inputs(64, T, D)
    target = data[:, :, :O].cumsum(1)
    train.compile(keras.optimizers.Adam(0.01), "mse")
    history = train.fit([data, target], target, epochs=12, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]
    assert predict.predict(data, verbose=0).shape == (64, T, O)


@pytest.mark.parametrize("shape", [(B, T), (B, T, O + 1), (B, T - 1, O)])
def test_shape_of_the_teacher(shape):
    with pytest.raises(ValueError, match=r"`teacher` must hold .*\(3, 7, 3\)"):
        make()(inputs(), teacher=np.zeros(shape, "float32"))


def test_mask_of_the_input_with_a_teacher():
    layer, teacher = make(return_state=False), inputs(B, T, O, seed=9)
    x = np.where(MASK[..., None], inputs(), 0.0).astype("float32")
    sequences, given = keras.Input((T, D)), keras.Input((T, O))
    masked = keras.layers.Masking(0.0)(sequences)
    model = keras.Model([sequences, given], layer(masked, teacher=given))
    expected, _ = forced(layer, x, teacher, np.zeros((B, O)), MASK)
    np.testing.assert_allclose(model.predict([x, teacher], verbose=0), expected, atol=5e-6)
