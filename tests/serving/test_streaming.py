"""The causal walk: steps give what the whole gives, and what cannot run in steps is refused."""

import keras
import numpy as np
import pytest

import keras_rnncells as kr
from keras_rnncells import serving
from keras_rnncells.serving import graph, rules, streaming
from tests.serving import tools

if not tools.ON_TENSORFLOW:
    pytest.skip(tools.REASON, allow_module_level=True)

layers = keras.layers
B, T, D, U = 3, 7, 4, 5


def sequential(*stack, shape=(None, D), dtype="float32"):
    model = keras.Sequential([keras.Input(shape, name="x", dtype=dtype), *stack])
    return tools.randomize(model)


def functional(build, shape=(None, D), dtype="float32", batch_size=None):
    x = keras.Input(shape, name="x", dtype=dtype, batch_size=batch_size)
    return tools.randomize(keras.Model(x, build(x)))


def inputs(dtype="float32", shape=(B, T, D)):
    rng = np.random.default_rng(1)
    if dtype == "int32":
        return rng.integers(0, 6, shape[:2]).astype(dtype)
    return rng.normal(size=shape).astype(dtype)


def in_chunks(model, x, cuts=(1, 4, 5)):
    """The first output of a model that runs over `x` in chunks."""
    found = streaming.stream(graph.rebuild(model))
    states = [np.zeros((len(x), *s.shape), s.dtype) for s in found.states]
    outputs = []
    for part in np.split(x, cuts, axis=1):
        flat = keras.tree.flatten(found.model([part, *states], training=False))
        outputs.append(np.asarray(flat[0]))
        states = [np.asarray(s) for s in flat[len(found.over_time) :]]
        assert [s.shape[1:] for s in states] == [s.shape for s in found.states]
    return np.concatenate(outputs, 1) if found.over_time[0] else outputs[-1]


def gaps(x):
    """With masked steps at the start, in between, at the end, and a whole row of them."""
    x = np.concatenate([x, x[:1]])
    x[0, :2], x[1, 3:5], x[2, -2:], x[3] = 0, 0, 0, 0
    return x


@keras.saving.register_keras_serializable("tests")
class Doubling(layers.Layer):
    """A cell whose output is not its state."""

    state_size, output_size = U, 2

    def call(self, inputs, states):
        h = keras.ops.tanh(states[0] + keras.ops.sum(inputs, -1, keepdims=True))
        return 2 * h[:, :2] + 1, [h]


def inner_model():
    return keras.Sequential(
        [keras.Input((None, D)), kr.IRNN(U, return_sequences=True), layers.LayerNormalization()],
        name="inner",
    )


def shared(x):
    layer = kr.GRU(D, return_sequences=True, name="twice")
    return layer(layer(x))


def with_final_states(x):
    y, h, c = kr.LSTM(U, return_sequences=True, return_state=True)(x)
    return [layers.Dense(2)(y), layers.Concatenate()([h, c])]


def operations(x):
    h = kr.CFN(D, return_sequences=True)(x)
    h = keras.ops.tanh(h) * 0.5 + x - keras.ops.maximum(h, 0.1)
    return keras.ops.softmax(keras.ops.concatenate([h, x], axis=-1), axis=-1)


def decoder(x):
    """Behind the last step anything goes."""
    h = layers.RepeatVector(3)(kr.IndRNN(U)(x))
    return layers.Bidirectional(layers.LSTM(2, return_sequences=True))(h)


