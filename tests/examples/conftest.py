"""The examples are scripts: they are imported as Python finds them, with their own folder."""

import json
from importlib import import_module
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

pytest.importorskip("matplotlib")


@pytest.fixture
def example(monkeypatch):
    """Imports a script of the examples."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return import_module


@pytest.fixture
def run(example, tmp_path):
    """Runs a script, as from the command line, and returns the result that it wrote."""

    def run(script, *options, folder=tmp_path / "output"):
        before = set(folder.glob("*.json"))
        example(script).main([*map(str, options), "--output", str(folder)])
        (new,) = set(folder.glob("*.json")) - before
        return json.loads(new.read_text())

    return run


def kinds(folder):
    """The names of the files in a folder."""
    return sorted(path.name for path in folder.iterdir() if path.is_file())
