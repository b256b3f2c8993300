"""The fused loop against Keras' own: outputs, states, and gradients by everything."""

import keras
import numpy as np
import pytest

import keras_rnncells as kr
from keras_rnncells.recurrence import fused as fused_loops
from tests.tools import (
    ROWS,
    VARIANTS,
    B,
    D,
    U,
    asymmetric,
    gradients,
    in_full_precision,
    inputs,
    numpy,
)

TENSORFLOW = keras.backend.backend() == "tensorflow"
ours_only = pytest.mark.skipif(
    not TENSORFLOW, reason="on other backends nothing is compiled by itself"
)
# Plain kernels or compiled ones: there is one loop on JAX.
TRAINING = [True, False] if TENSORFLOW else [True]
# JAX compiles each call anew, so there each cell comes once where its variants have no say.
CASES = VARIANTS if TENSORFLOW else [pytest.param(*row.values, {}, id=row.id) for row in ROWS]
TOLERANCE = {"float64": 1e-10, "float32": 2e-5}
NOISE = {"dropout": 0.3, "recurrent_dropout": 0.3, "zoneout": 0.2, "seed": 5}


@pytest.fixture
def fused(monkeypatch):
    """Counts the runs of the fused loop, and those it declined."""
    counts = {"done": 0, "declined": 0}
    run = fused_loops.run

    def counting(*arguments, **options):
        found = run(*arguments, **options)
        counts["declined" if found is None else "done"] += 1
        return found

    monkeypatch.setattr(fused_loops, "run", counting)
    return counts


def objective(outputs):
    """A scalar that depends on every output and state, each in its own way."""
    total = 0
    for k, a in enumerate(outputs):
        factors = np.cos(1.0 + k + np.arange(np.prod(a.shape))).reshape(a.shape)
        total = total + keras.ops.sum(a * keras.ops.cast(factors, a.dtype))
    return total


def everything(layer, x, start, training=True, **call):
    """Outputs, states and all gradients of a layer."""
    values = [numpy(v) for v in layer(x, initial_state=start, training=training, **call)]
    if getattr(layer.cell, "seed_generator", None) is not None:
        layer.cell.seed_generator.state.assign([5, 0])

    def loss(x, *start):
        return objective(layer(x, initial_state=list(start), training=training, **call))

    return [*values, *gradients(layer, loss, x, *start)]


def assert_same(row, arguments, dtype, steps, training=True, mask=None, **options):
    """`scan="sequential"` finds what `scan="keras"` finds."""
    rng = np.random.default_rng(7)
    found = []
    common = {"return_sequences": True, **in_full_precision(row, arguments, dtype), **options}
    # The oracle is never unrolled: that is one loop for both.
    for how in ({"scan": "sequential"}, {"scan": "keras", "unroll": False}):
        layer = row.layer(U, dtype=dtype, return_state=True, **{**common, **how})
        seeds = layer.cell.seed_generator
        asymmetric(layer)
        if seeds is not None:
            seeds.state.assign([5, 0])
        found.append(layer)
    sizes = keras.tree.flatten(found[0].cell.state_size)
    x = rng.normal(size=(B, steps, D)).astype(dtype)
    start = [rng.normal(size=(B, size)).astype(dtype) for size in sizes]
    call = {} if mask is None else {"mask": keras.ops.convert_to_tensor(mask)}
    for a, b in zip(*(everything(f, x, start, training, **call) for f in found), strict=True):
        scale = np.abs(b).max() + 1e-30
        np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["float64", "float32"] if TENSORFLOW else ["float64"])
@pytest.mark.parametrize(("row", "arguments"), CASES)
def test_every_variant(row, arguments, dtype):
    assert_same(row, arguments, dtype, steps=7)


@pytest.mark.parametrize(("row", "arguments"), VARIANTS)
def test_every_variant_with_noise_and_mask(row, arguments):
    mask = np.random.default_rng(0).random((B, 7)) < 0.6
    mask[0, :3], mask[1] = False, False
    assert_same(row, {**arguments, **NOISE}, "float64", steps=7, mask=mask)


@ours_only
@pytest.mark.parametrize(("row", "arguments"), VARIANTS)
def test_every_variant_on_plain_kernels(row, arguments):
    """Without training nothing is compiled; the gradient is there all the same."""
    assert_same(row, {**arguments, "zoneout": 0.2}, "float64", steps=7, training=False)


@pytest.mark.parametrize("training", TRAINING)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 8, 64, 784])
@pytest.mark.parametrize("cell", ["IndRNN", "LSTM"])
def test_any_number_of_steps(cell, steps, training):
    # The recurrent weights of the test make a ReLU explode in the long run.
    arguments = {"activation": "tanh"} if steps == 784 else {}
    assert_same(kr.cells.CELLS[cell], arguments, "float64", steps, training)


