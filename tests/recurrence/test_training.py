"""Every way to train takes the fused loop and finds the same losses; no export is compiled."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

import keras_rnncells as kr
from tests.recurrence.test_sequential import fused, ours_only  # noqa: F401
from tests.tools import D, U, inputs, numpy

pytestmark = ours_only


def model(scan="auto", **noise):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((None, D)),
            kr.IndRNN(U, return_sequences=True, scan=scan, **noise),
            kr.LSTM(U, scan=scan, **noise),
            keras.layers.Dense(1),
        ]
    )


def losses(made, **options):
    """Ten sequences in batches of four: the last one is smaller."""
    made.compile("sgd", "mse", **options)
    x, y = inputs(10, 6, D), inputs(10, 1, seed=2)
    history = made.fit(x, y, batch_size=4, epochs=3, shuffle=False, verbose=0)
    return [*history.history["loss"], made.evaluate(x, y, verbose=0)]


WAYS = [
    {},
    {"jit_compile": True},
    {"jit_compile": False},
    {"run_eagerly": True},
    {"steps_per_execution": 2},
    {"steps_per_execution": 2, "jit_compile": True},
]


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_losses(options, fused):  # noqa: F811
    found = losses(model(), **options)
    assert fused["done"] > 0 and fused["declined"] == 0
    np.testing.assert_allclose(found, losses(model("keras"), jit_compile=False), rtol=1e-4)


@pytest.mark.parametrize("options", WAYS[2:5], ids=str)
def test_losses_with_noise(options):
    # XLA draws other random numbers.
    noise = {"recurrent_dropout": 0.2, "zoneout": 0.1, "seed": 3}
    expected = losses(model("keras", **noise), jit_compile=False)
    np.testing.assert_allclose(losses(model(**noise), **options), expected, rtol=1e-4)


def test_a_plain_tape_with_any_batch_and_any_time():
    import tensorflow as tf

    layers = [asymmetric_lstm(scan) for scan in ("auto", "keras")]

    def gradient(layer, x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x, training=True) ** 2)
        return tape.gradient(loss, layer.trainable_variables[0].value)

    signature = [tf.TensorSpec((None, None, D))]
    fast = tf.function(lambda x: gradient(layers[0], x), input_signature=signature)
    for shape in ((2, 5, D), (3, 9, D), (1, 1, D)):
        expected = numpy(gradient(layers[1], inputs(*shape)))
        for found in (fast(inputs(*shape)), gradient(layers[0], inputs(*shape))):
            np.testing.assert_allclose(numpy(found), expected, rtol=1e-4, atol=1e-5)


def asymmetric_lstm(scan):
    keras.utils.set_random_seed(0)
    layer = kr.LSTM(U, scan=scan)
    layer.build((None, None, D))
    return layer


def compiled_functions(path):
    """Names of the functions in a SavedModel that XLA must compile, and of all."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((path / "saved_model.pb").read_bytes())
    functions = [f for graph in saved.meta_graphs for f in graph.graph_def.library.function]

    def compiled(f):
        return any(attr["_XlaMustCompile"].b for attr in (f.attr, *(n.attr for n in f.node_def)))

    return [f.signature.name for f in functions if compiled(f)], functions


@pytest.mark.parametrize("jit_compile", ["auto", True])
def test_nothing_compiled_is_exported(jit_compile, tmp_path):
    import tensorflow as tf

    made = model()
    losses(made, jit_compile=jit_compile)
    made.export(tmp_path / "export", verbose=False)
    tf.saved_model.save(made, str(tmp_path / "saved"))
    for path in (tmp_path / "export", tmp_path / "saved"):
        found, functions = compiled_functions(path)
        assert found == [] and functions
    x = inputs(3, 9, D)
    loaded = tf.saved_model.load(str(tmp_path / "export"))
    np.testing.assert_allclose(numpy(loaded.serve(x)), made.predict(x, verbose=0), atol=1e-5)


def test_what_is_compiled_would_be_found(tmp_path):
    import tensorflow as tf

    module = tf.Module()
    layer = kr.IndRNN(U)
    layer.build((None, None, D))
    module.layer = layer
    for steps in (None, 7):
        signature = [tf.TensorSpec((None, steps, D))]
        module.f = tf.function(lambda x: layer(x, training=True), input_signature=signature)
        tf.saved_model.save(module, str(tmp_path / str(steps)))
    assert compiled_functions(tmp_path / "7")[0] != []
    assert compiled_functions(tmp_path / "None")[0] == [], "any length would be compiled anew"


