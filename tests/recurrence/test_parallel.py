"""The log-depth scan against Keras' loop and NumPy's, and what happens where it fails."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_rnncells as kr
from keras_rnncells.recurrence import parallel
from tests.recurrence.test_sequential import (
    TENSORFLOW,
    TRAINING,
    everything,
    fused,  # noqa: F401
    ours_only,
)
from tests.tools import B, D, U, asymmetric, gradients, inputs, numpy

EXACT = {
    "linear": None,
    "relu": "relu",
    "relu6": "relu6",
    "hard_tanh": "hard_tanh",
    "clipped": keras.layers.ReLU(max_value=0.7, dtype="float64"),
}
# On JAX, Keras computes tanh of float64 in float32.
if TENSORFLOW:
    TANH = "tanh"
else:
    import jax

    TANH = jax.numpy.tanh
SOLVED = {
    "tanh": TANH,
    "sigmoid": "sigmoid",
    "leaky": keras.layers.ReLU(negative_slope=0.1, dtype="float64"),
}
ACTIVATIONS = {**EXACT, **SOLVED}
NOISE = {"dropout": 0.3, "recurrent_dropout": 0.3, "zoneout": 0.3, "seed": 5}


@pytest.fixture
def falls_back(monkeypatch):
    """Counts how often the sequential loop is traced; it runs only where the scan fails."""
    runs = []
    real = parallel.sequential.forward

    def noting(tools, *arguments):
        found, last = real(tools, *arguments)
        note = runs.append
        if TENSORFLOW:
            import tensorflow as tf

            with tf.control_dependencies([tf.py_function(lambda: note(1), [], [])]):
                found = [tf.identity(f) for f in found]
        else:
            jax.debug.callback(lambda: note(1))
        return found, last

    monkeypatch.setattr(parallel.sequential, "forward", noting)
    return runs


def same(arguments, steps=7, training=True, mask=None, tolerance=1e-9, start_scale=1.0, **options):
    """`scan="parallel"` finds what `scan="keras"` finds."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(B, steps, D))
    start = [start_scale * rng.normal(size=(B, U))]
    call = {} if mask is None else {"mask": ops.convert_to_tensor(mask)}
    found = []
    for scan in ("parallel", "keras"):
        layer = asymmetric(
            kr.IndRNN(
                U,
                dtype="float64",
                scan=scan,
                return_state=True,
                **{"return_sequences": True, **arguments, **options},
            )
        )
        if layer.cell.seed_generator is not None:
            layer.cell.seed_generator.state.assign([5, 0])
        found.append(everything(layer, x, start, training, **call))
    for a, b in zip(*found, strict=True):
        scale = np.abs(b).max() + 1e-30
        np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize("training", TRAINING)
@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_every_activation(activation, training):
    same({"activation": activation}, training=training)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_noise_and_masks(activation, training):
    mask = np.random.default_rng(0).random((B, 7)) < 0.6
    mask[0, :3], mask[1] = False, False
    same({"activation": activation, **NOISE}, training=training, mask=mask)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 8, 64, 784])
@pytest.mark.parametrize("activation", ["relu6", TANH])
def test_any_number_of_steps(activation, steps):
    same({"activation": activation}, steps)


