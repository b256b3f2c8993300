import json

import keras
import numpy as np
import pytest

from keras_rnncells import datasets
from tests.examples.conftest import EXAMPLES

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="SavedModels are written by TensorFlow"
)


@pytest.fixture
def published(run, example, monkeypatch, tmp_path):
    """A small model, trained and published, and its result."""
    monkeypatch.setattr(example("adding_problem").subprocess, "run", lambda *a, **k: None)
    small = ["--timesteps", "8", "--units", "4", "--epochs", "1"]
    result = run("adding_problem", *small)
    example("publish").main(
        ["adding_problem-IndRNN-8", "--from", str(tmp_path / "output"), "--to", str(tmp_path)]
    )
    return tmp_path / "adding_problem", result


def test_for_the_server_and_for_keras(published):
    import tensorflow as tf

    folder, result = published
    x = np.random.default_rng(0).uniform(size=(3, 8, 2)).astype("float32")
    model = keras.models.load_model(folder / "adding_problem.keras")
    saved_model = tf.saved_model.load(str(folder / "1"))
    assert set(saved_model.signatures) == {"serving_default", "padded", "step", "chunk"}
    answer = saved_model.signatures["serving_default"](sequence=x)
    np.testing.assert_allclose(answer["outputs"], model.predict(x, verbose=0), atol=1e-6)
    card = json.loads((folder / "1" / "assets.extra" / "model.json").read_text())
    assert card["training_result"]["value"] == result["value"]


def test_card_tells_the_result(published):
    folder, result = published
    card = (folder / "README.md").read_text()
    assert f"{result['parameters']:,} weights" in card
    assert f"`{result['command']}`, seed 0; 100 steps" in card
    assert "`[batch, 8, 2]`" in card and f"kept weights: {result['test_mse']:.2g}." in card


def test_the_code_of_the_card_runs(published, monkeypatch, capsys):
    folder, _ = published
    code = (folder / "README.md").read_text().split("```")[1].removeprefix("python\n")
    monkeypatch.setattr("keras_rnncells.models.pretrained.folders", lambda: [folder.parent])
    exec(code, {})
    sums = datasets.adding_problem(4, 8, 7)[1]
    assert str(sums) in capsys.readouterr().out


def test_an_order_that_nobody_knows(example, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"variant": "permuted-gpu"}))
    with pytest.raises(SystemExit, match="order of permuted pixels is not in the model"):
        example("publish").main(["run", "--from", str(tmp_path)])


SAVED_MODELS = sorted(EXAMPLES.parent.glob("saved_models/*/README.md"))


@pytest.mark.parametrize("path", SAVED_MODELS, ids=lambda path: path.parent.name)
def test_published_models_answer_the_same_in_both_forms(path):
    import tensorflow as tf

    from keras_rnncells import models, serving
    from keras_rnncells.models.pretrained import release, written_by

    written = written_by(path.parent / f"{path.parent.name}.keras")
    if release(written) > release(keras.__version__):
        pytest.skip(f"written by Keras {written}, which older ones cannot read")
    model = models.load(path.parent.name)
    exec(path.read_text().split("```")[1].removeprefix("python\n"), {})  # the code of the card
    saved_model = tf.saved_model.load(str(path.parent / "1"))
    shape = [2, 30 if model.input_shape[1] is None else model.input_shape[1]]
    shape += model.input_shape[2:]
    rng = np.random.default_rng(0)
    if keras.backend.is_float_dtype(model.inputs[0].dtype):
        x = rng.uniform(size=shape).astype("float32")
    else:
        x = rng.integers(0, 10, shape).astype("int32")
    ours = serving.StreamingModel(model).chunk(x)
    theirs = serving.StreamingModel(path.parent / "1").chunk(x)
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    (name,) = saved_model.signatures["serving_default"].structured_input_signature[1]
    whole = saved_model.signatures["serving_default"](**{name: x})
    np.testing.assert_allclose(next(iter(whole.values())), ours, atol=1e-5)
