"""The graph of a model, walked once more with every call in our hands."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
from keras import ops


def functional(model: keras.Model) -> keras.Model:
    """`model` as a plain functional one, from the list of its inputs to the list of its outputs.

    Raises:
        TypeError: If it is no model.
        ValueError: If its layers are not known: a subclass of `keras.Model` with a `call` of its
            own, or a `Sequential` without inputs.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected a keras.Model. Received: {model!r} of type {type(model)}.")
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise ValueError(
            f"The layers of the model {model.name!r} are not known. Use a Sequential that starts "
            "with keras.Input(...), or a functional model keras.Model(inputs, outputs); a model "
            "with a `call` of its own cannot be taken apart."
        )
    graph = keras.Model(list(model.inputs), list(model.outputs), name=model.name)
    if type(model).call not in (type(graph).call, keras.Sequential.call):
        raise ValueError(
            f"The model {model.name!r} has a `call` of its own ({type(model).__name__}.call), so "
            "what happens between its layers is not known. Pass "
            "keras.Model(model.inputs, model.outputs) if that is the model to serve."
        )
    return graph


def names(model: keras.Model) -> tuple[list[str], list[str]]:
    """The names by which the inputs and the outputs of a model are served.

    Inputs have the names given to `keras.Input`, else `inputs` (several: `inputs_0`, ...). Outputs
    have the keys of the dict that the model returns, else `outputs`, and several the names of the
    layers that they come from.
    """
    inputs = [x.name for x in model.inputs]
    inputs = _numbered("inputs", [None if _automatic(name) else name for name in inputs])
    structure = None if isinstance(model, keras.Sequential) else model.output
    if isinstance(structure, dict):
        outputs = keras.tree.flatten(type(structure)({key: key for key in structure}))
    elif len(model.outputs) > 1:
        outputs = model.output_names
    else:
        outputs = [None]
    if len(set(outputs)) < len(model.outputs):
        outputs = [None] * len(model.outputs)
    return [identifier(x) for x in inputs], [identifier(y) for y in _numbered("outputs", outputs)]


def identifier(name: str) -> str:
    """`name` in the letters that every client and format takes."""
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def _automatic(name: str) -> bool:
    return re.fullmatch(r"(keras_tensor|input_layer|input)(_?\d+)?(CLONE)?", name) is not None


def _numbered(word: str, given: list[str | None]) -> list[str]:
    if given == [None]:
        return [word]
    return [f"{word}_{i}" if name is None else name for i, name in enumerate(given)]


class _End(keras.layers.Layer):
    """Marks an output."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        return inputs


def walk(graph: keras.Model, inputs: list[Any], call: Callable) -> list[Any]:
    """Runs through a functional model on other symbolic inputs.

    Args:
        graph: what `functional` or `rebuild` returned.
        inputs: one `KerasTensor` for each of its inputs.
        call: `call(operation, *args, **kwargs)` is what happens in place of each layer or
            `keras.ops` operation. It may bring in further inputs.

    Returns:
        The outputs, in the order of `graph.outputs`.
    """
    ends = [_End(name=f"end_{i}") for i in range(len(graph.outputs))]
    marked = [end(y) for end, y in zip(ends, graph.outputs, strict=True)]
    found = {}

    def visit(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if operation not in ends:
            return call(operation, *args, **kwargs)
        found[ends.index(operation)] = args[0]
        # Cloning wants outputs that hang on its inputs alone, whatever `call` has brought in.
        return operation(inputs[0])

    keras.models.clone_model(
        keras.Model(graph.inputs, marked),
        input_tensors=inputs,
        clone_function=lambda operation: operation,
        call_function=visit,
    )
    return [found[i] for i in range(len(ends))]


def rebuild(model: keras.Model) -> keras.Model:
    """A copy of `model` without states of its own, for any batch size and number of steps.

    Where layers need the number of steps (a `Dense` behind a `Flatten`), it stays as it is. The
    weights are copies: neither the layers nor the nodes of `model` are touched.
    """
    graph = functional(model)
    shapes = [x.shape for x in graph.inputs]
    if any(len(shape) > 1 and shape[1] is not None for shape in shapes):
        try:
            return _rebuild(graph, [(None, None, *shape[2:]) for shape in shapes])
        except _NotCopied:
            raise
        except Exception:  # what a layer says when it is built without a number of steps
            pass
    return _rebuild(graph, [(None, *shape[1:]) for shape in shapes])


class EachStep(keras.layers.TimeDistributed):
    """`TimeDistributed`, with the steps as further rows of the batch.

    That of Keras 3.15 takes the batch size for the number of steps where the latter is open.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        batch, steps, *features = ops.shape(inputs)
        outputs = self.layer(ops.reshape(inputs, (-1, *features)))
        return ops.reshape(outputs, (batch, steps, *outputs.shape[1:]))


class _NotCopied(ValueError):
    """A layer that cannot be copied."""


def _rebuild(graph: keras.Model, shapes: list[tuple]) -> keras.Model:
    copies, nested = {}, {}

    def copy(operation: Any) -> Any:
        if isinstance(operation, keras.Model) or not isinstance(operation, keras.layers.Layer):
            return operation
        try:
            config = _stateless(operation.get_config())
            of_steps = type(operation) is keras.layers.TimeDistributed
            new = (EachStep if of_steps else type(operation)).from_config(config)
        except Exception as error:
            raise _NotCopied(
                f"The layer {operation.name!r} ({type(operation).__name__}) cannot be made anew "
                f"from its config: {error}"
            ) from error
        for part in (new, *(getattr(new, f"{way}_layer", new) for way in ("forward", "backward"))):
            if hasattr(part, "use_cudnn"):
                part.use_cudnn = False  # kernels that a server without a GPU does not have
        copies[new] = operation
        return new

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("training"):
            raise _NotCopied(
                f"The layer {operation.name!r} is called with training=True, and a served model "
                "does not train. Build the model for serving without it."
            )
        if isinstance(operation, keras.Model):
            args = [keras.tree.flatten(args[0])]
            if operation not in nested:
                nested[operation] = _rebuild(functional(operation), [x.shape for x in args[0]])
            operation = nested[operation]
        return operation(*args, **kwargs)

    new = keras.models.clone_model(
        graph,
        input_tensors=[
            keras.Input(batch_shape=shape, dtype=x.dtype)
            for shape, x in zip(shapes, graph.inputs, strict=True)
        ],
        clone_function=copy,
        call_function=call,
    )
    for made, original in copies.items():
        made.set_weights(original.get_weights())
    return new


def _stateless(config: Any) -> Any:
    """A config without states that are kept between calls, and without loops written out."""
    if isinstance(config, list):
        return [_stateless(value) for value in config]
    if not isinstance(config, dict):
        return config
    off = {key for key in ("stateful", "unroll") if config.get(key) is True}
    return {key: False if key in off else _stateless(value) for key, value in config.items()}
