"""Language models: weights, numbers, and states from window to window."""

import keras
import numpy as np
import pytest

from keras_rnncells import models
from tests.models.reference import Network, set_weights
from tests.tools import numpy

TF = keras.backend.backend() == "tensorflow"
V, E, B, T = 11, 4, 2, 6
SIZES = {
    "plain": {"units": 5, "layers": 2},
    "residual": {"units": 5, "layers": 1},
    "dense": {"units": 2, "layers": (1, 1)},
}


def make(kind="plain", **options):
    return models.language_model(V, E, kind=kind, **{"batch_size": B, **SIZES[kind], **options})


def outputs(model, x):
    return numpy(model(x)) if TF else model.predict_on_batch(x)


def tokens(batch=B, steps=T, seed=0):
    return np.random.default_rng(seed).integers(V, size=(batch, steps)).astype("int32")


def trainable(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


@pytest.mark.skipif(not TF, reason="the same numbers on each backend, and long to trace")
@pytest.mark.parametrize(
    "kind, units, total", [("residual", 2000, 48_501_600), ("dense", 256, 51_655_712)]
)
def test_parameters_are_those_of_the_authors(kind, units, total):
    zeros = {"kernel_initializer": "zeros"}  # quick
    model = models.language_model(
        10_000, 600, units, kind=kind, batch_size=128, cell_arguments=zeros
    )
    assert trainable(model) == total


def test_tied_weights():
    tied, untied = make(units=E), make(units=E, tied=False)
    of_layers = 2 * (E * E + 4 * E) + 2 * E  # kernel and bias, u, normalization; the last one
    assert trainable(tied) == V * E + V + of_layers
    assert trainable(untied) == 2 * V * E + V + of_layers
    assert tied.get_layer("embedding").count_params() == V * E + V
    wider = make(units=5)
    assert wider.get_layer("recurrent_3").units == E
    assert (
        trainable(wider) == V * E + V + (E * 5 + 4 * 5) + (5 * 5 + 4 * 5) + (5 * E + 4 * E) + 2 * E
    )


@pytest.mark.parametrize(
    "kind, cell, tied",
    [
        ("plain", "IndRNN", True),
        ("plain", "MinimalRNN", False),
        ("residual", "IndRNN", False),
        ("residual", "LSTM", True),
        ("dense", "IndRNN", True),
    ],
)
def test_numbers(kind, cell, tied):
    model = set_weights(make(kind, cell=cell, tied=tied, dropout=0.3))
    network = Network(model, cell, "before" if cell == "IndRNN" else None)
    x = network.w["embedding"][0][tokens()]
    if kind == "plain":
        x = network.plain(x, 2 + tied)
    elif kind == "residual":
        x = network.residual(x, 1)
        x = network.recurrent(x) if tied else x
    else:
        x = network.densely(x, (1, 1), first=False)
    if cell == "IndRNN":
        x = network.normalize("normalization_of_output", x)
    if tied:
        embeddings, bias = network.w["embedding"]
        expected = x @ embeddings.T + bias
    else:
        expected = network.dense("logits", x)
    assert model.output_names == ["logits"]
    np.testing.assert_allclose(outputs(model, tokens()), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kind, cell", [("plain", "LSTM"), ("residual", "IndRNN")])
def test_two_windows_are_one_text(kind, cell):
    model = set_weights(make(kind, cell=cell))
    text = tokens()
    whole = numpy(model(text))
    again = numpy(model(text))
    assert not np.allclose(again, whole, atol=1e-3), "the states are carried"
    models.reset_states(model)
    parts = [numpy(model(part)) for part in (text[:, :2], text[:, 2:])]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_start_of_the_embedding(tied):
    def embeddings(**options):
        return numpy(make(tied=tied, **options).get_layer("embedding").embeddings)

    assert 0 < abs(embeddings()).max() <= 0.01
    assert (embeddings(embeddings_initializer="ones") == 1).all()
    uniform = keras.initializers.RandomUniform(-1, 1)
    assert 0.5 < abs(embeddings(embeddings_initializer=uniform)).max() <= 1


def test_states_are_carried_in_fit_and_reset():
    model = make(timesteps=3, statistics="per_step", dropout=0.1, embedding_dropout=0.2)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds.count("StepBatchNormalization") == 4 and kinds[2] == "SpatialDropout1D"
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    text = tokens(B, 10)
    windows = [(text[:, i : i + 3], text[:, i + 1 : i + 4]) for i in (0, 3, 6)]
    x, y = (np.concatenate(parts) for parts in zip(*windows, strict=True))
    model.fit(x, y, batch_size=B, shuffle=False, verbose=0)
    states = model.get_layer("recurrent_2").states
    assert numpy(states[0]).any()
    outer = keras.Sequential([keras.Input(batch_shape=(B, 3), dtype="int32"), model])
    models.reset_states(outer)
    assert not numpy(states[0]).any()


def test_learns_saves_and_loads(tmp_path):
    sizes = {"units": 8, "layers": 1, "cell": "GRU"}
    model = models.language_model(7, 8, stateful=False, **sizes)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss, jit_compile=True)
    text = np.tile(np.arange(7, dtype="int32"), 3)  # each token is followed by the next
    x, y = text[:-1].reshape(1, -1), text[1:].reshape(1, -1)
    losses = [float(model.train_on_batch(x, y)) for _ in range(60)]
    assert losses[0] > 1.9 and losses[-1] < 0.5
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(numpy(loaded(x)), numpy(model(x)), atol=1e-5)
    assert len(loaded.get_layer("embedding").weights) == 2


@pytest.mark.skipif(not TF, reason="SavedModels")
def test_export(tmp_path):
    import tensorflow as tf

    model = set_weights(make(stateful=False, batch_size=None, layers=1, units=E))
    model.export(tmp_path, verbose=False)
    loaded = tf.saved_model.load(tmp_path)
    text = tokens(3, 4)
    np.testing.assert_allclose(loaded.serve(text).numpy(), numpy(model(text)), atol=1e-5)


def test_embedding_under_mixed_precision():
    layer = models.TiedEmbedding(V, E, dtype="mixed_bfloat16")
    vectors = layer(tokens())
    assert keras.backend.standardize_dtype(vectors.dtype) == "bfloat16"
    assert layer(vectors, reverse=True).shape == (B, T, V)
    assert keras.backend.standardize_dtype(layer.embeddings.dtype) == "float32"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"kind": "deep"}, "`kind` must be one of 'plain'"),
        ({"batch_size": None}, "batch_size=None"),
        ({"timesteps": 0}, "`timesteps` must be"),
        ({"embedding_dropout": 1.5}, "`embedding_dropout` must be"),
        ({"embeddings_initializer": "no"}, "Unknown initializer"),
        ({"bottleneck_dropout": 0.1}, "rates of a dense stack"),
        ({"statistics": "per_step"}, "number of steps"),
        ({"cell": "LSTM", "normalization": "before"}, "IndRNN alone"),
        ({"layers": (2, 2)}, "`layers` must be"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        models.language_model(V, E, **{"batch_size": B, "layers": 1, **options})
    with pytest.raises(ValueError, match="`vocabulary` must be"):
        models.language_model(0)
    with pytest.raises(ValueError, match="`embedding` must be"):
        models.language_model(V, 0)


@pytest.mark.parametrize("reset", [True, False])
def test_each_epoch_and_evaluation_starts_from_zeros(reset):
    model = set_weights(make(cell="LSTM"))  # without statistics, which training would move
    model.compile(keras.optimizers.SGD(0.0), "mse")
    callbacks = [models.ResetStates()] if reset else []
    x, y = tokens(2 * B), np.zeros((2 * B, T, V), "float32")
    arguments = {"batch_size": B, "verbose": 0, "callbacks": callbacks}
    trained = model.fit(x, y, epochs=2, shuffle=False, **arguments).history["loss"]
    losses = [*trained, model.evaluate(x, y, **arguments), model.evaluate(x, y, **arguments)]
    assert (np.ptp(losses) < 1e-6) == reset, losses
