"""SavedModels as TensorFlow Serving runs them: whole sequences, and one step at a time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_rnncells.checks import choice
from keras_rnncells.serving import folders, portable, warmup
from keras_rnncells.serving.signatures import Served, Signature, serve
from keras_rnncells.version import __version__

OTHERS = {"litert": portable.write_litert, "onnx": portable.write_onnx}
FORMATS = ("tf_saved_model", *OTHERS)
CARD = Path("assets.extra", "model.json")
WARMUP_STEPS = 16


def export(
    model: keras.Model,
    path: str | os.PathLike,
    streaming: bool | str = True,
    formats: tuple[str, ...] = ("tf_saved_model",),
    *,
    training_result: dict[str, Any] | None = None,
) -> Path:
    """Writes a model for TensorFlow Serving, as the next version in the folder `path`.

    The SavedModel has these signatures, each with any batch size:

    - `serving_default`: whole sequences `[B, T, D]`, of any number of steps.
    - `padded`: the same with `lengths`, int32 `[B]`: the answers are those for the first
      `lengths` steps of each sequence, whatever follows them. The server's own batching pads so,
      with the first element of a tensor; it does not trim the answers: where they have a time axis,
      steps from the length on mean nothing.
    - `step`: one step `[B, D]` (tokens `[B]`) and the states, each by its name; returns the output
      of the step and the new states by the same names. All states start from zeros.
    - `chunk`: the same for n steps at once, `[B, n, D]`: for what has come in so far. Chunks of
      different n must not be batched with padding, since the states would see it.

    For models whose output is the last step, `step` and `chunk` return the output up to now.
    Inputs have the names of their `keras.Input`, else `inputs`; the output is `outputs`, several
    have the names of their layers, or the keys of the dict that the model returns. States and
    outputs are float32 (or float64), whatever the model computes in.

    Beside it, in `assets.extra`, stand one warm-up request for each signature, which the server
    runs by itself, and the model card `model.json`: signatures, shapes, dtypes, states, what was
    left out and why, versions. No Python is needed to load it, no package, no custom operations,
    and no XLA, which TensorFlow Serving switches off.

    Steps can be served where every layer is causal in time: the layers of this package and Keras'
    own `RNN`, `SimpleRNN`, `LSTM` and `GRU`, also stacked; `Conv1D` with `padding="causal"` and any
    dilation; layers that treat each step alone (`Dense`, `Embedding`, normalization over features
    or with moving statistics, dropout, sums and products of such, ...); anything behind the last
    step. Declare layers of your own with `register_per_step`. Stateful models become stateless:
    their states are arguments.

    Args:
        model: A `Sequential` or functional model, on the TensorFlow backend. A model trained on
            JAX is saved as `.keras` and loaded with `KERAS_BACKEND=tensorflow`.
        path: The folder of the model; its name is the model's at the server. The version is the
            next number free in it.
        streaming: Whether to write `step` and `chunk`. With `True` (default) a model that cannot
            run step by step is refused; `"auto"` writes them where it can, `False` never.
        formats: The formats to write: `"tf_saved_model"`, and beside it in the same folder
            `"litert"` (`step.tflite`, with the signature `step`) and `"onnx"` (`step.onnx`, whose
            new states are called `<state>_new`; needs `tf2onnx` and `onnx`): one step, for devices
            without TensorFlow.
        training_result: What the model card shall say about the training, such as
            `{"val_loss": 0.1}`: anything that JSON can hold.

    Returns:
        The folder of the new version, `path/<number>`.

    Raises:
        ValueError: If the model cannot be streamed and `streaming=True`: the text names the layer
            and the reason. Also if an argument is not allowed, if the backend is not TensorFlow,
            and if a layer would need XLA at the server.

    Example:

    ```python
    model = keras.Sequential([keras.Input((None, 3), name="x"), IndRNN(16), keras.layers.Dense(1)])
    folder = keras_rnncells.serving.export(model, "models/signal")  # models/signal/1
    step = tf.saved_model.load(folder).signatures["step"]
    answer = step(x=tf.ones((1, 3)), ind_rnn_h=tf.zeros((1, 16)))
    answer["outputs"], answer["ind_rnn_h"]
    ```
    """
    formats = (formats,) if isinstance(formats, str) else tuple(formats)
    for one in formats:
        choice("formats", one, FORMATS)
    if "tf_saved_model" not in formats:
        raise ValueError(
            "`formats` must hold 'tf_saved_model', which the others stand beside. Received: "
            f"formats={formats!r}."
        )
    path = Path(path)
    if training_result is not None:
        try:
            json.dumps(training_result, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"`training_result` must fit into JSON: {error}.") from None
    served = serve(model, streaming)
    others = [OTHERS[one] for one in formats if one in OTHERS]
    if others and "step" not in served.signatures:
        raise ValueError(
            f"LiteRT and ONNX files hold the step, and this model is exported without "
            f"({served.left_out['step']}). Received: formats={formats!r}."
        )
    card = describe(model, served, training_result)
    requests = {name: warm(signature) for name, signature in served.signatures.items()}
    with folders.new_version(path.absolute()) as version:
        write_saved_model(served, version.folder)
        for write in others:
            write(served, version.folder)
        extra = version.folder / CARD.parent
        extra.mkdir()
        warmup.write(extra, path.absolute().name, requests)
        (version.folder / CARD).write_text(json.dumps(card, indent=2) + "\n")
    return path / version.path.name


def write_saved_model(served: Served, folder: Path) -> None:
    """Writes the SavedModel itself, and looks through it for what TensorFlow Serving refuses."""
    import tensorflow as tf

    # Not `keras.export.ExportArchive`, which traces every function twice, and their gradients too.
    root = tf.Module()
    root.weights = [v.value for v in served.model.variables]
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(root, str(folder), served.functions(), options)
    _refuse_compiled(folder)


def _refuse_compiled(folder: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    for graph in saved.meta_graphs:
        for function in graph.graph_def.library.function:
            for attributes in (function.attr, *(node.attr for node in function.node_def)):
                if attributes["_XlaMustCompile"].b:
                    raise ValueError(
                        f"The function {function.signature.name!r} is compiled with XLA, which "
                        "TensorFlow Serving switches off: the model would load there and fail at "
                        "the first request. Convolutions with groups > 1 are such, and "
                        "tf.function(jit_compile=True) in layers of your own."
                    )


def describe(
    model: keras.Model, served: Served, training_result: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The model card: what a client must know."""
    import tensorflow as tf

    return {
        "model": model.name,
        "identity": served.identity,
        "causal": served.causal,
        "signatures": {
            name: {"inputs": _described(s.inputs), "outputs": _described(s.outputs)}
            for name, s in served.signatures.items()
        },
        "left_out": served.left_out,
        "over_time": served.over_time,
        "states": {
            s.name: {"shape": [None, *s.shape], "dtype": s.dtype, "layer": s.layer, "start": 0}
            for s in served.states
        },
        "training_result": training_result,
        "versions": {
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "keras_rnncells": __version__,
        },
    }


def _described(specs: dict[str, Any]) -> dict[str, Any]:
    return {name: {"shape": list(s.shape), "dtype": s.dtype} for name, s in specs.items()}


def warm(signature: Signature) -> dict[str, np.ndarray]:
    """A request of one row of zeros."""
    return {
        name: np.full([1], WARMUP_STEPS, spec.dtype)
        if name == "lengths"
        else np.zeros([1, *(WARMUP_STEPS if n is None else n for n in spec.shape[1:])], spec.dtype)
        for name, spec in signature.inputs.items()
    }
