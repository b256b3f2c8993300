import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_rnncells.constraints import MemoryBound
from keras_rnncells.initializers import (
    ChronoBias,
    MemoryUniform,
    PerGate,
    PositiveDefinite,
    RandomWalk,
    ScaledIdentity,
)


def values(initializer, shape, dtype="float32"):
    return ops.convert_to_numpy(ops.cast(initializer(shape, dtype=dtype), "float32"))


def round_trip(obj):
    config = keras.saving.serialize_keras_object(obj)
    return keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))


def skip_without_float64(dtype="float64"):
    if dtype == "float64" and keras.backend.backend() == "jax":
        import jax

        if not jax.config.jax_enable_x64:
            pytest.skip("JAX has no float64 here.")


RANDOM = [
    (lambda seed: PositiveDefinite(seed=seed), (6, 12)),
    (lambda seed: RandomWalk("tanh", seed=seed), (6, 12)),
    (lambda seed: RandomWalk(gain=0.5, seed=seed), (6, 12)),
    (lambda seed: MemoryUniform(seed=seed), (12,)),
    (lambda seed: MemoryUniform(100, 3.0, "long", seed=seed), (12,)),
    (lambda seed: ChronoBias(50, seed=seed), (12,)),
    (lambda seed: ChronoBias(50, gates="frc", seed=seed), (2, 12)),
    (lambda seed: PerGate(keras.initializers.GlorotUniform(seed), 3), (6, 12)),
]
FIXED = [
    (ScaledIdentity(0.3), (4, 8)),
    (PerGate(["ones", 2, ScaledIdentity(3.0)], 3), (4, 12)),
    (PerGate(0.5, 2), (4,)),
]


@pytest.mark.parametrize("make, shape", RANDOM)
def test_seed(make, shape):
    first = values(make(1), shape)
    seeded = make(1)
    np.testing.assert_array_equal(values(seeded, shape), first)
    np.testing.assert_array_equal(values(seeded, shape), first)
    assert np.abs(values(make(2), shape) - first).max() > 1e-4
    unseeded = make(None)
    np.testing.assert_array_equal(values(unseeded, shape), values(unseeded, shape))
    assert np.abs(values(make(None), shape) - values(unseeded, shape)).max() > 1e-4


@pytest.mark.parametrize("make, shape", RANDOM)
def test_seed_generator(make, shape):
    initializer = make(keras.random.SeedGenerator(3))
    assert np.abs(values(initializer, shape) - values(initializer, shape)).max() > 1e-4


@pytest.mark.parametrize("make", [make for make, _ in RANDOM])
def test_wrong_seed(make):
    with pytest.raises(ValueError, match="seed=half"):
        make("half")


@pytest.mark.parametrize("initializer, shape", FIXED + [(make(5), s) for make, s in RANDOM])
def test_config_round_trip(initializer, shape):
    copy = round_trip(initializer)
    assert type(copy) is type(initializer)
    assert copy.get_config() == initializer.get_config()
    np.testing.assert_array_equal(values(copy, shape), values(initializer, shape))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", None])
@pytest.mark.parametrize("initializer, shape", FIXED + [(make(5), s) for make, s in RANDOM])
def test_dtype_and_shape(initializer, shape, dtype):
    skip_without_float64(dtype)
    result = initializer(shape, dtype=dtype)
    assert keras.backend.standardize_dtype(result.dtype) == (dtype or "float32")
    assert tuple(result.shape) == shape
    if isinstance(initializer, PerGate) or dtype == "float64":
        return  # Keras draws other values for other dtypes.
    np.testing.assert_allclose(
        values(initializer, shape, dtype), values(initializer, shape), rtol=1e-2
    )


@pytest.mark.parametrize("initializer, shape", FIXED + [(make(5), s) for make, s in RANDOM])
def test_in_a_layer(initializer, shape):
    layer = keras.layers.Layer()
    weight = layer.add_weight(shape=shape, initializer=initializer)
    np.testing.assert_array_equal(ops.convert_to_numpy(weight), values(initializer, shape))


