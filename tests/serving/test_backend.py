"""On another backend than TensorFlow, an export says what to do."""

import keras
import pytest

from keras_rnncells import serving
from tests.serving import tools


@pytest.mark.skipif(tools.ON_TENSORFLOW, reason="on TensorFlow there is nothing to say")
def test_other_backends(tmp_path):
    model = keras.Sequential([keras.Input((None, 2)), keras.layers.Dense(1)])
    for call in (
        lambda: serving.export(model, tmp_path / "m"),
        lambda: serving.StreamingModel(model),
    ):
        with pytest.raises(ValueError, match=r"model.save\('model.keras'\).*KERAS_BACKEND=tensorf"):
            call()
    assert not list(tmp_path.iterdir())
