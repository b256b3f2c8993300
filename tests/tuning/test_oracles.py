"""Searches that are killed and go on: the same trials in the same order. Nothing is trained."""

import pytest

keras_tuner = pytest.importorskip("keras_tuner", reason="keras_tuner is not installed")

from keras_rnncells.tuning import oracles  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner"),
    pytest.mark.filterwarnings("ignore::UserWarning:sklearn"),
]


class Killed(BaseException):
    """What KerasTuner does not catch."""


def search(folder, oracle, killed_in=None, **arguments):
    """The values of the trials, in their order; the trial `killed_in` is not finished."""

    class Tuner(oracles.Tuner):
        def run_trial(self, trial, verbose):
            if int(trial.trial_id) == killed_in:
                raise Killed
            hp = trial.hyperparameters
            kind = hp.Choice("kind", ["flat", "steep"])
            with hp.conditional_scope("kind", ["steep"]):
                slope = hp.Choice("slope", [1.0, 2.0, 4.0]) if kind == "steep" else 0.5
            return slope * (hp.Float("place", 0, 1, step=0.5) - 0.3) ** 2

    space = keras_tuner.HyperParameters()
    space.Choice("kind", ["flat", "steep"])
    with space.conditional_scope("kind", ["steep"]):
        space.Choice("slope", [1.0, 2.0, 4.0])
    space.Float("place", 0, 1, step=0.5)
    made = oracle("val_loss", hyperparameters=space, seed=3, **arguments)
    tuner = Tuner(made, directory=folder, project_name="search")
    try:
        tuner.search(verbose=0)
    except Killed:
        return None
    return [tuner.oracle.trials[i].hyperparameters.values for i in tuner.oracle.start_order]


@pytest.mark.parametrize("killed_in", [0, 1, 5, 11])
def test_grid(tmp_path, killed_in):
    whole = search(tmp_path / "whole", oracles.GridSearchOracle)
    assert len(whole) == 3 + 3 * 3
    assert search(tmp_path / "killed", oracles.GridSearchOracle, killed_in) is None
    assert search(tmp_path / "killed", oracles.GridSearchOracle) == whole


def test_grid_stopped_between_trials(tmp_path):
    whole = search(tmp_path / "whole", oracles.GridSearchOracle)
    search(tmp_path / "stopped", oracles.GridSearchOracle, max_trials=5)
    assert search(tmp_path / "stopped", oracles.GridSearchOracle, max_trials=12) == whole


def test_bayesian(tmp_path):
    pytest.importorskip("sklearn")
    arguments = {"max_trials": 9, "num_initial_points": 4}
    oracle = oracles.BayesianOptimizationOracle
    whole = search(tmp_path / "whole", oracle, **arguments)
    assert len(whole) == 9
    assert search(tmp_path / "killed", oracle, 7, **arguments) is None
    assert search(tmp_path / "killed", oracle, **arguments) == whole


def test_an_ended_trial_is_not_begun_again(tmp_path):
    space = keras_tuner.HyperParameters()
    space.Float("place", 0, 1)
    arguments = {"max_trials": 2, "hyperparameters": space, "seed": 3}
    made = oracles.RandomSearchOracle("val_loss", **arguments)
    made._set_project_dir(tmp_path, "search")
    for _ in range(2):
        trial = made.create_trial("tuner0")
        made.update_trial(trial.trial_id, {"val_loss": 1.0})
        trial.status = "COMPLETED"
        made.end_trial(trial)
    again = oracles.RandomSearchOracle("val_loss", **arguments)
    again._set_project_dir(tmp_path, "search")
    again.reload()
    assert again.create_trial("tuner0").status == "STOPPED"


@pytest.mark.parametrize("written", range(1, 9))
def test_kill_while_files_are_written(tmp_path, monkeypatch, written):
    """At any moment, half of a file may be written: then it counts for nothing."""
    arguments = {"max_trials": 3}
    whole = search(tmp_path / "whole", oracles.RandomSearchOracle, **arguments)
    dump, count = oracles.json.dump, []

    def dump_half(state, file):
        count.append(state)
        if len(count) < written:
            return dump(state, file)
        file.write("{")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(oracles.json, "dump", dump_half)
        assert search(tmp_path / "killed", oracles.RandomSearchOracle, **arguments) is None
    assert search(tmp_path / "killed", oracles.RandomSearchOracle, **arguments) == whole