class TestScaledIdentity:
    @pytest.mark.parametrize("blocks", [1, 2, 4])
    def test_fused_kernel(self, blocks):
        expected = np.concatenate([0.5 * np.eye(3)] * blocks, axis=1)
        np.testing.assert_array_equal(values(ScaledIdentity(0.5), (3, 3 * blocks)), expected)

    def test_keras_identity_fills_the_first_block_only(self):
        kernel = values(keras.initializers.Identity(), (3, 6))
        np.testing.assert_array_equal(kernel[:, 3:], 0)
        np.testing.assert_array_equal(values(ScaledIdentity(), (3, 6))[:, 3:], np.eye(3))

    @pytest.mark.parametrize("shape", [(2, 3), (6, 3), (4, 6)])
    def test_other_matrix(self, shape):
        np.testing.assert_array_equal(values(ScaledIdentity(2.0), shape), 2 * np.eye(*shape))

    def test_diagonal(self):
        np.testing.assert_array_equal(values(ScaledIdentity(-0.5), (3,)), [-0.5] * 3)

    @pytest.mark.parametrize("gain", ["big", None, float("nan"), float("inf")])
    def test_wrong_gain(self, gain):
        with pytest.raises(ValueError, match=f"gain={gain!r}"):
            ScaledIdentity(gain)

    @pytest.mark.parametrize("shape", [(), (2, 2, 2)])
    def test_wrong_shape(self, shape):
        with pytest.raises(ValueError, match="Received: shape="):
            ScaledIdentity()(shape)


class TestPerGate:
    def test_one_seed_differs_between_gates(self):
        kernel = values(PerGate(keras.initializers.Orthogonal(seed=7), 3), (4, 12))
        for gate, block in enumerate(np.split(kernel, 3, axis=1)):
            alone = values(keras.initializers.Orthogonal(seed=7 + gate), (4, 4))
            np.testing.assert_array_equal(block, alone)
            np.testing.assert_allclose(block @ block.T, np.eye(4), atol=1e-5)

    def test_unseeded_differs_between_gates(self):
        first, second = np.split(values(PerGate("glorot_uniform", 2), (4, 8)), 2, axis=1)
        assert np.abs(first - second).max() > 1e-3

    def test_fan_of_one_gate(self):
        kernel = values(PerGate(keras.initializers.GlorotUniform(seed=0), 4), (50, 200))
        limit = np.sqrt(6 / (50 + 50))
        assert 0.98 * limit < np.abs(kernel).max() <= limit

    def test_list(self):
        bias = values(PerGate(("zeros", 1, -0.5, keras.initializers.Ones()), 4), (8,))
        np.testing.assert_array_equal(bias, [0, 0, 1, 1, -0.5, -0.5, 1, 1])

    def test_items_of_a_list_keep_their_seed(self):
        items = [keras.initializers.RandomNormal(seed=3)] * 2
        first, second = np.split(values(PerGate(items, 2), (8,)), 2)
        np.testing.assert_array_equal(first, second)

    def test_rank_of_bias_with_two_rows(self):
        expected = [[1, 1, 2, 2], [1, 1, 2, 2]]
        np.testing.assert_array_equal(values(PerGate([1, 2], 2), (2, 4)), expected)

    def test_callable(self):
        bias = values(PerGate(lambda shape, dtype=None: ops.ones(shape, dtype), 2), (4,))
        np.testing.assert_array_equal(bias, 1)

    def test_gate_initializers_of_this_package(self):
        kernel = values(PerGate(PositiveDefinite(seed=1), 2), (5, 10))
        np.testing.assert_array_equal(kernel[:, :5], values(PositiveDefinite(seed=1), (5, 5)))
        np.testing.assert_array_equal(kernel[:, 5:], values(PositiveDefinite(seed=2), (5, 5)))

    @pytest.mark.parametrize("gates", [0, -1, 2.0, "4", None])
    def test_wrong_gates(self, gates):
        with pytest.raises(ValueError, match=f"gates={gates!r}"):
            PerGate("zeros", gates)

    def test_wrong_length(self):
        with pytest.raises(ValueError, match="the 3 gates.*of length 2"):
            PerGate(["zeros", "ones"], 3)

    @pytest.mark.parametrize("initializer", [None, ["zeros", None]])
    def test_none(self, initializer):
        with pytest.raises(ValueError, match="Received: None"):
            PerGate(initializer, 2)

    def test_unknown_initializer(self):
        with pytest.raises(ValueError, match="no_such_thing"):
            PerGate("no_such_thing", 2)

    def test_last_axis(self):
        with pytest.raises(ValueError, match=r"multiple of 3.*shape=\(4, 8\)"):
            PerGate("zeros", 3)((4, 8))


