"""Tools of the tests of serving: models with weights, and the server's runtime in a process."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
REASON = "TensorFlow Serving runs what Keras makes on TensorFlow"


def randomize(model, seed=5):
    """Gives a model random weights, moving statistics included; no two alike."""
    rng = np.random.default_rng(seed)
    model.set_weights(
        [
            rng.uniform(0.5, 2, w.shape) if "variance" in w.path else rng.normal(0, 0.5, w.shape)
            for w in model.weights
        ]
    )
    return model


def card(path):
    return json.loads((Path(path) / "assets.extra/model.json").read_text())


def serve(jobs, folder):
    """Runs jobs in one process as a server would: `(path, signature, inputs)` each.

    `"steps"` as the signature calls `step` for each step of the inputs.
    """
    if not sys.platform.startswith("linux"):
        pytest.skip("names of TensorFlow's libraries are those of Linux")
    described, arrays = [], {}
    for i, (path, signature, inputs) in enumerate(jobs):
        job = {"path": str(path), "signature": signature}
        if signature == "steps":
            job = {"path": str(path), "signature": "step", "states": card(path)["states"]}
        described.append(job)
        arrays.update({f"{i}/{name}": value for name, value in inputs.items()})
    folder.mkdir(exist_ok=True)
    np.savez(folder / "jobs.npz", jobs=np.array(json.dumps(described)), **arrays)
    tensorflow = importlib.util.find_spec("tensorflow").submodule_search_locations[0]
    program = Path(__file__).with_name("c_api.py")
    result = subprocess.run(
        [
            *(sys.executable, "-I", str(program), tensorflow),
            *(str(folder / "jobs.npz"), str(folder / "results.npz")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found = [{} for _ in jobs]
    with np.load(folder / "results.npz") as file:
        for key in file.files:
            i, name = key.split("/")
            found[int(i)][name] = file[key]
    return found