@pytest.mark.parametrize("training", TRAINING)
@pytest.mark.parametrize(("steps", "unroll"), [(7, 2), (7, 3), (2, 2), (1, 4)])
@pytest.mark.parametrize("cell", ["IndRNN", "LSTM"])
def test_several_steps_in_one_turn(cell, steps, unroll, training, fused):
    mask = np.random.default_rng(0).random((B, steps)) < 0.6
    row = kr.cells.CELLS[cell]
    assert_same(row, {}, "float64", steps, training, mask, unroll=unroll)
    assert fused["done"] > 0


@ours_only
def test_several_steps_in_one_turn_at_any_length():
    import tensorflow as tf

    unrolled, oracle = (
        asymmetric(kr.GRU(U, scan=s, unroll=u)) for s, u in (("auto", 3), ("keras", False))
    )
    run = tf.function(unrolled, input_signature=[tf.TensorSpec((None, None, D))])
    for steps in (1, 3, 7):
        x = tf.random.normal((2, steps, D), seed=1)
        np.testing.assert_allclose(numpy(run(x)), numpy(oracle(x)), atol=1e-5)


OPTIONS = {
    "last": {"return_sequences": False},
    "backwards": {"go_backwards": True},
    "zeros": {"zero_output_for_mask": True},
    "last-zeros": {"return_sequences": False, "zero_output_for_mask": True},
    "unrolled": {"unroll": True},
}


@pytest.mark.parametrize("training", TRAINING)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(
    ("name", "arguments"), [("LSTM", {}), ("SCRN", {"context_units": 3, "return_context": True})]
)
def test_options(name, arguments, options, training):
    mask = np.random.default_rng(1).random((B, 7)) < 0.6
    mask[:2, -2:] = [[True, False], [False, True]]
    row = kr.cells.CELLS[name]
    assert_same(row, arguments, "float64", 7, training, mask, **options)


@pytest.mark.parametrize("training", TRAINING)
@pytest.mark.parametrize(("row", "arguments"), VARIANTS)
def test_every_variant_takes_the_fused_loop(row, arguments, training, fused):
    for scan in ("auto", "sequential"):
        row.layer(U, scan=scan, **{**arguments, **NOISE})(np.ones((2, 3, D)), training=training)
    assert fused == {"done": 2, "declined": 0}


POLICIES = ["mixed_bfloat16", "mixed_float16"]


@pytest.mark.parametrize("policy", POLICIES if TENSORFLOW else POLICIES[:1])
@pytest.mark.parametrize(("row", "arguments"), CASES)
def test_mixed_precision(row, arguments, policy):
    x = np.random.default_rng(0).normal(size=(B, 7, D)).astype("float32")
    found = []
    for scan in ("sequential", "keras"):
        layer = row.layer(U, dtype=policy, scan=scan, return_sequences=True, **arguments)
        # Small weights: where a state grows, so does the rounding, and processors round unlike.
        asymmetric(layer, scale=0.3)

        def loss(x, layer=layer):
            return objective([keras.ops.cast(layer(x, training=True), "float32")])

        found.append(gradients(layer, loss, x))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=0.05 * np.abs(b).max() + 1e-6)


@pytest.mark.parametrize("training", TRAINING)
@pytest.mark.parametrize("power", [1, 2], ids=["of-outputs", "of-squares"])
@pytest.mark.parametrize("name", ["IndRNN", "LSTM"])
def test_a_second_derivative_is_an_error(name, power, training):
    layer = asymmetric(kr.cells.CELLS[name].layer(U))
    x = keras.ops.convert_to_tensor(inputs())
    with pytest.raises(RuntimeError, match='no second derivative.*scan="keras"'):
        if TENSORFLOW:
            import tensorflow as tf

            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    loss = tf.reduce_sum(layer(x, training=training) ** power)
                first = tape.gradient(loss, x)
            outer.gradient(first, x)
        else:
            import jax

            gradient = jax.grad(lambda x: (layer(x, training=training) ** power).sum())
            jax.grad(lambda x: gradient(x).sum())(x)


@pytest.mark.parametrize("training", TRAINING)
@pytest.mark.parametrize("name", ["IndRNN", "LSTM"])
def test_forward_mode_is_an_error(name, training):
    layer = asymmetric(kr.cells.CELLS[name].layer(U))
    x = keras.ops.convert_to_tensor(inputs())
    with pytest.raises(RuntimeError, match='scan="keras"'):
        if TENSORFLOW:
            import tensorflow as tf

            with tf.autodiff.ForwardAccumulator(x, tf.ones_like(x)) as forward:
                y = layer(x, training=training)
            forward.jvp(y)
        else:
            import jax

            jax.jvp(lambda x: layer(x, training=training), (x,), (x,))
