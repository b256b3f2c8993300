import gzip
import math
from importlib import import_module

import keras
import numpy as np
import pytest

from keras_rnncells import datasets

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


def test_trains_and_counts_bits(run, texts, tmp_path):
    result = run("ptb_characters", *SMALL, "--epochs", "2", "--data-dir", texts)
    assert 2800 < result["parameters"] <= 3000
    curve = result["curve"]
    assert 0 < result["value"] < math.log2(20)
    np.testing.assert_allclose(curve["bpc"][1], curve["loss"][1] / math.log(2), rtol=0.05)
    assert curve["val_bpc"][1] < curve["val_bpc"][0]
    assert (result["variant"], result["published"]) == ("2-plain-3k", None)
    # The model that is kept reads each stream in one piece as the stateful one did in windows.
    text = datasets.penn_treebank(texts)
    assert "".join(text.symbols) == result["symbols"]
    x, y, weights = datasets.Streams(text.test, 3, window=len(text.test))[0]
    model = keras.models.load_model(tmp_path / "output" / "ptb_characters-IndRNN-2-plain-3k.keras")
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")(
        y, model.predict(x, verbose=0), weights
    )
    bits = float(entropy) / math.log(2) / (len(text.test) - 1)
    assert bits == pytest.approx(result["value"], abs=1e-4)


@pytest.mark.parametrize(
    "options, variant",
    [
        (["--layers", "3", "--kind", "residual"], "3-residual-3k-quick"),
        (["--layers", "1", "--cell", "LSTM", "--units", "6"], "1-plain-6-quick"),
        (["--layers", "6"], "6-plain-3k-quick"),
    ],
)
def test_quick(options, variant, run, texts):
    result = run("ptb_characters", *SMALL, *options, "--data-dir", texts, "--quick")
    # What the paper found is not of a minute.
    assert (result["variant"], result["epochs"], result["published"]) == (variant, 1, None)
    assert result["layers"] == int(options[1])


@pytest.mark.parametrize("options", [["--layers", "6"], ["--layers", "1"], ["--cell", "LSTM"]])
def test_a_residual_stack_has_an_odd_depth(options, run, capsys):
    with pytest.raises(SystemExit):
        run("ptb_characters", *options, "--kind", "residual")
    assert "--layers 3, 5, 7, ..." in capsys.readouterr().err


@pytest.mark.parametrize("place", ["before", "after"])
def test_place_of_normalization(place, example):
    script = example("ptb_characters")
    args = script.options(["--layers", "2", "--normalization", place])
    names = [layer.name for layer in script.build_model(20, args, 4).layers]
    recurrent = next(i for i, name in enumerate(names) if name.startswith("recurrent"))
    norm = next(i for i, name in enumerate(names) if name.startswith("normalization"))
    assert (norm < recurrent) == (place == "before"), names
