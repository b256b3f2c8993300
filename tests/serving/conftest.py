"""What several files test: models that are exported once."""

import pytest

from keras_rnncells import serving
from tests.serving import tools


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """By name: a model, and the folder that it is exported to."""
    base = tmp_path_factory.mktemp("models")
    models = {"cells": tools.every_cell(), "residual": tools.residual()}
    options = {
        "formats": ["tf_saved_model", "litert", *(["onnx"] if tools.ONNX else [])],
        "training_result": {"val_loss": 0.25},
    }
    return {
        name: (model, serving.export(model, base / name, **options))
        for name, model in models.items()
    }
