"""The package as a whole: what it imports, what it exports, and what it says without a backend."""

import importlib.util
import inspect
import os
import pathlib
import re
import subprocess
import sys

import keras
import pytest

import keras_rnncells as kr
from keras_rnncells.cells import CELLS

ROOT = pathlib.Path(__file__).parent.parent


def python(code, **environment):
    """Runs code in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )


def test_import_loads_no_extra():
    extras = ["keras_tuner", "tensorflow_datasets", "matplotlib", "sklearn", "scipy", "grpc"]
    extras.append("tensorflow")  # with another backend
    found = python(f"import sys, keras_rnncells; print([m for m in {extras} if m in sys.modules])")
    loaded_by_keras = python(f"import sys, keras; print([m for m in {extras} if m in sys.modules])")
    assert found.stdout == loaded_by_keras.stdout and found.stdout.startswith("["), found.stderr


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_missing_backend_is_one_sentence(backend):
    hide = (
        "import sys, importlib.abc\n"
        "class Hide(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {backend!r}:\n"
        f"            raise ModuleNotFoundError('No module named {backend}', name={backend!r})\n"
        "sys.meta_path.insert(0, Hide())\n"
        "import keras_rnncells"
    )
    result = python(hide, KERAS_BACKEND=backend)
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert f"{backend} is not installed" in last and "pip install keras_rnncells[cpu]" in last
    assert "During handling" not in result.stderr


def test_names():
    for row in CELLS.values():
        assert getattr(kr, row.name) is row.layer
        assert getattr(kr, f"{row.name}Cell") is row.cell
        for cls in (row.layer, row.cell):
            registered = keras.saving.get_registered_name(cls)
            assert registered == f"keras_rnncells>{cls.__name__}"
            assert keras.saving.get_registered_object(registered) is cls
    modules = {"initializers", "constraints", "regularizers", "datasets"}
    assert set(kr.__all__) >= {"RNN", *modules, *CELLS}
    for name in kr.__all__:
        assert hasattr(kr, name)


def test_public_api_has_type_hints():
    for row in CELLS.values():
        for cls in (row.layer, row.cell):
            for p in inspect.signature(cls).parameters.values():
                assert p.annotation is not p.empty, (cls, p)


def test_no_private_keras():
    for path in (ROOT / "keras_rnncells").rglob("*.py"):
        assert "keras.src" not in path.read_text(), path


def test_rooms_know_only_what_lies_below_them():
    order = ["recurrence", "base", "cells", "models"]
    alone = ["initializers", "constraints", "regularizers", "checks"]
    for path in (ROOT / "keras_rnncells").rglob("*.py"):
        room = path.relative_to(ROOT / "keras_rnncells").parts[0].removesuffix(".py")
        found = re.findall(r"(?:from|import) keras_rnncells[. ](?:import )?(\w+)", path.read_text())
        if room in order:
            allowed = {*order[: order.index(room) + 1], *alone}
        elif room in alone:
            allowed = set(alone)
        elif room == "datasets":
            allowed = {"checks"}
        else:
            continue
        assert {f for f in found if f in order + alone} <= allowed, path


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_on_pytorch():
    """The layers work through Keras' own loop."""
    code = (
        "import numpy as np, keras, keras_rnncells as kr\n"
        "x, m = np.random.rand(4, 6, 3).astype('float32'), np.ones((4, 6), bool)\n"
        "m[:, :2] = False\n"
        "for row in kr.cells.CELLS.values():\n"
        "    layer = row.layer(5, dropout=0.1, recurrent_dropout=0.1, zoneout=0.1)\n"
        "    assert layer(x, mask=m).shape[0] == 4\n"
        "    model = keras.Sequential([keras.Input((6, 3)), layer, keras.layers.Dense(1)])\n"
        "    model.compile('sgd', 'mse')\n"
        "    loss = model.fit(x, np.ones((4, 1)), verbose=0).history['loss']\n"
        "    assert np.isfinite(loss).all(), row.name\n"
        "print('all cells')"
    )
    result = python(code, KERAS_BACKEND="torch")
    assert "all cells" in result.stdout, result.stderr
