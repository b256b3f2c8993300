"""What is exported, run as a server runs it: answers, shapes, and the folder that it finds."""

import json
import os
import re
import threading
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_rnncells as kr
from keras_rnncells import serving
from keras_rnncells.serving import rules
from tests.serving import tools
from tests.serving.tools import ONNX, B, D, T, U, answers, arrays

if not tools.ON_TENSORFLOW:
    pytest.skip(tools.REASON, allow_module_level=True)

layers = keras.layers
PUBLISHED = sorted(Path(__file__).parents[2].glob("saved_models/*/1"))


def inputs_of(path, batch=2, steps=30):
    """Any inputs of an exported model."""
    rng, inputs = np.random.default_rng(0), {}
    for name, spec in tools.card(path)["signatures"]["serving_default"]["inputs"].items():
        shape = [batch, spec["shape"][1] or steps, *spec["shape"][2:]]
        tokens = spec["dtype"].startswith("int")
        numbers = rng.integers(0, 10, shape) if tokens else rng.uniform(size=shape)
        inputs[name] = numbers.astype(spec["dtype"])
    return inputs


@pytest.fixture(scope="module")
def served(exported, tmp_path_factory):
    """All that the tests below ask of the server, in one process."""
    jobs = {}
    for name, (_, path) in exported.items():
        inputs = arrays(name)
        [key] = inputs
        jobs[name, "whole"] = path, "serving_default", inputs
        jobs[name, "long"] = path, "serving_default", arrays(name, 2, 23)
        jobs[name, "one"] = path, "serving_default", arrays(name, 1, 1)
        jobs[name, "steps"] = path, "steps", inputs
        lengths = np.array([2, 5, 7], "int32")
        padding = np.arange(T) >= lengths[:, None]
        # As the server's batching pads: with the first element of the tensor.
        garbage = inputs[key].copy()
        garbage[padding] = garbage.flat[0]
        jobs[name, "padded"] = path, "padded", {key: garbage, "lengths": lengths}
        zeros = {
            state: np.zeros((B, *spec["shape"][1:]), spec["dtype"])
            for state, spec in tools.card(path)["states"].items()
        }
        jobs[name, "chunk"] = path, "chunk", {key: inputs[key][:, :3], **zeros}
        if name == "cells":
            nan = inputs[key].copy()
            nan[1] = np.nan
            jobs[name, "nan"] = path, "chunk", {key: nan, **zeros}
    for path in PUBLISHED:
        inputs = inputs_of(path)
        jobs[path, "whole"] = path, "serving_default", inputs
        jobs[path, "steps"] = path, "steps", inputs
    wrong = {"x": np.zeros((2, 3, D + 1), "float32")}
    jobs["cells", "shape"] = exported["cells"][1], "serving_default", wrong
    found = tools.serve(list(jobs.values()), tmp_path_factory.mktemp("served"))
    return dict(zip(jobs, found, strict=True))


BOTH = pytest.mark.parametrize("name", ["cells", "residual"])


@BOTH
@pytest.mark.parametrize("case, batch, steps", [("whole", B, T), ("long", 2, 23), ("one", 1, 1)])
def test_whole_sequences(exported, served, name, case, batch, steps):
    expected = answers(exported[name][0], arrays(name, batch, steps))
    found = served[name, case]
    assert set(found) == set(expected)
    for key, y in expected.items():
        np.testing.assert_allclose(found[key], y, atol=1e-5, err_msg=key)


@BOTH
def test_steps_give_what_the_whole_gives(exported, served, name):
    model, path = exported[name]
    found, whole = served[name, "steps"], answers(model, arrays(name))
    some = [0, 3, T - 1]  # where the answer is the last step: that for the sequence up to it
    up_to = [answers(model, {k: v[:, : t + 1] for k, v in arrays(name).items()}) for t in some]
    for key, over_time in tools.card(path)["over_time"].items():
        expected = whole[key] if over_time else np.stack([y[key] for y in up_to], 1)
        steps = found[key] if over_time else found[key][:, some]
        np.testing.assert_allclose(steps, expected, atol=1e-5, err_msg=key)


