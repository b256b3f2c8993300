"""How layers treat time: which work step by step, which carry something, and which look ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_rnncells.base import RNN
from keras_rnncells.cells.jordan import JordanRNN
from keras_rnncells.serving import graph as graphs


class NotStreamable(ValueError):
    """A layer that cannot run step by step. Its text names the layer and says why."""

    def __init__(self, layer: Any, reason: str) -> None:
        super().__init__(f"layer {layer.name!r} ({type(layer).__name__}) {reason}")


def _layers(*names: str) -> list[type]:
    """Those of `keras.layers` that this version of Keras has."""
    return [getattr(keras.layers, name) for name in names if hasattr(keras.layers, name)]


# What each step-by-step layer must not do, as functions `(layer, x) -> reason or None`; x is its
# first input, whose axis 1 is time.


def _free(layer: Any, x: Any) -> None:
    return None


def _along_features(layer: Any, x: Any) -> str | None:
    if len(x.shape) < 3:
        return f"works along the last axis, which is time in its input of shape {x.shape}"
    return None


def _along_axis(layer: Any, x: Any) -> str | None:
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    if any(axis is not None and axis % len(x.shape) < 2 for axis in axes):
        return f"works along time (axis={layer.axis})"
    return None


def _shared_over_time(layer: Any, x: Any) -> str | None:
    if 1 not in (layer.shared_axes or ()):
        return "has weights for each step: set shared_axes=[1]"
    return None


_PER_STEP: dict[type, Callable[[Any, Any], str | None]] = {
    **dict.fromkeys(
        _layers(
            "ActivityRegularization",
            "Add",
            "AlphaDropout",
            "Average",
            "Dropout",
            "ELU",
            "Embedding",
            "GaussianDropout",
            "GaussianNoise",
            "Identity",
            "LeakyReLU",
            "Maximum",
            "Minimum",
            "Multiply",
            "ReLU",
            "Rescaling",
            "SpatialDropout1D",
            "SpatialDropout2D",
            "SpatialDropout3D",
            "Subtract",
        ),
        _free,
    ),
    graphs.EachStep: _free,
    **dict.fromkeys(_layers("Activation", "Dense", "Masking"), _along_features),
    **dict.fromkeys(
        _layers(
            "BatchNormalization",
            "Concatenate",
            "LayerNormalization",
            "Normalization",
            "RMSNormalization",
            "Softmax",
            "UnitNormalization",
        ),
        _along_axis,
    ),
    keras.layers.PReLU: _shared_over_time,
}

# Operations of keras.ops, by name, since their classes are not public: `x + y` is an "Add".
_ELEMENTWISE = (
    "Abs Absolute Add Cast Ceil Clip Cos Divide Elu Equal Exp Expm1 Floor Gelu Greater "
    "GreaterEqual HardSigmoid HardSilu HardTanh Identity LeakyRelu Less LessEqual Log Log1p "
    "LogSigmoid LogicalAnd LogicalNot LogicalOr Maximum Minimum Multiply Negative NotEqual Power "
    "Reciprocal Relu Relu6 Round Rsqrt Selu Sigmoid Sign Silu Sin Softplus Softsign Sqrt Square "
    "StopGradient Subtract Tanh TrueDivide Where"
)
_ALONG_AXIS = "All Any Concatenate LogSoftmax Max Mean Min OneHot Softmax Sum"

_ENDS = "needs the end of the sequence"
_REASONS = {
    **dict.fromkeys(_layers("Bidirectional"), f"runs backwards too: it {_ENDS}"),
    **dict.fromkeys(
        _layers(
            "GlobalAveragePooling1D",
            "GlobalMaxPooling1D",
            "AveragePooling1D",
            "MaxPooling1D",
            "AdaptiveAveragePooling1D",
            "AdaptiveMaxPooling1D",
        ),
        "pools over time",
    ),
    **dict.fromkeys(_layers("Flatten", "Reshape"), "mixes time with other axes"),
    **dict.fromkeys(
        _layers("Attention", "AdditiveAttention", "MultiHeadAttention", "GroupQueryAttention"),
        "looks at all steps at once",
    ),
    **dict.fromkeys(
        _layers("UpSampling1D", "ZeroPadding1D", "Cropping1D", "Conv1DTranspose"),
        "changes the number of steps",
    ),
    **dict.fromkeys(_layers("GroupNormalization"), "normalizes over time"),
    **dict.fromkeys(
        _layers("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "SeparableConv1D", "DepthwiseConv1D"),
        "cannot be run step by step yet",
    ),
}


def register_per_step(layer_class: type) -> type:
    """Declares that a layer of your own treats each step alone, so that it can be streamed.

    Its output at a step must depend on its input at that step and on nothing else: not on other
    steps, not on their number, and not on anything kept between calls. Subclasses are not
    included.

    Args:
        layer_class: The layer: a subclass of `keras.layers.Layer`.

    Returns:
        `layer_class`, so that this is a decorator too.

    Raises:
        TypeError: If it is not the class of a layer.

    Example:

    >>> import keras, keras_rnncells
    >>> @keras_rnncells.serving.register_per_step
    ... class Double(keras.layers.Layer):
    ...     def call(self, inputs):
    ...         return 2 * inputs
    """
    if not isinstance(layer_class, type) or not issubclass(layer_class, keras.layers.Layer):
        raise TypeError(
            "register_per_step takes the class of a layer, a subclass of keras.layers.Layer. "
            f"Received: {layer_class!r}."
        )
    _PER_STEP[layer_class] = _free
    return layer_class


def check_per_step(layer: Any, tensors: list[Any]) -> None:
    """Raises `NotStreamable` unless `layer` treats each step of its inputs alone.

    Args:
        layer: a layer, or an operation of `keras.ops`.
        tensors: its symbolic inputs, all with time at axis 1.
    """
    if type(layer) in _PER_STEP:
        reason = _PER_STEP[type(layer)](layer, tensors[0])
    elif isinstance(layer, keras.layers.Layer):
        reason = _REASONS.get(type(layer)) or (
            "is not known to work step by step. If each step of its output depends on the same "
            "step of its input alone, say so: keras_rnncells.serving.register_per_step("
            f"{type(layer).__name__}). A recurrence of your own runs as keras_rnncells.RNN(cell)"
        )
    else:
        reason = (
            None if _known_operation(layer, tensors[0]) else "is not known to work step by step"
        )
    ranks = {len(x.shape) for x in tensors if x.dtype != "bool"}
    if reason is None and len(ranks) > 1:  # shapes are broadcast from the right, time is left
        reason = f"joins inputs of different ranks, {[x.shape for x in tensors]}"
    if reason:
        raise NotStreamable(layer, reason)


def _known_operation(operation: Any, x: Any) -> bool:
    name, module = type(operation).__name__, type(operation).__module__
    if not module.startswith("keras.") or ".ops." not in module:
        return False
    if name in _ALONG_AXIS.split():
        rank = len(x.shape) + (name == "OneHot")
        axes = operation.axis if isinstance(operation.axis, (list, tuple)) else [operation.axis]
        return all(axis is not None and axis % rank > 1 for axis in axes)
    if name == "ExpandDims":
        return operation.axis == -1 or (isinstance(operation.axis, int) and operation.axis > 1)
    return name in _ELEMENTWISE.split()


def is_recurrent(layer: Any) -> bool:
    """Whether `layer` runs a cell over time, and nothing beside."""
    if isinstance(layer, RNN):
        ours = type(layer).call in (RNN.call, JordanRNN.call)
        return ours and type(layer).inner_loop is RNN.inner_loop
    kinds = _layers("RNN", "SimpleRNN", "LSTM", "GRU")
    return type(layer) in kinds


def check_recurrent(layer: Any, tensors: list[Any], mask: Any) -> None:
    """Raises `NotStreamable` unless a recurrent layer runs forward from zero states."""
    if layer.go_backwards:
        raise NotStreamable(layer, f"goes backwards: it {_ENDS}")
    _check_start(layer, tensors, mask)


def _check_start(layer: Any, tensors: list[Any], mask: Any) -> None:
    # Keras 3.8 hands the mask over twice.
    if any(x is not mask and x.dtype != "bool" for x in tensors[1:]):
        raise NotStreamable(
            layer,
            "is called with more than a sequence and its mask (initial_state, teacher), and a "
            "served model starts from zeros",
        )


def causal_history(layer: Any) -> int | None:
    """How many past inputs a causal convolution needs; `None` for any other layer."""
    if type(layer) is not keras.layers.Conv1D:
        return None
    [size], [stride], [dilation] = layer.kernel_size, layer.strides, layer.dilation_rate
    if stride != 1:
        raise NotStreamable(layer, f"has strides={stride}, so it changes the number of steps")
    if layer.data_format != "channels_last":
        raise NotStreamable(layer, "has data_format='channels_first', where time is not axis 1")
    if size > 1 and layer.padding != "causal":
        raise NotStreamable(
            layer, f"has padding={layer.padding!r}, so it looks ahead: use padding='causal'"
        )
    return (size - 1) * dilation


def check_masked(layer: Any, tensors: list[Any], mask: Any) -> bool:
    """Whether `layer` skips masked steps wherever they stand, so that padding does not count.

    Raises `NotStreamable` for a recurrent layer whose answer moves with the padding.
    """
    if type(layer) is getattr(keras.layers, "GlobalAveragePooling1D", None):
        return layer.data_format == "channels_last"
    if isinstance(layer, keras.layers.Bidirectional):
        inner = [layer.forward_layer, layer.backward_layer]
    else:
        inner = [layer]
    if not all(is_recurrent(one) for one in inner):
        return False
    _check_start(layer, tensors, mask)
    for one in inner:
        if one.zero_output_for_mask and not one.return_sequences:
            raise NotStreamable(layer, "outputs zeros where the last step is padding")
    if inner == [layer] and layer.go_backwards and layer.return_sequences:
        raise NotStreamable(layer, "outputs the padding first, since it goes backwards")
    return True
