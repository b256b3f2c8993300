"""Search spaces: what is in them, and that every tuner of KerasTuner can search them."""

import gc

import keras
import numpy as np
import pytest

keras_tuner = pytest.importorskip("keras_tuner", reason="keras_tuner is not installed")

from keras_rnncells import models  # noqa: E402
from keras_rnncells.cells import CELLS  # noqa: E402
from keras_rnncells.tuning import RNNHyperModel, divergence  # noqa: E402
from keras_rnncells.tuning.measure import milliseconds  # noqa: E402
from tests.tools import numpy  # noqa: E402

# KerasTuner asks Python for the thread by an old name.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner"),
    pytest.mark.filterwarnings("ignore::UserWarning:sklearn"),  # of a search in few points
    # Of a trial KerasTuner loads the weights into a model whose optimizer has not been built.
    pytest.mark.filterwarnings("ignore:Skipping variable loading:UserWarning"),
]
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="searches are tested on TensorFlow"
)

SHAPE = (6, 2)
SMALL = {"layers": 1, "units": 4, "normalization": "none", "schedule": "constant"}
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(16, *SHAPE)).astype("float32"), RNG.integers(3, size=16)


def small(cells=("IndRNN",), fixed=None, cls=RNNHyperModel, **arguments):
    fixed = {**SMALL, **(fixed or {})}
    return cls("classification", SHAPE, 3, cells, ["plain"], fixed=fixed, **arguments)


def search(tmp_path, hypermodel, tuner="RandomSearch", objective="val_loss", **arguments):
    limit = {"max_epochs": 2, "factor": 2} if tuner == "Hyperband" else {"max_trials": 2}
    cls = getattr(keras_tuner, tuner) if isinstance(tuner, str) else tuner
    made = cls(hypermodel, objective, directory=tmp_path, seed=3, **{**limit, **arguments})
    made.search(X, Y, validation_data=(X, Y), epochs=1, batch_size=8, verbose=0)
    return made


def trials(tuner):
    return [tuner.oracle.trials[i] for i in sorted(tuner.oracle.trials)]


def space(hypermodel, **values):
    """The hyperparameters that are active together with these values."""
    hp = keras_tuner.HyperParameters()
    hp.values.update(values)
    hypermodel.build(hp)
    return {h.name for h in hp.space if hp.is_active(h)}


@on_tensorflow
@pytest.mark.parametrize(
    "tuner", ["RandomSearch", "Hyperband", "BayesianOptimization", "GridSearch"]
)
def test_tuners(tmp_path, tuner):
    if tuner == "BayesianOptimization":
        pytest.importorskip("sklearn")
    made = search(tmp_path, small(["IndRNN", "LSTM"]), tuner)
    assert len(trials(made)) >= 2
    for trial in trials(made):
        assert trial.status == "COMPLETED" and np.isfinite(trial.score), trial.message
    (best,) = made.get_best_models()
    loss, _ = best.evaluate(X, Y, verbose=0)
    np.testing.assert_allclose(loss, made.oracle.get_best_trials()[0].score, rtol=1e-4)


@on_tensorflow
def test_same_seed_same_trials(tmp_path):
    first, again = (
        [t.hyperparameters.values for t in trials(search(tmp_path / name, small(["IRNN", "GRU"])))]
        for name in "ab"
    )
    assert first == again and first[0] != first[1]


@on_tensorflow
def test_diverged_trial_is_the_worst(tmp_path):
    objective = ["val_loss", "val_accuracy"]  # the lower the better, and the higher
    made = search(tmp_path, small(["IRNN"], {"learning_rate": 1e30}), objective=objective)
    assert [t.status for t in trials(made)] == ["COMPLETED"] * 2
    assert [t.score for t in trials(made)] == [2e4] * 2
    assert divergence.worst(keras_tuner.Objective("val_loss", "min"), 5.0) == {"val_loss": 5.0}
    assert divergence.worst(keras_tuner.Objective("val_accuracy", "max"), 5.0) == {
        "val_accuracy": -5.0
    }


@on_tensorflow
@pytest.mark.parametrize("limit", ["max_parameters", "max_milliseconds"])
def test_rejected_before_training(tmp_path, limit):
    made = search(tmp_path, small(**{limit: 1e-3 if limit == "max_milliseconds" else 10}))
    for trial in trials(made):
        assert trial.status == "FAILED" and f"{limit}=" in trial.message
        assert not trial.metrics.metrics


@on_tensorflow
def test_diverged_trial_is_promoted(tmp_path):
    made = search(tmp_path, small(["IRNN"], {"learning_rate": 1e30}), "Hyperband")
    assert [t.status for t in trials(made)] == ["COMPLETED"] * 5
    assert {t.score for t in trials(made)} == {1e4}
    assert sum("tuner/trial_id" in t.hyperparameters.values for t in trials(made)) == 1
    (model,) = made.get_best_models()
    assert not all(np.isfinite(w).all() for w in model.get_weights())


def test_diverged_trial_ends_early():
    hypermodel = small(["IRNN"], {"learning_rate": 1e30})
    hp = keras_tuner.HyperParameters()
    model = hypermodel.build(hp)
    assert hypermodel.fit(hp, model, X, Y, batch_size=4, epochs=5, verbose=0) == 1e4
    assert len(model.history.epoch) == 1


@on_tensorflow
def test_memory_does_not_grow(tmp_path):
    counts = []

    class Counting(keras_tuner.RandomSearch):
        def pre_create_trial(self):
            gc.collect()
            counts.append(len(gc.get_objects()))

    search(tmp_path, small(cls=RNNHyperModel), Counting, max_trials=4)
    # A trial leaves some 14,000 if TensorFlow keeps its graphs.
    assert len(counts) == 5 and abs(counts[4] - counts[2]) < 2000, counts