@BOTH
def test_padding_is_not_seen(exported, served, name):
    model, path = exported[name]
    for row, length in enumerate([2, 5, 7]):
        short = {k: v[row : row + 1, :length] for k, v in arrays(name).items()}
        for key, y in answers(model, short).items():
            found = served[name, "padded"][key][row]
            found = found[:length] if tools.card(path)["over_time"][key] else found
            np.testing.assert_allclose(found, y[0], atol=1e-5, err_msg=key)


@BOTH
def test_chunk(exported, served, name):
    expected = answers(exported[name][0], {k: v[:, :3] for k, v in arrays(name).items()})
    for key, y in expected.items():
        np.testing.assert_allclose(served[name, "chunk"][key], y, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_published_models(served, path):
    """Step by step what they answer whole, which `tests/examples` compares with Keras' answers."""
    for name, over_time in tools.card(path)["over_time"].items():
        whole, steps = served[path, "whole"][name], served[path, "steps"][name]
        scale = np.ptp(whole)
        assert scale > 1e-3  # an answer that depends on the inputs
        found = steps if over_time else steps[:, -1]
        np.testing.assert_allclose(found, whole, rtol=0, atol=1e-5 * max(scale, 1))


def test_nan_stays_in_its_row(exported, served):
    expected = answers(exported["cells"][0], arrays("cells"))
    for key, y in expected.items():
        found = served["cells", "nan"][key]
        np.testing.assert_allclose(found[[0, 2]], y[[0, 2]], atol=1e-5, err_msg=key)


def test_wrong_shapes_are_told_by_name(served):
    told = str(served["cells", "shape"]["error"])
    assert "[2,3,5] is not compatible with expected shape [?,?,4]" in told
    assert "shape_of_x" in told


@BOTH
def test_nothing_is_compiled(exported, name):
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((exported[name][1] / "saved_model.pb").read_bytes())
    functions = saved.meta_graphs[0].graph_def.library.function
    assert len(functions) > 4
    for f in functions:
        assert not any(a["_XlaMustCompile"].b for a in (f.attr, *(n.attr for n in f.node_def)))
    ops = {node.op for f in functions for node in f.node_def}
    assert not ops & {"XlaLaunch", "XlaCallModule", "PyFunc", "EagerPyFunc", "CudnnRNNV3"}


def test_model_card(exported):
    card = tools.card(exported["residual"][1])
    assert list(card["signatures"]) == ["serving_default", "padded", "step", "chunk"]
    step = card["signatures"]["step"]
    assert step["inputs"]["tokens"] == {"shape": [None], "dtype": "int32"}
    assert step["outputs"]["each"] == {"shape": [None, 3], "dtype": "float32"}
    assert card["signatures"]["chunk"]["inputs"]["tokens"]["shape"] == [None, None]
    assert card["signatures"]["chunk"]["outputs"]["each"]["shape"] == [None, None, 3]
    assert card["signatures"]["padded"]["inputs"]["lengths"]["shape"] == [None]
    states = {name: s["shape"] for name, s in card["states"].items()}
    suffixes = {re.sub(r"_\d+", "", name): shape for name, shape in states.items()}
    assert len(states) == 5 and {s["dtype"] for s in card["states"].values()} == {"float32"}
    assert [None, 4, D] in suffixes.values() and suffixes.keys() >= {"lstm_h", "lstm_c", "gru_h"}
    assert card["causal"] is True and card["left_out"] == {}
    assert card["training_result"] == {"val_loss": 0.25}
    assert card["versions"]["keras_rnncells"] == kr.__version__
    assert {"tensorflow", "keras"} < set(card["versions"])


@pytest.fixture(scope="module")
def loaded(exported):
    import tensorflow as tf

    return tf.saved_model.load(str(exported["residual"][1]))


def test_missing_states_are_told_by_name(loaded):
    with pytest.raises(TypeError, match=r"missing.*gru(_\d+)?_h"):
        loaded.signatures["step"](tokens=arrays("residual")["tokens"][:, 0])


def test_signatures_are_what_the_card_says(exported, loaded):
    for name, told in tools.card(exported["residual"][1])["signatures"].items():
        found = loaded.signatures[name]
        for tensors, specs in (
            (found.structured_input_signature[1], told["inputs"]),
            (found.structured_outputs, told["outputs"]),
        ):
            assert set(tensors) == set(specs)
            for key, spec in specs.items():
                assert tensors[key].shape.as_list() == spec["shape"], (name, key)
                assert tensors[key].dtype.name == spec["dtype"]


def test_warmup_requests_run(exported, loaded):
    import tensorflow as tf

    from keras_rnncells.serving import warmup

    file = str(exported["residual"][1] / "assets.extra/tf_serving_warmup_requests")
    found = {}
    for record in tf.data.TFRecordDataset(file):
        log = warmup.messages()["PredictionLog"].FromString(record.numpy())
        request = log.predict_log.request
        assert request.model_spec.name == "residual"
        inputs = {entry.key: tf.make_ndarray(entry.value) for entry in request.inputs}
        found[request.model_spec.signature_name] = inputs
    assert list(found) == ["serving_default", "padded", "step", "chunk"]
    for signature, inputs in found.items():
        loaded.signatures[signature](**{key: tf.constant(v) for key, v in inputs.items()})


def test_warmup_is_what_the_stubs_read(exported):
    pb = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2", exc_type=ImportError)
    import tensorflow as tf

    file = str(exported["residual"][1] / "assets.extra/tf_serving_warmup_requests")
    for record in tf.data.TFRecordDataset(file):
        request = pb.PredictionLog.FromString(record.numpy()).predict_log.request
        assert request.model_spec.name == "residual" and "tokens" in request.inputs


# Other formats.


def steps_of(path, call, inputs, new=""):
    """All answers of a function that runs one step."""
    states = {
        state: np.zeros((B, *spec["shape"][1:]), spec["dtype"])
        for state, spec in tools.card(path)["states"].items()
    }
    answers = []
    for t in range(T):
        found = call({**{key: value[:, t] for key, value in inputs.items()}, **states})
        states = {state: found.pop(state + new) for state in states}
        answers.append(found)
    return {name: np.stack([a[name] for a in answers], 1) for name in answers[0]}


@pytest.mark.filterwarnings(r"ignore:\s*Warning:UserWarning")  # to take ai_edge_litert
@BOTH
def test_litert(exported, served, name):
    import tensorflow as tf

    path = exported[name][1]
    interpreter = tf.lite.Interpreter(str(path / "step.tflite"))
    runner = interpreter.get_signature_runner("step")
    found = steps_of(path, lambda tensors: runner(**tensors), arrays(name))
    for key, y in found.items():
        np.testing.assert_allclose(y, served[name, "steps"][key], atol=1e-5, err_msg=key)


@pytest.mark.skipif(not ONNX, reason="tf2onnx, onnx or onnxruntime is not installed")
@BOTH
def test_onnx(exported, served, name):
    import onnxruntime

    path = exported[name][1]
    session = onnxruntime.InferenceSession(str(path / "step.onnx"))
    names = [output.name for output in session.get_outputs()]

    def call(tensors):
        return dict(zip(names, session.run(names, tensors), strict=True))

    found = steps_of(path, call, arrays(name), new="_new")
    for key, y in found.items():
        np.testing.assert_allclose(y, served[name, "steps"][key], atol=1e-5, err_msg=key)


def test_other_formats_need_the_step(tmp_path):
    with pytest.raises(ValueError, match=r"hold the step.*\(not asked for\)"):
        serving.export(small(), tmp_path / "m", False, ("tf_saved_model", "litert"))
    with pytest.raises(ValueError, match="must hold 'tf_saved_model'"):
        serving.export(small(), tmp_path / "m", formats=("litert",))


@keras.saving.register_keras_serializable("tests")
class Erf(layers.Layer):
    """LiteRT has no such operation."""

    def call(self, inputs):
        return keras.ops.erf(inputs)


def test_formats_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(rules, "_PER_STEP", dict(rules._PER_STEP))
    serving.register_per_step(Erf)
    model = keras.Sequential([keras.Input((None, 2)), Erf(), kr.IndRNN(2)])
    with pytest.raises(ValueError, match="cannot be written for LiteRT"):
        serving.export(model, tmp_path / "m", formats=("tf_saved_model", "litert"))
    if not ONNX:
        with pytest.raises(ImportError, match="needs tf2onnx: run `pip install tf2onnx onnx`"):
            serving.export(model, tmp_path / "m", formats=("tf_saved_model", "onnx"))
    assert not os.listdir(tmp_path)


# The folder.


def small():
    return keras.Sequential([keras.Input((None, 2)), layers.Dense(1)])


def test_next_free_version(tmp_path):
    for name in ("3", "notes", ".partial-x"):
        (tmp_path / "m" / name).mkdir(parents=True)
    assert serving.export(small(), tmp_path / "m") == tmp_path / "m/4"
    assert serving.export(small(), str(tmp_path / "m")) == tmp_path / "m/5"
    assert sorted(os.listdir(tmp_path / "m")) == [".partial-x", "3", "4", "5", "notes"]
    mode = (tmp_path / "m/4").stat().st_mode
    assert mode & 0o777 == (tmp_path / "m").stat().st_mode & 0o777  # not that of a temporary one


def test_versions_of_many_writers(tmp_path):
    from keras_rnncells.serving import folders

    barrier = threading.Barrier(8)

    def write(i):
        with folders.new_version(tmp_path / "m") as version:
            version.folder.mkdir()
            (version.folder / "who").write_text(str(i))
            barrier.wait()

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(os.listdir(tmp_path / "m")) == [str(i) for i in range(1, 9)]
    assert len({(tmp_path / f"m/{i}/who").read_text() for i in range(1, 9)}) == 8


@pytest.mark.parametrize("there_before", [True, False])
def test_failing_write_leaves_nothing(tmp_path, monkeypatch, there_before):
    if there_before:
        serving.export(small(), tmp_path / "new/m")

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("keras_rnncells.serving.warmup.write", full)
    with pytest.raises(OSError, match="No space"):
        serving.export(small(), tmp_path / "new/m")
    left = [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.name.isdigit()]
    assert left == (["new/m/1"] if there_before else [])
    assert there_before or not os.listdir(tmp_path)


def test_arguments(tmp_path):
    with pytest.raises(ValueError, match="`formats` must be one of 'tf_saved_model'.*'h5'"):
        serving.export(small(), tmp_path / "m", formats=("h5",))
    with pytest.raises(ValueError, match="`streaming` must be one of"):
        serving.export(small(), tmp_path / "m", streaming="yes")
    with pytest.raises(ValueError, match="`training_result` must fit into JSON"):
        serving.export(small(), tmp_path / "m", training_result={"model": small()})
    with pytest.raises(TypeError, match=r"Expected a keras.Model"):
        serving.export(layers.Dense(1), tmp_path / "m")
    assert not os.listdir(tmp_path)


def test_compiled_layers_are_refused(tmp_path):
    """Grouped convolutions, which Keras compiles with XLA on a CPU."""
    model = keras.Sequential(
        [keras.Input((None, 4)), layers.Conv1D(4, 3, padding="causal", groups=2)]
    )
    with pytest.raises(ValueError, match="XLA, which TensorFlow Serving switches off.*groups > 1"):
        serving.export(model, tmp_path / "m", streaming=False)
    assert not os.listdir(tmp_path)


def test_not_causal(tmp_path):
    """Exported for whole sequences with "auto"; the card says why."""
    x = keras.Input((None, D), name="x")
    h = layers.Bidirectional(kr.IndRNN(U, return_sequences=True), name="both")(x)
    h = layers.Bidirectional(layers.LSTM(U), name="ends")(h)
    model = tools.randomize(keras.Model(x, layers.Dense(2)(h)))
    with pytest.raises(ValueError, match="layer 'both' .Bidirectional. runs backwards too"):
        serving.export(model, tmp_path / "m")
    path = serving.export(model, tmp_path / "m", streaming="auto")
    card = json.loads((path / "assets.extra/model.json").read_text())
    assert card["causal"] is False and list(card["signatures"]) == ["serving_default", "padded"]
    assert "'both'" in card["left_out"]["step"]
    x = arrays("cells")["x"]
    garbage = x.copy()
    garbage[0, 3:], garbage[2, 5:] = np.nan, 7.0
    lengths = np.array([3, T, 5], "int32")
    [found] = tools.serve([(path, "padded", {"x": garbage, "lengths": lengths})], tmp_path / "run")
    for row, length in enumerate(lengths):
        expected = np.asarray(model(x[row : row + 1, :length]))[0]
        np.testing.assert_allclose(found["outputs"][row], expected, atol=1e-5)
