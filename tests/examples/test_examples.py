"""The examples run, write what they promise, and say what is missing."""

import json
from importlib import import_module
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.tools import write_mnist

EXAMPLES = Path(__file__).parents[2] / "examples"

pytest.importorskip("matplotlib")


@pytest.fixture
def example(monkeypatch):
    """Imports an example as Python finds it when it runs as a script: with its own folder."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return import_module


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    """A folder of TFDS with a `mnist` of noise, in the real format."""
    folder = tmp_path_factory.mktemp("tfds")
    write_mnist(folder)
    return folder


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


class TestWhole:
    def test_takes_the_place_of_a_file_and_of_a_folder(self, example, tmp_path):
        whole = example("files").whole
        for text in ("old", "new"):
            with whole(tmp_path / "a.txt") as new:
                new.write_text(text)
            with whole(tmp_path / "b") as new:
                new.mkdir()
                (new / text).write_text(text)
        assert files(tmp_path) == ["a.txt", "b/new"]
        assert (tmp_path / "a.txt").read_text() == "new"

    def test_an_error_leaves_the_old_one(self, example, tmp_path):
        (tmp_path / "a.txt").write_text("old")
        with (
            pytest.raises(OSError, match="disk full"),
            example("files").whole(tmp_path / "a.txt") as new,
        ):
            new.write_text("half")
            raise OSError("disk full")
        assert files(tmp_path) == ["a.txt"]
        assert (tmp_path / "a.txt").read_text() == "old"


class TestAddingProblem:
    SMALL = ["--timesteps", "8", "--units", "4", "--steps", "3", "--batch-size", "5"]

    def run(self, module, folder, *options):
        module.main([*self.SMALL, "--output", str(folder), *options])
        (result,) = folder.glob("*.json")
        return json.loads(result.read_text())["curve"]

    def test_sequences(self, example):
        module = example("adding_problem")
        x, y = next(module.adding_problem(9, 1000, seed=0))
        assert x.shape == (1000, 9, 2) and x.dtype == y.dtype == "float32"
        values, marks = x[..., 0], x[..., 1]
        assert set(np.unique(marks)) == {0, 1}
        assert (marks[:, :4].sum(1) == 1).all() and (marks[:, 4:].sum(1) == 1).all()
        np.testing.assert_allclose((values * marks).sum(1), y[:, 0], rtol=1e-6)
        assert marks.sum(0).min() > 150  # each place is marked: 1 in 4 and 1 in 5
        assert ((y - 1) ** 2).mean() == pytest.approx(module.CHANCE, abs=0.02)

    def test_writes_everything(self, example, tmp_path, capfd):
        served = tmp_path / "served" / "1"
        output = tmp_path / "output"
        self.run(example("adding_problem"), output, "--export", str(served))
        assert files(output) == [f"IndRNN-8.{kind}" for kind in ("json", "keras", "png")]
        printed = capfd.readouterr().out
        table = printed.split("SavedModel\n")[-1] if served.exists() else printed
        rows = [line.split() for line in table.splitlines()[-10:]]
        assert all(len(row) == (3 if served.exists() else 2) for row in rows)
        if keras.backend.backend() == "tensorflow":
            assert "saved_model.pb" in files(served)
            assert all(row[1] == row[2] for row in rows)
        else:
            assert not served.exists()
            assert "No SavedModel is exported" in printed

    @pytest.fixture
    def no_fresh_process(self, example, monkeypatch):
        monkeypatch.setattr(example("adding_problem").subprocess, "run", lambda *a, **k: None)

    @pytest.mark.usefixtures("no_fresh_process")
    def test_a_seed_gives_the_same_curve(self, example, tmp_path):
        module = example("adding_problem")
        first, second = (self.run(module, tmp_path / str(i), "--export", "") for i in range(2))
        assert first == second

    def test_another_seed_gives_other_sequences(self, example):
        module = example("adding_problem")
        first, second = (next(module.adding_problem(8, 5, seed))[0] for seed in range(2))
        assert (first != second).any()

    @pytest.mark.usefixtures("no_fresh_process")
    def test_another_cell_stops_at_the_target(self, example, tmp_path):
        module = example("adding_problem")
        curve = self.run(module, tmp_path, "--cell", "LSTM", "--steps", "300", "--target", "100")
        assert curve["steps"] == [100]
        assert files(tmp_path) == [f"LSTM-8.{kind}" for kind in ("json", "keras", "png")]


class TestPixelMnist:
    SMALL = ["--units", "4", "--epochs", "2", "--batch-size", "16", "--limit", "32"]

    def run(self, module, data, folder, *options):
        module.main([*self.SMALL, "--data-dir", str(data), "--output", str(folder), *options])
        (result,) = folder.glob("*.json")
        return json.loads(result.read_text())

    def test_writes_everything_and_again_the_same(
        self, example, mnist, tmp_path, monkeypatch, capsys
    ):
        module = example("pixel_mnist")
        monkeypatch.setattr(module, "HELD_OUT", 20)
        results = [self.run(module, mnist, tmp_path / str(i)) for i in range(2)]
        assert files(tmp_path / "0") == [
            f"IndRNN-28{rest}" for rest in ("-confusion.png", "-misread.png", ".json", ".keras")
        ]
        first, second = ({**r, "seconds": 0} for r in results)
        assert first == second
        assert np.sum(first["confusion"]) == 30
        accuracy = np.trace(first["confusion"]) / 30
        assert accuracy == pytest.approx(first["test_accuracy"])
        assert f"Test accuracy {accuracy:.2%}" in capsys.readouterr().out
        model = keras.models.load_model(tmp_path / "0" / "IndRNN-28.keras")
        assert model.input_shape == (None, 28, 28)

    def test_rows_and_pixels(self, example):
        to_sequences = example("pixel_mnist").to_sequences
        images = np.arange(2 * 784).reshape(2, 28, 28, 1) % 256
        for steps in (28, 784):
            x = to_sequences(images, steps)
            assert x.shape == (2, steps, 784 // steps)
            np.testing.assert_allclose((x.reshape(images.shape) + 1) * 127.5, images, atol=1e-4)

    def test_a_missing_dataset_is_one_sentence(self, example, tmp_path):
        pytest.importorskip("tensorflow_datasets")
        with pytest.raises(SystemExit, match="MNIST is not in .*python -c") as stopped:
            example("pixel_mnist").main(["--data-dir", str(tmp_path / "empty")])
        assert "\n" not in str(stopped.value)

    def test_no_network_is_one_sentence(self, example, monkeypatch):
        tfds = pytest.importorskip("tensorflow_datasets")

        def load(*args, **kwargs):
            raise ConnectionError("no network")

        monkeypatch.setattr(tfds, "load", load)
        with pytest.raises(SystemExit, match="not downloaded.*ConnectionError.*python -c"):
            example("pixel_mnist").main([])
