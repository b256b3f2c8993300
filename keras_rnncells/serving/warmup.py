"""Warm-up requests: what TensorFlow Serving runs through a model before the first client does."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FILE = "tf_serving_warmup_requests"


def write(path: Path, model_name: str, requests: dict[str, dict[str, np.ndarray]]) -> None:
    """Writes one request for each signature.

    Args:
        path: the folder `assets.extra` of a SavedModel.
        model_name: the name of the model at the server.
        requests: for each signature, its inputs by name.
    """
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path / FILE)) as file:
        for signature, inputs in requests.items():
            log = messages()["PredictionLog"]()
            request = log.predict_log.request
            request.model_spec.name = model_name
            request.model_spec.signature_name = signature
            for name, value in inputs.items():
                request.inputs.add(key=name).value.CopyFrom(tf.make_tensor_proto(value))
            file.write(log.SerializeToString())


@cache
def messages() -> dict[str, Any]:
    """The four messages of a request, by name.

    They are those of `tensorflow_serving/apis`, with the fields used here: the same bytes, without
    the package `tensorflow-serving-api`, which would bring a second TensorFlow with it.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from tensorflow.core.framework import tensor_pb2

    text, message = descriptor_pb2.FieldDescriptorProto.TYPE_STRING, "TYPE_MESSAGE"
    package = "keras_rnncells.warmup"
    fields = {
        "PredictionLog": [("predict_log", 6, "PredictLog")],
        "PredictLog": [("request", 1, "PredictRequest")],
        "PredictRequest": [("model_spec", 1, "ModelSpec"), ("inputs", 2, "Entry")],
        # A map is a list of such entries.
        "Entry": [("key", 1, text), ("value", 2, tensor_pb2.TensorProto.DESCRIPTOR.full_name)],
        "ModelSpec": [("name", 1, text), ("signature_name", 3, text)],
    }
    file = descriptor_pb2.FileDescriptorProto(
        name="keras_rnncells/warmup.proto",
        package=package,
        syntax="proto3",
        dependency=[tensor_pb2.DESCRIPTOR.name],
    )
    for name, declared in fields.items():
        described = file.message_type.add(name=name)
        for field, number, kind in declared:
            one = described.field.add(name=field, number=number)
            one.label = one.LABEL_REPEATED if field == "inputs" else one.LABEL_OPTIONAL
            one.type = text if kind == text else one.Type.Value(message)
            if kind != text:
                one.type_name = f".{kind}" if "." in kind else f".{package}.{kind}"
    pool = descriptor_pool.Default()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in fields
    }
