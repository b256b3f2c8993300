import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_rnncells.constraints import MemoryBound
from keras_rnncells.regularizers import MemoryPenalty, NormStabilizer


def value(regularizer, x):
    return float(ops.convert_to_numpy(regularizer(ops.convert_to_tensor(x))))


def gradient(function, x):
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(function)(ops.convert_to_tensor(x)))
    import tensorflow as tf

    x = tf.Variable(x)
    with tf.GradientTape() as tape:
        result = function(x)
    return tape.gradient(result, x).numpy()


def round_trip(obj):
    config = keras.saving.serialize_keras_object(obj)
    return keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))


def states(batch=3, steps=5, units=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, steps, units)).astype("float32")


@pytest.mark.parametrize(
    "regularizer", [NormStabilizer(50.0), MemoryPenalty(), MemoryPenalty(0.5, 2.0)]
)
def test_config_round_trip(regularizer):
    copy = round_trip(regularizer)
    assert type(copy) is type(regularizer)
    assert copy.get_config() == regularizer.get_config()
    assert value(copy, states()) == value(regularizer, states()) > 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("regularizer", [NormStabilizer(50.0), MemoryPenalty()])
def test_half_precision_is_summed_in_float32(regularizer, dtype):
    x = np.ones((64, 50, 4), "float32")
    x[:, ::2] = 40.0  # The sum of squares is beyond the range of float16.
    result = regularizer(ops.convert_to_tensor(x, dtype=dtype))
    assert keras.backend.standardize_dtype(result.dtype) == "float32"
    np.testing.assert_allclose(float(result), value(regularizer, x), rtol=1e-5)


@pytest.mark.parametrize("regularizer", [NormStabilizer(50.0), MemoryPenalty()])
def test_float64_stays(regularizer):
    if keras.backend.backend() == "jax":
        import jax

        if not jax.config.jax_enable_x64:
            pytest.skip("JAX has no float64 here.")
    result = regularizer(ops.convert_to_tensor(states(), dtype="float64"))
    assert keras.backend.standardize_dtype(result.dtype) == "float64"


class TestNormStabilizer:
    @pytest.mark.parametrize("batch, steps, units", [(1, 1, 3), (1, 2, 3), (4, 7, 5)])
    def test_formula(self, batch, steps, units):
        h = states(batch, steps, units)
        expected = 0.0
        for sequence in h.astype("float64"):
            for t in range(1, steps):
                change = np.linalg.norm(sequence[t]) - np.linalg.norm(sequence[t - 1])
                expected += 3.0 / steps * change**2
        np.testing.assert_allclose(value(NormStabilizer(3.0), h), expected, rtol=1e-5)

    def test_rotation_is_free(self):
        angles = np.linspace(0, 3, 20)
        h = np.stack([np.cos(angles), np.sin(angles)], axis=-1)[None].astype("float32")
        np.testing.assert_allclose(value(NormStabilizer(1.0), h), 0, atol=1e-10)

    def test_gradient(self):
        h = states(2, 3, 2)
        step = 1e-3
        expected = np.zeros_like(h)
        for index in np.ndindex(*h.shape):
            up, down = h.copy(), h.copy()
            up[index] += step
            down[index] -= step
            difference = value(NormStabilizer(1.0), up) - value(NormStabilizer(1.0), down)
            expected[index] = difference / (2 * step)
        np.testing.assert_allclose(gradient(NormStabilizer(1.0), h), expected, atol=2e-3)

    def test_gradient_is_finite_at_zero_states(self):
        h = np.maximum(states(), 0)
        h[0] = 0
        h[:, 2] = 0
        h[1, 3] = 1e-30
        slope = gradient(NormStabilizer(1.0), h)
        assert np.isfinite(slope).all()
        np.testing.assert_array_equal(slope[0], 0)
        np.testing.assert_array_equal(slope[:, 2], 0)
        assert np.abs(slope).max() > 0

    @pytest.mark.parametrize("batch", [1, 4])
    def test_on_a_layer(self, batch):
        layer = keras.layers.RNN(
            keras.layers.SimpleRNNCell(3),
            return_sequences=True,
            activity_regularizer=NormStabilizer(2.0),
        )
        output = layer(states(batch))
        expected = value(NormStabilizer(2.0), output)
        version = tuple(int(part) for part in keras.__version__.split(".")[:2])
        if version >= (3, 14):
            expected /= batch
        np.testing.assert_allclose(float(layer.losses[0]), expected, rtol=1e-5)

    def test_masked_steps_are_free(self):
        layer = keras.layers.SimpleRNN(3, return_sequences=True)
        x = states(1, 6)
        mask = np.array([[True] * 4 + [False] * 2])
        full = value(NormStabilizer(1.0), layer(x[:, :4])) * 4
        masked = value(NormStabilizer(1.0), layer(x, mask=mask)) * 6
        np.testing.assert_allclose(masked, full, rtol=1e-5)

    def test_training_with_relu_and_unknown_length(self):
        model = keras.Sequential(
            [
                keras.Input((None, 2)),
                keras.layers.RNN(
                    keras.layers.SimpleRNNCell(3, activation="relu"),
                    return_sequences=True,
                    activity_regularizer=NormStabilizer(1.0),
                ),
            ]
        )
        model.compile("sgd", "mse")
        x = states(4, 5, 2)
        x[0] = 0
        model.fit(x, np.ones((4, 5, 3)), epochs=2, verbose=0)
        for weight in model.get_weights():
            assert np.isfinite(weight).all()

    @pytest.mark.parametrize("shape", [(3,), (3, 4), (2, 3, 4, 5)])
    def test_wrong_rank(self, shape):
        with pytest.raises(ValueError, match="Received: shape .*return_sequences=True"):
            NormStabilizer(1.0)(ops.ones(shape))

    @pytest.mark.parametrize("beta", [-1, "strong", None, float("nan")])
    def test_wrong_beta(self, beta):
        with pytest.raises(ValueError, match=f"Received: beta={beta!r}"):
            NormStabilizer(beta)