def test_measuring_changes_nothing():
    model = small(fixed={"dropout": 0.2}).build(keras_tuner.HyperParameters())
    before = [numpy(v) for v in model.variables]
    assert milliseconds(model, (X, Y), steps=1) > 0
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(value, numpy(variable))
    assert int(model.optimizer.iterations) == 0


def test_conditions():
    hypermodel = RNNHyperModel("classification", SHAPE, 3, ["IndRNN", "IRNN", "LSTM"])
    of_indrnn = {"gamma", "last_memory", "normalization_place", "learning_rate_IndRNN"}
    of_irnn = {"gain", "learning_rate_IRNN"}
    of_kinds = {
        "plain": {"layers", "units"},
        "residual": {"blocks", "units"},
        "dense": {"dense_blocks", "growth"},
    }
    common = {"cell", "kind", "normalization", "dropout", "clipnorm", "schedule"}
    for cell, own in (
        ("IndRNN", of_indrnn),
        ("IRNN", of_irnn),
        ("LSTM", {"learning_rate_LSTM"}),
    ):
        assert space(hypermodel, cell=cell, kind="plain") == common | own | of_kinds["plain"]
    for kind, own in of_kinds.items():
        found = space(hypermodel, cell="LSTM", kind=kind)
        assert found == common | own | {"learning_rate_LSTM"}


@pytest.mark.parametrize(
    "kind, cell",
    [("plain", "IRNN"), ("plain", "SCRN"), ("residual", "LSTM"), ("dense", "IndRNN")],
)
def test_values_rebuild_the_model_within_its_weights(kind, cell):
    size = {"dense_blocks": "2"} if kind == "dense" else {}
    hypermodel = RNNHyperModel(
        "classification", SHAPE, 3, [cell], [kind], fixed=size, parameters=3000
    )
    hp = keras_tuner.HyperParameters()
    model = hypermodel.build(hp)
    assert models.count_parameters(model) <= 3000
    again = keras_tuner.HyperParameters()
    again.values = dict(hp.values)
    rebuilt = hypermodel.build(again)
    assert rebuilt.get_config() == model.get_config()
    rate = [float(keras.ops.convert_to_numpy(m.optimizer.learning_rate)) for m in (rebuilt, model)]
    assert rate[0] == rate[1]
    recurrent = model.get_layer("recurrent_1")
    assert isinstance(recurrent, CELLS[cell].layer)
    # One unit more is one too many.
    name = "growth" if kind == "dense" else "units"
    units = recurrent.units // 6 if kind == "dense" else recurrent.units
    more = RNNHyperModel(
        "classification", SHAPE, 3, [cell], [kind], fixed={**size, name: units + 1}
    )
    assert models.count_parameters(more.build(keras_tuner.HyperParameters())) > 3000


@pytest.mark.parametrize("task", ["regression", "language"])
def test_tasks(task):
    language = task == "language"
    fixed = {"units": 4, "layers": 1, "schedule": "cosine"}
    if language:
        fixed["embedding"] = 3
    hypermodel = RNNHyperModel(
        task,
        (6,) if language else SHAPE,
        5 if language else 2,
        ["IndRNN"],
        ["plain"],
        fixed=fixed,
        batch_size=4 if language else None,
    )
    hp = keras_tuner.HyperParameters()
    model = hypermodel.build(hp)
    if language:
        x = RNG.integers(5, size=(8, 6))
        y = x
        assert "gamma" not in hp and model.get_layer("recurrent_1").stateful
    else:
        x, y = X, RNG.normal(size=(16, 2))
        assert hp.get("gamma") == 2
    rate = float(model.optimizer.learning_rate)
    history = hypermodel.fit(hp, model, x, y, batch_size=4, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all() and len(history.history["loss"]) == 2
    np.testing.assert_allclose(float(model.optimizer.learning_rate), rate / 2, rtol=1e-5)


def test_unknown_length_searches_max_timesteps():
    fixed = {"layers": 1}
    hypermodel = RNNHyperModel("regression", (None, 2), 1, ["IndRNN"], ["plain"], fixed=fixed)
    found = space(hypermodel)
    assert "max_timesteps" in found and "gamma" not in found


def test_overriding():
    class Mine(RNNHyperModel):
        def choose_dropout(self, hp):
            return 0.25

    hp = keras_tuner.HyperParameters()
    model = small(cls=Mine, fixed={"units": 7}).build(hp)
    assert model.get_layer("dropout_1").rate == 0.25 and "dropout" not in hp
    assert model.get_layer("recurrent_1").units == hp.get("units") == 7


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"task": "poetry"}, "task"),
        ({"input_shape": (3,)}, "input_shape"),
        ({"cells": "IndRNN"}, "cells"),
        ({"cells": ["Transformer"]}, "cells"),
        ({"kinds": []}, "kinds"),
        ({"parameters": 0}, "parameters"),
        ({"max_milliseconds": -1}, "max_milliseconds"),
        ({"batch_size": 4}, "language"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        RNNHyperModel(**{"task": "regression", "input_shape": (3, 2), "outputs": 1, **arguments})


@pytest.mark.parametrize("first", ["IndRNN", "IRNN", "LSTM"])
def test_fixed_of_one_cell_whichever_is_built_first(first):
    """A search that goes on in a new process begins with any cell."""
    hp = keras_tuner.HyperParameters()
    hp.Choice("cell", [first])
    fixed = {"gain": 0.5, "last_memory": "mixed", "gamma": 3.0, "normalization_place": "after"}
    small(["IndRNN", "IRNN", "LSTM"], fixed).build(hp)


def test_fixed_of_nothing():
    with pytest.raises(ValueError, match="gain"):
        small(fixed={"gain": 1.0}).build(keras_tuner.HyperParameters())