OPTIONS = {
    "last": {"return_sequences": False},
    "backwards": {"go_backwards": True},
    "zeros": {"zero_output_for_mask": True},
    "no-kernel": {"input_kernel": False},
    "unroll": {"unroll": 2},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options(options):
    mask = np.random.default_rng(1).random((B, 7)) < 0.6
    if "input_kernel" in options:
        layers = [
            kr.IndRNN(
                D, dtype="float64", scan=s, return_state=True, return_sequences=True, **options
            )
            for s in ("parallel", "keras")
        ]
        x, start = inputs(dtype="float64"), [inputs(B, D, dtype="float64")]
        for a, b in zip(*(everything(asymmetric(f), x, start) for f in layers), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-10)
        return
    same({}, mask=mask, **options)


@pytest.mark.parametrize("input_kernel", [True, False])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_mixed_precision(activation, policy, input_kernel):
    x = inputs(B, 7, U)
    for scan in ("sequential", "parallel"):
        made = [
            asymmetric(
                kr.IndRNN(
                    U,
                    activation,
                    dtype=policy,
                    scan=s,
                    return_state=True,
                    input_kernel=input_kernel,
                ),
                x.shape,
            )
            for s in (scan, "keras")
        ]
        (_, a), (_, b) = (f(x, training=True) for f in made)
        assert keras.backend.standardize_dtype(a.dtype) == "float32"
        np.testing.assert_allclose(numpy(a), numpy(b), rtol=1e-4, atol=1e-4)


def long_run(activation, u, x, first):
    """The states of a long sequence, by NumPy in float64."""
    h, found = first, []
    for c in np.moveaxis(x, 1, 0):
        h = activation(c + u * h)
        found.append(h)
    return np.stack(found, axis=1)


CLIPS = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
}


def weights_at(u, activation, **options):
    layer = kr.IndRNN(len(u), activation, input_kernel=False, return_sequences=True, **options)
    layer.build((None, None, len(u)))
    layer.set_weights([u])
    return layer


@pytest.mark.parametrize("dtype", ["float32", "float64"] if TENSORFLOW else ["float32"])
@pytest.mark.parametrize("activation", [*CLIPS, "tanh"])
def test_thousands_of_steps(activation, dtype, falls_back):
    steps, units = 5000, 32
    rng = np.random.default_rng(0)
    u = rng.uniform(-1, 1, units) * 2 ** (1 / steps)
    u[:4] = 0, 1, -1, 2 ** (1 / steps)
    x, first = rng.normal(size=(2, steps, units)), rng.normal(size=(2, units))
    expected = long_run(CLIPS.get(activation, np.tanh), u, x, first)
    layer = weights_at(u, activation, dtype=dtype, scan="parallel")
    found = layer(x.astype(dtype), initial_state=first.astype(dtype))
    tolerance = {"float32": 2e-5, "float64": 1e-11}[dtype] * np.abs(expected).max()
    np.testing.assert_allclose(numpy(found), expected, rtol=0, atol=tolerance)
    assert falls_back == []


@pytest.mark.parametrize("activation", CLIPS)
def test_products_that_overflow(activation):
    """Slopes of 1.5 and -3 over 1,000 steps have no product in float32."""
    u = np.array([1.5, -3.0, 0.5, -1.0, 1.0])
    x = inputs(2, 1000, 5, dtype="float64")
    with np.errstate(over="ignore", invalid="ignore"):
        expected = long_run(
            CLIPS[activation], u.astype("float32"), x.astype("float32"), np.zeros((2, 5), "float32")
        )
    found = numpy(weights_at(u, activation, scan="parallel")(x.astype("float32")))
    bounded = np.isfinite(expected)
    assert np.isfinite(found)[bounded].all()
    scale = np.abs(np.where(bounded, expected, 0)).max(axis=(0, 1))
    tame = slice(2, None) if activation in ("linear", "relu") else slice(None)
    np.testing.assert_allclose(
        (found / scale)[..., tame], (expected / scale)[..., tame], rtol=0, atol=1e-4
    )


def test_gradients_where_products_overflow():
    """The adjoints of an exploding unit are those of the loop, where those are finite."""
    u, x = np.array([1.5, -0.5, 1.0]), inputs(2, 200, 3)
    found = []
    for scan in ("parallel", "sequential"):
        layer = weights_at(u, "hard_tanh", scan=scan)

        def loss(x, layer=layer):
            # The first sequence stays in the linear part, where the slopes multiply to 1.5 ** 200.
            scale = np.array([1e-38, 1.0])[:, None, None]
            return ops.sum(layer(x * scale, training=True)[:, -1])

        found.append(gradients(layer, loss, x))
    for a, b in zip(*found, strict=True):
        assert np.isfinite(b).all()
        np.testing.assert_allclose(a, b, rtol=1e-3)


