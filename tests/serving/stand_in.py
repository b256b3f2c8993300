"""A stand-in for TensorFlow Serving: its REST and gRPC faces over `tf.saved_model.load`.

It is there to test clients. What it does not do: batching, warm-up, labels and versions from a
configuration file, and all that makes a server.
"""

import functools
import json
import re
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

HTTP = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "UNAVAILABLE": 503}


class Refused(Exception):
    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


@functools.cache
class Model:
    """One version: the functions, and the signatures as the server tells them."""

    def __init__(self, path):
        import tensorflow as tf
        from tensorflow.core.protobuf import saved_model_pb2

        self.loaded = tf.saved_model.load(str(path))
        saved = saved_model_pb2.SavedModel()
        saved.ParseFromString((Path(path) / "saved_model.pb").read_bytes())
        self.described = saved.meta_graphs[0].signature_def  # with "__saved_model_init_op"

    def run(self, signature, tensors):
        import tensorflow as tf

        if signature not in self.loaded.signatures:
            raise Refused("INVALID_ARGUMENT", f"Serving signature key {signature!r} not found.")
        wanted = self.described[signature].inputs
        if set(tensors) != set(wanted):
            raise Refused(
                "INVALID_ARGUMENT",
                f"input keys: {sorted(wanted)}, received: {sorted(tensors)}",
            )
        values = {
            k: tf.constant(v, tf.dtypes.as_dtype(wanted[k].dtype)) for k, v in tensors.items()
        }
        try:
            found = self.loaded.signatures[signature](**values)
        except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
            raise Refused("INVALID_ARGUMENT", str(error)) from error
        return {name: value.numpy() for name, value in found.items()}


class Server:
    """Serves one model on ports of its own, until `stop`.

    Attributes:
        versions: the paths of the versions, by number. It may change while the server runs.
        labels: numbers of versions, by label.
        delay: seconds to wait before each answer.
        failures: codes to answer the next requests with.
        asked: (signature, version) of each request for a prediction.
    """

    def __init__(self, name, versions, labels=None):
        self.name, self.versions, self.labels = name, dict(versions), labels or {}
        self.delay, self.failures, self.asked = 0.0, [], []
        self.ports = {"http": 0, "grpc": 0}
        self._lock = threading.Lock()
        self._running = {}

    def url(self, scheme):
        return f"{scheme}://127.0.0.1:{self.start(scheme)}"

    def start(self, scheme):
        """Starts it, on the port that it had before, and returns the port."""
        if scheme not in self._running:
            make = {"http": _http, "grpc": _grpc}[scheme]
            self._running[scheme], self.ports[scheme] = make(self, self.ports[scheme])
        return self.ports[scheme]

    def stop(self):
        for scheme in list(self._running):
            self._running.pop(scheme)()

    def model(self, name, version, label):
        """The number of the version asked for, and the version."""
        time.sleep(self.delay)
        with self._lock:
            if self.failures:
                raise Refused(self.failures.pop(0), "told to fail")
            if label is not None:
                version = self.labels.get(label, 0)
            number = max(self.versions) if version is None else version
            if name != self.name or number not in self.versions:
                raise Refused("NOT_FOUND", f"Servable not found for request: {name} {number}")
            return number, Model(self.versions[number])

    def predict(self, name, version, label, signature, tensors):
        number, model = self.model(name, version, label)
        found = model.run(signature, tensors)
        self.asked.append((signature, number))
        return found


# REST.


def _http(server, port):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self):
            self.answer(lambda body: _get(server, self.path))

        def do_POST(self):
            self.answer(lambda body: _post(server, self.path, body))

        def answer(self, function):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                code, found = 200, function(body)
            except Refused as refused:
                code, found = HTTP[refused.code], {"error": str(refused)}
            data = json.dumps(found).encode()
            try:
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # the client has gone
                self.close_connection = True

        def log_message(self, *_):
            pass

    class Http(ThreadingHTTPServer):
        daemon_threads = True
        connections = ()

        def process_request(self, request, address):
            self.connections = (*self.connections, request)
            super().process_request(request, address)

    http = Http(("127.0.0.1", port), Handler)
    thread = threading.Thread(
        target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()

    def stop():
        http.shutdown()
        thread.join()
        http.server_close()
        for connection in http.connections:  # as when the process ends
            try:
                connection.shutdown(2)
            except OSError:
                continue

    return stop, http.server_port


def _place(path):
    found = re.fullmatch(
        r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(:predict|/metadata)?", path
    )
    if found is None:
        raise Refused("INVALID_ARGUMENT", f"Malformed request: {path}")
    name, version, label, what = found.groups()
    return name, version and int(version), label, what


def _get(server, path):
    from google.protobuf import json_format

    name, version, label, what = _place(path)
    number, model = server.model(name, version, label)
    if what != "/metadata":
        status = {"error_code": "OK", "error_message": ""}
        return {
            "model_version_status": [
                {"version": str(n), "state": "AVAILABLE", "status": status}
                for n in sorted(server.versions, reverse=True)
            ]
        }
    signatures = {
        key: json_format.MessageToDict(
            value,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        for key, value in model.described.items()
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(number)},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }


def _post(server, path, body):
    name, version, label, _ = _place(path)
    body = json.loads(body)
    signature = body.get("signature_name", "serving_default")
    _, model = server.model(name, version, label)
    inputs = list(model.described[signature].inputs) if signature in model.described else []

    def by_name(values):
        return values if isinstance(values, dict) else dict.fromkeys(inputs, values)

    if by_row := "instances" in body:
        rows = [by_name(row) for row in body["instances"]]
        tensors = {key: [row[key] for row in rows] for key in rows[0]}
    else:
        tensors = by_name(body["inputs"])
    found = server.predict(name, version, label, signature, tensors)
    found = {key: value.tolist() for key, value in found.items()}
    if len(found) == 1:
        [found] = found.values()
        return {"predictions": found} if by_row else {"outputs": found}
    if by_row:
        rows = zip(*found.values(), strict=True)
        return {"predictions": [dict(zip(found, row, strict=True)) for row in rows]}
    return {"outputs": found}


# gRPC.


def _grpc(server, port):
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    def spec(request):
        asked = request.model_spec
        kind = asked.WhichOneof("version_choice")
        version = asked.version.value if kind == "version" else None
        return asked.name, version, asked.version_label if kind == "version_label" else None

    def refusing(function):
        def answer(self, request, context):
            try:
                return function(request)
            except Refused as refused:
                context.abort(getattr(grpc.StatusCode, refused.code), str(refused))

        return answer

    def predict(request):
        tensors = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        signature = request.model_spec.signature_name or "serving_default"
        found = server.predict(*spec(request), signature, tensors)
        reply = predict_pb2.PredictResponse()
        for key, value in found.items():
            reply.outputs[key].CopyFrom(tf.make_tensor_proto(np.asarray(value)))
        return reply

    def metadata(request):
        number, model = server.model(*spec(request))
        reply = get_model_metadata_pb2.GetModelMetadataResponse()
        reply.model_spec.name, reply.model_spec.version.value = server.name, number
        found = get_model_metadata_pb2.SignatureDefMap()
        for key, value in model.described.items():
            found.signature_def[key].CopyFrom(value)
        reply.metadata["signature_def"].Pack(found)
        return reply

    service = type(
        "Service",
        (prediction_service_pb2_grpc.PredictionServiceServicer,),
        {"Predict": refusing(predict), "GetModelMetadata": refusing(metadata)},
    )
    running = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service(), running)
    port = running.add_insecure_port(f"127.0.0.1:{port}")
    running.start()
    return lambda: running.stop(None).wait(), port
