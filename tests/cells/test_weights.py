"""Names, shapes, order and initial values of the weights: the papers' own."""

import keras
import numpy as np
import pytest

import keras_rnncells as kr
from tests.tools import ROWS, D, U, numpy

WEIGHTS = {
    "IndRNN": {"kernel": (D, U), "recurrent_kernel": (U,), "bias": (U,)},
    "IRNN": {"kernel": (D, U), "recurrent_kernel": (U, U), "bias": (U,)},
    "ElmanRNN": {"kernel": (D, U), "recurrent_kernel": (U, U), "bias": (U,)},
    "MinimalRNN": {
        "encoder_kernel": (D, U),
        "encoder_bias": (U,),
        "kernel": (U, U),
        "recurrent_kernel": (U, U),
        "bias": (U,),
    },
    "CFN": {"kernel": (D, 3 * U), "recurrent_kernel": (U, 2 * U), "bias": (2 * U,)},
    "LSTM": {"kernel": (D, 4 * U), "recurrent_kernel": (U, 4 * U), "bias": (4 * U,)},
    "GRU": {"kernel": (D, 3 * U), "recurrent_kernel": (U, 3 * U), "bias": (2, 3 * U)},
    "JordanRNN": {
        "kernel": (D, U),
        "recurrent_kernel": (U, U),
        "bias": (U,),
        "output_kernel": (U, U),
        "output_bias": (U,),
    },
    "SCRN": {
        "context_kernel": (D, U),
        "kernel": (D, U),
        "context_recurrent_kernel": (U, U),
        "recurrent_kernel": (U, U),
    },
}


@pytest.mark.parametrize("row", ROWS)
def test_names_shapes_and_order(row):
    cell = row.cell(U)
    cell.build((None, D))
    assert {w.name: tuple(w.shape) for w in cell.weights} == WEIGHTS[row.name]
    assert [w.name for w in cell.weights] == list(WEIGHTS[row.name])
    for name, weight in zip(WEIGHTS[row.name], cell.get_weights(), strict=True):
        assert np.array_equal(numpy(getattr(cell, name)), weight)


def test_names_of_optional_weights():
    peepholes = kr.LSTMCell(U, use_peepholes=True)
    scrn = kr.SCRNCell(U, context_units=3, learn_alpha=True, use_bias=True)
    for cell in (peepholes, scrn):
        cell.build((None, D))
    assert [(w.name, tuple(w.shape)) for w in peepholes.weights][-1] == ("peephole_kernel", (15,))
    assert [(w.name, tuple(w.shape)) for w in scrn.weights][-2:] == [
        ("bias", (U,)),
        ("alpha", (3,)),
    ]


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("row", ROWS)
def test_no_two_weights_are_alike(row, seed):
    """Not even of the same shape, from one initializer for all of them."""
    draw = keras.initializers.RandomNormal(seed=seed)
    given = {"kernel_initializer": draw}
    for arguments in ({}, given):
        cell = row.cell(U, **arguments)
        cell.build((None, U))
        kernels = [w for w in cell.get_weights() if w.ndim == 2 and w.std() > 0]
        for i, a in enumerate(kernels):
            for b in kernels[:i]:
                assert a.shape != b.shape or not np.array_equal(a, b)


def test_lstm_bias():
    cell = kr.LSTMCell(2, bias_initializer=keras.initializers.RandomUniform(seed=1))
    cell.build((None, D))
    i, f, c, o = np.split(numpy(cell.bias), 4)
    assert (f == 1).all() and len(np.unique([i, c, o])) == 6
    by_gate = kr.initializers.PerGate([5, 1, 6, 7], 4)
    cell = kr.LSTMCell(2, bias_initializer=by_gate, unit_forget_bias=False)
    cell.build((None, D))
    assert numpy(cell.bias).tolist() == [5, 5, 1, 1, 6, 6, 7, 7]
    cell = kr.LSTMCell(
        2, use_forget_gate=False, bias_initializer=kr.initializers.PerGate([5, 6, 7], 3)
    )
    cell.build((None, D))
    assert numpy(cell.bias).tolist() == [5, 5, 6, 6, 7, 7]
    with pytest.raises(ValueError, match="PerGate sets the bias of the forget gate"):
        kr.LSTM(2, bias_initializer=by_gate)


