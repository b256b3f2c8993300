"""Searches: one that runs through, one that is killed, one whose trials diverge."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import types

import keras
import numpy as np
import pytest

from tests.examples.conftest import EXAMPLES, kinds
from tests.tools import write_mnist, write_spoken_digit

keras_tuner = pytest.importorskip("keras_tuner", reason="keras_tuner is not installed")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner"),
]
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="searches are tested on TensorFlow"
)


def words(text):
    return text.split()


SMALL = words("--task adding --timesteps 6 --limit 32 --epochs 1 --seed 3 --cells IndRNN IRNN")
FIX = words("--fix units=4 layers=1")
SEARCH = [
    *words("--max-trials 3"), *SMALL, *FIX,
    *words("normalization=none schedule=constant clipnorm=1.0"),
]  # fmt: skip
NAME = "tune-adding-random"
RATES = words("--sensitivity --cells IRNN --rates 1e-2 1e30")


@pytest.fixture(scope="module")
def script():
    """The script, and its results in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        import tune

        def run(folder, *options):
            tune.main([*map(str, options), "--output", str(folder)])
            (result,) = folder.glob("tune-*.json")
            return json.loads(result.read_text())

        yield types.SimpleNamespace(run=run, module=tune)


@pytest.fixture(scope="module")
def whole(script, tmp_path_factory):
    """A search that nobody interrupted: its folder and its result."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, script.run(folder, *SEARCH)


@pytest.fixture(scope="module")
def rates(script, tmp_path_factory):
    """A search over the learning rate, of which one rate is too much: its folder and its result."""
    folder = tmp_path_factory.mktemp("rates")
    with pytest.MonkeyPatch.context() as patch:
        # They take time; the other search does them.
        patch.setattr(script.module, "milliseconds", lambda *_, **__: 1.0)
        patch.setattr(script.module, "save", lambda *_: None)
        return folder, script.run(folder, *SMALL, *FIX, *RATES)


def what_was_tried(result):
    """Of each trial what a second search has to find again."""
    timed = ("milliseconds", "seconds", "cpu_seconds")
    return [{k: v for k, v in each.items() if k not in timed} for each in result["trials"]]


def network(script, *options):
    args = script.module.options([*SMALL, *options])
    task = script.module.TASKS[args.task].load(args)
    return script.module.Network(task, args), keras_tuner.HyperParameters()


def test_the_seed_is_that_of_the_trial(script):
    """However many networks were built to find its size."""
    fixed = words("--parameters 300 --cells IRNN --kinds plain --fix layers=1 normalization=none")
    made, hp = network(script, *fixed)
    first, second = made.build(hp), made.build(hp)  # the size is known now
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@on_tensorflow
def test_a_promoted_trial_goes_on_in_its_data(script, monkeypatch, tmp_path):
    made, hp = network(script, *FIX, "normalization=none", "schedule=constant")
    given = []
    monkeypatch.setattr(
        script.module.RNNHyperModel, "fit", lambda *_, **kwargs: given.append(kwargs["x"])
    )
    monkeypatch.setattr(script.module, "milliseconds", lambda *_, **__: 1.0)
    trial = types.SimpleNamespace(trial_id="0")
    tuner = types.SimpleNamespace(get_trial_dir=lambda _: tmp_path)
    callbacks = [types.SimpleNamespace(tuner=tuner, trial=trial)]
    data = {"x": made.batches.as_tf_dataset(None), "steps_per_epoch": len(made.batches)}
    for epoch in (1, 0):
        made.fit(hp, made.build(hp), callbacks=callbacks, initial_epoch=epoch, **data)
        x, _ = next(iter(given[-1]))
        np.testing.assert_array_equal(x, made.batches.batch(epoch, 0)[0])


@on_tensorflow
def test_result_is_complete(whole):
    folder, result = whole
    assert kinds(folder) == [
        f"{NAME}{end}" for end in ("-cost.png", "-parallel.png", ".json", ".keras")
    ]
    assert len(result["trials"]) == 3 and {one["status"] for one in result["trials"]} == {
        "completed"
    }
    for one in result["trials"]:
        assert {"cell", "dropout", "learning_rate"} <= set(one) and "units" not in one
        assert one["parameters"] == (21 if one["cell"] == "IndRNN" else 33)
        assert one["score"] > 0 and one["milliseconds"] > 0 and one["seconds"] > 0
    assert result["axes"]["learning_rate"] == "log" and result["axes"]["gain"] == "choice"
    assert result["fixed"]["units"] == 4 and result["backend"] == "tensorflow"
    assert result["best"]["score"] == min(one["score"] for one in result["trials"])
    assert result["command"].startswith("python examples/tune.py --task adding")
    assert "layers=1" in result["command"] and "output" not in result["command"]
    assert {"keras", "keras-tuner"} <= set(result["versions"])


@on_tensorflow
def test_best_model_is_saved_tested_and_exported(whole, example):
    folder, result = whole
    model = keras.models.load_model(folder / f"{NAME}.keras")
    datasets = example("tasks").datasets
    x, y = datasets.adding_problem(1000, 6, [3, 1])
    np.testing.assert_allclose(
        np.mean((model.predict(x, verbose=0) - y) ** 2), result["test"], rtol=1e-4
    )
    x, y = datasets.adding_problem(1000, 6, 3)
    np.testing.assert_allclose(
        np.mean((model.predict(x, verbose=0) - y) ** 2), result["best"]["score"], rtol=1e-4
    )
    card = json.loads((folder / "models" / NAME / "1/assets.extra/model.json").read_text())
    assert "step" in card["signatures"]


@on_tensorflow
def test_hyperparameters_in_tensorboard(whole):
    import tensorflow as tf
    from tensorboard.compat.proto.event_pb2 import Event

    folder, result = whole
    for one in result["trials"]:
        files = (folder / "logs" / NAME / one["trial"]).rglob("events*")
        values = [
            value
            for file in files
            for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
            for value in Event.FromString(record).summary.value
        ]
        (started,) = [v for v in values if v.tag == "_hparams_/session_start_info"]
        assert one["cell"].encode() in started.metadata.plugin_data.content
        assert any("loss" in value.tag for value in values)


@on_tensorflow
def test_goes_on_after_a_kill(script, whole, tmp_path):
    command = [sys.executable, str(EXAMPLES / "tune.py"), *SEARCH, "--output", str(tmp_path)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    second = tmp_path / "search" / NAME / "trial_1" / "trial.json"
    until = time.monotonic() + 300
    while not second.exists() and running.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    errors = running.communicate()[1].decode()
    assert running.returncode == -signal.SIGKILL, errors
    assert not list(tmp_path.glob("*.json"))
    first = (tmp_path / "search" / NAME / "trial_0" / "record.json").read_text()
    result = script.run(tmp_path, *SEARCH)
    assert [one["trial"] for one in result["trials"]] == ["0", "1", "2"]
    for ours, theirs in zip(what_was_tried(result), what_was_tried(whole[1]), strict=True):
        np.testing.assert_allclose(ours.pop("score"), theirs.pop("score"), rtol=1e-5)
        assert ours == theirs
    # What had been done was not done again.
    assert (tmp_path / "search" / NAME / "trial_0" / "record.json").read_text() == first


@on_tensorflow
@pytest.mark.parametrize("most, status", [(2.0, "completed"), (0.5, "rejected")])
def test_goes_on_in_a_new_process(script, tmp_path, monkeypatch, most, status):
    """After what was trained, and after what was compiled to be measured, once."""

    class Left(Exception):
        pass

    def execv(path, arguments):
        assert (path, arguments) == (sys.executable, sys.orig_argv)
        raise Left

    monkeypatch.setattr(script.module, "TRIALS_OF_A_PROCESS", 1)
    measured = []

    def milliseconds(*_, **__):
        measured.append(1.0)
        return 1.0

    monkeypatch.setattr(script.module, "milliseconds", milliseconds)
    monkeypatch.setattr("keras_rnncells.tuning.hypermodel.milliseconds", milliseconds)
    monkeypatch.setattr(os, "execv", execv)
    with pytest.raises(Left):
        script.module.main(
            [*SEARCH, "--max-milliseconds", str(most), "--output", str(tmp_path)], restart=True
        )
    folder = tmp_path / "search" / f"{NAME}-{most:g}-ms"
    record = json.loads((folder / "trial_0/record.json").read_text())
    assert record.get("status", "completed") == status
    assert measured == [1.0] == [record["milliseconds"]]
    assert json.loads((folder / "oracle.json").read_text())["end_order"] == ["0"]


@on_tensorflow
def test_other_settings_are_refused(script, whole):
    with pytest.raises(SystemExit, match=r"other settings \(epochs, fix\)"):
        script.run(whole[0], *SEARCH, "dropout=0.0", "--epochs", 2)


@on_tensorflow
def test_workers_search_and_the_parent_reports(script, whole, tmp_path, monkeypatch):
    """`launch` searches: here, somebody has done so."""
    commands = []

    def launch(command, workers):
        commands.append((command, workers))
        (tmp_path / "search" / NAME / "settings.json").unlink()
        for path in sorted((whole[0] / "search").rglob("*")):
            to = tmp_path / path.relative_to(whole[0])
            if path.is_file() and path.name != "tuner0.json":  # another's name
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(path.read_bytes())
        return 0

    module = types.ModuleType("keras_rnncells.tuning.launch")
    module.launch = launch
    monkeypatch.setitem(sys.modules, module.__name__, module)
    result = script.run(tmp_path, *SEARCH, "--workers", 2)
    assert result["trials"] == whole[1]["trials"] and result["test"] == whole[1]["test"]
    ((command, workers),) = commands
    assert workers == 2 and command[1].endswith("tune.py") and command[2:4] == SEARCH[:2]


@on_tensorflow
def test_two_workers(script, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(script.module, "save", lambda *_: None)
    result = script.run(tmp_path, "--max-trials", 4, *SMALL, *FIX, "--workers", 2)
    assert [one["status"] for one in result["trials"]] == ["completed"] * 4
    assert result["best"]["score"] == min(one["score"] for one in result["trials"])
    # Who has trained: one epoch each trial.
    trained = re.findall(r"^\[(\w+)\] .* loss: ", capfd.readouterr().out, re.MULTILINE)
    assert len(trained) == 4 and set(trained) == {"tuner0", "tuner1"}


@on_tensorflow
def test_sensitivity_to_one_rate(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script.module, "milliseconds", lambda *_, **__: 1.0)
    monkeypatch.setattr(script.module, "save", lambda *_: None)
    result = script.run(tmp_path, *SMALL, *FIX, *words("--sensitivity --rates 1e-2"))
    assert {one["cell"]: one["learning_rate"] for one in result["trials"]} == {
        "IndRNN": 1e-2,
        "IRNN": 1e-2,
    }
    assert result["sensitivity"]["IRNN"]["learning_rate"] == 1e-2


@on_tensorflow
def test_diverged_trials_are_recorded(rates):
    folder, result = rates
    by_rate = {(one["cell"], one["learning_rate"]): one for one in result["trials"]}
    assert len(by_rate) == 2 == len(result["trials"])
    for (_, rate), one in by_rate.items():
        assert one["status"] == ("diverged" if rate == 1e30 else "completed")
        assert (one["score"] is None) == (rate == 1e30)
    assert kinds(folder)[0] == "tune-adding-sensitivity-rates.png"
    assert set(result["sensitivity"]) == {"IRNN"}


@pytest.mark.parametrize("rejected, turns", [(None, [2, 2, 2]), ("B", [2, 8, 2])])
def test_a_random_search_tries_each_cell_as_often(script, rejected, turns):
    """Of a cell that is always rejected, four count as one."""
    import keras_tuner

    hp = keras_tuner.HyperParameters()
    hp.Choice("cell", ["A", "B", "C"])
    hp.Float("rate", 0.0, 1.0)
    oracle = script.module.RandomSearch(
        objective=keras_tuner.Objective("score", "max"),
        max_trials=100,
        hyperparameters=hp,
        seed=1,
    )
    tried = []
    for _ in range(sum(turns)):
        trial_id = str(len(tried))
        values = oracle.populate_space(trial_id)["values"]
        trial = keras_tuner.engine.trial.Trial(hp.copy(), trial_id)
        trial.hyperparameters.values = values
        if values["cell"] == rejected:
            trial.metrics.register("rejected", "min")
        oracle.trials[trial_id] = trial
        tried.append(values["cell"])
    assert [tried.count(cell) for cell in "ABC"] == turns


def test_a_cell_with_nothing_new_left_loses_its_turn(script):
    import keras_tuner

    hp = keras_tuner.HyperParameters()
    hp.Choice("cell", ["A", "B"])
    hp.Float("rate", 0.0, 1.0, parent_name="cell", parent_values=["B"])
    oracle = script.module.RandomSearch(
        objective=keras_tuner.Objective("score", "max"),
        max_trials=4,
        hyperparameters=hp,
        seed=1,
    )
    oracle._set_project_dir("unused", "unused")
    oracle._save_trial = oracle.save = lambda *_: None
    cells = []
    for _ in range(4):
        trial = oracle.create_trial("tuner0")
        cells.append(trial.hyperparameters.values["cell"])
        trial.metrics.register("score", "max")
        trial.metrics.update("score", 1.0)
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    assert sorted(cells) == ["A", "B", "B", "B"]


@on_tensorflow
def test_what_is_too_large_is_not_trained(script, tmp_path):
    """IndRNN has 21 weights here and IRNN 33."""
    with pytest.raises(SystemExit, match="weights, with max_parameters=20"):
        script.run(tmp_path, *SEARCH, "--max-trials", 1, "--max-parameters", 20)
    result = json.loads((tmp_path / f"{NAME}.json").read_text())
    assert [one["status"] for one in result["trials"]] == ["rejected"] * 5
    assert {one["score"] for one in result["trials"]} == {None} and result["best"] is None


def test_width_in_decades(script):
    """Accuracies 0.1, 0.5, 0.9, 0.9, 0.5 at a rate each decade: 0.82 is crossed twice."""
    task = script.module.Task("classification", None, None, None, 10)
    scores = {1e-5: 0.1, 1e-4: 0.5, 1e-3: 0.9, 1e-2: 0.9, 1e-1: 0.5}

    def trials(cell, scores):
        return [
            {"cell": cell, "learning_rate": rate, "score": score,
             "status": "diverged" if score is None else "completed"}
            for rate, score in scores.items()
        ]  # fmt: skip

    found = script.module.width(
        [
            *trials("A", scores),
            # The mean of 0.9 and of a run that diverged, which counts as 0.1, is 0.5.
            *trials("B", {**scores, 1e-2: None}),
            *trials("B", {1e-2: 0.9}),
            *trials("C", {1e-3: 0.12, 1e-2: 0.1}),
            *trials("D", {1e-3: 0.9, 1e-2: 0.88}),
        ],
        task,
    )
    # A tenth of 0.8 below the best is a fifth of the way from 0.9 to 0.5.
    assert found["A"]["learning_rate"] == 1e-3 and found["A"]["within"]
    np.testing.assert_allclose(found["A"]["from"], 10**-3.2)
    np.testing.assert_allclose(found["A"]["to"], 10**-1.8)
    assert found["A"]["decades"] == 1.4 and found["B"]["decades"] == 0.4
    assert found["C"]["learns"] is False
    assert found["D"]["decades"] == 1 and not found["D"]["within"]


def test_mnist_by_rows_and_pixels(example, monkeypatch, tmp_path):
    arrays = write_mnist(tmp_path)
    tasks = example("tasks")
    monkeypatch.setattr(tasks, "HELD_OUT", 20)
    args = types.SimpleNamespace(data_dir=tmp_path, batch_size=8, limit=30, seed=0)
    for name, shape in (("rows", (28, 28)), ("pixels", (784, 1))):
        task = tasks.TASKS[name].load(args)
        assert task.input_shape == shape and len(task.train) == 4
        assert [len(task.validation[1]), len(task.test[1])] == [20, 30]
        np.testing.assert_array_equal(task.test[1], arrays["test"]["label"])
        assert task.objective == "val_accuracy" and task.chance == 0.1


def test_spoken_digits(example, tmp_path):
    sounds = write_spoken_digit(tmp_path)
    tasks = example("tasks")
    args = types.SimpleNamespace(data_dir=tmp_path, batch_size=8, limit=60, seed=0)
    task = tasks.digits(args)
    assert task.input_shape == (96, 40) and task.outputs == 10
    # Two recordings of each digit to train on, each in four variations: 80, of which 60 are left.
    x, y = (np.concatenate(part) for part in zip(*task.train, strict=True))
    assert x.shape == (60, 96, 40) and len(set(y)) == 10
    assert list(task.validation[1]) == list(task.test[1]) == list(range(10))
    # Silence first, then the sound up to its end.
    x, voiced = task.test[0][3], len(sounds["3_nobody_0.wav"]) // 80
    assert x[: 96 - voiced - 3].std() < 1e-4 and x[-1].std() > 0.1


@pytest.mark.parametrize(
    "options, message",
    [
        (["--sensitivity", "--kinds", "plain", "dense"], "one of --kinds"),
        (["--rates", "0.1"], "--sensitivity"),
        (["--fix", "layers"], "NAME=VALUE"),
        (["--sensitivity", "--fix", "learning_rate=0.1"], "give --rates"),
        (["--sensitivity", "--fix", "kind=residual"], "from --kinds"),
        (["--sensitivity", "--tuner", "grid"], "without a --tuner"),
        (["--sensitivity", "--rates", "0"], "not a positive number"),
        (["--tuner", "hyperband", "--max-trials", "9"], "no --max-trials"),
        (["--parameters", "9000", "--max-parameters", "9000"], "no --max-parameters"),
        (["--task", "rows", "--timesteps", "9"], "--task rows has its own"),
        *(
            ([f"--{name}", "0"], f"--{name}: 0 is not a positive")
            for name in words(
                "max-trials parameters max-parameters max-milliseconds repeats epochs batch-size "
                "limit timesteps workers"
            )
        ),
    ],
)
def test_options(script, options, message, capsys):
    with pytest.raises(SystemExit):
        script.module.options(options)
    assert message in capsys.readouterr().err


def test_defaults(script):
    options = script.module.options
    assert (options([]).tuner, options([]).max_trials) == ("random", 30)
    assert options(words("--tuner hyperband --quick")).max_trials is None
    assert options(["--sensitivity"]).tuner == "grid"
    assert (options([]).max_parameters, options([]).timesteps) == (300_000, 100)
    assert options(["--parameters", "9000"]).max_parameters is None
    few = words("--sensitivity --quick --rates 1e-4 1e-3 1e-2")
    assert options(few).rates == [1e-4, 1e-3, 1e-2]
    assert options(words("--sensitivity --quick")).rates == [3e-5, 1e-3, 3e-2]


def test_what_is_not_installed_is_one_sentence(script, example, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: name != "matplotlib" and find(name))
        with pytest.raises(SystemExit, match=r"keras_rnncells\[plot\]"):
            script.run(tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "keras_tuner", None)
    for module in ("tune", "keras_rnncells.tuning"):
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(SystemExit, match=r"keras_rnncells\[tune\]"):
        example("tune")


def test_a_task_that_cannot_be_made_is_one_sentence(script, tmp_path):
    with pytest.raises(SystemExit, match="`timesteps` must be at least 2. Received: timesteps=1"):
        script.run(tmp_path, "--task", "adding", "--timesteps", 1)


def test_fixed(script):
    args = script.module.options(
        words("--sensitivity --cells IndRNN LSTM --parameters 9000 --fix layers=3 dropout=0.1")
    )
    fixed = script.module.fixed(args)
    assert fixed["layers"] == 3 and fixed["dropout"] == 0.1 and fixed["gamma"] == 2.0
    assert "units" not in fixed and "gain" not in fixed and args.tuner == "grid"
    args = script.module.options(["--fix", "dense_blocks=2", "kind=dense", "units=8"])
    assert script.module.fixed(args) == {"dense_blocks": "2", "kind": "dense", "units": 8}


@on_tensorflow
def test_unknown_hyperparameter_is_one_sentence(script, tmp_path):
    with pytest.raises(SystemExit, match="`fixed` may have"):
        script.run(tmp_path, *SEARCH, "width=3")