class TestMemoryPenalty:
    @pytest.mark.parametrize("bound, rate", [(1.0, 0.01), (0, 1), (0.5, 3.0)])
    @pytest.mark.parametrize("shape", [(6,), (3, 4)])
    def test_formula(self, bound, rate, shape):
        u = 2 * np.random.default_rng(0).normal(size=shape).astype("float32")
        expected = rate * np.linalg.norm(np.maximum(np.abs(u) - bound, 0))
        assert expected > 0
        np.testing.assert_allclose(value(MemoryPenalty(bound, rate), u), expected, rtol=1e-5)

    def test_zero_within_the_bound(self):
        u = np.array([-1.0, 0.0, 0.5, 1.0], "float32")
        assert value(MemoryPenalty(), u) == 0
        np.testing.assert_array_equal(gradient(MemoryPenalty(), u), 0)

    def test_gradient_above_the_bound(self):
        u = np.array([-4.0, 0.5, 5.0], "float32")  # 3 and 4 above, 5 together
        slope = gradient(MemoryPenalty(1.0, 2.0), u)
        np.testing.assert_allclose(slope, [-2 * 3 / 5, 0, 2 * 4 / 5], rtol=1e-6)

    def test_zero_where_the_constraint_holds(self):
        constraint = MemoryBound(20)
        u = constraint(ops.convert_to_tensor(np.linspace(-2, 2, 21).astype("float32")))
        assert value(MemoryPenalty(constraint.bound, 1.0), u) < 1e-6

    def test_on_a_weight(self):
        layer = keras.layers.Dense(2, kernel_regularizer=MemoryPenalty(1.0, 1.0))
        layer.build((None, 2))
        layer.kernel.assign([[4.0, 0.0], [0.0, -5.0]])
        np.testing.assert_allclose(float(layer.losses[0]), 5.0, rtol=1e-6)

    @pytest.mark.parametrize("name, wrong", [("bound", -0.1), ("rate", -1), ("rate", "high")])
    def test_wrong_arguments(self, name, wrong):
        with pytest.raises(ValueError, match=f"Received: {name}={wrong!r}"):
            MemoryPenalty(**{name: wrong})