def test_peepholes_are_no_kernel():
    arguments = {"initializer": "orthogonal", "constraint": kr.constraints.SpectralBound()}
    cell = kr.LSTMCell(
        U, use_peepholes=True, **{f"kernel_{k}": v for k, v in arguments.items()}
    )  # fmt: skip
    cell.build((None, D))
    assert cell.peephole_kernel.constraint is None and numpy(cell.peephole_kernel).std() > 0


def test_sizes_of_numpy():
    jordan = kr.JordanRNN(8, output_units=np.int64(3))
    scrn = kr.SCRN(8, context_units=np.int64(3), return_state=True)
    assert jordan.compute_output_shape((2, 5, 3)) == (2, 3)
    assert scrn.compute_output_shape((2, 5, 3)) == ((2, 8), (2, 8), (2, 3))


def built(layer, features=64):
    layer.build((None, None, features))
    return layer.cell


def test_indrnn_bound_and_start():
    bound = 2 ** (1 / 100)
    u = numpy(built(kr.IndRNN(500, max_timesteps=100)).recurrent_kernel)
    assert u.min() >= 0 and bound - 0.02 < u.max() <= bound
    u = numpy(built(kr.IndRNN(500, max_timesteps=100, memory="long")).recurrent_kernel)
    assert u.min() >= 1 / bound and u.max() <= bound and u.std() > 1e-3
    u = numpy(built(kr.IndRNN(500, "tanh", max_timesteps=100)).recurrent_kernel)
    assert -bound <= u.min() < -0.9 and 0.9 < u.max() <= bound
    u = numpy(built(kr.IndRNN(500)).recurrent_kernel)
    assert u.min() >= 0 and 0.98 < u.max() <= 1


def test_indrnn_input_kernel():
    """2019 code: U(+-sqrt(6 / (65 fan_in)))."""
    kernel = numpy(built(kr.IndRNN(500)).kernel)
    limit = np.sqrt(6 / (65 * 64))
    assert 0.98 * limit < np.abs(kernel).max() <= limit
    assert not numpy(built(kr.IndRNN(500)).bias).any()


@pytest.mark.parametrize("gamma", [1.0, 2.0, 5.0])
def test_indrnn_is_bounded_after_every_update(gamma):
    layer = kr.IndRNN(4, max_timesteps=10, gamma=gamma)
    model = keras.Sequential([keras.Input((6, 3)), layer])
    model.compile(keras.optimizers.SGD(0.001), "mse", jit_compile=False)
    layer.set_weights([np.ones((3, 4)), np.array([1.5, -1.5, 0.5, -0.5]), np.zeros(4)])
    x = np.ones((2, 6, 3), "float32")
    for _ in range(2):
        model.train_on_batch(x, np.random.default_rng(0).normal(size=(2, 4)))
        u = numpy(layer.cell.recurrent_kernel)
        assert np.abs(u).max() <= gamma ** (1 / 10) * (1 + 1e-6)
    assert (u < 0).any() and (u > 0).any()


def test_indrnn_explicit_arguments_replace_the_defaults():
    cell = built(
        kr.IndRNN(4, recurrent_initializer="zeros", recurrent_constraint="non_neg", max_timesteps=9)
    )
    assert not numpy(cell.recurrent_kernel).any()
    assert isinstance(cell.recurrent_kernel.constraint, keras.constraints.NonNeg)


def test_indrnn_without_input_kernel():
    layer = kr.IndRNN(4, input_kernel=False, return_sequences=True)
    x = np.random.default_rng(0).normal(size=(2, 6, 4)).astype("float32")
    y = numpy(layer(x))
    assert [w.name for w in layer.weights] == ["recurrent_kernel"]
    u, h = layer.get_weights()[0], np.zeros((2, 4))
    for t in range(6):
        h = np.maximum(x[:, t] + u * h, 0)
        np.testing.assert_allclose(y[:, t], h, atol=1e-6)
    with pytest.raises(ValueError, match=r"pre-activations of the 5 units.*\(2, 4\)"):
        kr.IndRNN(5, input_kernel=False)(x)


