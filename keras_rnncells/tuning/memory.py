"""What TensorFlow keeps of every trial, given back."""

from __future__ import annotations

from collections.abc import Collection

import keras


def _table() -> dict:
    """TensorFlow's gradient functions by name; empty where they are not found."""
    if keras.backend.backend() != "tensorflow":
        return {}
    import tensorflow as tf

    registry = getattr(tf.RegisterGradient.__call__, "__globals__", {}).get("gradient_registry")
    return getattr(registry, "_registry", {})


def custom_gradients() -> set[str]:
    """The names of the gradients of `tf.custom_gradient` that TensorFlow holds."""
    return {name for name in _table() if name.startswith("CustomGradient-")}


def forget_custom_gradients(but: Collection[str]) -> None:
    """Forgets all that are not among `but`: of models that will not be trained in new graphs.

    When a call of a function with `tf.custom_gradient` becomes part of a graph, TensorFlow enters
    its gradient in a global table, from where it holds the whole graph for ever. A training step
    has its gradients in its graph, so it runs without that table, and enters new ones if it is
    traced again.
    """
    for name in custom_gradients().difference(but):
        del _table()[name]
