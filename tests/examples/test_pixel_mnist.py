import keras
import numpy as np
import pytest

from keras_rnncells import datasets, models
from tests.examples.conftest import kinds
from tests.tools import numpy, write_mnist


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of TFDS with a small `mnist`."""
    folder = tmp_path_factory.mktemp("tfds")
    write_mnist(folder)
    return folder


@pytest.fixture(autouse=True)
def few_held_out(example, monkeypatch):
    monkeypatch.setattr(example("pixel_mnist"), "HELD_OUT", 20)


SMALL = ["--units", "4", "--layers", "2", "--epochs", "2", "--batch-size", "16"]


def test_rows(run, data, tmp_path, capsys):
    result = run("pixel_mnist", *SMALL, "--data-dir", data, "--timesteps", "28")
    name = "pixel_mnist-IndRNN-rows-2"
    assert kinds(tmp_path / "output") == [
        f"{name}{rest}" for rest in ("-confusion.png", ".json", ".keras", ".png")
    ]
    assert np.sum(result["confusion"]) == 30
    assert result["value"] == round(100 * np.trace(result["confusion"]) / 30, 2)
    assert "--timesteps 28" in result["command"] and "data-dir" not in result["command"]
    assert len(result["curve"]["val_accuracy"]) == 2
    model = keras.models.load_model(tmp_path / "output" / f"{name}.keras")
    assert model.input_shape == (None, 28, 28)

    # With the statistics of the weights that are kept.
    (x, y), *_ = datasets.pixel_mnist(data, held_out=20, steps=28)
    layer = model.get_layer("normalization_1")
    kept = [numpy(layer.moving_mean), numpy(layer.moving_variance)]
    # On JAX the batches have come to the next epoch before the validation.
    epoch = int(np.argmax(result["curve"]["val_accuracy"])) + (keras.backend.backend() == "jax")
    callback = models.PopulationStatistics(datasets.Shuffled(x, y, 16, epoch=epoch))
    callback.set_model(model)
    callback.measure()
    for a, b in zip(kept, [layer.moving_mean, layer.moving_variance], strict=True):
        np.testing.assert_allclose(a, numpy(b), rtol=1e-4, atol=1e-6)


def test_dropout_goes_on_with_the_same_masks(run, data, example, monkeypatch, tmp_path):
    """An epoch draws what its number says, whether or not the epochs before it ran here."""
    options = [*SMALL, "--data-dir", data, "--timesteps", "28", "--dropout", "0.5"]
    whole = run("pixel_mnist", *options, folder=tmp_path / "whole")

    class Killed(Exception):
        pass

    keep = example("progress").Progress._keep

    def keep_and_die(self):
        keep(self)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(example("progress").Progress, "_keep", keep_and_die)
        run("pixel_mnist", *options, folder=tmp_path / "killed")
    resumed = run("pixel_mnist", *options, folder=tmp_path / "killed")
    for key in ("loss", "val_loss", "val_accuracy"):
        assert resumed["curve"][key] == whole["curve"][key]


def test_quick_permuted_pixels(run, data):
    deep = [*SMALL, "--layers", "6"]
    result = run("pixel_mnist", *deep, "--data-dir", data, "--permuted", "--quick")
    # The published number is of 128 units.
    assert result["variant"] == "permuted-quick" and result["published"] is None


def test_another_cell_has_one_layer(run, data):
    options = ["--cell", "LSTM", *SMALL[:2], *SMALL[4:], "--timesteps", "28"]
    result = run("pixel_mnist", *options, "--data-dir", data)
    assert result["layers"] == 1 and result["variant"] == "rows"


def test_a_run_that_diverges_ends(run, data):
    """Of NaN weights nothing comes: the epochs that are left would be lost time."""
    options = [*SMALL, "--cell", "IRNN", "--timesteps", "28", "--learning-rate", "1e30"]
    result = run("pixel_mnist", *options, "--data-dir", data)
    assert (result["epochs"], result["ended_by"]) == (1, "divergence")
    assert np.isnan(result["curve"]["loss"]).all()


def test_a_missing_dataset_is_one_sentence(run, tmp_path):
    with pytest.raises(SystemExit, match="python -c") as stopped:
        run("pixel_mnist", "--data-dir", tmp_path / "empty")
    assert "\n" not in str(stopped.value)


def test_rows_are_not_permuted(run, capsys):
    with pytest.raises(SystemExit):
        run("pixel_mnist", "--permuted", "--timesteps", "28")
    assert "--permuted is about pixels" in capsys.readouterr().err