class TestPositiveDefinite:
    @pytest.mark.parametrize("size, blocks", [(1, 1), (2, 3), (16, 1), (64, 2)])
    def test_eigenvalues(self, size, blocks):
        kernel = values(PositiveDefinite(seed=4), (size, size * blocks))
        for block in np.split(kernel, blocks, axis=1):
            np.testing.assert_allclose(block, block.T, atol=1e-6)
            eigenvalues = np.linalg.eigvalsh(block)
            np.testing.assert_allclose(eigenvalues[-1], 1, rtol=1e-5)
            assert eigenvalues[0] > 0
            assert (eigenvalues[:-1] < 1).all()

    def test_formula(self):
        root = keras.random.normal((1, 9, 9), seed=4)
        root = ops.convert_to_numpy(root)[0].astype("float64")
        matrix = root.T @ root / 9 + np.eye(9)
        expected = matrix / np.linalg.eigvalsh(matrix)[-1]
        np.testing.assert_allclose(values(PositiveDefinite(seed=4), (9, 9)), expected, atol=1e-6)

    def test_float64(self):
        skip_without_float64()
        kernel = ops.convert_to_numpy(PositiveDefinite(seed=4)((16, 16), dtype="float64"))
        np.testing.assert_allclose(np.linalg.eigvalsh(kernel)[-1], 1, rtol=1e-12)

    def test_blocks_differ(self):
        first, second = np.split(values(PositiveDefinite(seed=4), (8, 16)), 2, axis=1)
        assert np.abs(first - second).max() > 1e-2

    @pytest.mark.parametrize("shape", [(4,), (4, 6), (6, 4), (2, 4, 4)])
    def test_wrong_shape(self, shape):
        with pytest.raises(ValueError, match=r"\(N, k \* N\)\. Received: shape="):
            PositiveDefinite()(shape)


class TestRandomWalk:
    @pytest.mark.parametrize(
        "activation, rows, gain",
        [
            ("relu", 64, 1.4420),
            ("relu", 100, 1.4317),
            ("relu", 128, 1.4278),
            ("relu", 256, 1.4209),
            ("relu", 512, 1.4175),
            ("relu", 2, np.sqrt(2) * np.exp(1.2 / 3.6)),
            ("linear", 64, np.exp(1 / 128)),
            ("tanh", 64, 1.2),
        ],
    )
    def test_gain(self, activation, rows, gain):
        scaled = values(RandomWalk(activation, seed=3), (rows, 8))
        unit = values(RandomWalk(activation, gain=1.0, seed=3), (rows, 8))
        np.testing.assert_allclose(scaled / unit, gain, rtol=5e-5)

    @pytest.mark.parametrize("columns", [100, 300])
    def test_scale_comes_from_the_rows(self, columns):
        kernel = values(RandomWalk("tanh", seed=3), (100, columns))
        assert abs(kernel.mean()) < 0.01
        np.testing.assert_allclose(kernel.std(), 1.2 / 10, rtol=0.03)

    @pytest.mark.parametrize("activation", ["gelu", None, 3])
    def test_wrong_activation(self, activation):
        with pytest.raises(ValueError, match=f"'relu', 'tanh'.*activation={activation!r}"):
            RandomWalk(activation)

    @pytest.mark.parametrize("gain", [-1, "x", float("nan")])
    def test_wrong_gain(self, gain):
        with pytest.raises(ValueError, match=f"gain={gain!r}"):
            RandomWalk(gain=gain)

    @pytest.mark.parametrize("shape", [(4,), (2, 4, 4)])
    def test_wrong_shape(self, shape):
        with pytest.raises(ValueError, match="Received: shape="):
            RandomWalk()(shape)


class TestMemoryUniform:
    @pytest.mark.parametrize("max_timesteps, gamma", [(None, 2.0), (1, 3), (10, 2.0), (784, 2.0)])
    def test_range(self, max_timesteps, gamma):
        bound = 1.0 if max_timesteps is None else gamma ** (1 / max_timesteps)
        weights = values(MemoryUniform(max_timesteps, gamma, seed=0), (2000,))
        assert weights.min() >= 0
        assert weights.max() <= np.float32(bound)
        np.testing.assert_allclose(weights.min(), 0, atol=0.01 * bound)
        np.testing.assert_allclose(weights.max(), bound, rtol=0.01)
        np.testing.assert_allclose(weights.mean(), bound / 2, rtol=0.05)

    @pytest.mark.parametrize("max_timesteps, gamma", [(1, 3), (10, 2.0), (5000, 2.0)])
    def test_long(self, max_timesteps, gamma):
        bound = gamma ** (1 / max_timesteps)
        weights = values(MemoryUniform(max_timesteps, gamma, "long", seed=0), (2000,))
        width = bound - 1 / bound
        np.testing.assert_allclose(weights.min(), 1 / bound, rtol=0, atol=0.01 * width)
        np.testing.assert_allclose(weights.max(), bound, rtol=0, atol=0.01 * width)

    @pytest.mark.parametrize("arguments", [{}, {"max_timesteps": 20, "gamma": 1}])
    def test_long_without_growth_is_one(self, arguments):
        weights = values(MemoryUniform(**arguments, memory="long"), (5,))
        np.testing.assert_array_equal(weights, 1)

    @pytest.mark.parametrize("arguments", [(), (1,), (784,), (5000, 1.5)])
    def test_bound_of_the_constraint(self, arguments):
        assert MemoryUniform(*arguments).bound == MemoryBound(*arguments).bound

    @pytest.mark.parametrize(
        "name, value",
        [
            ("max_timesteps", 0),
            ("max_timesteps", -5),
            ("max_timesteps", "many"),
            ("gamma", 0.5),
            ("gamma", float("inf")),
            ("memory", "short"),
            ("memory", True),
        ],
    )
    def test_wrong_arguments(self, name, value):
        with pytest.raises(ValueError, match=f"Received: {name}={value!r}"):
            MemoryUniform(**{name: value})


