"""Runs SavedModels through TensorFlow's C API, XLA switched off: the loader and executor that
TensorFlow Serving uses, as its server sets them, and no Python of TensorFlow or Keras.

As a program it runs a list of jobs: `python c_api.py <folder of tensorflow> <jobs> <results>`.
Both files are `.npz`; `jobs` says what to run and holds the arrays.
"""

import ctypes
import json
import sys
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p

import numpy as np

NUMBERS = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "bool": 10}
DTYPES = {number: np.dtype(name) for name, number in NUMBERS.items()}


class Buffer(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p)]


class Output(ctypes.Structure):
    _fields_ = [("operation", c_void_p), ("index", c_int)]


FUNCTIONS = {
    "TF_NewStatus": (c_void_p, []),
    "TF_GetCode": (c_int, [c_void_p]),
    "TF_Message": (c_char_p, [c_void_p]),
    "TF_NewGraph": (c_void_p, []),
    "TF_NewSessionOptions": (c_void_p, []),
    "TF_NewBuffer": (c_void_p, []),
    "TF_LoadSessionFromSavedModel": (
        c_void_p,
        [c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int, *[c_void_p] * 3],
    ),
    "TF_GraphOperationByName": (c_void_p, [c_void_p, c_char_p]),
    "TF_AllocateTensor": (c_void_p, [c_int, POINTER(c_int64), c_int, c_size_t]),
    "TF_TensorData": (c_void_p, [c_void_p]),
    "TF_TensorByteSize": (c_size_t, [c_void_p]),
    "TF_TensorType": (c_int, [c_void_p]),
    "TF_NumDims": (c_int, [c_void_p]),
    "TF_Dim": (c_int64, [c_void_p, c_int]),
    "TF_DeleteTensor": (None, [c_void_p]),
    "TF_SessionRun": (
        None,
        [
            *(c_void_p, c_void_p),
            *(POINTER(Output), POINTER(c_void_p), c_int),
            *(POINTER(Output), POINTER(c_void_p), c_int),
            *(POINTER(c_void_p), c_int, c_void_p, c_void_p),
        ],
    ),
}


def library(folder):
    ctypes.CDLL(f"{folder}/libtensorflow_framework.so.2", mode=ctypes.RTLD_GLOBAL)
    found = ctypes.CDLL(f"{folder}/libtensorflow_cc.so.2", mode=ctypes.RTLD_GLOBAL)
    found._ZN10tensorflow21DisableXlaCompilationEv()  # what the model server does at its start
    for name, (result, arguments) in FUNCTIONS.items():
        getattr(found, name).restype, getattr(found, name).argtypes = result, arguments
    return found


def message(data):
    """A protobuf message as the list of values of each field number."""
    position, found = 0, {}

    def varint():
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while position < len(data):
        key = varint()
        if key & 7 == 0:
            value = varint()
        else:
            length = {1: 8, 5: 4}.get(key & 7) or varint()
            value = data[position : position + length]
            position += length
        found.setdefault(key >> 3, []).append(value)
    return found


class SavedModel:
    def __init__(self, c, path):
        self.c, self.status, self.graph = c, c.TF_NewStatus(), c.TF_NewGraph()
        meta, tags = c.TF_NewBuffer(), (c_char_p * 1)(b"serve")
        self.session = c.TF_LoadSessionFromSavedModel(
            c.TF_NewSessionOptions(), None, path.encode(), tags, 1, self.graph, meta, self.status
        )
        self._check()
        buffer = ctypes.cast(meta, POINTER(Buffer)).contents
        definition = message(ctypes.string_at(buffer.data, buffer.length))
        self.signatures = {}
        for entry in map(message, definition[5]):
            signature = message(entry[2][0])
            self.signatures[entry[1][0].decode()] = [
                {
                    message(tensor)[1][0].decode(): message(message(tensor)[2][0])[1][0].decode()
                    for tensor in signature.get(field, [])
                }
                for field in (1, 2)
            ]

    def _check(self):
        if self.c.TF_GetCode(self.status):
            raise RuntimeError(self.c.TF_Message(self.status).decode())

    def _outputs(self, names):
        found = (Output * len(names))()
        for output, name in zip(found, names, strict=True):
            operation, index = name.rsplit(":", 1)
            output.operation = self.c.TF_GraphOperationByName(self.graph, operation.encode())
            output.index = int(index)
        return found

    def _tensor(self, array):
        array = np.ascontiguousarray(array)
        shape = (c_int64 * array.ndim)(*array.shape)
        number = NUMBERS[array.dtype.name]
        tensor = self.c.TF_AllocateTensor(number, shape, array.ndim, array.nbytes)
        ctypes.memmove(self.c.TF_TensorData(tensor), array.ctypes.data, array.nbytes)
        return tensor

    def _array(self, tensor):
        c = self.c
        data = ctypes.string_at(c.TF_TensorData(tensor), c.TF_TensorByteSize(tensor))
        shape = [c.TF_Dim(tensor, i) for i in range(c.TF_NumDims(tensor))]
        return np.frombuffer(data, DTYPES[c.TF_TensorType(tensor)]).reshape(shape)

    def run(self, signature, arrays):
        inputs, outputs = self.signatures[signature]
        if set(arrays) != set(inputs):
            raise ValueError(f"{signature} takes {sorted(inputs)}, received {sorted(arrays)}")
        tensors = (c_void_p * len(arrays))(*map(self._tensor, arrays.values()))
        found = (c_void_p * len(outputs))()
        self.c.TF_SessionRun(
            *(self.session, None),
            *(self._outputs([inputs[name] for name in arrays]), tensors, len(arrays)),
            *(self._outputs(list(outputs.values())), found, len(outputs)),
            *(None, 0, None, self.status),
        )
        self._check()
        results = {name: self._array(t) for name, t in zip(outputs, found, strict=True)}
        for tensor in (*tensors, *found):
            self.c.TF_DeleteTensor(tensor)
        return results


def run(model, job, arrays):
    """One call; with `states`, one call for each step of the inputs, from zeros."""
    if "states" not in job:
        return model.run(job["signature"], arrays)
    batch, steps = next(iter(arrays.values())).shape[:2]
    states = {
        name: np.zeros((batch, *spec["shape"][1:]), spec["dtype"])
        for name, spec in job["states"].items()
    }
    answers = []
    for t in range(steps):
        now = {name: value[:, t] for name, value in arrays.items()}
        found = model.run(job["signature"], {**now, **states})
        states = {name: found.pop(name) for name in states}
        answers.append(found)
    stacked = {name: np.stack([a[name] for a in answers], 1) for name in answers[0]}
    return {**stacked, **states}


def main(folder, jobs, results):
    assert "tensorflow" not in sys.modules
    c, models, found = library(folder), {}, {}
    with np.load(jobs) as file:
        arrays = dict(file)
    for i, job in enumerate(json.loads(str(arrays.pop("jobs")))):
        path = job["path"]
        if path not in models:
            models[path] = SavedModel(c, path)
        own = {k.split("/")[1]: v for k, v in arrays.items() if k.split("/")[0] == str(i)}
        try:
            answers = run(models[path], job, own)
        except (RuntimeError, ValueError) as error:
            answers = {"error": np.array(str(error))}
        found.update({f"{i}/{name}": value for name, value in answers.items()})
    np.savez(results, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
