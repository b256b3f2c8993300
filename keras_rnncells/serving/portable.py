"""The step in formats for devices without TensorFlow: LiteRT and ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_rnncells.serving.signatures import Served


def write_litert(served: Served, folder: Path) -> None:
    """Writes `step.tflite`, from the SavedModel in `folder`: built-in operations only."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=["step"])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        converted = converter.convert()
    except Exception as error:  # of private types; the text is long, and ends with the reason
        raise ValueError(
            "The step cannot be written for LiteRT: a layer needs an operation that LiteRT does "
            f"not have. Leave 'litert' out of `formats`. ({str(error)[-500:]})"
        ) from error
    (folder / "step.tflite").write_bytes(converted)


def write_onnx(served: Served, folder: Path) -> None:
    """Writes `step.onnx`, whose new states are called `<state>_new`."""
    import tensorflow as tf

    try:
        import tf2onnx
    except ModuleNotFoundError as error:
        raise ImportError(
            f"formats='onnx' needs {error.name}: run `pip install tf2onnx onnx`, and onnxruntime "
            "to run the file."
        ) from error
    step = served.signatures["step"]

    def function(*tensors: Any) -> dict[str, Any]:
        # An ONNX graph has one name for one tensor, be it input or output.
        found = step.function(*tensors)
        return {f"{name}_new" if name in step.inputs else name: y for name, y in found.items()}

    specs = [tf.TensorSpec(*spec, name=name) for name, spec in step.inputs.items()]
    traced = tf.function(function, input_signature=specs, autograph=False)
    converted, _ = tf2onnx.convert.from_function(traced, input_signature=specs)
    (folder / "step.onnx").write_bytes(converted.SerializeToString())
