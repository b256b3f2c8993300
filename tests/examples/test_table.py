"""The table and the pictures are those of the results."""

import json
import re
from pathlib import Path

import pytest

from tests.examples.conftest import EXAMPLES

FOUND = sorted((EXAMPLES / "results").glob("*.json"))
SEARCHES = [path for path in FOUND if path.name.startswith("tune-")]
RESULTS = [path for path in FOUND if path not in SEARCHES]


def test_readme_is_what_the_results_say(example):
    module = example("table")
    written = (EXAMPLES / "README.md").read_text()
    for begin, end, text in (
        (module.BEGIN, module.END, module.text),
        (*module.SEARCHES, module.search_text),
    ):
        between = written.split(begin)[1].split(end)[0]
        assert between == "\n" + text(EXAMPLES / "results")


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.stem)
def test_search_is_complete(path):
    search = json.loads(path.read_text())
    assert path.stat().st_size < 100_000
    assert "quick" not in path.stem and search["test"] is not None
    picture = "rates" if search["sensitivity"] else "cost"
    assert path.with_name(f"{path.stem}-{picture}.png").exists()
    assert not [one for one in search["trials"] if one["status"] in ("running", "idle")]


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


def curves(name, cell, variant, published=None):
    """The result of an experiment, with its learning curve."""
    return {
        "name": f"{name}-{cell}-{variant}", "experiment": name, "cell": cell, "variant": variant,
        "metric": "steps until the MSE is below 0.01", "published": published, "layers": 1,
        "units": 8, "chance": 1 / 6,
        "curve": {"steps": [100, 200], "seconds": [60, 120], "val_loss": [0.2, 0.005],
                  "val_bpc": [3.0, 2.5]},
    }  # fmt: skip


def test_one_picture_for_the_cells_at_one_task(example, tmp_path):
    module = example("comparison")
    found = [
        curves("adding_problem", "IndRNN", "100", 1600),
        curves("adding_problem", "LSTM", "100"),
        curves("adding_problem", "IndRNN", "500"),
        curves("ptb_characters", "IndRNN", "21-residual"),
        curves("ptb_characters", "LSTM", "1-plain"),
        curves("ptb_characters", "LSTM", "1-plain-200k"),
        curves("ptb_characters", "IndRNN", "6-plain-2000-gpu"),
        curves("ptb_characters", "LSTM", "1-plain-gpu"),
        curves("ptb_characters", "LSTM", "1-plain-quick"),
        curves("spoken_digits", "IndRNN", ""),
    ]
    sizes = {name: len(results) for name, results in module.groups(found).items()}
    assert sizes == {
        "adding_problem-100-compared": 2,
        "adding_problem-500-compared": 1,
        "ptb_characters-compared": 2,
        "ptb_characters-200k-compared": 1,
        "ptb_characters-2000-gpu-compared": 1,
        "ptb_characters-gpu-compared": 1,
        "ptb_characters-quick-compared": 1,
        "spoken_digits-IndRNN-": 1,
    }
    module.draw(tmp_path, found)
    drawn = ["adding_problem-100-compared.png", "ptb_characters-compared.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == drawn


def test_unfinished_runs_are_listed(example, run, monkeypatch, tmp_path):
    """Of a run that was killed after its first epoch there is the checkpoint only."""
    experiment = example("experiment")
    monkeypatch.setattr(experiment.Run, "finish", lambda *_, **__: (_ for _ in ()).throw(KeyError))
    with pytest.raises(KeyError):
        run("adding_problem", "--timesteps", 8, "--units", 4, "--epochs", 1, folder=tmp_path)
    module = example("table")
    lines = module.text(tmp_path).splitlines()
    start = lines.index(module.UNFINISHED)
    command = "python examples/adding_problem.py --units 4 --epochs 1 --timesteps 8"
    row = rf"\| `{command}` \| 1 of 1 \| 100 \| 0 \| [0-9.]+ after epoch 1 \|"
    assert re.fullmatch(row, lines[start + 4])


def search(**changes):
    """The result of a search with three trials."""
    common = {"message": None, "parameters": 1234, "milliseconds": 4.567, "seconds": 60}
    return {
        "direction": "max", "metric": "accuracy, held out", "test": 0.9, "seconds": 240,
        "device": "2 CPU cores, X", "backend": "jax", "command": "python examples/tune.py",
        "trials": [
            {**common, "cell": "LSTM", "status": "completed", "score": 0.8,
             "learning_rate": 0.00123, "layers": 2},
            {**common, "cell": "LSTM", "status": "completed", "score": 0.95,
             "learning_rate": 0.004, "layers": 3},
            {**common, "cell": "IRNN", "status": "diverged", "score": None,
             "learning_rate": 0.1},
        ],
        "axes": {"cell": "choice", "learning_rate": "log", "layers": "linear"},
        "fixed": {}, "best": {}, "sensitivity": None, "settings": {"cells": ["IRNN", "LSTM"]},
        **changes,
    }  # fmt: skip


def test_best_trial_of_each_cell(example, tmp_path):
    module = example("table")
    Path(tmp_path, "tune-rows-random.json").write_text(json.dumps(search(best={"score": 0.95})))
    for name in ("tune-rows-random-cost", "tune-rows-random-5-ms-cost"):
        Path(tmp_path, f"{name}.png").touch()
    lines = module.search_text(tmp_path).splitlines()
    assert lines[0] == "### rows random"
    assert "[3 trials](results/tune-rows-random.json) in 4 minutes on 2 CPU cores" in lines[2]
    assert "on test data: 90.00 %" in lines[2]
    assert lines[6] == "| IRNN | 1 diverged | - | - | - | - | - |"
    assert lines[7] == "| LSTM | 2 completed | 95.00 % | 1,234 | 4.57 | 0.004 | layers 3 |"
    assert lines[9:] == ["![tune-rows-random-cost](results/tune-rows-random-cost.png)"]
    assert module.results(tmp_path) == []


def test_range_of_learning_rates(example, tmp_path):
    module = example("table")
    found = {"learning_rate": 0.01, "score": 0.9, "learns": True, "from": 0.002, "to": 0.05}
    widths = {
        "LSTM": {**found, "decades": 1.4, "within": True},
        "GRU": {**found, "decades": 1.4, "within": False},
        "IRNN": {"learning_rate": 0.01, "score": 0.11, "learns": False},
    }
    Path(tmp_path, "tune-rows.json").write_text(json.dumps(search(sensitivity=widths)))
    lines = module.search_text(tmp_path).splitlines()
    assert lines[6] == "| LSTM | 90.00 % | 0.01 | 0.002 | 0.05 | 1.4 |"
    assert lines[7] == "| GRU | 90.00 % | 0.01 | 0.002 | 0.05 | at least 1.4 |"
    assert lines[8] == "| IRNN | 11.00 % | 0.01 | - | - | does not learn |"
