"""The table and the pictures are those of the results."""

import json
from pathlib import Path

import pytest

from tests.examples.conftest import EXAMPLES

RESULTS = sorted((EXAMPLES / "results").glob("*.json"))


def test_readme_is_what_the_results_say(example):
    module = example("table")
    written = (EXAMPLES / "README.md").read_text().split(module.BEGIN)[1].split(module.END)[0]
    assert written == "\n" + module.text(EXAMPLES / "results")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_result_is_complete(path):
    result = json.loads(path.read_text())
    assert path.stem == "-".join(
        filter(None, [result["experiment"], result["cell"], result["variant"]])
    )
    assert "quick" not in result["variant"]
    assert path.with_suffix(".png").exists()
    assert all(len(values) == result["epochs"] for values in result["curve"].values())
    assert result["curve"]["steps"][-1] == result["steps"]
    assert (result["published"] is None) or result["source"]


def test_one_row_a_result_in_order(example, tmp_path):
    module = example("table")
    for variant, cell, value in (("1000", "LSTM", None), ("100", "IndRNN", 1500)):
        result = {
            "experiment": "adding_problem", "cell": cell, "variant": variant,
            "metric": "steps", "value": value, "published": 1600 if value else None,
            "source": "paper", "layers": 2, "units": 128, "steps": 12345, "seconds": 90,
            "parameters": 17281, "device": "2 CPU cores, X", "backend": "jax",
            "command": "python examples/adding_problem.py",
        }  # fmt: skip
        Path(tmp_path, f"adding_problem-{cell}-{variant}.json").write_text(json.dumps(result))
    Path(tmp_path, "adding_problem-IndRNN-100.png").touch()
    lines = module.text(tmp_path).splitlines()
    assert "IndRNN, 2 x 128 | steps | 1,600 (paper) | 1,500 | 12,345 | 1.5 | 17,281" in lines[2]
    assert "LSTM, 2 x 128 | steps | - | not reached |" in lines[3]
    assert lines[5:] == ["![adding_problem-IndRNN-100](results/adding_problem-IndRNN-100.png)"]