@pytest.mark.parametrize("activation", [TANH, "sigmoid"])
def test_newton_that_does_not_converge(activation, monkeypatch, falls_back):
    monkeypatch.setattr(parallel, "MOST_TURNS", 1)
    same({"activation": activation}, training=False)
    assert falls_back


def test_newton_converges(falls_back):
    same({"activation": TANH}, steps=64, training=False)
    assert falls_back == []


def test_what_is_not_a_number():
    x = inputs(2, 20, U)
    x[0, 7, 1] = np.nan
    layers = [
        asymmetric(kr.IndRNN(U, scan=s, return_sequences=True), x.shape)
        for s in ("parallel", "keras")
    ]
    found, expected = (numpy(f(x)) for f in layers)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.isnan(found).any()


def test_activations_with_weights():
    found = []
    for scan in ("parallel", "keras"):
        activation = keras.layers.PReLU("random_uniform")
        activation.build((None, U))
        layer = asymmetric(kr.IndRNN(U, activation, scan=scan, return_state=True))
        found.append(everything(layer, inputs(), [inputs(B, U)]))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in kr.cells.CELLS if n != "IndRNN"])
def test_cells_whose_units_see_each_other(name):
    with pytest.raises(ValueError, match=f'scan="parallel" needs cells.*IndRNNCell.*{name}Cell'):
        kr.cells.CELLS[name].layer(U, scan="parallel")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_all_in_half_precision(dtype):
    """The states too, in which a scan could not tell whether it is right."""
    layers = [asymmetric(kr.IndRNN(U, dtype=dtype, scan=s)) for s in ("parallel", "sequential")]
    found, expected = (numpy(layer(inputs(B, 70, D))).astype("float32") for layer in layers)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("training", [False, True])
def test_several_lengths_and_batches(training):
    layer, oracle = (asymmetric(kr.IndRNN(U, scan=s)) for s in ("parallel", "keras"))

    def of(made, x):
        return gradients(made, lambda x: ops.sum(ops.sin(made(x, training=training))), x)

    for batch, steps in ((3, 3), (3, 6), (2, 6), (4, 3)):
        x = inputs(batch, steps, D)
        np.testing.assert_allclose(numpy(layer(x)), numpy(oracle(x)), atol=1e-5)
        for a, b in zip(of(layer, x), of(oracle, x), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_subclass_with_equations_of_its_own():
    class OtherCell(kr.IndRNNCell):
        def update(self, projected, recurrent, states):
            return [ops.tanh(projected) + 0.5 * recurrent]

    with pytest.raises(ValueError, match="OtherCell"):
        kr.RNN(OtherCell(U), scan="parallel")
    fast, slow = (asymmetric(kr.RNN(OtherCell(U), scan=s)) for s in ("auto", "keras"))
    np.testing.assert_allclose(numpy(fast(inputs())), numpy(slow(inputs())), atol=1e-6)


def test_a_stack():
    cells = lambda: [kr.IndRNNCell(U), kr.IndRNNCell(U, "tanh")]  # noqa: E731
    fast, slow = (asymmetric(kr.RNN(cells(), scan=s)) for s in ("parallel", "keras"))
    np.testing.assert_allclose(numpy(fast(inputs())), numpy(slow(inputs())), atol=1e-5)
    with pytest.raises(ValueError, match="IndRNNCell, GRUCell"):
        kr.RNN([kr.IndRNNCell(U), kr.GRUCell(U)], scan="parallel")


@ours_only
def test_an_unknown_length_runs_sequentially():
    import tensorflow as tf

    layer = asymmetric(kr.IndRNN(U, scan="parallel"))
    run = tf.function(layer, input_signature=[tf.TensorSpec((None, None, D))])
    nodes = run.get_concrete_function().graph.as_graph_def().library.function
    assert any("while" in node.op.lower() for f in nodes for node in f.node_def)
    for steps in (3, 8):
        expected = asymmetric(kr.IndRNN(U, scan="keras"))(inputs(2, steps, D))
        np.testing.assert_allclose(numpy(run(inputs(2, steps, D))), numpy(expected), atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"jit_compile": True}], ids=str)
