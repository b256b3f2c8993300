"""How requests reach TensorFlow Serving: REST and gRPC.

Both ask for one version of a model, and raise `ServerError` for whatever comes back instead of an
answer. Neither knows what the requests are about.
"""

from __future__ import annotations

import importlib
import json
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

UNAVAILABLE, TOO_LATE = "UNAVAILABLE", "DEADLINE_EXCEEDED"
# What TensorFlow Serving makes of its codes in HTTP, and what a proxy before it may say.
OF_HTTP = {
    400: "INVALID_ARGUMENT",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    501: "UNIMPLEMENTED",
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: TOO_LATE,
}


class ServerError(RuntimeError):
    """A request to a server failed.

    Attributes:
        code: Why, by the names of gRPC: `"UNAVAILABLE"` (nothing answers there, or it is busy),
            `"DEADLINE_EXCEEDED"`, `"NOT_FOUND"` (no such model or version), `"INVALID_ARGUMENT"`,
            ...
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def transport(url: str, model: str, timeout: float) -> Rest | Grpc:
    """What the beginning of `url` asks for."""
    parts = urlsplit(str(url))
    if parts.scheme in ("http", "https") and parts.netloc:
        return Rest(url, model, timeout)
    if parts.scheme == "grpc" and parts.netloc and not parts.path.strip("/"):
        return Grpc(parts.netloc, model, timeout)
    raise ValueError(
        "`url` must be http://host:port or https://host:port (REST, port 8501 unless the server "
        f"was told otherwise), or grpc://host:port (gRPC, 8500). Received: url={url!r}."
    )


def needed(module: str, extra: str = "") -> Any:
    """A module of a package that only clients need."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"A client of TensorFlow Serving needs the package {error.name}, which is not "
            f"installed: run `pip install keras_rnncells[serve]`{extra}.",
            name=error.name,
        ) from None


class Rest:
    """JSON over HTTP.

    Numbers arrive as they were sent: both sides write as many digits as a float needs.
    """

    def __init__(self, url: str, model: str, timeout: float) -> None:
        self.requests = needed("requests")
        self.url = f"{url.rstrip('/')}/v1/models/{quote(model, safe='')}"
        self.timeout = timeout
        self.http = self.requests.Session()
        # As many connections as are used at once stay open.
        adapter = self.requests.adapters.HTTPAdapter(pool_maxsize=64)
        self.http.mount("http://", adapter)
        self.http.mount("https://", adapter)

    def metadata(self, version: int | None, label: str | None) -> tuple[int, dict[str, Any]]:
        """The version that answers, and its signatures."""
        place = _place(version, label)
        found = self._asked("GET", f"{self.url}{place}/metadata")
        try:
            signatures = found["metadata"]["signature_def"]["signature_def"]
            return int(found["model_spec"]["version"]), signatures
        except (KeyError, TypeError, ValueError):
            raise self._strange(found) from None

    def predict(
        self, version: int, signature: str, tensors: dict[str, np.ndarray], outputs: list[str]
    ) -> dict[str, Any]:
        """The answers by name."""
        body = {
            "signature_name": signature,
            "inputs": {name: value.tolist() for name, value in tensors.items()},
        }
        found = self._asked("POST", f"{self.url}{_place(version, None)}:predict", body)
        if not isinstance(found, dict) or "outputs" not in found:
            raise self._strange(found)
        found = found["outputs"]
        return {outputs[0]: found} if len(outputs) == 1 else found  # then it has no name

    def _asked(self, method: str, url: str, body: Any = None) -> Any:
        errors = self.requests.exceptions
        # Not `json=` and not `.json()`: they refuse NaN and infinity, which the server knows.
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        try:
            reply = self.http.request(method, url, data=data, headers=headers, timeout=self.timeout)
        except errors.Timeout as error:
            raise ServerError(TOO_LATE, f"no answer within {self.timeout:g} s") from error
        except errors.ConnectionError as error:
            raise ServerError(UNAVAILABLE, str(error)) from error
        except errors.RequestException as error:
            raise ServerError("UNKNOWN", str(error)) from error
        try:
            found = json.loads(reply.content)
        except ValueError:
            found = reply.text
        if reply.status_code == 200:
            return found
        said = found.get("error", found) if isinstance(found, dict) else found
        code = OF_HTTP.get(reply.status_code, f"HTTP {reply.status_code}")
        raise ServerError(code, str(said)[:2000])

    def _strange(self, found: Any) -> ServerError:
        return ServerError("UNKNOWN", f"not an answer of TensorFlow Serving: {str(found)[:200]}")

    def close(self) -> None:
        self.http.close()


class Grpc:
    """Protocol buffers over gRPC, with the official stubs."""

    def __init__(self, address: str, model: str, timeout: float) -> None:
        self.grpc = needed("grpc")
        self.tf = needed("tensorflow", ", and a TensorFlow for its tensors: `[cpu]`")
        minor = ".".join(self.tf.__version__.split(".")[:2])
        apis = {
            name: needed(
                f"tensorflow_serving.apis.{name}",
                f" and `pip install --no-deps tensorflow-serving-api=={minor}.*`",
            )
            for name in ("get_model_metadata_pb2", "predict_pb2", "prediction_service_pb2_grpc")
        }
        self.metadata_pb2 = apis["get_model_metadata_pb2"]
        self.predict_pb2 = apis["predict_pb2"]
        self.model, self.timeout = model, timeout
        self.channel = self.grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                # A server that comes back is found within the repetitions.
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
            ],
        )
        self.stub = apis["prediction_service_pb2_grpc"].PredictionServiceStub(self.channel)

    def metadata(self, version: int | None, label: str | None) -> tuple[int, dict[str, Any]]:
        """The version that answers, and its signatures."""
        from google.protobuf import json_format

        request = self.metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._address(request.model_spec, version, label)
        reply = self._asked(self.stub.GetModelMetadata, request)
        found = self.metadata_pb2.SignatureDefMap()
        reply.metadata["signature_def"].Unpack(found)
        signatures = json_format.MessageToDict(found, preserving_proto_field_name=True)
        return reply.model_spec.version.value, signatures.get("signature_def", {})

    def predict(
        self, version: int, signature: str, tensors: dict[str, np.ndarray], outputs: list[str]
    ) -> dict[str, Any]:
        """The answers by name."""
        request = self.predict_pb2.PredictRequest()
        self._address(request.model_spec, version, None)
        request.model_spec.signature_name = signature
        for name, value in tensors.items():
            request.inputs[name].CopyFrom(self.tf.make_tensor_proto(value))
        reply = self._asked(self.stub.Predict, request)
        return {name: self.tf.make_ndarray(value) for name, value in reply.outputs.items()}

    def _address(self, spec: Any, version: int | None, label: str | None) -> None:
        spec.name = self.model
        if version is not None:
            spec.version.value = version
        elif label is not None:
            spec.version_label = label

    def _asked(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self.timeout)
        except self.grpc.RpcError as error:
            code, text = error.code().name, error.details()
            if code == TOO_LATE:
                text = f"no answer within {self.timeout:g} s ({text})"
            raise ServerError(code, text) from error

    def close(self) -> None:
        self.channel.close()


def _place(version: int | None, label: str | None) -> str:
    if version is not None:
        return f"/versions/{version}"
    return "" if label is None else f"/labels/{quote(label, safe='')}"
