"""Pixel MNIST, from a small dataset of noise in the real format."""

import shutil
import sys

import numpy as np
import pytest

from keras_rnncells import datasets
from keras_rnncells.datasets.mnist import permutation


@pytest.fixture
def copy(mnist, tmp_path):
    """A copy of the dataset, to be damaged: the folder of TFDS, and that of the files in it."""
    shutil.copytree(mnist[0], tmp_path / "tfds")
    return tmp_path / "tfds", tmp_path / "tfds" / "mnist" / "3.0.1"


class TestPixels:
    @pytest.mark.parametrize("steps", [28, 784])
    def test_exact_values(self, mnist, steps):
        folder, arrays = mnist
        found = datasets.pixel_mnist(folder, held_out=20, steps=steps)
        train, test = arrays["train"], arrays["test"]
        expected = {
            "train": (train["image"][:40], train["label"][:40]),
            "validation": (train["image"][40:], train["label"][40:]),
            "test": (test["image"], test["label"]),
        }
        for split, (images, labels) in expected.items():
            x, y = getattr(found, split)
            assert x.dtype == "float32" and y.dtype == "int32"
            assert x.shape == (len(images), steps, 784 // steps)
            np.testing.assert_array_equal(y, labels)
            # In float32, x * 255 gives back each of the 256 values, after rounding.
            np.testing.assert_array_equal(np.rint(x.reshape(images.shape) * 255), images)
            assert x.min() == 0 and x.max() == 1

    def test_permuted(self, mnist):
        plain = datasets.pixel_mnist(mnist[0], held_out=20)
        permuted = datasets.pixel_mnist(mnist[0], held_out=20, permuted=True, seed=4)
        order = permutation(4)
        assert sorted(order) == list(range(784))
        for (x, y), (x_permuted, y_permuted) in zip(plain, permuted, strict=True):
            np.testing.assert_array_equal(x_permuted, x[:, order])
            np.testing.assert_array_equal(x_permuted[:, np.argsort(order)], x)
            np.testing.assert_array_equal(y_permuted, y)
            assert (x_permuted != x).any()
        rows = datasets.pixel_mnist(mnist[0], held_out=20, permuted=True, seed=4, steps=28)
        np.testing.assert_array_equal(rows.test[0].reshape(-1, 784, 1), permuted.test[0])

    def test_the_permutation_stays_what_it_is(self):
        # Written down once: the same numbers on every machine.
        assert permutation(0)[:8].tolist() == [693, 85, 647, 392, 765, 14, 299, 711]
        assert (permutation(0) != permutation(1)).any()

    def test_wrong_arguments(self, mnist):
        with pytest.raises(ValueError, match="`steps` must be one of 28, 784.*steps=56"):
            datasets.pixel_mnist(mnist[0], steps=56)
        with pytest.raises(ValueError, match="leave images to train on.*held_out=60 of 60"):
            datasets.pixel_mnist(mnist[0], held_out=60)
        with pytest.raises(ValueError, match="`held_out` must be an integer"):
            datasets.pixel_mnist(mnist[0], held_out=-1)


class TestFileOfKeras:
    @pytest.fixture
    def path(self, mnist, tmp_path):
        arrays = {
            f"{short}_{split}": part[name].reshape(len(part["label"]), *shape)
            for split, part in mnist[1].items()
            for short, name, shape in (("x", "image", (28, 28)), ("y", "label", ()))
        }
        np.savez_compressed(tmp_path / "mnist.npz", **arrays)
        return tmp_path / "mnist.npz"

    @pytest.mark.parametrize("permuted", [False, True])
    def test_is_what_tfds_has(self, mnist, path, permuted):
        expected = datasets.pixel_mnist(mnist[0], permuted, held_out=20)
        found = datasets.pixel_mnist(str(path), permuted, held_out=20)
        for parts in zip(found, expected, strict=True):
            for a, b in zip(*parts, strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)

    def test_missing(self, tmp_path):
        with pytest.raises(datasets.Missing, match="is not there.*python -c") as caught:
            datasets.pixel_mnist(tmp_path / "mnist.npz")
        assert str(caught.value).startswith(str(tmp_path / "mnist.npz"))

    def test_home(self, path, monkeypatch):
        monkeypatch.setenv("HOME", str(path.parent))
        assert len(datasets.pixel_mnist("~/mnist.npz", held_out=20).validation[0]) == 20

    def test_damaged(self, path):
        whole = path.read_bytes()
        for damaged in (whole[: len(whole) // 2], b"", b"no archive"):
            path.write_bytes(damaged)
            with pytest.raises(datasets.Damaged, match="mnist.npz is damaged"):
                datasets.pixel_mnist(path)
        np.savez(path, x_train=np.zeros((2, 28, 28), "uint8"))
        with pytest.raises(datasets.Damaged, match="y_train is not a file"):
            datasets.pixel_mnist(path)


class TestMissing:
    def test_not_in_the_folder(self, tmp_path):
        pytest.importorskip("tensorflow_datasets")
        with pytest.raises(datasets.Missing) as caught:
            datasets.pixel_mnist(tmp_path / "empty")
        message = str(caught.value)
        assert message.startswith(f"mnist is not in {tmp_path / 'empty'} and was not downloaded")
        command = f"tfds.load('mnist', data_dir='{tmp_path / 'empty'}')"
        assert f'python -c "import tensorflow_datasets as tfds; {command}"' in message
        assert "\n" not in message

    def test_no_network(self, monkeypatch, tmp_path):
        tfds = pytest.importorskip("tensorflow_datasets")

        def load(*args, **kwargs):
            raise ConnectionError("no network")

        monkeypatch.setattr(tfds, "load", load)
        monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
        with pytest.raises(datasets.Missing, match="not downloaded.*ConnectionError.*python -c"):
            datasets.pixel_mnist()

    @pytest.mark.parametrize(
        "package, extra", [("tensorflow", "cpu"), ("tensorflow_datasets", "data")]
    )
    def test_package(self, monkeypatch, package, extra):
        if package == "tensorflow_datasets":
            pytest.importorskip("tensorflow")
        monkeypatch.setitem(sys.modules, package, None)
        expected = rf"needs the package {package}, .*pip install keras_rnncells\[{extra}\]"
        with pytest.raises(datasets.Missing, match=expected):
            datasets.pixel_mnist()

    @pytest.mark.parametrize(
        "package, install",
        [("importlib_resources", r"keras_rnncells\[data\]"), ("pydub", "pydub")],
    )
    def test_package_that_tfds_imports_late(self, monkeypatch, package, install):
        tfds = pytest.importorskip("tensorflow_datasets")

        def load(*args, **kwargs):
            raise ModuleNotFoundError("No module", name=package)

        monkeypatch.setattr(tfds, "load", load)
        with pytest.raises(datasets.Missing, match=f"{package}, .*pip install {install}`"):
            datasets.pixel_mnist()


def cut(data):
    return data[: len(data) // 2 + 5]


def cut_between_records(data):
    # Records of noise have one length.
    return data[: len(data) // 2]


def flip(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


def empty(data):
    return b""


class TestDamaged:
    @pytest.mark.parametrize("damage", [cut, cut_between_records, flip, empty])
    @pytest.mark.parametrize("name", ["train.tfrecord", "test.tfrecord", "dataset_info"])
    def test_names_the_file(self, copy, damage, name):
        if damage is flip and name == "dataset_info":
            pytest.skip("It may still be JSON.")
        folder, files = copy
        (path,) = files.glob(f"*{name}*")
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(datasets.Damaged) as caught:
            datasets.pixel_mnist(folder)
        message = str(caught.value)
        assert message.count(f"{files}/") == 1 and str(path) in message
        assert f"Delete {files.parent}; with a network" in message and "\n" not in message

    def test_names_a_lost_file(self, copy):
        folder, files = copy
        (path,) = files.glob("*test.tfrecord*")
        path.unlink()
        with pytest.raises(datasets.Damaged, match=f"mnist is damaged.*: {path}. Delete"):
            datasets.pixel_mnist(folder)
