"""Tools of the tests: the cases of the table, asymmetric weights, gradients on either backend."""

import inspect

import keras
import numpy as np
import pytest

from keras_rnncells.cells import CELLS

B, T, D, U = 3, 7, 4, 5

# Every cell with every variant of its equations, and every cell once.
VARIANTS = [
    pytest.param(row, arguments, id=f"{row.name}-{variant}")
    for row in CELLS.values()
    for variant, arguments in row.variants.items()
]
ROWS = [pytest.param(row, id=row.name) for row in CELLS.values()]


def inputs(*shape, seed=1, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape or (B, T, D)).astype(dtype)


def asymmetric(layer, shape=(B, T, D), seed=2, scale=0.6):
    """Builds `layer` and gives it random weights, no two alike, so that no swap goes unseen."""
    rng = np.random.default_rng(seed)
    layer.build(shape)
    layer.set_weights([scale * rng.normal(size=w.shape) for w in layer.weights])
    return layer


def numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def states_of(layer, batch=B, seed=3, dtype="float32"):
    """Random states to start from, one array a state."""
    sizes = layer.cell.state_size
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=(batch, s)).astype(dtype)
        for s in (sizes if isinstance(sizes, list) else [sizes])
    ]


def in_full_precision(row, arguments, dtype):
    """`arguments` that keep `dtype`: on JAX, Keras computes tanh of float64 in float32."""
    default = inspect.signature(row.layer).parameters["activation"].default
    tanh = arguments.get("activation", default) == "tanh"
    if tanh and keras.backend.backend() == "jax" and dtype == "float64":
        import jax

        return {**arguments, "activation": jax.numpy.tanh}
    return arguments


def gradients(layer, loss, *arrays):
    """Gradients of `loss(*arrays)`, a scalar computed by `layer`, by its weights and the arrays."""
    variables = layer.trainable_variables
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tensors = [tf.convert_to_tensor(a) for a in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = loss(*tensors)
        found = tape.gradient(
            value,
            [v.value for v in variables] + tensors,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
    else:
        import jax

        def of(values, arrays):
            mapping = zip(variables, values, strict=True)
            with keras.StatelessScope(state_mapping=mapping):
                return loss(*arrays)

        of_weights, of_arrays = jax.grad(of, argnums=(0, 1))(
            [v.value for v in variables], [jax.numpy.asarray(a) for a in arrays]
        )
        found = [*of_weights, *of_arrays]
    return [numpy(g) for g in found]


def write_mnist(folder, train=60, test=30):
    """Writes a `mnist` of noise into a folder of TFDS, in the real format; returns its arrays."""
    tfds = pytest.importorskip("tensorflow_datasets")
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(0)
    arrays = {
        split: {
            "image": rng.integers(0, 256, (n, 28, 28, 1), dtype="uint8"),
            "label": rng.integers(0, 10, n),
        }
        for split, n in {"train": train, "test": test}.items()
    }
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(28, 28, 1)),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        name="mnist",
        version="3.0.1",
        features=features,
        split_datasets={
            split: tf.data.Dataset.from_tensor_slices(a) for split, a in arrays.items()
        },
        data_dir=folder,
        disable_shuffling=True,
    )
    return arrays


def write_spoken_digit(folder, numbers=(0, 5, 10, 11)):
    """Writes a `spoken_digit` of tones into a folder of TFDS, in the real format.

    Returns its sounds by name. One speaker says each digit once for each of the numbers.
    """
    tfds = pytest.importorskip("tensorflow_datasets")
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(0)
    sounds = {}
    for digit in range(10):
        for number in numbers:
            times = np.arange(rng.integers(1200, 2400)) / 8000
            tone = np.sin(2 * np.pi * (200 + 300 * digit) * times)
            sound = 8000 * tone + 50 * rng.normal(size=len(times))
            sounds[f"{digit}_nobody_{number}.wav"] = sound.astype("int64")
    features = tfds.features.FeaturesDict(
        {
            "audio": tfds.features.Audio(file_format="wav", sample_rate=8000),
            "audio/filename": tfds.features.Text(),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
    )

    def examples():
        for name, sound in sounds.items():
            yield {"audio": sound, "audio/filename": name, "label": int(name[0])}

    dataset = tf.data.Dataset.from_generator(
        examples,
        output_signature={
            "audio": tf.TensorSpec([None], tf.int64),
            "audio/filename": tf.TensorSpec([], tf.string),
            "label": tf.TensorSpec([], tf.int64),
        },
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        name="spoken_digit",
        version="1.0.9",
        features=features,
        split_datasets={"train": dataset},
        data_dir=folder,
        disable_shuffling=True,
    )
    return sounds
