"""Two more ways to run a model that is a graph of layers: in chunks, and on padded sequences."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops

from keras_rnncells.base import RNN, RecurrentCell
from keras_rnncells.base.rnn import SHOW_THEIR_STATE
from keras_rnncells.serving import graph as graphs, rules
from keras_rnncells.serving.rules import NotStreamable


class State(NamedTuple):
    """What a layer carries from one chunk to the next.

    Attributes:
        name: `<layer>_<name in its equations>`.
        shape: its shape without the batch.
        dtype: its dtype, float32 or wider.
        layer: the name of the layer.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layer: str


class Stream(NamedTuple):
    """A model that runs in chunks.

    Attributes:
        model: from the list of inputs `[B, n, ...]` and states to that of outputs and new states.
        states: the states, in their order.
        over_time: for each output, whether it has a time axis.
    """

    model: keras.Model
    states: list[State]
    over_time: list[bool]


class _Steps:
    """Calls the operations of a graph, and keeps track of which tensors have a time axis."""

    def __init__(self, inputs: list[Any]) -> None:
        self._over_time: dict[int, Any] = {}  # by id; the tensor beside it stays alive
        self.mark(inputs)

    def mark(self, tensors: Any) -> Any:
        self._over_time.update((id(x), x) for x in keras.tree.flatten(tensors))
        return tensors

    def mark_those(self, tensors: list[Any], timed: list[bool]) -> list[Any]:
        self.mark([x for x, t in zip(tensors, timed, strict=True) if t])
        return tensors

    def over_time(self, tensor: Any) -> bool:
        return id(tensor) in self._over_time

    def call(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """What happens in place of `operation(*args, **kwargs)`."""
        tensors = [x for x in keras.tree.flatten((args, kwargs)) if _symbolic(x)]
        timed = [x for x in tensors if self.over_time(x)]
        if not timed:  # behind the last step: a function of what is known by now
            return operation(*args, **kwargs)
        if len(timed) < len(tensors) and not rules.is_recurrent(operation):
            raise NotStreamable(operation, "joins a sequence and what is known at its end only")
        mask = kwargs.get("mask")
        mask = kwargs.get("sequences_mask") if mask is None else mask
        special = self.special(operation, tensors, mask)
        if special is not None:
            return special
        rules.check_per_step(operation, tensors)
        return self.mark(operation(*args, **kwargs))

    def special(self, operation: Any, tensors: list[Any], mask: Any) -> Any:
        """The outputs of an operation that is more than step by step; `None` for any other.

        Args:
            operation: the operation.
            tensors: all its symbolic arguments, the inputs first.
            mask: its mask, if it has one.
        """
        raise NotImplementedError


def _inputs(graph: Any) -> list[Any]:
    if any(len(x.shape) < 2 for x in graph.inputs):
        raise NotStreamable(graph, "has an input without a time axis")
    return [keras.Input(batch_shape=x.shape, dtype=x.dtype) for x in graph.inputs]


def _without_mask(model: Any, mask: Any) -> Any:
    if any(m is not None for m in keras.tree.flatten(mask)):
        raise NotStreamable(
            model, "is a model within the model and gets a mask: put their layers in one"
        )
    return model


def _symbolic(x: Any) -> bool:
    return isinstance(x, keras.KerasTensor)


# Chunks.


def stream(graph: keras.Model, taken: tuple[str, ...] = ()) -> Stream:
    """A rebuilt model, run in chunks.

    Args:
        graph: what `graph.rebuild` returned.
        taken: names that no state may have.

    Raises:
        NotStreamable: If a layer looks ahead, or is not known.
    """
    inputs = _inputs(graph)
    steps = _Chunk(inputs, taken)
    outputs = graphs.walk(graph, inputs, steps.call)
    model = keras.Model([*inputs, *steps.before], [*outputs, *steps.after])
    return Stream(model, steps.states, [steps.over_time(y) for y in outputs])


class _Chunk(_Steps):
    """The next steps of a sequence."""

    def __init__(self, inputs: list[Any], taken: tuple[str, ...]) -> None:
        super().__init__(inputs)
        self.taken = set(taken)
        self.states: list[State] = []
        self.before: list[Any] = []
        self.after: list[Any] = []

    def add(self, layer: Any, name: str, shape: tuple[int, ...], dtype: str) -> Any:
        """A new state of `layer`, as a symbolic input."""
        name = free = graphs.identifier(f"{layer.name}_{name}")
        calls = 1
        while free in self.taken:  # a layer that is called twice has two states
            calls += 1
            free = f"{name}_{calls}"
        self.taken.add(free)
        self.states.append(State(free, tuple(shape), dtype, layer.name))
        self.before.append(keras.Input(batch_shape=(None, *shape), dtype=dtype))
        return self.before[-1]

    def special(self, operation: Any, tensors: list[Any], mask: Any) -> Any:
        if rules.is_recurrent(operation):
            rules.check_recurrent(operation, tensors, mask)
            return self.recurrent(operation, tensors[0], mask)
        history = rules.causal_history(operation)
        if history is not None:
            return self.mark(self.convolution(operation, tensors[0], history))
        if isinstance(operation, keras.Model):
            return self.nested(operation, tensors, mask)
        return None

    def recurrent(self, layer: Any, x: Any, mask: Any) -> Any:
        name = f"{layer.name}_chunk_{len(self.states)}"
        chunk = _RecurrentChunk(layer, masked=mask is not None, name=name)
        before = [self.add(layer, *state) for state in chunk.state_specs]
        output, *after = chunk(x, before, steps=mask)
        self.after += after
        if layer.return_sequences:
            self.mark(output)
        return [output, *chunk.of_cell(after)] if layer.return_state else output

    def convolution(self, layer: Any, x: Any, history: int) -> Any:
        if not history:
            return layer(x)
        name = f"{layer.name}_chunk_{len(self.states)}"
        before = self.add(layer, "inputs", (history, x.shape[-1]), wide(x.dtype))
        output, after = _ConvolutionChunk(layer, name=name)(x, before)
        self.after.append(after)
        return output

    def nested(self, model: Any, tensors: list[Any], mask: Any) -> Any:
        inner = stream(_without_mask(model, mask))
        before = [self.add(model, *state[:3]) for state in inner.states]
        outputs = keras.tree.flatten(inner.model([*tensors, *before]))
        count = len(inner.over_time)
        self.after += outputs[count:]
        return self.mark_those(outputs[:count], inner.over_time)


def wide(dtype: Any) -> str:
    """The dtype to carry: half precision is too coarse, and few clients have it."""
    dtype = keras.backend.standardize_dtype(dtype)
    return "float32" if dtype in ("float16", "bfloat16") else dtype


class _Part(keras.layers.Layer):
    """A layer in another way. It hands no masks on: where they are needed, they are arguments."""

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(dtype=layer.dtype_policy, autocast=False, **kwargs)
        self.layer = layer
        self.supports_masking = True

    def build(self, *args: Any) -> None:
        self.built = True  # the layer is, and it is all there is

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        return None


class _RecurrentChunk(_Part):
    """The next steps of a recurrent layer: inputs and states to output and new states."""

    def __init__(self, layer: Any, masked: bool, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        cell = layer.cell
        self.rnn = RNN(
            cell,
            return_sequences=layer.return_sequences,
            return_state=True,
            zero_output_for_mask=layer.zero_output_for_mask,
            scan=getattr(layer, "scan", "auto"),
            dtype=layer.dtype_policy,
        )
        zeros = keras.tree.flatten(self.rnn.get_initial_state(1))
        self.state_specs = [
            (name, tuple(zero.shape[1:]), wide(zero.dtype))
            for name, zero in zip(_state_names(cell, len(zeros)), zeros, strict=True)
        ]
        # A masked step repeats the last output, which may lie in the chunk before.
        from_states = isinstance(cell, RecurrentCell) or type(cell) in SHOW_THEIR_STATE
        self.repeats = masked and not from_states and not layer.zero_output_for_mask
        if self.repeats:
            _, first, dtype = self.state_specs[0]
            self.state_specs.append(("output", (getattr(cell, "output_size", first[-1]),), dtype))

    def of_cell(self, states: list[Any]) -> list[Any]:
        return states[:-1] if self.repeats else states

    def compute_output_spec(self, sequences: Any, states: Any, steps: Any = None) -> list[Any]:
        output = self.layer.compute_output_spec(sequences)
        output = keras.tree.flatten(output)[0]
        return [output, *(keras.KerasTensor(s.shape, dtype=s.dtype) for s in states)]

    def call(self, sequences: Any, states: list[Any], steps: Any = None) -> list[Any]:
        if sequences.shape[1] == 1 and steps is None:
            return self.one_step(sequences, states)
        output, *after = self.rnn(
            sequences, initial_state=self.of_cell(states), mask=steps, training=False
        )
        output, after = ops.stop_gradient(output), keras.tree.flatten(after)
        if self.repeats:
            last = ops.cast(states[-1], output.dtype)
            if self.rnn.return_sequences:
                seen = ops.cumsum(ops.cast(steps, "int32"), axis=1) > 0
                output = ops.where(seen[..., None], output, last[:, None])
                after.append(output[:, -1])
            else:
                output = ops.where(ops.any(steps, axis=1, keepdims=True), output, last)
                after.append(output)
        return [output, *(ops.cast(s, b.dtype) for s, b in zip(after, states, strict=True))]

    def one_step(self, sequences: Any, states: list[Any]) -> list[Any]:
        """The same without a loop."""
        cell, dtype = self.rnn.cell, self.rnn.compute_dtype
        before = keras.tree.pack_sequence_as(self.rnn.get_initial_state(1), states)
        inputs = sequences[:, 0]
        if keras.backend.is_float_dtype(inputs.dtype):
            inputs = ops.cast(inputs, dtype)
        output, after = cell(inputs, before)
        output, after = ops.cast(output, dtype), keras.tree.flatten(after)
        output = output[:, None] if self.rnn.return_sequences else output
        return [output, *(ops.cast(s, b.dtype) for s, b in zip(after, states, strict=True))]


def _state_names(cell: Any, count: int) -> list[str]:
    if isinstance(cell, keras.layers.StackedRNNCells):
        sizes = [len(keras.tree.flatten(c.state_size)) for c in cell.cells]
        return [
            f"{i}_{name}"
            for i, (inner, size) in enumerate(zip(cell.cells, sizes, strict=True))
            for name in _state_names(inner, size)
        ]
    if isinstance(cell, RecurrentCell):
        return list(cell.state_names)
    if type(cell) in SHOW_THEIR_STATE:
        return ["h", "c"][:count]
    return [f"state_{i}" for i in range(count)]


class _ConvolutionChunk(_Part):
    """The next steps of a causal convolution, from its last inputs."""

    def compute_output_spec(self, inputs: Any, history: Any) -> list[Any]:
        output = self.layer.compute_output_spec(inputs)
        return [output, keras.KerasTensor(history.shape, dtype=history.dtype)]

    def call(self, inputs: Any, history: Any) -> list[Any]:
        layer = self.layer
        joined = ops.concatenate([history, ops.cast(inputs, history.dtype)], axis=1)
        output = ops.conv(
            ops.cast(joined, layer.compute_dtype),
            ops.cast(layer.kernel, layer.compute_dtype),
            padding="valid",
            data_format="channels_last",
            dilation_rate=layer.dilation_rate,
        )
        if layer.use_bias:
            output = output + ops.cast(layer.bias, layer.compute_dtype)
        if layer.activation is not None:
            output = layer.activation(output)
        last = joined[:, -history.shape[1] :]
        return [output, ops.reshape(last, (-1, *history.shape[1:]))]  # the shape, known again


# Padded sequences.


class Padded(NamedTuple):
    """A model that runs on padded sequences.

    Attributes:
        model: from the list of inputs `[B, T, ...]` and lengths `[B]` to that of outputs.
        over_time: for each output, whether it has a time axis.
    """

    model: keras.Model
    over_time: list[bool]


def padded(graph: keras.Model) -> Padded:
    """A rebuilt model, run on sequences that are padded at their end.

    Its answers are those for the sequences without padding; where an answer has a time axis, its
    steps from the length on mean nothing.

    Raises:
        NotStreamable: If a layer would see the padding.
    """
    inputs = _inputs(graph)
    steps = _Padded(inputs)
    outputs = graphs.walk(graph, inputs, steps.call)
    model = keras.Model([*inputs, steps.lengths], outputs)
    return Padded(model, [steps.over_time(y) for y in outputs])


class _RealSteps(keras.layers.Layer):
    """The mask `[B, T]` of the steps before each length."""

    def call(self, inputs: Any, lengths: Any) -> Any:
        return ops.arange(ops.shape(inputs)[1])[None] < lengths[:, None]


class _Padded(_Steps):
    """All steps, where those from the length on are padding."""

    def __init__(self, inputs: list[Any]) -> None:
        super().__init__(inputs)
        self.lengths = keras.Input(batch_shape=(None,), dtype="int32")
        self.real = _RealSteps(name="real_steps")(inputs[0], self.lengths)
        self.parts = 0

    def special(self, operation: Any, tensors: list[Any], mask: Any) -> Any:
        if rules.check_masked(operation, tensors, mask):
            self.parts += 1
            part = _WithoutPadding(operation, name=f"{operation.name}_padded_{self.parts}")
            outputs = part(tensors[0], self.real, own=mask)
            if getattr(operation, "return_sequences", False):
                both = getattr(operation, "merge_mode", "concat") is None
                self.mark(keras.tree.flatten(outputs)[: 2 if both else 1])
            return outputs
        if rules.causal_history(operation) is not None:
            return self.mark(operation(tensors[0]))
        if isinstance(operation, keras.Model):
            inner = padded(_without_mask(operation, mask))
            outputs = inner.model([*tensors, self.lengths])
            return self.mark_those(keras.tree.flatten(outputs), inner.over_time)
        return None


class _WithoutPadding(_Part):
    """A layer that skips masked steps, with the padding masked too."""

    def compute_output_spec(self, sequences: Any, real: Any, own: Any = None) -> Any:
        return self.layer.compute_output_spec(sequences)

    def call(self, sequences: Any, real: Any, own: Any = None) -> Any:
        mask = real if own is None else ops.logical_and(real, own)
        if keras.backend.is_float_dtype(sequences.dtype):
            # Padding may be NaN, which an average does not skip.
            within = ops.reshape(real, (*ops.shape(real), *[1] * (len(sequences.shape) - 2)))
            sequences = ops.where(within, sequences, ops.zeros_like(sequences))
        outputs = self.layer(sequences, mask=mask)
        return keras.tree.map_structure(ops.stop_gradient, outputs)
