"""Bad input is a ValueError that says what was received, what is allowed and what to do."""

import keras
import numpy as np
import pytest

import keras_rnncells as kr
from tests.tools import ROWS, D, U, inputs

ANY = [
    ({"units": 0}, r"`units` must be a positive integer.*units=0"),
    ({"units": -3}, r"units=-3"),
    ({"units": 2.5}, r"units=2.5"),
    ({"units": True}, r"units=True"),
    ({"units": None}, r"units=None"),
    ({"dropout": 1.0}, r"`dropout` must be .* at least 0 and below 1 .*dropout=1.0"),
    ({"dropout": -0.1}, r"dropout=-0.1"),
    ({"recurrent_dropout": 1.5}, r"recurrent_dropout=1.5"),
    ({"zoneout": 1}, r"zoneout=1"),
    ({"zoneout": "much"}, r"zoneout='much'"),
    ({"zoneout": [0.1] * 3}, r"one for each state.*Received 3"),
    ({"activation": "rleu"}, r"Unknown activation: received 'rleu'.*keras.activations"),
    ({"kernel_initializer": "glorot"}, r"Unknown initializer: received 'glorot'.*'random_walk'"),
    ({"recurrent_constraint": "max"}, r"Unknown constraint: received 'max'.*'spectral_bound'"),
    ({"bias_regularizer": "l3"}, r"Unknown regularizer: received 'l3'.*'memory_penalty'"),
    ({"recurrent_initializer": "chrono_bias"}, r"required arguments.*ChronoBias\(\.\.\.\)"),
]
OF_LAYERS = [
    ({"scan": "fast"}, r"`scan` must be one of 'auto'.*scan='fast'"),
    ({"unroll": 1}, r"`unroll` must be True, False or the number of steps.*unroll=1"),
    ({"activity_regularizer": "l3"}, r"Unknown regularizer: received 'l3'"),
    ({"speed": 3}, r"speed"),
]


@pytest.mark.parametrize(("arguments", "message"), ANY)
@pytest.mark.parametrize("row", ROWS)
def test_cells_and_layers(row, arguments, message):
    for cls in (row.cell, row.layer):
        with pytest.raises(ValueError, match=message):
            cls(**{"units": U, **arguments})


@pytest.mark.parametrize(("arguments", "message"), OF_LAYERS)
@pytest.mark.parametrize("row", ROWS)
def test_layers(row, arguments, message):
    with pytest.raises(ValueError, match=message):
        row.layer(U, **arguments)


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (kr.IndRNN, {"gamma": 0.5}, r"gamma.*0.5"),
        (kr.IndRNN, {"max_timesteps": 0}, r"max_timesteps.*0"),
        (kr.IRNN, {"gain": "x"}, r"gain='x'"),
        (kr.LSTM, {"forget_bias": "x"}, r"forget_bias='x'"),
        (kr.IndRNN, {"max_timesteps": -5}, r"max_timesteps.*-5"),
        (kr.IndRNN, {"memory": "short"}, r"`memory` must be one of None, 'long'.*'short'"),
        (
            kr.IndRNN,
            {"memory": "long", "recurrent_initializer": "ones"},
            r"one of the two.*memory='long'.*recurrent_initializer='ones'",
        ),
        (
            kr.IRNN,
            {"gain": 0.5, "recurrent_initializer": "ones"},
            r"one of the two.*gain=0.5, recurrent_initializer='ones'",
        ),
        (kr.MinimalRNN, {"encoder": "dense"}, r"`encoder` must be a Keras layer.*'dense'"),
        (kr.SCRN, {"alpha": 1.0}, r"`alpha` must be .*alpha=1.0"),
        (kr.SCRN, {"context_units": 0}, r"context_units=0"),
        (kr.JordanRNN, {"output_units": 0}, r"output_units=0"),
        (kr.JordanRNN, {"output_units": 1}, r"softmax of a single output is always 1"),
        (kr.LSTM, {"forget_bias": 1.0, "use_forget_gate": False}, r"needs a forget gate"),
        (kr.LSTM, {"forget_bias": 1.0, "use_bias": False}, r"use_bias=False"),
        (
            kr.LSTM,
            {"bias_initializer": kr.initializers.ChronoBias(9)},
            r"pass unit_forget_bias=False",
        ),
    ],
)
def test_of_one_cell(cls, arguments, message):
    with pytest.raises(ValueError, match=message):
        cls(U, **arguments)


@pytest.mark.parametrize("shape", [(3, D), (3, 7, 2, D), (7,)])
@pytest.mark.parametrize("row", ROWS)
def test_shape_of_the_inputs(row, shape):
    with pytest.raises(ValueError, match=r"\[batch, time, features\]. Received \("):
        row.layer(U)(np.zeros(shape, "float32"))
    layer = row.layer(U)
    layer(inputs())
    with pytest.raises(ValueError, match=r"\[batch, time, features\]. Received \("):
        layer(np.zeros(shape, "float32"))
    with pytest.raises(ValueError, match=r"\[batch, time, features\]"):
        row.layer(U)(keras.Input(shape[1:]))


def test_number_of_states():
    states = [np.zeros((3, U), "float32")] * 2
    for wrong in (states[:1], [states[0], np.zeros((3, U + 1), "float32")]):
        with pytest.raises(ValueError, match=r"to be 2 tensors of shape.*Received [12], of shape"):
            kr.LSTM(U)(inputs(), initial_state=wrong)


def test_encoder_of_the_wrong_size():
    with pytest.raises(ValueError, match=r"must return units=5 features.*into 3 features"):
        kr.MinimalRNN(5, encoder=keras.layers.Dense(3))(inputs())


def test_a_cell_that_is_no_cell():
    with pytest.raises(ValueError, match="call"):
        kr.RNN(3)
    with pytest.raises(TypeError, match=r"no method project\(inputs\)"):
        kr.RNN(kr.base.RecurrentCell(3))(inputs())


def test_a_cell_that_forgets_its_arguments():
    class Forgetful(kr.IndRNNCell):
        def __init__(self, units, *args, speed=1, **kwargs):
            super().__init__(units, *args, **kwargs)

    with pytest.raises(TypeError, match="does not keep its constructor argument `speed`"):
        Forgetful(3).get_config()


def test_bare_names_resolve():
    layer = kr.ElmanRNN(
        U,
        kernel_initializer="RandomWalk",
        recurrent_initializer="positive_definite",
        recurrent_constraint="spectral_bound",
        recurrent_regularizer="memory_penalty",
    )
    assert isinstance(layer.recurrent_initializer, kr.initializers.PositiveDefinite)
    assert isinstance(layer.recurrent_constraint, kr.constraints.SpectralBound)
    layer(inputs())
    copy = kr.ElmanRNN.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