@pytest.mark.parametrize("gain", [1.0, 0.01])
def test_irnn(gain):
    cell = built(kr.IRNN(300, gain=gain))
    assert np.array_equal(numpy(cell.recurrent_kernel), gain * np.eye(300, dtype="float32"))
    kernel = numpy(cell.kernel)
    assert abs(kernel.mean()) < 1e-4 and 0.00095 < kernel.std() < 0.00105
    assert not numpy(cell.bias).any()


def test_cfn():
    cell = built(kr.CFN(100))
    assert numpy(cell.bias).tolist() == [1.0] * 100 + [-1.0] * 100
    for weight in (cell.kernel, cell.recurrent_kernel):
        assert 0.069 < np.abs(numpy(weight)).max() <= 0.07


def test_scrn():
    cell = built(kr.SCRN(100, learn_alpha=True))
    for weight in cell.get_weights()[:-1]:
        assert 0.045 < weight.std() < 0.055
    np.testing.assert_allclose(1 / (1 + np.exp(-numpy(cell.alpha))), 0.95, rtol=1e-6)


def test_two_layers_start_differently():
    """No initializer object is shared between cells."""
    for layer in (kr.IRNN, kr.CFN, kr.SCRN, kr.IndRNN):
        first, second = (built(layer(8)).get_weights()[0] for _ in range(2))
        assert not np.array_equal(first, second)


def test_lstm_forget_bias():
    u = 3
    blocks = {None: [0, 1, 0, 0], 4.0: [0, 4, 0, 0], 0: [0, 0, 0, 0]}
    for forget, expected in blocks.items():
        bias = numpy(built(kr.LSTM(u, forget_bias=forget)).bias)
        assert bias.tolist() == np.repeat(expected, u).tolist()
    assert not numpy(built(kr.LSTM(u, unit_forget_bias=False)).bias).any()
    chrono = kr.initializers.ChronoBias(100, seed=1)
    bias = numpy(built(kr.LSTM(u, bias_initializer=chrono, unit_forget_bias=False)).bias)
    assert (bias[u : 2 * u] > 0).all() and np.array_equal(bias[:u], -bias[u : 2 * u])


def test_lstm_1997_squashing_can_be_given():
    """The cell of 1997 squashes with 4 sigmoid - 2; any callable will do."""

    def squash(x):
        return 4 * keras.ops.sigmoid(x) - 2

    layer = kr.LSTM(3, activation=squash, use_forget_gate=False, return_state=True)
    _, _, c = layer(np.full((1, 50, 2), 9.0, "float32"))
    assert np.abs(numpy(c)).max() > 1.0, "the state is only ever added to"


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.layers.Dense(5, "tanh"),
        lambda: keras.Sequential([keras.layers.Dense(8, "relu"), keras.layers.Dense(5)]),
    ],
)
def test_minimal_rnn_encoder(make):
    layer = kr.MinimalRNN(5, encoder=make(), return_sequences=True)
    x = np.random.default_rng(0).normal(size=(2, 6, 4)).astype("float32")
    y = numpy(layer(x))
    assert [w.name for w in layer.cell.weights[:3]] == ["kernel", "recurrent_kernel", "bias"]
    kernel, recurrent_kernel, bias = layer.cell.get_weights()[:3]
    z = numpy(layer.cell.encoder(x.reshape(12, 4))).reshape(2, 6, 5)
    h = np.zeros((2, 5))
    for t in range(6):
        g = 1 / (1 + np.exp(-(h @ recurrent_kernel + z[:, t] @ kernel + bias)))
        h = g * h + (1 - g) * z[:, t]
        np.testing.assert_allclose(y[:, t], h, atol=1e-6)
    copy = kr.MinimalRNN.from_config(layer.get_config())
    copy.build(x.shape)
    copy.set_weights(layer.get_weights())
    np.testing.assert_allclose(numpy(copy(x)), y, atol=1e-6)
