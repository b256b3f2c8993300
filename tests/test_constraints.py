import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_rnncells.constraints import MaxAbs, MemoryBound, SpectralBound

WEIGHTS = np.array([-3.0, -1.0, -0.2, -0.0, 0.0, 1e-3, 0.7, 1.0, 5.0], "float32")


def apply(constraint, weights):
    return ops.convert_to_numpy(constraint(ops.convert_to_tensor(weights)))


def round_trip(obj):
    config = keras.saving.serialize_keras_object(obj)
    return keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))


def compiled(function):
    """The function in graph mode, and compiled by XLA."""
    if keras.backend.backend() == "jax":
        import jax

        return [jax.jit(function)]
    import tensorflow as tf

    return [tf.function(function), tf.function(function, jit_compile=True)]


def skip_without_float64(dtype="float64"):
    if dtype == "float64" and keras.backend.backend() == "jax":
        import jax

        if not jax.config.jax_enable_x64:
            pytest.skip("JAX has no float64 here.")


ALL = [
    MaxAbs(0.8),
    MaxAbs(0.8, 0.25),
    MemoryBound(),
    MemoryBound(10, 3),
    SpectralBound(),
    SpectralBound(0.5, iterations=12),
]


@pytest.mark.parametrize("constraint", ALL)
def test_config_round_trip(constraint):
    copy = round_trip(constraint)
    assert type(copy) is type(constraint)
    assert copy.get_config() == constraint.get_config()
    weights = WEIGHTS.reshape(3, 3)
    np.testing.assert_array_equal(apply(copy, weights), apply(constraint, weights))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("constraint", ALL)
def test_dtype(constraint, dtype):
    skip_without_float64(dtype)
    weights = ops.convert_to_tensor(WEIGHTS.reshape(3, 3), dtype=dtype)
    result = constraint(weights)
    assert result.dtype == weights.dtype
    assert result.shape == weights.shape
    expected = apply(constraint, WEIGHTS.reshape(3, 3))
    result = ops.convert_to_numpy(ops.cast(result, "float32"))
    np.testing.assert_allclose(result, expected, rtol=1e-2)


@pytest.mark.parametrize("constraint", ALL)
def test_compiled(constraint):
    weights = ops.convert_to_tensor(WEIGHTS.reshape(3, 3))
    expected = apply(constraint, weights)
    for function in compiled(constraint):
        result = ops.convert_to_numpy(function(weights))
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("constraint", ALL)
def test_in_training(constraint):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(4, kernel_constraint=constraint)]
    )
    model.compile(keras.optimizers.SGD(10.0), "mse")
    model.fit(np.ones((4, 4)), np.full((4, 4), 100.0), epochs=2, verbose=0)
    kernel = ops.convert_to_numpy(model.layers[0].kernel)
    np.testing.assert_allclose(apply(constraint, kernel), kernel, rtol=1e-4)
    assert np.isfinite(kernel).all()


class TestMaxAbs:
    @pytest.mark.parametrize("max_abs, min_abs", [(0.5, 0), (0.5, 0.5), (2, 0.1), (0, 0)])
    def test_formula(self, max_abs, min_abs):
        sign = np.where(WEIGHTS < 0, -1, 1)
        expected = sign * np.minimum(np.maximum(np.abs(WEIGHTS), min_abs), max_abs)
        result = apply(MaxAbs(max_abs, min_abs), WEIGHTS)
        np.testing.assert_array_equal(result, expected.astype("float32"))

    def test_zero_becomes_positive(self):
        result = apply(MaxAbs(1.0, 0.1), np.array([0.0, -0.0], "float32"))
        np.testing.assert_array_equal(result, np.float32([0.1, 0.1]))

    @pytest.mark.parametrize(
        "arguments, received",
        [
            ((-1,), "max_abs=-1"),
            (("a",), "max_abs='a'"),
            ((float("nan"),), "max_abs=nan"),
            ((1, -0.5), "min_abs=-0.5"),
            ((1, None), "min_abs=None"),
            ((1, 2), "min_abs=2, max_abs=1"),
        ],
    )
    def test_wrong_arguments(self, arguments, received):
        with pytest.raises(ValueError, match=f"Received: {received}"):
            MaxAbs(*arguments)


class TestMemoryBound:
    @pytest.mark.parametrize("max_timesteps, gamma", [(None, 2.0), (None, 7), (1, 3), (100, 2.0)])
    def test_formula(self, max_timesteps, gamma):
        constraint = MemoryBound(max_timesteps, gamma)
        bound = 1.0 if max_timesteps is None else np.power(float(gamma), 1 / max_timesteps)
        assert constraint.bound == pytest.approx(bound, rel=1e-15)
        expected = np.clip(WEIGHTS, -bound, bound)
        np.testing.assert_allclose(apply(constraint, WEIGHTS), expected, rtol=1e-7)

    def test_bound_of_a_long_sequence_survives_float32(self):
        result = apply(MemoryBound(5000, 2.0), np.array([2.0, -2.0], "float32"))
        np.testing.assert_allclose(np.abs(result) - 1, 2.0 ** (1 / 5000) - 1, rtol=1e-3)

    @pytest.mark.parametrize(
        "name, value",
        [
            ("max_timesteps", 0),
            ("max_timesteps", 0.5),
            ("max_timesteps", "long"),
            ("gamma", 0.99),
            ("gamma", None),
            ("gamma", float("nan")),
        ],
    )
    def test_wrong_arguments(self, name, value):
        with pytest.raises(ValueError, match=f"Received: {name}={value!r}"):
            MemoryBound(**{name: value})


