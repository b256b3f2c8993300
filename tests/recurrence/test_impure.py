"""A step that depends on more than the fused loop is given goes through Keras' loop."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_rnncells as kr
from tests.recurrence.test_sequential import TENSORFLOW, TRAINING, fused, ours_only  # noqa: F401
from tests.tools import U, asymmetric, gradients, inputs, numpy


class ScaledCell(kr.ElmanRNNCell):
    """Multiplies each state by something that is not a weight of its own."""

    scale = 1.0

    def update(self, projected, recurrent, states):
        return [ops.tanh(projected + recurrent) * self.scale]


@ours_only
@pytest.mark.parametrize("training", [True, False])
def test_a_variable_of_others_gets_its_gradient(fused, training):  # noqa: F811
    import tensorflow as tf

    scale = tf.Variable(0.5 * np.ones(U, "float32"))
    found = []
    for scan in ("auto", "keras"):
        cell = ScaledCell(U)
        cell._tracker.unlock()
        object.__setattr__(cell, "scale", scale)
        layer = asymmetric(kr.RNN(cell, scan=scan))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(inputs(), training=training) ** 2)
        found.append(tape.gradient(loss, scale).numpy())
    assert np.abs(found[0]).min() > 0
    np.testing.assert_allclose(*found, rtol=1e-5)
    assert fused["declined"] == 1


@ours_only
@pytest.mark.parametrize("training", [True, False])
def test_a_tensor_from_outside_gets_its_gradient(fused, training):  # noqa: F811
    """Such as one that a layer around it computed."""
    import tensorflow as tf

    cell = ScaledCell(U)
    layer = asymmetric(kr.RNN(cell))

    @tf.function
    def gradient(scale):
        with tf.GradientTape() as tape:
            tape.watch(scale)
            object.__setattr__(cell, "scale", 2.0 * scale)
            loss = tf.reduce_sum(layer(inputs(), training=training) ** 2)
        return loss, tape.gradient(loss, scale)

    at, step = tf.constant(0.3 * np.ones(U, "float32")), 1e-2
    _, found = gradient(at)
    sides = [gradient(at + sign * step)[0] for sign in (1, -1)]
    numeric = (sides[0] - sides[1]) / (2 * step)
    np.testing.assert_allclose(tf.reduce_sum(found), numeric, rtol=1e-2)
    assert fused["declined"] == 1 and fused["done"] == 0


@pytest.mark.skipif(TENSORFLOW, reason="its twin is above")
def test_an_array_from_outside_gets_its_gradient(fused):  # noqa: F811
    import jax

    cell = ScaledCell(U)
    layer = asymmetric(kr.RNN(cell))

    def loss(scale):
        object.__setattr__(cell, "scale", 2.0 * scale)
        return (layer(inputs(), training=True) ** 2).sum()

    at, step = 0.3 * np.ones(U, "float32"), 1e-2
    found = jax.grad(loss)(at)
    numeric = (loss(at + step) - loss(at - step)) / (2 * step)
    np.testing.assert_allclose(found.sum(), numeric, rtol=1e-2)
    assert fused["declined"] == 3 and fused["done"] == 0


@pytest.mark.parametrize("seed", [7, None] if TENSORFLOW else [7])
def test_random_numbers_of_no_variable(seed, fused):  # noqa: F811
    """A fixed seed, and the generator of the backend: nothing but the step itself tells."""

    class NoisyCell(kr.IndRNNCell):
        def update(self, projected, recurrent, states):
            [h] = super().update(projected, recurrent, states)
            return [h + keras.random.normal(ops.shape(h), seed=seed)]

    found = numpy(kr.RNN(NoisyCell(U), return_sequences=True)(inputs(), training=True))
    assert np.isfinite(found).all()
    assert fused["done"] == 0


@pytest.mark.parametrize("training", TRAINING)
def test_a_step_that_draws_random_numbers(fused, training):  # noqa: F811
    class NoisyCell(kr.IndRNNCell):
        def __init__(self, units, **kwargs):
            super().__init__(units, **kwargs)
            self.noise = keras.random.SeedGenerator(1)

        def update(self, projected, recurrent, states):
            [h] = super().update(projected, recurrent, states)
            return [h + keras.random.normal(ops.shape(h), seed=self.noise)]

    layer = kr.RNN(NoisyCell(U), return_sequences=True)
    first, second = (numpy(layer(inputs(), training=training)) for _ in range(2))
    assert fused == {"done": 0, "declined": 2}
    if TENSORFLOW:  # Keras' loop on JAX draws the same numbers again
        assert not np.allclose(first, second)
        assert not np.allclose(first[:, 0] - first[:, 1], second[:, 0] - second[:, 1])


@ours_only  # on JAX such a cell works in no loop
def test_a_step_that_assigns(fused):  # noqa: F811
    class CountingCell(kr.IndRNNCell):
        def build(self, input_shape):
            super().build(input_shape)
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def update(self, projected, recurrent, states):
            self.count.assign(self.count + 1.0)
            return super().update(projected, recurrent, states)

    layer = kr.RNN(CountingCell(U))
    layer(inputs(), training=True)
    assert fused == {"done": 0, "declined": 1}
    assert float(layer.cell.count) > 0


def test_weights_of_inner_layers_are_the_cells_own(fused):  # noqa: F811
    found = []
    for scan in ("auto", "keras"):
        activation = keras.layers.PReLU("random_uniform")
        activation.build((None, U))
        layer = asymmetric(kr.IndRNN(U, activation=activation, scan=scan))
        found.append(gradients(layer, lambda x: ops.sum(layer(x, training=True) ** 2), inputs()))  # noqa: B023
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert fused["done"] == 1


@ours_only  # on JAX such a layer works in no loop
def test_weights_that_a_step_makes(fused):  # noqa: F811
    layer = kr.IndRNN(U, activation=keras.layers.PReLU())
    for _ in range(2):
        layer(inputs(), training=True)
    assert fused == {"done": 1, "declined": 1}
