import gzip
import math
from importlib import import_module

import numpy as np
import pytest

SMALL = ["--parameters", "3000", "--layers", "2", "--batch-size", "3", "--window", "7"]


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """A folder of small texts in the format of Penn Treebank."""
    penn_treebank = import_module("keras_rnncells.datasets.penn_treebank")

    rng = np.random.default_rng(0)
    words = np.array(["the", "cat", "<unk>", "sat", "N"])
    for split, lines in (("train", 30), ("valid", 6), ("test", 6)):
        text = "".join(f" {' '.join(rng.choice(words, 6))} \n" for _ in range(lines))
        with gzip.open(tmp_path / f"ptb.{split}.txt.gz", "wt", encoding="ascii") as file:
            file.write(text)
    monkeypatch.setattr(penn_treebank, "SHA256", dict.fromkeys(penn_treebank.SHA256))
    return tmp_path


def test_trains_and_counts_bits(run, texts):
    result = run("ptb_characters", *SMALL, "--epochs", "2", "--data-dir", texts)
    assert 2800 < result["parameters"] <= 3000
    curve = result["curve"]
    assert 0 < result["value"] < math.log2(20)
    np.testing.assert_allclose(curve["bpc"][1], curve["loss"][1] / math.log(2), rtol=0.05)
    assert curve["val_bpc"][1] < curve["val_bpc"][0]
