"""Our layers against Keras' own, with the same weights; and the counts of the papers."""

import keras
import numpy as np
import pytest

import keras_rnncells as kr
from tests.tools import ROWS, VARIANTS, D, T, U, asymmetric, inputs, numpy

PAIRS = [
    (kr.ElmanRNN, keras.layers.SimpleRNN, {}),
    (kr.IRNN, keras.layers.SimpleRNN, {"activation": "relu"}),
    (kr.LSTM, keras.layers.LSTM, {}),
    (kr.LSTM, keras.layers.LSTM, {"recurrent_activation": "hard_sigmoid", "use_bias": False}),
    (kr.LSTM, keras.layers.LSTM, {"unit_forget_bias": False}),
    (kr.GRU, keras.layers.GRU, {}),
    (kr.GRU, keras.layers.GRU, {"recurrent_activation": "hard_sigmoid"}),
    (kr.GRU, keras.layers.GRU, {"reset_after": False}),
    (kr.GRU, keras.layers.GRU, {"reset_after": False, "use_bias": False}),
]


@pytest.mark.parametrize(("ours", "theirs", "arguments"), PAIRS)
def test_same_output_with_the_same_weights(ours, theirs, arguments):
    x, options = inputs(), {"return_sequences": True, "return_state": True}
    of_keras = asymmetric(theirs(U, **arguments, **options))
    layer = ours(U, **arguments, **options)
    layer.build(x.shape)
    layer.set_weights(of_keras.get_weights())
    for a, b in zip(layer(x), of_keras(x), strict=True):
        np.testing.assert_allclose(numpy(a), numpy(b), rtol=0, atol=1e-6)
    back = theirs(U, **arguments, **options)
    back.build(x.shape)
    back.set_weights(layer.get_weights())
    np.testing.assert_allclose(numpy(back(x)[0]), numpy(of_keras(x)[0]), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("ours", "theirs", "arguments"), [p for p in PAIRS if p[0] not in (kr.IRNN, kr.ElmanRNN)]
)
def test_same_initial_bias(ours, theirs, arguments):
    if not arguments.get("use_bias", True):
        return
    layers = [cls(U, **arguments) for cls in (ours, theirs)]
    for layer in layers:
        layer.build((None, None, D))
    assert np.array_equal(*(numpy(layer.cell.bias) for layer in layers))


def test_indrnn_is_a_simple_rnn_with_a_diagonal_kernel():
    layer = asymmetric(kr.IndRNN(U, return_sequences=True))
    kernel, u, bias = layer.get_weights()
    dense = keras.layers.SimpleRNN(U, activation="relu", return_sequences=True)
    dense.build((None, T, D))
    dense.set_weights([kernel, np.diag(u), bias])
    np.testing.assert_allclose(numpy(layer(inputs())), numpy(dense(inputs())), rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"go_backwards": True}, {"unroll": True}])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("row", "arguments"), VARIANTS)
def test_cell_in_keras_rnn(row, arguments, dtype, options):
    """The step protocol of Keras runs the same equations as our layer."""
    x = inputs(dtype=dtype)
    options = {"return_sequences": True, "return_state": True, "dtype": dtype, **options}
    layer = asymmetric(row.layer(U, **arguments, **options))
    if row.name == "IRNN" and dtype == "float32":
        # Its states grow to 10, where rounding alone is 1e-6: of quarters every sum is exact.
        x = np.round(4 * x) / 4
        layer.set_weights([np.round(4 * w) / 4 for w in layer.get_weights()])
    in_keras = keras.layers.RNN(layer.cell, **options)
    tolerance = 1e-6 if dtype == "float32" or keras.backend.backend() == "jax" else 1e-12
    for ours, theirs in zip(layer(x), in_keras(x), strict=True):
        np.testing.assert_allclose(numpy(ours), numpy(theirs), rtol=0, atol=tolerance)


# papers.md, section 2: parameters of the cell by (inputs, units), with bias.
PARAMETERS = {
    "ElmanRNN": (16_640, 16_768, 15_100, 339_456),
    "IRNN": (16_640, 16_768, 15_100, 339_456),
    "IndRNN": (384, 512, 5_200, 77_824),
    "LSTM": (66_560, 67_072, 60_400, 1_357_824),
    "GRU": (50_304, 50_688, 45_600, 1_019_904),
    "MinimalRNN": (33_152, 33_280, 25_200, 602_112),
    "CFN": (33_408, 33_792, 35_200, 755_712),
    "SCRN": (21_672, 21_840, 21_000, 365_424),
    "JordanRNN": (2_826, 2_954, 7_110, 87_562),
}
SIZES = ((1, 128), (2, 128), (50, 100), (150, 512))
OF_PAPER = {"SCRN": {"context_units": 40}, "JordanRNN": {"output_units": 10}}


def count(layer_class, features, units, **arguments):
    layer = layer_class(units, recurrent_initializer="zeros", **arguments)
    layer.build((None, None, features))
    return layer.count_params()


@pytest.mark.parametrize("row", ROWS)
def test_parameters(row):
    found = [count(row.layer, *size, **OF_PAPER.get(row.name, {})) for size in SIZES]
    assert found == list(PARAMETERS[row.name])


@pytest.mark.parametrize(
    ("layer", "arguments", "expected"),
    [
        (kr.LSTM, {"use_forget_gate": False}, (49_920, 50_304, 45_300, 1_018_368)),
        (kr.LSTM, {"use_peepholes": True}, (66_944, 67_456, 60_700, 1_359_360)),
        (kr.GRU, {"reset_after": False}, (49_920, 50_304, 45_300, 1_018_368)),
    ],
)
def test_parameters_of_variants(layer, arguments, expected):
    assert [count(layer, *size, **arguments) for size in SIZES] == list(expected)


def test_parameters_of_the_adding_networks():
    """Section 2: 16,768, 67,072 and 17,152 for 128 units on 2 inputs, plus 129 of the readout."""
    two = [kr.IndRNN(128, return_sequences=True), kr.IndRNN(128)]
    networks = {16_768: [kr.ElmanRNN(128)], 67_072: [kr.LSTM(128)], 17_152: two}
    for expected, layers in networks.items():
        model = keras.Sequential([keras.Input((None, 2)), *layers, keras.layers.Dense(1)])
        assert model.count_params() == expected + 129


@pytest.mark.parametrize("row", ROWS)
def test_table_counts_parameters(row):
    terms = [term.split() for term in row.parameters.split(" + ")]
    values = {"D": 3, "U": 7}
    total = sum(int(np.prod([values.get(f) or int(f) for f in term])) for term in terms)
    assert count(row.layer, 3, 7) == total
