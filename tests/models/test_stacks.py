"""The stacks: parameters as published, order of layers, numbers, and all a Keras model can do."""

import keras
import numpy as np
import pytest

from keras_rnncells import IndRNN, models
from keras_rnncells.cells import CELLS
from tests.models.reference import Network, set_weights
from tests.recurrence.test_training import compiled_functions
from tests.tools import B, D, T, inputs, numpy

OUTPUTS = 3
# Each kind, small: how it is made, and how the reference runs it.
KINDS = {
    "plain": (models.plain, {"units": 6, "layers": 2}, lambda n, x: n.plain(x, 2)),
    "residual": (models.residual, {"units": 6, "blocks": 2}, lambda n, x: n.residual(x, 2)),
    "dense": (models.dense, {"growth": 2, "blocks": (2, 1)}, lambda n, x: n.densely(x, (2, 1))),
}
TF = keras.backend.backend() == "tensorflow"


def make(kind, steps=T, **options):
    function, sizes, _ = KINDS[kind]
    return function((steps, D), OUTPUTS, **{**sizes, **options})


def trainable(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


@pytest.mark.parametrize(
    "function, shape, outputs, sizes, total",
    [
        (models.plain, (784, 1), 10, {"layers": 6}, 86_410),
        (models.plain, (784, 1), 10, {"layers": 12}, 187_786),
        (models.residual, (784, 1), 10, {}, 170_890),
        (models.dense, (784, 1), 10, {}, 256_514),
        (models.plain, (20, 150), 60, {"units": 512}, 1_430_588),
        (models.residual, (20, 150), 60, {"units": 512}, 2_751_548),
        (models.dense, (20, 150), 60, {"growth": 48}, 2_314_428),
    ],
)
def test_parameters_are_those_of_the_authors(function, shape, outputs, sizes, total):
    assert trainable(function(shape, outputs, **sizes)) == total
    if shape[1] == 1:
        assert trainable(function(shape, outputs, normalization="before", **sizes)) == total


def names(model):
    return [layer.name for layer in model.layers]


def test_order_of_layers():
    rates = {"dropout": 0.1, "units": 4}
    after = models.plain((T, D), 2, layers=2, **rates)
    assert names(after) == [
        "sequence",
        *("recurrent_1", "normalization_1", "dropout_1"),
        *("recurrent_2", "normalization_2", "dropout_2"),
        "logits",
    ]
    kinds = [type(layer).__name__ for layer in after.layers]
    assert kinds[1:4] == ["IndRNN", "BatchNormalization", "SpatialDropout1D"]
    assert kinds[4:] == ["IndRNN", "BatchNormalization", "Dropout", "Dense"]
    before = models.plain((T, D), 2, layers=1, normalization="before", head="regression", **rates)
    assert names(before) == [
        *("sequence", "kernel_1", "normalization_1", "recurrent_1", "dropout_1", "values")
    ]
    residual = models.residual((T, D), 2, blocks=1, normalization=None, head="per_step", **rates)
    assert names(residual) == [
        *("sequence", "kernel_1", "recurrent_1", "dropout_1", "kernel_2"),
        *("recurrent_2", "dropout_2", "kernel_3", "add_1", "recurrent_3", "dropout_3", "outputs"),
    ]
    assert not any(residual.get_layer(f"recurrent_{i}").input_kernel for i in (1, 2, 3))
    dense = models.dense(
        (T, D), 2, growth=2, blocks=(1,), dropout=0.1, bottleneck_dropout=0.2,
        transition_dropout=0.3, last_dropout=0.4, head="per_step",
    )  # fmt: skip
    assert [dense.get_layer(f"recurrent_{i}").units for i in (1, 2, 3, 4)] == [12, 8, 2, 7]
    assert [dense.get_layer(f"dropout_{i}").rate for i in (1, 2, 3, 4)] == [0.1, 0.2, 0.1, 0.4]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "cell, normalization, statistics, head",
    [
        ("IndRNN", "after", "pooled", "classification"),
        ("IndRNN", "before", "per_step", "per_step"),
        ("IndRNN", None, "pooled", "regression"),
        ("LSTM", "after", "per_step", "per_step"),
        ("MinimalRNN", "after", "pooled", "per_step"),
    ],
)
def test_numbers(kind, cell, normalization, statistics, head):
    options = {"normalization": normalization, "statistics": statistics, "head": head}
    model = set_weights(make(kind, cell=cell, dropout=0.5, **options))
    network = Network(model, cell, normalization)
    x = inputs()
    expected = KINDS[kind][2](network, x.astype("float64"))
    expected = network.dense(model.layers[-1].name, expected)
    assert network.i == sum(name.startswith("recurrent") for name in names(model))
    if head != "per_step":
        expected = expected[:, -1]
    np.testing.assert_allclose(numpy(model(x)), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("row", list(CELLS.values()), ids=list(CELLS))
def test_every_cell(row):
    x = inputs(B, T, D)
    for kind in KINDS:
        model = make(kind, None, cell=row.layer, head="per_step")
        assert model(x).shape == (B, T, OUTPUTS)
        assert all(type(model.get_layer(n)) is row.layer for n in names(model) if "recurrent" in n)


def test_one_mask_for_all_steps():
    model = models.plain(
        (T, D), 1, units=50, layers=1, normalization=None, dropout=0.4, head="per_step",
        cell_arguments={"activation": "linear"},
    )  # fmt: skip
    layers = [model.get_layer(name).output for name in ("recurrent_1", "dropout_1")]
    before, after = keras.Model(model.input, layers)(inputs(), training=True)
    factor = numpy(after) / numpy(before)
    np.testing.assert_allclose(factor, np.repeat(factor[:, :1], T, axis=1), rtol=1e-5)
    np.testing.assert_allclose(np.unique(factor[:, 0].round(4)), [0, 1.6667])
    assert 0.2 < (factor == 0).mean() < 0.6 and not np.array_equal(factor[0], factor[1])


def test_memory_of_the_last_layer():
    bound = 5 ** (1 / 20)
    for kind in KINDS:
        model = make(kind, 20, gamma=5)
        layers = [layer for layer in model.layers if isinstance(layer, IndRNN)]
        assert [layer.memory for layer in layers] == [None] * (len(layers) - 1) + ["long"]
        assert all((layer.max_timesteps, layer.gamma) == (20, 5) for layer in layers)
        starts = [numpy(layer.cell.recurrent_kernel) for layer in layers]
        assert ((starts[-1] >= 1 / bound - 1e-6) & (starts[-1] <= bound)).all()
        assert np.concatenate(starts[:-1]).min() < 0.5

        def memories(**options):
            return {x.memory for x in make(kind, **options).layers if isinstance(x, IndRNN)}  # noqa: B023

        assert memories(head="per_step") == {None}
        assert memories(cell_arguments={"recurrent_initializer": "ones"}) == {None}
        assert memories(cell_arguments={"memory": None}) == {None}


def test_bound():
    def bound(steps, **options):
        return make("plain", steps, **options).get_layer("recurrent_1").max_timesteps

    assert bound(20) == 20 and bound(None) is None and bound(20, max_timesteps=7) == 7
    assert bound(20, stateful=True, batch_size=2) is None


def test_cell_arguments():
    given = {
        "kernel_regularizer": keras.regularizers.L2(0.1),
        "kernel_initializer": keras.initializers.RandomNormal(),
        "activation": "tanh",
    }
    for normalization, name in (("after", "recurrent"), ("before", "kernel")):
        model = make("plain", normalization=normalization, cell_arguments=given, units=D)
        first, second = (numpy(model.get_layer(f"{name}_{i}").get_weights()[0]) for i in (1, 2))
        assert not np.allclose(first, second), "each layer has a start of its own"
        assert model.get_layer("recurrent_1").activation is keras.activations.tanh
        expected = 0.1 * ((first**2).sum() + (second**2).sum())
        np.testing.assert_allclose(float(sum(model.losses)), expected, rtol=1e-5)
    kernel = make("residual").get_layer("kernel_2").get_weights()[0]
    limit = np.sqrt(6 / (65 * 6))
    assert 0.8 * limit < np.abs(kernel).max() <= limit
    decayed = make("residual", cell_arguments={"kernel_regularizer": "l2"})
    assert len(decayed.losses) == 5


def test_start_of_the_readout():
    for head, variance in (("classification", 2 / 200), ("regression", 2 / 500)):
        model = models.plain((5, 2), 300, units=200, layers=1, head=head)
        kernel, bias = model.layers[-1].get_weights()
        np.testing.assert_allclose(kernel.var(), variance, rtol=0.05)
        assert not bias.any()


@pytest.mark.parametrize(
    "kind, cell, options",
    [
        ("plain", "LSTM", {"statistics": "per_step", "head": "per_step", "layers": 1}),
        ("residual", "IndRNN", {"normalization": "before", "blocks": 1}),
    ],
)
def test_train_compiled(kind, cell, options):
    model = make(kind, cell=cell, dropout=0.1, **options)
    model.compile(keras.optimizers.Adam(0.02), "mse", jit_compile=True)
    x = inputs(16, T, D)
    y = np.ones((16, *model.output_shape[1:]))
    losses = [float(model.train_on_batch(x, y)) for _ in range(30)]
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalization", ["before", "after"])
def test_save_and_load(kind, normalization, tmp_path):
    options = {"dropout": 0.1, "statistics": "per_step", "max_timesteps": 9}
    initializer = keras.initializers.RandomNormal(stddev=0.3)
    options["cell_arguments"] = {"kernel_initializer": initializer, "activation": "tanh"}
    model = set_weights(make(kind, None, normalization=normalization, **options))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert names(loaded) == names(model)
    np.testing.assert_array_equal(numpy(loaded(inputs())), numpy(model(inputs())))


@pytest.mark.skipif(not TF, reason="SavedModels are TensorFlow's")
def test_export(tmp_path):
    import tensorflow as tf

    options = {"statistics": "per_step", "max_timesteps": 4, "dropout": 0.2, "blocks": (1,)}
    model = set_weights(make("dense", None, **options))
    model.export(tmp_path, verbose=False)
    served = tf.saved_model.load(tmp_path)
    x = inputs()  # of more steps than there are statistics for
    np.testing.assert_allclose(served.serve(x).numpy(), numpy(model(x)), atol=1e-5)
    assert compiled_functions(tmp_path)[0] == []


def test_stateful():
    options = {"head": "per_step", "stateful": True, "batch_size": B}
    model = set_weights(make("residual", None, normalization="before", **options))
    x = inputs()
    whole = numpy(model(x))
    models.reset_states(model)
    parts = [numpy(model(part)) for part in (x[:, :3], x[:, 3:])]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"cell": "Elman"}, "`cell` must be one of 'IndRNN'"),
        ({"cell": keras.layers.LSTM}, "`cell` must be one of"),
        ({"head": "binary"}, "`head` must be one of 'classification'"),
        ({"normalization": "batch"}, "`normalization` must be one of"),
        ({"normalization": "before", "cell": "LSTM"}, "IndRNN alone"),
        ({"statistics": "per_step", "steps": None}, "number of steps"),
        ({"statistics": "step"}, "`statistics` must be"),
        ({"dropout": 1}, "`dropout` must be"),
        ({"last_dropout": -1}, "`last_dropout` must be"),
        ({"max_timesteps": 0}, "`max_timesteps` must be"),
        ({"gamma": 0.5}, "`gamma` must be"),
        ({"stateful": True}, "batch_size=None"),
        ({"batch_size": 0}, "`batch_size` must be"),
        ({"epsilon": -1}, "`epsilon` must be"),
        ({"momentum": None}, "`momentum` must be"),
        ({"momentum": 2}, "`momentum` must be"),
        ({"cell_arguments": {"units": 3}}, "`cell_arguments` of IndRNN may have activation"),
        ({"scan": "fast"}, "`scan` must be"),
        ({"units": 0}, "`units` must be"),
        ({"layers": 0}, "`layers` must be"),
        ({"steps": 0}, r"`input_shape\[0\]` must be"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        make("plain", **options)


def test_more_errors():
    with pytest.raises(ValueError, match="`input_shape` must be"):
        models.plain((5,), 2)
    with pytest.raises(ValueError, match="`outputs` must be"):
        models.plain((5, 2), 0)
    with pytest.raises(ValueError, match="`blocks` must be a list of positive integers"):
        models.dense((5, 2), 2, blocks=3)
    with pytest.raises(ValueError, match="`blocks` must be a list of positive integers"):
        models.dense((5, 2), 2, blocks=[])
    with pytest.raises(ValueError, match="`transition_dropout`"):
        models.dense((5, 2), 2, transition_dropout=2)
    with pytest.raises(TypeError, match="residual: .*'layers'.*blocks: 'int' = 5"):
        models.residual((5, 2), 2, layers=3)