class TestChronoBias:
    @pytest.mark.parametrize("gates", ["ifco", "frc", "f", "fi", "cfi", "iofrc"])
    @pytest.mark.parametrize("rows", [None, 2])
    def test_blocks(self, gates, rows):
        units = 7
        shape = (units * len(gates),) if rows is None else (rows, units * len(gates))
        bias = values(ChronoBias(30, gates, seed=2), shape)
        if rows:
            np.testing.assert_array_equal(bias[1], 0)
            bias = bias[0]
        blocks = np.split(bias, len(gates))
        keep = blocks[gates.index("f")]
        steps = ops.convert_to_numpy(keras.random.uniform((units,), 1, 29, seed=2))
        np.testing.assert_allclose(keep, np.log(steps), rtol=1e-5)
        for gate, block in zip(gates, blocks, strict=True):
            expected = {"f": keep, "i": -keep}.get(gate, np.zeros(units))
            np.testing.assert_array_equal(block, expected)

    @pytest.mark.parametrize("max_timesteps", [3, 100, 784])
    def test_range(self, max_timesteps):
        steps = np.exp(values(ChronoBias(max_timesteps, "f", seed=2), (2000,)))
        width = max_timesteps - 2
        np.testing.assert_allclose(steps.min(), 1, atol=0.01 * width)
        np.testing.assert_allclose(steps.max(), max_timesteps - 1, atol=0.01 * width)
        np.testing.assert_allclose(steps.mean(), max_timesteps / 2, rtol=0.05)

    @pytest.mark.parametrize(
        "layer, gates, keep",
        [
            (lambda bias: keras.layers.LSTM(3, bias_initializer=bias), None, None),
            (
                lambda bias: keras.layers.LSTM(3, bias_initializer=bias, unit_forget_bias=False),
                "ifco",
                np.s_[3:6],
            ),
            (lambda bias: keras.layers.GRU(3, bias_initializer=bias), "frc", np.s_[0, :3]),
        ],
    )
    def test_layers_of_keras(self, layer, gates, keep):
        initializer = ChronoBias(40, gates or "ifco", seed=2)
        layer = layer(initializer)
        if gates is None:  # With `unit_forget_bias` Keras asks for parts of the bias.
            with pytest.raises(ValueError, match=r"shape=\(3,\)"):
                layer.build((None, 5, 2))
            return
        layer.build((None, 5, 2))
        bias = ops.convert_to_numpy(layer.weights[-1])
        np.testing.assert_array_equal(bias, values(initializer, bias.shape))
        assert (bias[keep] > 0).all()

    @pytest.mark.parametrize("max_timesteps", [2, 1, -3, "many", None, float("nan")])
    def test_wrong_max_timesteps(self, max_timesteps):
        with pytest.raises(ValueError, match=f"max_timesteps={max_timesteps!r}"):
            ChronoBias(max_timesteps)

    @pytest.mark.parametrize("gates", ["", "ico", "ffco", "ifxo", None, ["f", "i"]])
    def test_wrong_gates(self, gates):
        with pytest.raises(ValueError, match="exactly one f. Received: gates="):
            ChronoBias(10, gates)

    @pytest.mark.parametrize("shape", [(10,), (3, 8), (2, 10), (2, 2, 8), ()])
    def test_wrong_shape(self, shape):
        with pytest.raises(ValueError, match=r"\(4 \* U,\).*Received: shape="):
            ChronoBias(10)(shape)
