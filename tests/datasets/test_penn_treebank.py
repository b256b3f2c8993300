"""The Penn Treebank, from small texts in the format of the real ones."""

import gzip
import hashlib
import importlib
import shutil

import numpy as np
import pytest

from keras_rnncells import datasets
from keras_rnncells.datasets.penn_treebank import SHA256

TEXTS = {
    "train": " no it was n't black monday \n but while the <unk> rose N points \n the end \n",
    "validation": " the end was black \n",
    "test": " N points \n no <unk> rose \n",
}
CHARACTERS = {
    "train": "no_it_was_n't_black_monday\nbut_while_the_<unk>_rose_N_points\nthe_end\n",
    "validation": "the_end_was_black\n",
    "test": "N_points\nno_<unk>_rose\n",
}
NAMES = {"train": "ptb.train.txt", "validation": "ptb.valid.txt", "test": "ptb.test.txt"}


@pytest.fixture(params=["plain", "gz"])
def folder(request, tmp_path, monkeypatch):
    """A folder of texts whose checksums are the known ones."""
    for split, text in TEXTS.items():
        data = text.encode()
        monkeypatch.setitem(SHA256, split, hashlib.sha256(data).hexdigest())
        if request.param == "plain":
            (tmp_path / NAMES[split]).write_bytes(data)
        else:
            (tmp_path / f"{NAMES[split]}.gz").write_bytes(gzip.compress(data))
    return tmp_path


def decoded(found, between=""):
    return {split: between.join(found.symbols[i] for i in getattr(found, split)) for split in TEXTS}


class TestFiles:
    def test_characters(self, folder):
        found = datasets.penn_treebank(folder)
        assert decoded(found) == CHARACTERS
        assert found.symbols == sorted(set(CHARACTERS["train"]))
        for split, text in CHARACTERS.items():
            ids = getattr(found, split)
            assert ids.dtype == "int32" and ids.shape == (len(text),)

    def test_home(self, folder, monkeypatch):
        monkeypatch.setenv("HOME", str(folder.parent))
        assert decoded(datasets.penn_treebank(f"~/{folder.name}")) == CHARACTERS

    def test_words(self, folder):
        found = datasets.penn_treebank(folder, level="word")
        expected = {split: text.replace("\n", "<eos>").split() for split, text in TEXTS.items()}
        assert decoded(found, " ") == {split: " ".join(ws) for split, ws in expected.items()}
        assert found.symbols == sorted(set(expected["train"]))

    def test_wrong_level(self, folder):
        with pytest.raises(ValueError, match="one of 'character', 'word'. Received: level='byte'"):
            datasets.penn_treebank(folder, level="byte")

    @pytest.mark.parametrize("damage", ["cut", "flip", "other"])
    def test_damaged(self, folder, damage):
        (path,) = folder.glob("ptb.valid*")
        data = path.read_bytes()
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        other = b"another text\n"
        other = gzip.compress(other) if path.suffix == ".gz" else other
        path.write_bytes({"cut": data[:middle], "flip": flipped, "other": other}[damage])
        with pytest.raises(datasets.Damaged, match=f"^{path} is damaged"):
            datasets.penn_treebank(folder)

    def test_other_texts_without_verification(self, folder):
        for path in folder.iterdir():
            path.unlink()
        for split, name in NAMES.items():
            (folder / name).write_text(TEXTS[split].replace("black", "blue"))
        with pytest.raises(datasets.Damaged):
            datasets.penn_treebank(folder)
        found = datasets.penn_treebank(folder, verify=False)
        assert decoded(found)["validation"] == "the_end_was_blue\n"
        (folder / "ptb.test.txt").write_text(" queue \n")
        with pytest.raises(ValueError, match="The test text has .'q'.*training text has not"):
            datasets.penn_treebank(folder, verify=False)

    def test_one_is_missing(self, folder):
        for path in folder.glob("ptb.valid*"):
            path.unlink()
        with pytest.raises(datasets.Missing, match="lacks ptb.valid.txt.*curl .*train,valid,test"):
            datasets.penn_treebank(folder)

    def test_none_is_there(self, tmp_path):
        pytest.importorskip("tensorflow_datasets")
        with pytest.raises(datasets.Missing) as caught:
            datasets.penn_treebank(tmp_path)
        message = str(caught.value)
        assert message.startswith(f"penn_treebank_characters is not in {tmp_path}")
        assert ", keras_rnncells.datasets.penn_treebank_builder; tfds.load(" in message
        assert "\n" not in message