CAUSAL = {
    "convolutions": lambda: sequential(
        layers.Conv1D(6, 3, padding="causal", dilation_rate=2, activation="relu"),
        layers.Conv1D(U, 1),
        layers.Conv1D(3, 4, padding="causal", use_bias=False),
    ),
    "normalizations": lambda: sequential(
        layers.BatchNormalization(),
        kr.IndRNN(U, return_sequences=True),
        layers.LayerNormalization(),
        layers.PReLU(shared_axes=[1]),
        layers.UnitNormalization(),
        layers.SpatialDropout1D(0.5),
        layers.GaussianNoise(1.0),
    ),
    "keras": lambda: sequential(
        layers.SimpleRNN(U, return_sequences=True),
        layers.LSTM(U, return_sequences=True, unroll=True),
        layers.GRU(3, return_sequences=True, reset_after=False),
        shape=(T, D),
    ),
    "cell-of-a-user": lambda: sequential(layers.RNN(Doubling(), return_sequences=True)),
    "images": lambda: sequential(
        layers.TimeDistributed(layers.Conv2D(2, 2)),
        layers.TimeDistributed(layers.Flatten()),
        kr.IndRNN(U),
        shape=(None, 3, 3, 1),
    ),
    "operations": lambda: functional(operations),
    "nested": lambda: functional(lambda x: kr.MinimalRNN(U)(inner_model()(x))),
    "shared": lambda: functional(shared),
    "final-states": lambda: functional(with_final_states),
    "decoder": lambda: functional(decoder),
    "no-state": lambda: sequential(layers.Dense(3), layers.ReLU()),
}


@pytest.mark.parametrize("name", CAUSAL)
def test_chunks_give_what_the_whole_gives(name):
    model = CAUSAL[name]()
    x = inputs(shape=(B, T, 3, 3, 1) if name == "images" else (B, T, D))
    expected = np.asarray(keras.tree.flatten(model(x, training=False))[0])
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(in_chunks(model, x), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["ours", "keras", "cell-of-a-user", "zeros"])
@pytest.mark.parametrize("return_sequences", [True, False])
def test_masks(name, return_sequences):
    last = {"return_sequences": return_sequences}
    stack = {
        "ours": lambda: [kr.LSTM(U, return_sequences=True), kr.SCRN(U, **last)],
        "keras": lambda: [layers.LSTM(U, return_sequences=True), layers.GRU(U, **last)],
        "cell-of-a-user": lambda: [layers.RNN(Doubling(), **last)],
        "zeros": lambda: [kr.GRU(U, zero_output_for_mask=True, **last)],
    }[name]()
    model = sequential(layers.Masking(), *stack)
    x = gaps(inputs())
    expected = np.asarray(model(x))
    np.testing.assert_allclose(in_chunks(model, x), expected, atol=1e-5)
    np.testing.assert_allclose(in_chunks(model, x, range(1, T)), expected, atol=1e-5)


def test_tokens_with_a_mask():
    embedding = layers.Embedding(6, D, mask_zero=True)
    model = sequential(embedding, kr.IndRNN(U), shape=(None,), dtype="int32")
    x = inputs("int32")
    x[0, :2] = x[1, -3:] = 0
    np.testing.assert_allclose(in_chunks(model, x), np.asarray(model(x)), atol=1e-5)


def test_stateful_and_static():
    """States of the model's own become arguments; it is left as it was."""
    nodes = {"layer": kr.IndRNN(U, "linear", stateful=True, name="mine"), "dense": layers.Dense(2)}
    model = functional(lambda x: nodes["dense"](nodes["layer"](x)), shape=(T, D), batch_size=B)
    nodes["layer"].cell.recurrent_kernel.assign(np.linspace(0.8, 1, U))
    x = inputs()
    first, second = np.asarray(model(x)), np.asarray(model(x))
    assert np.abs(first - second).max() > 0.01
    rebuilt = graph.rebuild(model)
    assert rebuilt.inputs[0].shape == (None, None, D)
    for _ in range(2):
        np.testing.assert_allclose(rebuilt([x]), first, atol=1e-6)
    np.testing.assert_allclose(in_chunks(model, x), first, atol=1e-5)
    one_row = np.asarray(rebuilt([x[:1, :2]]))
    assert one_row.shape == (1, 2)
    assert model.layers[1].output.shape == (B, U)  # its only node
    assert np.abs(np.asarray(nodes["layer"].states[0])).max() > 0


