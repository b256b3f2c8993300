"""The adding problem, and what all experiments share: resuming, results, pictures."""

import json
import shutil
import subprocess
import sys
import time
import types

import keras
import pytest

from tests.examples.conftest import EXAMPLES, kinds

SMALL = ["--timesteps", "8", "--units", "4", "--epochs", "3"]


@pytest.fixture
def no_fresh_process(example, monkeypatch):
    monkeypatch.setattr(example("adding_problem").subprocess, "run", lambda *a, **k: None)


def test_writes_everything(run, tmp_path, capfd):
    result = run("adding_problem", *SMALL, "--seed", "3")
    output = tmp_path / "output"
    assert kinds(output) == [f"adding_problem-IndRNN-8.{kind}" for kind in ("json", "keras", "png")]
    assert not (output / "checkpoints" / "adding_problem-IndRNN-8").exists()
    rows = [line.split() for line in capfd.readouterr().out.splitlines()[-10:]]
    assert all(0 <= float(true) <= 2 and abs(float(answer)) < 10 for true, answer in rows)

    command = "python examples/adding_problem.py --units 4 --epochs 3 --seed 3 --timesteps 8"
    assert result["command"] == command
    assert (result["steps"], result["epochs"], result["ended_by"]) == (300, 3, "epochs")
    assert result["curve"]["steps"] == [100, 200, 300]
    assert result["parameters"] == 4 * 2 + 2 * 4 + 4 * 4 + 2 * 4 + 5
    assert result["backend"] == keras.backend.backend()
    assert result["versions"]["keras"] == keras.__version__
    for key in ("metric", "value", "published", "source", "seconds", "device", "seed"):
        assert key in result
    assert str(tmp_path) not in json.dumps(result)


@pytest.mark.usefixtures("no_fresh_process")
def test_another_cell_stops_at_the_target(run):
    result = run("adding_problem", *SMALL, "--cell", "LSTM", "--target", "100")
    assert result["curve"]["steps"] == [100]
    assert (result["cell"], result["ended_by"], result["layers"]) == ("LSTM", "target", 1)


@pytest.mark.usefixtures("no_fresh_process")
def test_stops_within_the_budget(run):
    result = run("adding_problem", *SMALL, "--budget", "0.0001")
    assert (result["epochs"], result["ended_by"]) == (1, "budget")


@pytest.mark.usefixtures("no_fresh_process")
def test_the_best_weights_count(run, tmp_path):
    # A rate at which the error goes up and down.
    result = run("adding_problem", *SMALL, "--learning-rate", "1", "--epochs", "6")
    errors = result["curve"]["val_loss"]
    assert errors[-1] != min(errors), "choose a seed where the last epoch is not the best"
    model = keras.models.load_model(tmp_path / "output" / "adding_problem-IndRNN-8.keras")
    from keras_rnncells import datasets

    for seed, error in ((0, min(errors)), (1, result["test_mse"])):
        x, y = datasets.adding_problem(1000, 8, seed)
        mse = float(((model.predict(x, verbose=0) - y) ** 2).mean())
        assert mse == pytest.approx(error, rel=1e-4)


def start(folder, *options):
    command = [sys.executable, EXAMPLES / "adding_problem.py", *SMALL, "--output", folder]
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.usefixtures("no_fresh_process")
def test_killed_and_resumed_is_the_same_curve(run, tmp_path):
    options = ["--epochs", "12", "--target", "0"]
    killed = start(tmp_path / "killed", *options)
    kept = tmp_path / "killed" / "checkpoints" / "adding_problem-IndRNN-8"
    for _ in range(1200):
        if any(kept.glob("00000[3-9]")) or killed.poll() is not None:
            break
        time.sleep(0.05)
    killed.kill()
    printed = killed.communicate()[0].decode()
    assert any(kept.glob("0*")) and not kinds(tmp_path / "killed"), printed

    resumed = run("adding_problem", *SMALL, *options, folder=tmp_path / "killed")
    whole = run("adding_problem", *SMALL, *options, folder=tmp_path / "whole")
    for result in (resumed, whole):
        result.pop("seconds"), result.pop("cpu_seconds"), result["curve"].pop("seconds")
    assert resumed == whole
    assert len(whole["curve"]["val_loss"]) == 12


@pytest.mark.usefixtures("no_fresh_process")
def test_killed_while_it_removes_what_it_kept(run, example, monkeypatch, tmp_path):
    """What is left of that, half of an epoch, is nothing to go on from."""

    def killed(folder, **options):
        if folder.name != "adding_problem-IndRNN-8":  # of an earlier epoch
            return shutil.rmtree(folder, **options)
        next(folder.rglob("state.json")).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(example("progress"), "shutil", types.SimpleNamespace(rmtree=killed))
        run("adding_problem", *SMALL)
    (tmp_path / "output" / "adding_problem-IndRNN-8.json").unlink()
    assert run("adding_problem", *SMALL)["epochs"] == 3


@pytest.mark.usefixtures("no_fresh_process")
def test_another_run_does_not_go_on_from_here(run, example, monkeypatch, tmp_path):
    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(example("progress").Progress, "take_best", killed)
        run("adding_problem", *SMALL)
    with pytest.raises(SystemExit, match=r"other settings \(learning_rate\).*--output"):
        run("adding_problem", *SMALL, "--learning-rate", "0.5")
    assert run("adding_problem", *SMALL)["epochs"] == 3


@pytest.mark.usefixtures("no_fresh_process")
def test_a_result_is_not_replaced_by_that_of_other_settings(run, tmp_path):
    first = run("adding_problem", *SMALL)
    path = tmp_path / "output" / "adding_problem-IndRNN-8.json"
    with pytest.raises(SystemExit, match=r"other settings \(seed\): move it, .*--output"):
        run("adding_problem", *SMALL, "--seed", "1")
    assert json.loads(path.read_text()) == first
    # Of another kind, so that it has a name of its own.
    clipped = run("adding_problem", *SMALL, "--clipvalue", "0.001")
    assert clipped["variant"] == "8-clipped-at-0.001"
    assert clipped["curve"]["val_loss"] != first["curve"]["val_loss"]


def test_needs_matplotlib_before_it_trains(run, example, monkeypatch):
    experiment = example("experiment")
    find = experiment.importlib.util.find_spec
    monkeypatch.setattr(
        experiment.importlib.util, "find_spec", lambda name: name != "matplotlib" and find(name)
    )
    with pytest.raises(SystemExit, match=r"pip install keras_rnncells\[plot\]"):
        run("adding_problem", *SMALL)


@pytest.mark.usefixtures("no_fresh_process")
@pytest.mark.parametrize(
    "options, published", [(["--units", "128"], 1600), ([], None), (["--units", "128", "-q"], None)]
)
def test_published_steps_are_those_of_the_same_network(run, options, published):
    # After an epoch of any length.
    options = ["--quick" if option == "-q" else option for option in options]
    result = run("adding_problem", "--epochs", "1", "--target", "9", *SMALL[2:4], *options)
    assert result["published"] == published


@pytest.mark.parametrize(
    "option, value, message",
    [
        ("--units", "0", "0 is not a positive whole number"),
        ("--epochs", "-1", "-1 is not a positive whole number"),
        ("--layers", "1.5", "invalid positive value: '1.5'"),
        ("--budget", "nan", "nan is not a positive number"),
        ("--learning-rate", "0", "0 is not a positive number"),
    ],
)
def test_options_that_make_no_sense(run, capsys, option, value, message):
    with pytest.raises(SystemExit):
        run("adding_problem", option, value)
    assert f"{option}: {message}" in capsys.readouterr().err