def test_inside_of_what_is_compiled_anyway():
    import tensorflow as tf

    engine = pytest.importorskip("keras_rnncells.recurrence.tensorflow")
    seen = []
    for compiled in (True, False):
        inner = tf.function(lambda x: seen.append(engine.inside_xla()) or x)
        tf.function(lambda x, inner=inner: inner(x), jit_compile=compiled)(tf.zeros(()))
    assert seen == [True, False] and not engine.inside_xla()


@pytest.mark.parametrize("jit_compile", [True, False])
def test_predictions(jit_compile):
    made, oracle = model(), model("keras")
    made.compile(jit_compile=jit_compile)
    for batch, steps in ((1, 1), (3, 9), (2, 64)):
        x = inputs(batch, steps, D)
        found, expected = made.predict_on_batch(x), oracle(x)
        np.testing.assert_allclose(found, numpy(expected), rtol=1e-4, atol=1e-5)


def test_many_lengths_warn_once_and_take_plain_kernels(monkeypatch):
    engine = pytest.importorskip("keras_rnncells.recurrence.tensorflow")
    monkeypatch.setattr(engine, "MOST_COMPILED", 2)
    layer, plain = (kr.IndRNN(U, scan=scan) for scan in ("auto", "keras"))
    for made in (layer, plain):
        made.build((None, None, D))
    plain.set_weights(layer.get_weights())
    with pytest.warns(UserWarning, match="more than 2 lengths.*Bucket") as noted:
        for steps in (3, 4, 3, 5, 6, 4):
            x = inputs(2, steps, D)
            found, expected = layer(x, training=True), plain(x)
            np.testing.assert_allclose(numpy(found), numpy(expected), atol=1e-5)
    assert len(noted) == 1 and layer.cell.engine._compiled_steps == {3, 4}


def test_without_xla(monkeypatch, fused):  # noqa: F811
    engine = pytest.importorskip("keras_rnncells.recurrence.tensorflow")
    assert engine.xla_works()
    monkeypatch.setattr(engine, "xla_works", lambda: False)
    made = model()
    np.testing.assert_allclose(losses(made), losses(model("keras")), rtol=1e-4)
    assert fused["done"] > 0 and not made.layers[0].cell.engine._compiled_steps


MIRRORED = """
    import keras, numpy as np, tensorflow as tf
    import keras_rnncells as kr

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    x = np.random.default_rng(0).normal(size=(16, 6, 4)).astype("float32")
    y = np.ones((16, 1), "float32")

    def losses(scan):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((None, 4))])
        for bound in (kr.constraints.MaxAbs(0.5), kr.constraints.MemoryBound(6, gamma=1.1)):
            model.add(
                kr.IndRNN(5, return_sequences=True, scan=scan, recurrent_constraint=bound)
            )
        model.add(kr.RNN(keras.layers.GRUCell(5), return_sequences=True, scan=scan))
        bound = kr.constraints.SpectralBound(0.5)
        model.add(kr.LSTM(5, scan=scan, recurrent_constraint=bound))
        model.add(keras.layers.Dense(1))
        model.compile("sgd", "mse")
        return model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0).history["loss"]

    alone = losses("auto")
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        together, of_keras = losses("auto"), losses("keras")
    np.testing.assert_allclose(together, of_keras, rtol=1e-4)
    # Before it, Keras' mean over devices was another, for any layer.
    if [int(number) for number in keras.version().split(".")[:2]] >= [3, 9]:
        np.testing.assert_allclose(together, alone, rtol=1e-4)

    with strategy.scope():
        layer = kr.models.StepBatchNormalization(6, momentum=0.0)
        layer.build((None, 6, 4))
    share = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(x[context.replica_id_in_sync_group :: 2])
    )
    tf.function(lambda: strategy.run(lambda s: layer(s, training=True), args=(share,)))()
    for moving, shares in (
        (layer.moving_mean, [x[::2].mean(0), x[1::2].mean(0)]),
        (layer.moving_variance, [x[::2].var(0), x[1::2].var(0)]),
    ):
        for device in strategy.experimental_local_results(moving.value):
            np.testing.assert_allclose(device, np.mean(shares, 0), rtol=1e-4, atol=1e-5)
"""


def test_two_devices_find_the_losses_of_one():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MIRRORED)],
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
