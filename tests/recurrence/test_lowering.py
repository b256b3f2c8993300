"""On JAX, every cell lowers for CPU, GPU and TPU, and what was lowered computes the same.

Lowered, not compiled: without an accelerator, a test can tell that the program for it exists, and
that it holds nothing which only one kind of device knows.
"""

import re

import keras
import numpy as np
import pytest

from keras_rnncells.cells import CELLS
from keras_rnncells.recurrence import SCANS
from tests.tools import ROWS, B, D, T, U, asymmetric, gradients, inputs, numpy

PLATFORMS = ("cpu", "cuda", "tpu")
# Control flow, and calls of what a platform may lack.
CONSTRUCTS = re.compile(r"\b(?:stablehlo|chlo|mhlo)\.(while|case|if|custom_call|composite)\b")

CASES = [
    pytest.param(*row.values, scan, id=f"{row.id}-{scan}")
    for row in ROWS
    for scan in SCANS
    if scan == "sequential" or (scan == "parallel" and row.values[0] is CELLS["IndRNN"])
]
pytestmark = [
    pytest.mark.skipif(
        keras.backend.backend() != "jax", reason="only JAX lowers for a device that is not there"
    ),
    pytest.mark.parametrize("training", [False, True], ids=["inference", "training"]),
    pytest.mark.parametrize("row, scan", CASES),
]


def mean_square(outputs):
    return keras.ops.mean(outputs * outputs)


def function(layer, training):
    """The inference call, or the loss and all gradients, of the weights and the inputs."""
    import jax

    def call(weights, x):
        return layer.stateless_call(weights, [], x, training=training)[0]

    def loss(weights, x):
        return mean_square(call(weights, x))

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)) if training else call)


def export(layer, training, shape, platforms=PLATFORMS):
    import jax

    weights = [jax.ShapeDtypeStruct(w.shape, w.dtype) for w in layer.trainable_variables]
    x = jax.ShapeDtypeStruct(shape, "float32")
    exported = jax.export.export(function(layer, training), platforms=platforms)(weights, x)
    assert exported.platforms == tuple(platforms)
    return exported


def test_each_platform_gets_plain_operations(row, scan, training):
    layer = asymmetric(row.layer(U, return_sequences=True, scan=scan))
    for platform in PLATFORMS:
        module = export(layer, training, (B, T, D), [platform]).mlir_module()
        constructs = CONSTRUCTS.findall(module)
        if scan == "sequential":  # one loop forward and one backward
            assert constructs == ["while"] * (2 if training else 1)
        else:  # a scan, and the loop for where it fails
            assert set(constructs) <= {"while", "case"}
        assert "f64" not in module


def test_one_program_for_all_platforms_and_batch_sizes_computes_the_same(row, scan, training):
    import jax

    layer = asymmetric(row.layer(U, return_sequences=True, scan=scan))
    exported = export(layer, training, jax.export.symbolic_shape(f"batch, {T}, {D}"))
    batch, *sizes = exported.in_avals[-1].shape
    assert jax.export.is_symbolic_dim(batch) and sizes == [T, D]

    def loss(x):
        return mean_square(layer(x, training=True))

    x = inputs()
    found = exported.call([w.value for w in layer.trainable_variables], jax.numpy.asarray(x))
    expected = [loss(x), *gradients(layer, loss, x)] if training else [layer(x)]
    for f, e in zip(jax.tree.leaves(found), expected, strict=True):
        assert np.abs(numpy(e)).max() > 1e-4
        np.testing.assert_allclose(numpy(f), numpy(e), rtol=1e-5, atol=1e-7)
