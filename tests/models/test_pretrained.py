"""Trained models are found beside the package and where it was installed, and nowhere else."""

import json
import pathlib
import runpy
import sysconfig
import zipfile

import keras
import numpy as np
import pytest

import keras_rnncells
from keras_rnncells.models import load, plain, pretrained
from tests.tools import inputs, numpy

ROOT = pathlib.Path(keras_rnncells.__file__).parents[1]


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two places for trained models, the second of which has one."""
    places = [tmp_path / "clone", tmp_path / "installed"]
    monkeypatch.setattr(pretrained, "folders", lambda: places)
    (places[1] / "tiny").mkdir(parents=True)
    model = plain((None, 2), 1, units=3, layers=1)
    model.save(places[1] / "tiny" / "tiny.keras")
    return places, model


def test_load(folders):
    _, model = folders
    loaded = load("tiny")
    assert isinstance(loaded, keras.Model)
    np.testing.assert_array_equal(numpy(loaded(inputs(2, 4, 2))), numpy(model(inputs(2, 4, 2))))


@pytest.mark.parametrize("name", ["none", "", "../installed/tiny", "tiny/tiny", "/", ".", None])
def test_unknown_names(folders, name):
    with pytest.raises(ValueError, match="no trained model.*Found: 'tiny'.*saved_models/"):
        load(name)


def test_a_file_of_a_newer_keras_says_so(folders):
    places, _ = folders
    path = places[1] / "tiny" / "tiny.keras"
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    config = json.loads(parts["config.json"])
    config["config"]["layers"][1]["config"]["not_yet_known"] = 1
    for version in ("99.0.0", keras.__version__):
        metadata = {**json.loads(parts["metadata.json"]), "keras_version": version}
        parts.update({"config.json": json.dumps(config), "metadata.json": json.dumps(metadata)})
        with zipfile.ZipFile(path, "w") as file:
            for name, data in parts.items():
                file.writestr(name, data)
        newer = "written by Keras 99.0.0.*pip install -U keras"
        message = newer if version == "99.0.0" else "not_yet_known"
        with pytest.raises((TypeError, ValueError), match=message):
            load("tiny")


def test_nothing_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "folders", lambda: [tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="no trained model 'tiny'. Found: none"):
        load("tiny")


def test_places():
    clone, *installed = pretrained.folders()
    assert clone == ROOT / "saved_models"
    user = sysconfig.get_preferred_scheme("user")
    data = [sysconfig.get_path("data"), sysconfig.get_path("data", user)]
    assert installed == [pathlib.Path(d, "share", "keras_rnncells", "saved_models") for d in data]


def test_what_is_installed(tmp_path, monkeypatch):
    """`setup.py` installs models and their cards, to where `load` looks."""
    setuptools = pytest.importorskip("setuptools")
    found = []
    monkeypatch.setattr(setuptools, "setup", lambda **given: found.append(given["data_files"]))
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "setup.py"))
    (tmp_path / "saved_models" / "a" / "1").mkdir(parents=True)
    runpy.run_path(str(ROOT / "setup.py"))
    for name in ("a/a.keras", "a/README.md", "a/1/saved_model.pb", "a/notes.txt"):
        (tmp_path / "saved_models" / name).touch()
    runpy.run_path(str(ROOT / "setup.py"))
    files = ["saved_models/a/README.md", "saved_models/a/a.keras"]
    assert found == [[], [], [("share/keras_rnncells/saved_models/a", files)]]
