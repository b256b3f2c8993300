"""The README does what it says."""

import importlib.util
import json
import pathlib
import re
import tomllib

import keras
import pytest

from keras_rnncells.cells import CELLS

README = pathlib.Path(__file__).parent.parent / "README.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


def test_table_of_cells():
    rows = [
        f"| `{r.name}` | `{r.equation}` | {r.paper} | {r.parameters} | {r.use} |"
        for r in CELLS.values()
    ]
    written = README.read_text().split("table.py -->\n")[1].split("<!-- end")[0].splitlines()[2:]
    assert written == rows


@pytest.mark.parametrize("code", blocks("python"))
@pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner")
def test_code_runs(code, tmp_path, monkeypatch, capsys):
    if "serving" in code and keras.backend.backend() != "tensorflow":
        pytest.skip("models are exported on TensorFlow")
    for name in re.findall(r"^import (\w+)", code, re.MULTILINE):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out
    assert len(code.strip().splitlines()) <= 20, "twenty lines of Keras code"


def test_two_commands():
    first, second = blocks("sh")[:2]
    for command in (first, second):
        assert command.strip().count("\n") == 0
    assert "examples/adding_problem.py" in first and "pytest" in second


def test_extras():
    project = tomllib.loads((README.parent / "pyproject.toml").read_text())["project"]
    (paragraph,) = re.findall(r"^The extras choose .*?\n\n", README.read_text(), re.M | re.S)
    for extra in project["optional-dependencies"]:
        assert f"`{extra}`" in paragraph, extra


def test_links():
    for path in re.findall(r"\]\((?!http)([^)]+)\)", README.read_text()):
        assert (README.parent / path).exists(), path


def test_speed_is_what_was_measured():
    results = json.loads((README.parent / "benchmarks/results/layers-cpu.json").read_text())
    measured = results["32x784x128x128"]["milliseconds"]
    milliseconds = [measured[kind] for kind in ("plain", "jit")]
    rows = re.findall(r"^\| (.+) / (.+) \| (.+) \| (.+) \|$", README.read_text(), re.MULTILINE)
    assert len(rows) == 9
    for a, b, *written in rows:
        assert written == [f"{m[a]['median'] / m[b]['median']:.2g}" for m in milliseconds], (a, b)


def test_memory_of_a_search_is_what_was_measured():
    results = json.loads((README.parent / "benchmarks/results/search_memory-cpu.json").read_text())
    plain, jax, script = (record["mebibytes"] for record in results.values())
    assert len(plain) == 20
    text = " ".join(README.read_text().split())
    assert f"{plain[1]:,.0f} MiB after two trials, {plain[-1]:,.0f} after twenty" in text
    assert f"with JAX {jax[1]:.0f} and {jax[-1]:.0f};" in text
    assert f"({max(script):.0f} MiB at most)" in text
