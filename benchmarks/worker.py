"""One layer in a process of its own: other backends, other interpreters, and peak memory.

`Worker` starts this file as a script, which runs one training step for each line it reads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measuring
import steps


class Worker:
    """A training step in a process of its own.

    Args:
        case: `backend`, `layer`, `shape`; and `dtype`, a Keras policy, and `jit`.
        python: the interpreter.

    Attributes:
        on: the machine and its versions.
        memory: the most memory so far, in MiB, above that of the libraries, weights and inputs.
    """

    def __init__(self, case: dict[str, Any], python: str = sys.executable) -> None:
        self._process = subprocess.Popen(
            [python, __file__, json.dumps(case)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "KERAS_BACKEND": case["backend"]},
        )
        self.on = self._reply()
        self.memory = 0.0

    def step(self) -> None:
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.memory = self._reply()

    def _reply(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended with {self._process.wait()}.")
        return json.loads(line)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: Any) -> None:
        self._process.stdin.close()
        self._process.wait()


def torch_modules(features: int, units: int) -> dict[str, Callable]:
    """What a user of PyTorch would take, by name."""
    import torch
    import torchrecurrent

    relu = {"nonlinearity": torch.relu}
    return {
        "Dense": lambda: torch.nn.Sequential(torch.nn.Linear(features, units), torch.nn.ReLU()),
        "torch LSTM": lambda: torch.nn.LSTM(features, units, batch_first=True),
        "torchrecurrent IndRNN": lambda: torchrecurrent.IndRNN(
            features, units, batch_first=True, **relu
        ),
    }


def training_step(
    backend: str,
    layer: str,
    shape: tuple[int, ...],
    dtype: str = "float32",
    jit: bool = False,
) -> Callable[[], Any]:
    if backend == "torch":
        return steps.torch_step(torch_modules(*shape[2:])[layer](), shape)
    import contenders
    import keras

    keras.config.set_dtype_policy(dtype)
    made = contenders.layers(shape[3])[layer]()
    return (
        steps.jax_step(made, shape) if backend == "jax" else steps.tensorflow_step(made, shape, jit)
    )


def resident(what: str) -> float:
    """Memory of this process in MiB: `VmRSS` now, `VmHWM` at most. On Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def serve(case: dict[str, Any]) -> None:
    replies, sys.stdout = sys.stdout, sys.stderr  # a library that prints is not understood
    step = training_step(**case)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    print(json.dumps(measuring.machine()), file=replies, flush=True)
    for _ in sys.stdin:
        step()
        print(json.dumps(resident("VmHWM") - before), file=replies, flush=True)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