class TestBuilder:
    @pytest.fixture
    def tfds(self):
        pytest.importorskip("tensorflow")
        found = pytest.importorskip("tensorflow_datasets")
        importlib.import_module("keras_rnncells.datasets.penn_treebank_builder")
        return found

    def read(self, tfds, data_dir):
        splits = tfds.load("penn_treebank_characters", data_dir=data_dir, download=False)
        return {
            split: [example["text"].decode() for example in tfds.as_numpy(dataset)]
            for split, dataset in splits.items()
        }

    def prepare(self, tfds, data_dir, manual_dir=None):
        builder = tfds.builder("penn_treebank_characters", data_dir=data_dir)
        config = tfds.download.DownloadConfig(manual_dir=manual_dir)
        builder.download_and_prepare(download_config=config)
        return builder

    def test_from_the_manual_folder(self, tfds, folder):
        data_dir = folder / "tfds"
        builder = self.prepare(tfds, data_dir, folder)
        assert builder.info.splits["train"].num_examples == 1
        assert self.read(tfds, data_dir) == {s: [text] for s, text in CHARACTERS.items()}
        for level in ("character", "word"):
            direct = datasets.penn_treebank(folder, level=level)
            found = datasets.penn_treebank(data_dir, level=level)
            assert found.symbols == direct.symbols
            for split in TEXTS:
                np.testing.assert_array_equal(getattr(found, split), getattr(direct, split))

    def test_damaged_texts_are_not_prepared(self, tfds, folder):
        (path,) = folder.glob("ptb.test*")
        path.write_bytes(path.read_bytes()[:-3])
        with pytest.raises(datasets.Damaged, match=f"{path} is damaged"):
            self.prepare(tfds, folder / "tfds", folder)
        with pytest.raises(datasets.Missing):
            datasets.penn_treebank(folder / "tfds")

    @pytest.fixture
    def served(self, tfds, folder, monkeypatch):
        """The downloads come from a folder, which TFDS' downloader reads as it does URLs."""
        if not (folder / "ptb.train.txt").exists():
            pytest.skip("Downloads are plain.")
        builder = importlib.import_module("keras_rnncells.datasets.penn_treebank_builder")
        monkeypatch.setattr(builder, "URL", f"{folder}/ptb.{{}}.txt")
        monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(folder / "tfds"))
        return folder

    def test_downloads(self, tfds, served):
        assert decoded(datasets.penn_treebank()) == CHARACTERS
        assert self.read(tfds, served / "tfds") == {s: [text] for s, text in CHARACTERS.items()}

    def test_a_damaged_download(self, tfds, served):
        shutil.copy(served / "ptb.valid.txt", served / "ptb.test.txt")
        with pytest.raises(datasets.Damaged, match="is damaged or another file"):
            self.prepare(tfds, served / "tfds")

    def test_damaged_files_of_tfds(self, tfds, folder):
        data_dir = folder / "tfds"
        self.prepare(tfds, data_dir, folder)
        (path,) = data_dir.rglob("*train.tfrecord*")
        data = path.read_bytes()
        path.write_bytes(data[:-10])
        with pytest.raises(datasets.Damaged, match=f"penn_treebank_characters is .*{path}"):
            datasets.penn_treebank(data_dir)
