"""The functions by which a model is served: whole sequences, padded ones, steps and chunks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_rnncells.checks import choice
from keras_rnncells.serving import graph as graphs
from keras_rnncells.serving.rules import NotStreamable
from keras_rnncells.serving.streaming import State, padded, stream, wide

SERVING_DEFAULT = "serving_default"


class Spec(NamedTuple):
    """Shape (`None` is open) and dtype of a tensor."""

    shape: tuple[int | None, ...]
    dtype: str


class Signature(NamedTuple):
    """One function.

    Attributes:
        function: from flat tensors, in the order of `inputs`, to a dict of `outputs`.
        inputs: the tensors that it takes, by name.
        outputs: the tensors that it returns, by name.
    """

    function: Callable
    inputs: dict[str, Spec]
    outputs: dict[str, Spec]

    def traced(self) -> Any:
        """As a concrete function of TensorFlow."""
        import tensorflow as tf

        specs = [tf.TensorSpec(*spec, name=name) for name, spec in self.inputs.items()]

        def checked(*tensors: Any) -> dict[str, Any]:
            # A server does not look at shapes: without this, some operation within fails.
            same = zip(tensors, self.inputs.items(), strict=True)
            return self.function(
                *(tf.ensure_shape(x, spec.shape, f"shape_of_{name}") for x, (name, spec) in same)
            )

        return tf.function(checked, input_signature=specs, autograph=False).get_concrete_function()


class Served(NamedTuple):
    """A model in the form in which it is served.

    Attributes:
        model: the copy that all signatures share.
        signatures: by name.
        states: what `step` and `chunk` carry.
        over_time: for each output, whether it has a time axis.
        left_out: the signatures that the model does not have, each with the reason.
        causal: whether the model could run step by step.
    """

    model: keras.Model
    signatures: dict[str, Signature]
    states: list[State]
    over_time: dict[str, bool]
    left_out: dict[str, str]
    causal: bool

    def functions(self) -> dict[str, Any]:
        """The signatures as concrete functions of TensorFlow, by name.

        Raises:
            ValueError: If chunks do not answer as the whole does: where the model holds what was
                wrongly declared to work step by step.
        """
        functions = {name: signature.traced() for name, signature in self.signatures.items()}
        if "chunk" in functions:
            self._compare(functions[SERVING_DEFAULT], functions["chunk"])
        return functions

    def _compare(self, whole: Any, chunk: Any, batch: int = 2, steps: int = 5) -> None:
        rng, first = np.random.default_rng(0), self.signatures[SERVING_DEFAULT].inputs
        x = {
            name: _random(rng, (batch, steps, *spec.shape[2:]), spec.dtype)
            for name, spec in first.items()
        }
        state = {s.name: np.zeros((batch, *s.shape), s.dtype) for s in self.states}
        parts = []
        for part in (slice(0, 1), slice(1, 3), slice(3, steps)):
            values = {name: value[:, part] for name, value in x.items()} | state
            parts.append(chunk(*(values[name] for name in self.signatures["chunk"].inputs)))
            state = {name: parts[-1][name] for name in state}
        for name, expected in whole(*x.values()).items():
            found = [np.asarray(part[name]) for part in parts]
            found = np.concatenate(found, axis=1) if self.over_time[name] else found[-1]
            expected = np.asarray(expected)
            # Wide, for half precision: what is wrong is far off.
            near = 1e-6 + 0.05 * np.abs(expected[np.isfinite(expected)]).max(initial=0)
            if found.shape != expected.shape or not np.allclose(
                found, expected, rtol=0, atol=near, equal_nan=True
            ):
                raise ValueError(
                    f"Step by step, {name!r} is not what whole sequences give: a layer that was "
                    "given to register_per_step, or an activation or cell of your own, looks at "
                    "more than its own step. Correct it, or serve whole sequences only, with "
                    "streaming=False."
                )

    @property
    def identity(self) -> str:
        """What a state must come from to mean anything here: the same states and weights."""
        told = hashlib.sha256(json.dumps(self.states).encode())
        for weight in self.model.weights:
            told.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).tobytes())
        return told.hexdigest()


def serve(model: keras.Model, streaming: bool | str = True) -> Served:
    """The signatures of a model.

    Args:
        model: a `Sequential` or functional model.
        streaming: whether it must run step by step; `"auto"` where it can.

    Raises:
        ValueError: If the backend is not TensorFlow, if the model cannot be rebuilt, or if it
            cannot be streamed and should.
    """
    choice("streaming", streaming, (True, False, "auto"))
    _check_backend()
    graph = graphs.rebuild(model)
    inputs, outputs = graphs.names(model)
    reserved = [*inputs, *outputs, "lengths"]
    if len({*inputs, "lengths"}) <= len(inputs) or len(set(outputs)) < len(outputs):
        raise ValueError(
            "Inputs need names that differ, also from 'lengths', and so do outputs. Received: "
            f"inputs {inputs}, outputs {outputs}."
        )
    signatures = {SERVING_DEFAULT: _whole(graph, inputs, outputs)}
    states, over_time, left_out = [], {}, {}
    try:
        found = padded(graph)
    except NotStreamable as error:
        left_out["padded"] = str(error)
    else:
        over_time = dict(zip(outputs, found.over_time, strict=True))
        signatures["padded"] = _whole(found.model, [*inputs, "lengths"], outputs)
    try:
        found = stream(graph, tuple(reserved))
        _check_open(graph)
    except NotStreamable as error:
        if streaming is True:
            raise ValueError(
                f"The model {model.name!r} cannot run step by step: {error}. Pass "
                'streaming="auto" (steps where a model can) or False to serve it on whole '
                "sequences only."
            ) from error
        causal, reason = False, str(error)
    else:
        causal, reason = True, "not asked for"
        over_time = dict(zip(outputs, found.over_time, strict=True))
    if causal and streaming:
        states = found.states
        signatures["step"] = _chunk(found, inputs, outputs, one_step=True)
        signatures["chunk"] = _chunk(found, inputs, outputs, one_step=False)
    else:
        left_out["step"] = left_out["chunk"] = reason
    return Served(graph, signatures, states, over_time, left_out, causal)


def _check_backend() -> None:
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            f"TensorFlow Serving runs what Keras makes on TensorFlow, and this is Keras on "
            f"{backend}. Save the model with model.save('model.keras'), and load and export it in "
            "a process with KERAS_BACKEND=tensorflow."
        )


def _random(rng: Any, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)  # tokens of any vocabulary


def _check_open(graph: keras.Model) -> None:
    for x in graph.inputs:
        if x.shape[1] is not None:
            raise NotStreamable(graph, f"needs exactly {x.shape[1]} steps")


def _spec(x: Any) -> Spec:
    return Spec(tuple(x.shape), keras.backend.standardize_dtype(x.dtype))


def _open(x: Any) -> Spec:
    """An output, in float32 at least: few clients have half precision."""
    return Spec((None, *x.shape[1:]), wide(x.dtype))


def _named(model: keras.Model, tensors: list[Any], outputs: dict[str, Spec]) -> dict[str, Any]:
    found = keras.tree.flatten(model(tensors, training=False))
    return {
        name: keras.ops.cast(y, spec.dtype)
        for y, (name, spec) in zip(found, outputs.items(), strict=True)
    }


def _whole(model: keras.Model, inputs: list[str], outputs: list[str]) -> Signature:
    takes = {name: _spec(x) for name, x in zip(inputs, model.inputs, strict=True)}
    gives = {name: _open(y) for name, y in zip(outputs, model.outputs, strict=True)}
    return Signature(lambda *tensors: _named(model, list(tensors), gives), takes, gives)


def _chunk(found: Any, inputs: list[str], outputs: list[str], one_step: bool) -> Signature:
    model, over_time = found.model, dict(zip(outputs, found.over_time, strict=True))
    names = [state.name for state in found.states]
    takes = dict(zip([*inputs, *names], map(_spec, model.inputs), strict=True))
    gives = dict(zip([*outputs, *names], map(_open, model.outputs), strict=True))
    if not one_step:
        return Signature(lambda *tensors: _named(model, list(tensors), gives), takes, gives)

    def step(*tensors: Any) -> dict[str, Any]:
        now, states = tensors[: len(inputs)], tensors[len(inputs) :]
        found = _named(model, [*(keras.ops.expand_dims(x, 1) for x in now), *states], gives)
        return {name: y[:, 0] if over_time.get(name) else y for name, y in found.items()}

    def without_time(specs: dict[str, Spec], names: list[str]) -> dict[str, Spec]:
        return {
            name: Spec((None, *spec.shape[2:]), spec.dtype) if name in names else spec
            for name, spec in specs.items()
        }

    timed = [name for name in outputs if over_time[name]]
    return Signature(step, without_time(takes, inputs), without_time(gives, timed))