def orthogonal(rng, size):
    return np.linalg.qr(rng.normal(size=(size, size)))[0]


def with_singular_values(singular_values):
    def make(rng, size):
        middle = np.diag(singular_values(size))
        return orthogonal(rng, size) @ middle @ orthogonal(rng, size)

    return make


MATRICES = {
    "normal": lambda rng, size: rng.normal(size=(size, size)),
    "uniform": lambda rng, size: rng.uniform(-1, 1, size=(size, size)),
    "positive": lambda rng, size: rng.uniform(0, 1, size=(size, size)),
    "orthogonal": lambda rng, size: 1.7 * orthogonal(rng, size),
    "orthogonal after a step": lambda rng, size: (
        orthogonal(rng, size) + 0.01 * rng.normal(size=(size, size))
    ),
    "rank one": lambda rng, size: np.outer(rng.normal(size=size), 1 + rng.normal(size=size)),
    "identity": lambda rng, size: 3 * np.eye(size),
    "close diagonal": lambda rng, size: np.diag(1.5 + 1e-3 * np.linspace(0, 1, size)),
    "one above the rest": with_singular_values(lambda size: np.r_[1.02, np.ones(size - 1)]),
    "evenly spaced": with_singular_values(lambda size: np.linspace(0.9, 1.1, size)),
    "triangular": lambda rng, size: np.triu(np.ones((size, size))),
}


def spectral_norms(kernel):
    rows, columns = kernel.shape
    blocks = np.split(kernel, columns // rows, axis=1) if columns % rows == 0 else [kernel]
    return np.array([np.linalg.svd(block, compute_uv=False)[0] for block in blocks])


class TestSpectralBound:
    @pytest.mark.parametrize("size", [1, 2, 5, 32, 100])
    def test_norm_after_one_application(self, size):
        rng = np.random.default_rng(size)
        blocks = [make(rng, size) for make in MATRICES.values()]
        kernel = np.concatenate(blocks, axis=1).astype("float32")
        before = spectral_norms(kernel)
        after = spectral_norms(apply(SpectralBound(), kernel))
        assert dict(zip(MATRICES, after <= 1 + 1e-3, strict=True)) == dict.fromkeys(MATRICES, True)
        # Not scaled down further than needed either.
        np.testing.assert_allclose(after, np.minimum(before, 1), rtol=1e-3)

    @pytest.mark.parametrize("max_norm", [0.5, 2.0])
    def test_blocks_are_bounded_on_their_own(self, max_norm):
        rng = np.random.default_rng(0)
        scales = (0.01, 1.0, 3.0, 0.0)
        blocks = [scale * rng.normal(size=(24, 24)).astype("float32") for scale in scales]
        result = np.split(apply(SpectralBound(max_norm), np.concatenate(blocks, axis=1)), 4, axis=1)
        np.testing.assert_array_equal(result[0], blocks[0])
        np.testing.assert_array_equal(result[3], blocks[3])
        for block, bounded in zip(blocks[1:3], result[1:3], strict=True):
            expected = block * max_norm / np.linalg.svd(block, compute_uv=False)[0]
            np.testing.assert_allclose(bounded, expected, rtol=1e-3)

    @pytest.mark.parametrize("shape", [(20, 30), (30, 20), (40, 20)])
    def test_other_matrices_are_one_block(self, shape):
        kernel = np.random.default_rng(0).normal(size=shape).astype("float32")
        expected = kernel / np.linalg.svd(kernel, compute_uv=False)[0]
        np.testing.assert_allclose(apply(SpectralBound(), kernel), expected, rtol=1e-3)

    @pytest.mark.parametrize("max_norm", [1.0, 0.3, 7.0])
    def test_unchanged_below_the_bound(self, max_norm):
        kernel = np.random.default_rng(0).normal(size=(16, 48))
        kernel *= 0.999 * max_norm / spectral_norms(kernel).max()
        kernel = kernel.astype("float32")
        np.testing.assert_array_equal(apply(SpectralBound(max_norm), kernel), kernel)

    @pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-12, 1e12])
    def test_extreme_scales(self, scale):
        kernel = scale * np.random.default_rng(0).normal(size=(8, 16)).astype("float32")
        result = apply(SpectralBound(), kernel)
        if scale < 1:
            np.testing.assert_array_equal(result, kernel)
        else:
            np.testing.assert_allclose(spectral_norms(result), 1, rtol=1e-3)

    def test_float64(self):
        skip_without_float64()
        kernel = np.random.default_rng(0).normal(size=(16, 48))
        result = apply(SpectralBound(), kernel)
        assert result.dtype == "float64"
        np.testing.assert_allclose(spectral_norms(result), 1, rtol=1e-12)

    def test_same_result_at_every_call(self):
        kernel = np.random.default_rng(0).normal(size=(16, 48)).astype("float32")
        results = [apply(SpectralBound(iterations=3), kernel) for _ in range(2)]
        np.testing.assert_array_equal(*results)

    @pytest.mark.parametrize(
        "name, value",
        [
            ("max_norm", 0),
            ("max_norm", -1.0),
            ("max_norm", "one"),
            ("max_norm", float("inf")),
            ("iterations", 0),
            ("iterations", 2.5),
            ("iterations", None),
        ],
    )
    def test_wrong_arguments(self, name, value):
        with pytest.raises(ValueError, match=f"Received: {name}={value!r}"):
            SpectralBound(**{name: value})

    @pytest.mark.parametrize("shape", [(4,), (2, 3, 3)])
    def test_wrong_shape(self, shape):
        with pytest.raises(ValueError, match="Received: a weight of shape"):
            SpectralBound()(ops.ones(shape))
