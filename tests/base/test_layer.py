"""What a Keras user expects of a recurrent layer, for every cell."""

import inspect

import keras
import numpy as np
import pytest

import keras_rnncells as kr
from tests.tools import ROWS, VARIANTS, B, D, T, U, asymmetric, inputs, numpy, states_of

FLAGS = {
    "last": {},
    "sequences": {"return_sequences": True},
    "state": {"return_state": True},
    "backwards": {"return_sequences": True, "return_state": True, "go_backwards": True},
    "unrolled": {"return_sequences": True, "return_state": True, "unroll": True},
}


def flat(outputs):
    return [numpy(o) for o in keras.tree.flatten(outputs)]


def assert_close(found, expected, atol=1e-6):
    for a, b in zip(flat(found), flat(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=atol)


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
@pytest.mark.parametrize("row", ROWS)
def test_flags_mean_what_they_mean_in_keras(row, flags):
    layer = asymmetric(row.layer(U, **flags))
    start = states_of(layer)
    expected = keras.layers.RNN(layer.cell, **flags)(inputs(), initial_state=start)
    assert_close(layer(inputs(), initial_state=start), expected)
    assert_close(kr.RNN(layer.cell, **flags)(inputs(), initial_state=start), expected)
    shapes = layer.compute_output_shape((B, T, D))
    assert keras.tree.flatten(shapes) == keras.tree.flatten([e.shape for e in flat(expected)])


@pytest.mark.parametrize(("row", "arguments"), VARIANTS)
def test_symbolic_and_eager_agree(row, arguments):
    layer = row.layer(U, return_sequences=True, return_state=True, **arguments)
    symbolic = layer(keras.Input((None, D)))
    eager = layer(inputs())
    for s, e in zip(symbolic, eager, strict=True):
        assert s.dtype == keras.backend.standardize_dtype(e.dtype)
        assert s.shape[-1] == e.shape[-1] and len(s.shape) == len(e.shape)


@pytest.mark.parametrize("row", ROWS)
def test_any_batch_any_time(row):
    layer = row.layer(U, return_sequences=True)
    model = keras.Sequential([keras.Input((None, D)), layer])
    assert model.output_shape == (None, None, layer.cell.output_size)
    for shape in ((1, 1, D), (2, 9, D), (5, 3, D)):
        assert_close(model.predict(inputs(*shape), verbose=0), layer(inputs(*shape)))


@pytest.mark.parametrize("row", ROWS)
def test_one_step(row):
    layer = asymmetric(row.layer(U, return_state=True))
    x, start = inputs(B, 1, D), states_of(layer)
    output, states = layer.cell(x[:, 0], start)
    assert_close(layer(x, initial_state=start), [output, *states])


# On JAX "auto" is True; without XLA `test_fits_in_mixed_precision` fits every cell.
@pytest.mark.parametrize(
    "jit_compile", ["auto", True] if keras.backend.backend() == "tensorflow" else ["auto"]
)
@pytest.mark.parametrize("row", ROWS)
def test_fits(row, jit_compile):
    """Two batches, the last one smaller; every weight moves."""
    noise = {"dropout": 0.1, "recurrent_dropout": 0.1, "zoneout": 0.1, "seed": 1}
    layer = row.layer(U, return_sequences=True, **noise)
    model = keras.Sequential([keras.Input((T, D)), layer, keras.layers.Dense(1)])
    rng = np.random.default_rng(0)
    model.set_weights([0.3 * rng.normal(size=w.shape) for w in model.weights])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit_compile)
    before = model.get_weights()
    history = model.fit(inputs(5, T, D), np.ones((5, T, 1)), batch_size=3, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    for a, b, w in zip(before, model.get_weights(), model.weights, strict=True):
        assert not np.array_equal(a, b), w.path


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX always knows the steps")
def test_unroll_needs_a_known_number_of_steps():
    import tensorflow as tf

    layer = kr.IndRNN(U, unroll=True)
    layer(inputs())
    with pytest.raises(ValueError, match=r"number of steps is unknown.*fixed number"):
        tf.function(layer, input_signature=[tf.TensorSpec((None, None, D))])(inputs())


@pytest.mark.parametrize("row", ROWS)
def test_bidirectional(row):
    layer = keras.layers.Bidirectional(row.layer(U, return_sequences=True))
    asymmetric(layer)
    ahead, back = layer.forward_layer, layer.backward_layer
    turned = numpy(back(inputs()))[:, ::-1]
    expected = np.concatenate([numpy(ahead(inputs())), turned], axis=-1)
    assert_close(layer(inputs()), expected)
    copy = keras.layers.Bidirectional.from_config(layer.get_config())
    copy.build((B, T, D))
    copy.set_weights(layer.get_weights())
    assert_close(copy(inputs()), expected)


def test_bidirectional_states():
    layer = keras.layers.Bidirectional(kr.LSTM(U, return_state=True))
    output, *states = layer(inputs())
    assert len(states) == 4
    again = layer(inputs(), initial_state=states)[0]
    assert not np.allclose(numpy(output), numpy(again))


@pytest.mark.parametrize("row", ROWS)
def test_stacked_cells(row):
    """A stack in our layer, in Keras' layer, and as two layers are the same."""
    cells = [row.cell(U), row.cell(U)]
    stack = kr.RNN(cells, return_sequences=True, return_state=True)
    asymmetric(stack)
    outputs, *states = stack(inputs())
    theirs = keras.layers.RNN(
        keras.layers.StackedRNNCells(cells), return_sequences=True, return_state=True
    )
    assert_close([outputs, states], [(r := theirs(inputs()))[0], r[1:]])
    two = [kr.RNN(c, return_sequences=True) for c in cells]
    assert_close(outputs, two[1](two[0](inputs())))
    copy = kr.RNN.from_config(stack.get_config())
    copy.build((B, T, D))
    copy.set_weights(stack.get_weights())
    assert_close(copy(inputs()), stack(inputs()))


@pytest.mark.parametrize("row", ROWS)
def test_time_distributed(row):
    inner = row.layer(U)
    layer = keras.layers.TimeDistributed(inner)
    x = inputs(2, 3, T, D)
    expected = np.stack([numpy(layer(x)[:, i]) for i in range(3)], axis=1)
    assert_close(np.stack([numpy(inner(x[:, i])) for i in range(3)], axis=1), expected)


def test_subclassed_layer():
    """With an `__init__` of its own, which hands on what it likes."""

    class Mine(kr.IndRNN):
        def __init__(self, note, units=U, **kwargs):
            super().__init__(units, return_sequences=True, **kwargs)
            self.note = note

    class Fixed(kr.LSTM):
        def __init__(self):
            super().__init__(U, return_state=True)

    mine = Mine("mine", max_timesteps=10)
    assert (mine.note, mine.units, mine.max_timesteps) == ("mine", U, 10)
    assert mine(inputs()).shape == (B, T, U)
    assert len(Fixed()(inputs())) == 3
    with pytest.raises(ValueError, match="'hidden'"):
        Mine("mine", hidden=3)
    with pytest.raises(TypeError, match="Mine: missing a required argument: 'units'"):
        kr.IndRNN.__init__(Mine("mine"))


def test_subclassed_model():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.recurrent = kr.MinimalRNN(U, return_state=True)
            self.readout = keras.layers.Dense(2)

        def call(self, x):
            output, state = self.recurrent(x)
            return self.readout(output + state)

    model = Model()
    model.compile("adam", "mse")
    model.fit(inputs(), np.zeros((B, 2)), verbose=0)
    assert model.predict(inputs(), verbose=0).shape == (B, 2)


@pytest.mark.parametrize(("row", "arguments"), VARIANTS)
def test_save_and_load(row, arguments, tmp_path):
    layer = row.layer(U, dropout=0.2, zoneout=0.1, seed=3, **arguments)
    model = keras.Sequential([keras.Input((None, D)), layer, keras.layers.Dense(1)])
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(loaded.predict(inputs(), verbose=0), model.predict(inputs(), verbose=0))
    assert loaded.layers[0].get_config() == layer.get_config()
    # Dropout lives on, from its seed: where it stood Keras does not save.
    assert_close(loaded(inputs(), training=True), model(inputs(), training=True))
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_close(clone.predict(inputs(), verbose=0), model.predict(inputs(), verbose=0))


OTHER_VALUES = {
    "units": 7,
    "activation": "elu",
    "recurrent_activation": "hard_sigmoid",
    "output_activation": "sigmoid",
    "dropout": 0.125,
    "recurrent_dropout": 0.25,
    "zoneout": 0.5,
    "seed": 11,
    "scan": "keras",
    "max_timesteps": 50,
    "gamma": 3.0,
    "memory": "long",
    "gain": 0.5,
    "alpha": 0.7,
    "context_units": 2,
    "output_units": 3,
    "forget_bias": 2.0,
    "encoder": keras.layers.Dense(7),
    "name": "other",
}
ENDINGS = {
    "_initializer": keras.initializers.RandomUniform(-0.1, 0.3, seed=2),
    "_regularizer": keras.regularizers.L2(0.25),
    "_constraint": keras.constraints.MaxNorm(1.5),
}


def other_value(name, default):
    if name in OTHER_VALUES:
        return OTHER_VALUES[name]
    if isinstance(default, bool):
        return not default
    return next(value for ending, value in ENDINGS.items() if name.endswith(ending))


@pytest.mark.parametrize("kind", ["cell", "layer"])
@pytest.mark.parametrize("row", ROWS)
def test_every_argument_is_in_the_config(row, kind):
    cls = getattr(row, kind)
    parameters = [p for p in inspect.signature(cls).parameters.values() if p.kind != p.VAR_KEYWORD]
    assert {p.name for p in inspect.signature(cls.__init__).parameters.values()} >= {
        p.name for p in parameters
    }
    for p in parameters:
        value = other_value(p.name, p.default)
        made = cls(**{"units": 7, p.name: value})
        config = made.get_config()
        default = cls(units=8).get_config()[p.name]
        assert config[p.name] != default, f"{p.name} is lost"
        again = cls.from_config(config)
        assert again.get_config() == config
        assert type(getattr(again, p.name)) is type(getattr(made, p.name))


@pytest.mark.parametrize("row", ROWS)
def test_arguments_stand_in_the_order_of_keras(row):
    theirs = {"LSTM": keras.layers.LSTMCell, "GRU": keras.layers.GRUCell}.get(
        row.name, keras.layers.SimpleRNNCell
    )
    common = [n for n in inspect.signature(theirs).parameters if n not in ("kwargs", "reset_after")]
    ours = [n for n in inspect.signature(row.cell).parameters if n in common]
    assert ours == common
    made = row.layer(U, "elu")
    assert made.units == U and made.activation is keras.activations.elu


@pytest.mark.parametrize("row", ROWS)
def test_every_argument_is_documented(row):
    for cls in (row.cell, row.layer):
        doc = inspect.getdoc(cls)
        for heading in ("Args:", "Call arguments:", "Input shape:", "Output shape:", "Raises:"):
            assert doc.count(f"\n{heading}") == 1, heading
        assert "Example:" in doc
        for name in inspect.signature(cls).parameters:
            if name != "kwargs":
                assert f"\n    {name}: " in doc, name


def test_use_cudnn_and_implementation_are_accepted():
    layer = kr.LSTM(U, implementation=1, use_cudnn=False)
    assert keras.layers.Bidirectional(layer)(inputs()).shape == (B, 2 * U)
    assert kr.GRU(U, use_cudnn="auto", implementation=2)(inputs()).shape == (B, U)
    assert kr.LSTMCell(U, implementation=1).units == U


def test_foreign_cells_as_in_keras():
    cells = [
        keras.layers.LSTMCell(U),
        keras.layers.GRUCell(U, reset_after=False),
        keras.layers.SimpleRNNCell(U),
        keras.layers.StackedRNNCells([keras.layers.LSTMCell(U), keras.layers.GRUCell(3)]),
        keras.layers.StackedRNNCells([kr.LSTMCell(U), keras.layers.GRUCell(3)]),
    ]
    for cell in cells:
        options = {"return_sequences": True, "return_state": True}
        theirs = keras.layers.RNN(cell, **options)
        theirs.build((B, T, D))
        assert_close(kr.RNN(cell, **options)(inputs()), theirs(inputs()))


def test_foreign_cells_with_dropout():
    for cell in (
        keras.layers.LSTMCell(U, dropout=0.5, recurrent_dropout=0.5, seed=1),
        keras.layers.StackedRNNCells([keras.layers.GRUCell(U, dropout=0.5, seed=1)] * 1),
    ):
        layer = kr.RNN(cell)
        first, second = layer(inputs(), training=True), layer(inputs(), training=True)
        assert not np.allclose(numpy(first), numpy(second))
        model = keras.Sequential([keras.Input((T, D)), kr.RNN(cell), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        model.fit(inputs(), np.zeros((B, 1)), verbose=0)


def test_any_object_can_be_a_cell():
    class Sum:
        state_size = D

        def call(self, inputs, states):
            return inputs + states[0], [inputs + states[0]]

        __call__ = call
        compute_dtype = "float32"

    y = kr.RNN(Sum(), return_sequences=True)(inputs())
    np.testing.assert_allclose(numpy(y), inputs().cumsum(1), rtol=1e-5, atol=1e-5)


def test_activity_regularizer():
    layer = kr.IndRNN(
        U, return_sequences=True, activity_regularizer=kr.regularizers.NormStabilizer(2)
    )
    norms = np.linalg.norm(numpy(layer(inputs())), axis=-1)
    expected = 2 / T * (np.diff(norms, axis=1) ** 2).sum()
    # Keras divides by the size of the batch from 3.14 on.
    version = tuple(int(part) for part in keras.__version__.split(".")[:2])
    expected = expected / B if version >= (3, 14) else expected
    np.testing.assert_allclose(float(layer.losses[0]), expected, rtol=1e-5)