def test_training(options):
    histories = []
    for scan in ("parallel", "keras"):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                kr.IndRNN(U, return_sequences=True, scan=scan),
                kr.IndRNN(U, "tanh", scan=scan),
                keras.layers.Dense(1),
            ]
        )
        model.compile("sgd", "mse", **options)
        x, y = inputs(10, 6, D), inputs(10, 1, seed=2)
        history = model.fit(x, y, batch_size=4, epochs=3, shuffle=False, verbose=0)
        histories.append(history.history["loss"])
    np.testing.assert_allclose(*histories, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 8, 13])
@pytest.mark.parametrize("reverse", [False, True])
def test_scan(steps, reverse):
    """Prefixes of a composition that is associative and does not commute: 2 x 2 matrices."""
    matrices = inputs(2, steps, 2, 2, dtype="float64")
    [found] = parallel.scan(
        lambda a, b: (ops.matmul(b[0], a[0]),), (ops.convert_to_tensor(matrices),), reverse
    )
    order = range(steps)[::-1] if reverse else range(steps)
    product = np.eye(2)
    for t in order:
        product = matrices[:, t] @ product
        np.testing.assert_allclose(numpy(found)[:, t], product, rtol=1e-9)


def test_auto_on_an_accelerator(monkeypatch, fused):  # noqa: F811
    from keras_rnncells.recurrence import fused as loops

    cell = kr.IndRNNCell(U)
    cell.build((None, D))
    problem = cell.problem([ops.zeros((B, U))], kr.base.noise.expectation(cell), True)
    assert loops.choose("auto", problem, 5000, "float32") == "sequential"
    assert loops.turn(problem) == 1
    monkeypatch.setattr(loops, "accelerated", lambda: True)
    assert loops.choose("auto", problem, 5000, "float32") == "parallel"
    assert loops.turn(problem) == 16
    assert loops.choose("auto", problem, 10, "float32") == "sequential"
    assert loops.choose("auto", problem, None, "float32") == "sequential"
    assert loops.choose("parallel", problem, None, "float32") == "sequential"
    assert loops.choose("parallel", problem, 5000, "bfloat16") == "sequential"
    tanh = kr.IndRNNCell(U, "tanh")
    tanh.build((None, D))
    problem = tanh.problem([ops.zeros((B, U))], kr.base.noise.expectation(tanh), True)
    assert loops.choose("auto", problem, 5000, "float32") == "sequential"
    assert loops.turn(problem) == 16
    lstm = kr.LSTMCell(U)
    lstm.build((None, D))
    problem = lstm.problem([ops.zeros((B, U))] * 2, kr.base.noise.expectation(lstm), True)
    assert loops.turn(problem) == 1


@pytest.mark.parametrize("unroll", [False, 3])
def test_turns_on_an_accelerator(monkeypatch, fused, unroll):  # noqa: F811
    """Sixteen steps a turn unless told otherwise, and the same numbers."""
    from keras_rnncells.recurrence import fused as loops, sequential

    layer = kr.IndRNN(U, "tanh", unroll=unroll, return_sequences=True)
    x = np.random.default_rng(0).normal(size=(B, 21, D)).astype("float32")
    expected = numpy(layer(x))
    turns, loop = [], sequential._loop
    monkeypatch.setattr(loops, "accelerated", lambda: True)
    monkeypatch.setattr(sequential, "_loop", lambda *a: turns.append(a[-1]) or loop(*a))
    twin = kr.IndRNN.from_config(layer.get_config())
    twin.build(x.shape)
    twin.set_weights(layer.get_weights())
    np.testing.assert_allclose(numpy(twin(x)), expected, rtol=1e-6, atol=1e-6)
    assert turns == [unroll or 16]