def test_mixed_precision():
    """States are float32 at the server, whatever Keras' own layers carry."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = sequential(
        layers.LSTM(U, return_sequences=True),
        kr.IndRNN(U, return_sequences=True),
        layers.Conv1D(3, 2, padding="causal"),
    )
    served = serving.signatures.serve(model)
    assert {s.dtype for s in served.states} == {"float32"}
    x = inputs()
    whole = served.signatures["serving_default"].function(x)["outputs"]
    assert keras.backend.standardize_dtype(whole.dtype) == "float32"
    expected = np.asarray(model(x)).astype("float32")
    np.testing.assert_allclose(in_chunks(model, x).astype("float32"), expected, atol=0.05)


NOT_CAUSAL = {
    "bidirectional": (lambda: layers.Bidirectional(layers.LSTM(U)), "runs backwards too"),
    "backwards": (lambda: kr.IndRNN(U, go_backwards=True), "goes backwards"),
    "keras-backwards": (lambda: layers.GRU(U, go_backwards=True), "goes backwards"),
    "average": (lambda: layers.GlobalAveragePooling1D(), "pools over time"),
    "pooling": (lambda: layers.MaxPooling1D(2), "pools over time"),
    "flatten": (lambda: layers.Flatten(), "mixes time with other axes"),
    "same": (lambda: layers.Conv1D(2, 3, padding="same"), "padding='same', so it looks ahead"),
    "strides": (lambda: layers.Conv1D(2, 3, 2, padding="causal"), "strides=2"),
    "groups": (lambda: layers.GroupNormalization(2), "normalizes over time"),
    "axis": (lambda: layers.LayerNormalization(axis=[1, 2]), r"works along time \(axis"),
    "softmax": (lambda: layers.Softmax(axis=1), "works along time"),
    "prelu": (lambda: layers.PReLU(), "weights for each step: set shared_axes"),
}


@pytest.mark.parametrize("name", NOT_CAUSAL)
def test_what_looks_ahead_is_refused_by_name(name):
    make, reason = NOT_CAUSAL[name]
    layer = make()
    layer.name = "culprit"
    model = sequential(layers.Dense(4), layer, shape=(T, D))
    with pytest.raises(ValueError, match=f"layer 'culprit' .{type(layer).__name__}. .*{reason}"):
        serving.StreamingModel(model)


def attention(x):
    return layers.MultiHeadAttention(2, 2, name="culprit")(x, x)


def start(x):
    first = layers.Dense(U)(layers.LSTM(3)(x))
    return kr.IndRNN(U, name="culprit")(x, initial_state=[first])


def context(x):
    """The last output, given to every step."""
    last = layers.Reshape((1, D))(kr.IndRNN(D)(x))
    return layers.Add(name="culprit")([x, last])


def time_as_features(x):
    return layers.Dense(2, name="culprit")(x)


@pytest.mark.parametrize(
    "build, reason, shape",
    [
        (attention, "looks at all steps at once", (None, D)),
        (start, "starts from zeros", (None, D)),
        (context, "joins a sequence and what is known at its end only", (None, D)),
        (time_as_features, "works along the last axis, which is time", (T,)),
    ],
)
def test_connections_that_look_ahead(build, reason, shape):
    with pytest.raises(ValueError, match=f"layer 'culprit' .*{reason}"):
        serving.StreamingModel(functional(build, shape))


@keras.saving.register_keras_serializable("tests")
class Mine(layers.Layer):
    def call(self, inputs):
        return inputs * 2


@keras.saving.register_keras_serializable("tests")
class OverTime(layers.Layer):
    def call(self, inputs):
        return inputs - keras.ops.mean(inputs, axis=1, keepdims=True)


def test_layers_of_a_user(monkeypatch):
    monkeypatch.setattr(rules, "_PER_STEP", dict(rules._PER_STEP))
    model = sequential(Mine(name="mine"), kr.IndRNN(U))
    with pytest.raises(ValueError, match=r"layer 'mine' .*register_per_step\(Mine\)"):
        serving.StreamingModel(model)
    assert serving.register_per_step(Mine) is Mine
    np.testing.assert_allclose(in_chunks(model, inputs()), np.asarray(model(inputs())), atol=1e-5)
    for wrong in (Mine(), int, "Mine"):
        with pytest.raises(TypeError, match="takes the class of a layer"):
            serving.register_per_step(wrong)

    serving.register_per_step(OverTime)  # which is not true
    with pytest.raises(ValueError, match="Step by step, 'outputs' is not what whole sequences"):
        serving.StreamingModel(sequential(OverTime(), kr.IndRNN(U)))


def test_models_that_are_no_graph():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="not known. Use a Sequential that starts with"):
        serving.StreamingModel(Own())
    with pytest.raises(ValueError, match="not known. Use a Sequential that starts with"):
        serving.StreamingModel(keras.Sequential([layers.Dense(1)]))
    with pytest.raises(ValueError, match="called with training=True"):
        serving.StreamingModel(functional(lambda x: layers.Dropout(0.5)(x, training=True)))
    with pytest.raises(ValueError, match="need names that differ, also from 'lengths'"):
        x = keras.Input((None, 2), name="lengths")
        serving.StreamingModel(keras.Model(x, layers.Dense(1)(x)))


def test_names():
    one, two = keras.Input((None, 2)), keras.Input((None, 2), name="a-b")
    y, z = layers.Dense(1, name="y")(one), layers.Dense(1, name="z")(two)
    assert graph.names(keras.Model(one, y)) == (["inputs"], ["outputs"])
    assert graph.names(keras.Model([one, two], [y, z])) == (["inputs_0", "a_b"], ["y", "z"])
    assert graph.names(keras.Model(two, {"score": z}))[1] == ["score"]


# Padding.


PADDED = {
    "average": lambda: sequential(
        kr.IndRNN(U, return_sequences=True), layers.GlobalAveragePooling1D()
    ),
    "backwards": lambda: sequential(kr.LSTM(U, go_backwards=True)),
    "nested": lambda: functional(lambda x: kr.MinimalRNN(U)(inner_model()(x))),
    "masked": lambda: sequential(layers.Masking(), layers.Bidirectional(layers.GRU(U))),
}


@pytest.mark.parametrize("name", PADDED)
def test_padding_is_not_seen(name):
    model, x = PADDED[name](), inputs()
    x[:, 1] = 0  # masked, where masks are
    found, _ = streaming.padded(graph.rebuild(model))
    lengths = np.array([3, 6, 7], "int32")
    garbage = np.where(np.arange(T)[:, None] < lengths[:, None, None], x, np.float32(np.nan))
    answers = np.asarray(found([garbage, lengths]))
    for row, length in enumerate(lengths):
        expected = np.asarray(model(x[row : row + 1, :length]))[0]
        np.testing.assert_allclose(answers[row], expected, atol=1e-5)


@pytest.mark.parametrize(
    "layer, reason",
    [
        (lambda: layers.GlobalMaxPooling1D(name="culprit"), "pools over time"),
        (lambda: kr.GRU(U, zero_output_for_mask=True, name="culprit"), "outputs zeros"),
        (
            lambda: kr.GRU(U, go_backwards=True, return_sequences=True, name="culprit"),
            "outputs the padding first",
        ),
    ],
)
def test_padding_that_would_be_seen(layer, reason):
    """Such a model is served without the signature, and says why."""
    served = serving.signatures.serve(sequential(layer()), streaming="auto")
    assert "padded" not in served.signatures
    assert "'culprit'" in served.left_out["padded"] and reason in served.left_out["padded"]
