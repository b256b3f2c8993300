"""What is exported, read by a runtime that is not TensorFlow: OpenVINO's own reader of SavedModels.

It takes `serving_default` only.
"""

import sys

import numpy as np
import pytest

from tests.serving import tools
from tests.serving.tools import B, T

if not tools.ON_TENSORFLOW:
    pytest.skip(tools.REASON, allow_module_level=True)
# Its import reports itself to its makers through this package, unasked; not from a test.
sys.modules.setdefault("openvino_telemetry", None)
openvino = pytest.importorskip("openvino", reason="openvino is not installed")


@pytest.fixture(scope="module")
def compiled(exported):
    core, exact = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32"}  # else bfloat16 on some CPUs
    return {
        name: core.compile_model(core.read_model(path), "CPU", exact)
        for name, (_, path) in exported.items()
    }


@pytest.mark.parametrize("name", ["cells", "residual"])
@pytest.mark.parametrize("batch, steps", [(B, T), (2, 23), (1, 1)])
def test_answers_are_those_of_keras(exported, compiled, name, batch, steps):
    inputs = tools.arrays(name, batch, steps)
    found = compiled[name](inputs).to_dict()
    found = {tensor.get_any_name(): answer for tensor, answer in found.items()}
    expected = tools.answers(exported[name][0], inputs)
    assert set(found) == set(expected)
    for key, y in expected.items():
        np.testing.assert_allclose(found[key], y, atol=1e-5, err_msg=key)
