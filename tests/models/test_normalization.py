"""Normalization with statistics of each step, against NumPy."""

import keras
import numpy as np
import pytest

from keras_rnncells.models import StepBatchNormalization
from tests.tools import gradients, inputs, numpy

B, S, D = 6, 5, 3
EPSILON = 1e-3


def layer(**options):
    made = StepBatchNormalization(S, momentum=0.7, epsilon=EPSILON, **options)
    made.build((None, None, D))
    rng = np.random.default_rng(4)
    gamma, beta, mean, variance = (rng.normal(size=w.shape) for w in made.weights)
    made.set_weights([gamma, beta, mean, 0.5 + variance**2])
    return made


def by_steps(x, weights):
    """Inference, one step after the other."""
    gamma, beta, mean, variance = (w.astype("float64") for w in weights)
    out = np.empty(x.shape)
    for t in range(x.shape[1]):
        s = min(t, S - 1)
        out[:, t] = gamma * (x[:, t] - mean[s]) / np.sqrt(variance[s] + EPSILON) + beta
    return out


def trained(x, mask, weights):
    """Outputs in training, and the weights after it."""
    gamma, beta, *running = (w.astype("float64") for w in weights)
    running = [r.copy() for r in running]
    out = np.empty(x.shape)
    for t in range(x.shape[1]):
        real = x[mask[:, t], t]
        if not len(real):
            out[:, t] = np.nan
            continue
        statistics = real.mean(axis=0), real.var(axis=0)
        out[:, t] = gamma * (x[:, t] - statistics[0]) / np.sqrt(statistics[1] + EPSILON) + beta
        if t < S:
            for r, value in zip(running, statistics, strict=True):
                r[t] = 0.7 * r[t] + 0.3 * value
    return out, [gamma, beta, *running]


@pytest.mark.parametrize("steps", [3, S, 8])
def test_against_numpy(steps):
    x = inputs(B, steps, D) * np.arange(1, steps + 1)[:, None]
    x = x.astype("float32")
    made = layer()
    start = made.get_weights()
    np.testing.assert_allclose(numpy(made(x)), by_steps(x, start), atol=2e-5)
    for w, before in zip(made.get_weights(), start, strict=True):
        np.testing.assert_array_equal(w, before)

    expected, after = trained(x, np.ones((B, steps), bool), start)
    np.testing.assert_allclose(numpy(made(x, training=True)), expected, atol=2e-5)
    for w, value in zip(made.get_weights(), after, strict=True):
        np.testing.assert_allclose(w, value, atol=2e-5)


def test_masked_steps_do_not_count():
    x = inputs(B, S, D)
    mask = np.random.default_rng(7).random((B, S)) < 0.6
    mask[:, 2] = False
    mask[0, [0, 1, 3, 4]] = True
    made = layer()
    expected, after = trained(x, mask, made.get_weights())
    found = numpy(made(x, training=True, mask=mask))
    real = [0, 1, 3, 4]
    np.testing.assert_allclose(found[:, real], expected[:, real], atol=1e-4)
    assert np.isfinite(found).all()
    for w, value in zip(made.get_weights(), after, strict=True):
        np.testing.assert_allclose(w, value, atol=2e-5)


def test_frozen():
    x = inputs(B, S, D)
    made = layer()
    made.trainable = False
    np.testing.assert_allclose(
        numpy(made(x, training=True)), by_steps(x, made.get_weights()), atol=2e-5
    )


def test_in_a_model_of_unknown_length(tmp_path):
    """Shorter and longer sequences than there are statistics for, in a plain and a compiled fit."""
    x = {steps: inputs(B, steps, D) for steps in (3, 7)}
    found = []
    for jit in (False, True):
        made = layer()
        model = keras.Sequential([keras.Input((None, D)), made])
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit)
        for part in x.values():
            model.train_on_batch(part, part)
        found.append(made.get_weights())
        _, after = trained(x[3], np.ones((B, 3), bool), layer().get_weights())
        _, after = trained(x[7], np.ones((B, 7), bool), after)
        for w, value in zip(made.get_weights()[2:], after[2:], strict=True):
            np.testing.assert_allclose(w, value, atol=2e-5)
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    assert not np.allclose(found[0][0], layer().get_weights()[0]), "gamma learns"
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(numpy(loaded(x[7])), numpy(model(x[7])), atol=1e-6)
    assert loaded.layers[0].get_config() == made.get_config()


def test_gradient_goes_through_the_statistics():
    x, factors = inputs(B, S, D), inputs(B, S, D, seed=2)
    made = layer()
    weights, everywhere = made.get_weights(), np.ones((B, S), bool)
    *_, found = gradients(made, lambda x: keras.ops.sum(factors * made(x, training=True)), x)
    expected, step = np.empty(x.shape), 1e-5
    for place in np.ndindex(x.shape):
        sides = []
        for sign in (1, -1):
            moved = x.astype("float64")
            moved[place] += sign * step
            sides.append((factors * trained(moved, everywhere, weights)[0]).sum())
        expected[place] = (sides[0] - sides[1]) / (2 * step)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_half_precision():
    """The statistics too would be of three digits, and far from zero no statistics at all."""
    made = StepBatchNormalization(S, dtype="mixed_bfloat16")
    x = keras.ops.cast(30 + inputs(64, S, D), "bfloat16")
    y = made(x, training=True)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    x = numpy(keras.ops.cast(x, "float64"))
    np.testing.assert_allclose(numpy(made.moving_mean), 0.1 * x.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(numpy(made.moving_variance), 0.9 + 0.1 * x.var(axis=0), rtol=1e-4)


@pytest.mark.parametrize(
    "arguments, name",
    [((0,), "timesteps"), ((3, 2.0), "momentum"), ((3, -1), "momentum"), ((3, 0.9, -1), "epsilon")],
)
def test_errors(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        StepBatchNormalization(*arguments)


def test_one_step_is_no_sequence():
    with pytest.raises(ValueError, match=r"\[batch, time, features\]"):
        StepBatchNormalization(3)(inputs(B, D))
