"""One step of a layer, as each backend runs it: what the benchmarks time.

A training step is forward, backward and input gradient, without optimizer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def sequences(shape: tuple[int, ...]) -> np.ndarray:
    """The inputs of a shape that is batch, steps, features, units."""
    return np.random.default_rng(0).normal(size=shape[:3]).astype("float32")


def tensorflow_step(layer: Any, shape: tuple[int, ...], jit: bool) -> Callable[[], Any]:
    """A training step, as `fit` runs it with or without `jit_compile=True`."""
    import tensorflow as tf

    inputs = tf.constant(sequences(shape))
    layer.build(inputs.shape)
    weights = [w.value for w in layer.trainable_variables]

    @tf.function(jit_compile=jit)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = tf.cast(layer(x, training=True), "float32")
            loss = tf.reduce_mean(outputs * outputs)
        return [loss, *tape.gradient(loss, [*weights, x])]

    return lambda: step(inputs)[0].numpy()


def jax_step(layer: Any, shape: tuple[int, ...]) -> Callable[[], Any]:
    """A training step, as `fit` runs it: always compiled."""
    import jax

    inputs = jax.numpy.asarray(sequences(shape))
    layer.build(inputs.shape)
    weights = [w.value for w in layer.trainable_variables]
    others = [w.value for w in layer.non_trainable_variables]

    @jax.jit
    def step(weights, x):
        def loss(weights, x):
            outputs, _ = layer.stateless_call(weights, others, x, training=True)
            return jax.numpy.mean(jax.numpy.square(outputs.astype("float32")))

        return jax.value_and_grad(loss, argnums=(0, 1))(weights, x)

    return lambda: jax.block_until_ready(step(weights, inputs))


def torch_step(module: Any, shape: tuple[int, ...]) -> Callable[[], Any]:
    """A training step of a PyTorch module."""
    import torch

    inputs = torch.tensor(sequences(shape), requires_grad=True)

    def step():
        module.zero_grad()
        inputs.grad = None
        outputs = module(inputs)
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        loss = outputs.square().mean()
        loss.backward()
        return loss.item()

    return step
