"""Spoken digits from training to a server."""

import json
import re
import shutil
import wave

import keras
import numpy as np
import pytest

from tests.examples.conftest import EXAMPLES, kinds
from tests.serving import tools
from tests.tools import write_spoken_digit

SERVING = EXAMPLES / "serving"
on_tensorflow = pytest.mark.skipif(not tools.ON_TENSORFLOW, reason=tools.REASON)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of TFDS with a small `spoken_digit`, and its sounds."""
    folder = tmp_path_factory.mktemp("tfds")
    return folder, write_spoken_digit(folder)


@pytest.fixture
def script(example, monkeypatch):
    """Imports a script of `examples/serving`."""
    monkeypatch.syspath_prepend(SERVING)
    return example


SMALL = ["--units", "6", "--layers", "1", "--epochs", "2", "--batch-size", "4"]


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """The folder of a short training."""
    folder = tmp_path_factory.mktemp("output")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        patch.syspath_prepend(SERVING)
        import train

        patch.setattr(train, "STEPS", 2)
        train.main([*SMALL, "--data-dir", str(data[0]), "--output", str(folder)])
    return folder


@pytest.fixture(scope="module")
def exported(trained):
    """The folder of the exported versions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SERVING)
        import export

        to = trained / "models" / "spoken_digits"
        export.main(["--model", str(trained / "spoken_digits-IndRNN.keras"), "--to", str(to)])
    return to


def test_result(trained):
    assert kinds(trained) == [
        f"spoken_digits-IndRNN{rest}" for rest in ("-heard.png", ".json", ".keras", ".png")
    ]
    result = json.loads((trained / "spoken_digits-IndRNN.json").read_text())
    assert result["metric"] == "test accuracy, %" and result["value"] * 10 % 100 == 0
    assert 0 < result["early"]["mean_percent_heard"] <= 100
    assert result["command"].startswith("python examples/serving/train.py --layers 1")
    assert len(result["curve"]["val_accuracy"]) == 2


def test_quick(script, data, tmp_path, monkeypatch):
    train = script("train")
    monkeypatch.setattr(train, "STEPS", 1)
    options = [*SMALL[:4], *SMALL[6:], "--quick", "--data-dir", str(data[0])]
    train.main([*options, "--output", str(tmp_path)])
    result = json.loads((tmp_path / "spoken_digits-IndRNN-quick.json").read_text())
    assert result["epochs"] == train.options(["--quick"]).epochs < train.options([]).epochs


def test_splits(script, data):
    found = script("digits").recordings(data[0])
    assert [r.name for r in found] == sorted(data[1])
    assert {r.name.split("_")[2]: r.split for r in found} == {
        "0.wav": "test", "5.wav": "validation", "10.wav": "train", "11.wav": "train",
    }  # fmt: skip
    for one in found:
        np.testing.assert_allclose(one.sound * 32768, data[1][one.name])
        assert one.digit == int(one.name[0])


def test_frame_by_frame_is_the_whole(script):
    digits = script("digits")
    sound = np.random.default_rng(0).normal(size=3000).astype("float32")
    whole = digits.frames(sound)
    assert whole.shape == ((3000 - 200) // 80 + 1, 40)
    # From its definition: the energies of a windowed spectrum.
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(200) / 200)
    energy = np.abs(np.fft.rfft(sound[160:360] * window, 512)) ** 2 @ np.asarray(digits._bands())
    expected = (np.log(energy + 1e-5) - digits.MEAN) / digits.DEVIATION
    np.testing.assert_allclose(whole[2], expected, rtol=1e-4, atol=1e-4)
    for sizes in ([80] * 38, [1, 199, 1, 700, 3000], [3000], [7] * 430):
        ear, parts, start = digits.Ear(), [], 0
        for size in sizes:
            parts.append(ear.hear(sound[start : start + size]))
            start += size
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-4, atol=1e-5)


def test_sure_only_after_some_frames_in_a_row(script):
    probabilities = np.full((8, 10), 0.01)
    probabilities[[0, 1, 3, 4, 5, 7], 3] = 0.99
    probabilities[2, 4] = 0.99
    decision = script("digits").Decision(probability=0.9, in_a_row=3)
    assert [decision.hear(p) for p in probabilities] == [None] * 5 + [3] * 3
    assert (decision.digit, decision.heard) == (3, 6)
    decision = script("digits").Decision(probability=0.9, in_a_row=2)
    assert [decision.hear(np.full(10, 0.1)) for _ in range(4)] == [None] * 4


def test_batch_normalization_sees_no_padding(script):
    """Its statistics after a step of training are those without padding."""
    from keras_rnncells import models

    train = script("train")
    x = np.random.default_rng(0).normal(size=(3, 9, 40)).astype("float32")
    network = models.plain((None, 40), 10, units=5, layers=1, head="per_step")
    model = train.with_mask(network)
    weights = network.get_weights()
    found = []
    for more in (0, 7):
        network.set_weights(weights)
        model(np.pad(x, [(0, 0), (0, more), (0, 0)]), training=True)
        found.append(network.get_weights())
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(weights, found[0], strict=True))


def test_missing_dataset_is_one_sentence(script, tmp_path):
    with pytest.raises(SystemExit, match="spoken_digit is not in.*python -c") as stopped:
        script("train").main(["--data-dir", str(tmp_path), "--output", str(tmp_path)])
    assert "\n" not in str(stopped.value)


def test_damaged_dataset_is_one_sentence(script, data, tmp_path):
    shutil.copytree(data[0], tmp_path / "tfds")
    (path,) = tmp_path.rglob("*.tfrecord*")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SystemExit, match=f"spoken_digit is damaged.*{path.name}") as stopped:
        script("train").main(["--data-dir", str(tmp_path / "tfds"), "--output", str(tmp_path)])
    assert "\n" not in str(stopped.value)


@on_tensorflow
def test_export(exported, trained):
    card = tools.card(exported / "1")
    assert card["training_result"]["metric"] == "test accuracy, %"
    assert card["signatures"]["step"]["inputs"]["sequence"]["shape"] == [None, 40]


def answers(trained, script, sound):
    """The probabilities that Keras' network gives for a whole recording."""
    network = keras.models.load_model(trained / "spoken_digits-IndRNN.keras")
    logits = network(script("digits").frames(sound)[None])[0]
    return keras.ops.convert_to_numpy(keras.ops.softmax(logits))


def last_line(best, probability, sound):
    return f"at the end, {len(sound) / 8000:.2f} s: {best} ({100 * probability:.0f} %)"


@on_tensorflow
def test_listen(exported, trained, data, script, capsys, tmp_path):
    """From the dataset and from a file, without a server."""
    sound = data[1]["7_nobody_0.wav"]
    expected = answers(trained, script, (sound / 32768).astype("float32"))[-1]
    with wave.open(str(tmp_path / "mine.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", None))
        file.writeframes(sound.astype("<i2").tobytes())
    for recording in ("7_nobody_0.wav", tmp_path / "mine.wav"):
        options = [str(recording), "--local", str(exported), "--data-dir", str(data[0])]
        script("listen").main(options)
        said = capsys.readouterr().out.splitlines()
        assert said[-1] == last_line(expected.argmax(), expected.max(), sound)


@on_tensorflow
def test_listen_tells_when_it_is_sure(exported, data, script, capsys, monkeypatch):
    start = script("digits").Decision.__init__
    monkeypatch.setattr(start, "__defaults__", (0.0, 1))  # sure at once
    options = ["7_nobody_0.wav", "--local", str(exported), "--data-dir", str(data[0])]
    script("listen").main(options)
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("after 0.03 s: ") and last.startswith("at the end")


@on_tensorflow
@pytest.mark.parametrize("recording", ["7_nobody_99.wav", "notes.txt", "short.wav", "fast.wav"])
def test_what_cannot_be_heard(exported, data, script, tmp_path, recording):
    (tmp_path / "notes.txt").write_text("not a recording")
    for name, rate, samples in (("short.wav", 8000, 100), ("fast.wav", 16000, 4000)):
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setparams((1, 2, rate, 0, "NONE", None))
            file.writeframes(bytes(2 * samples))
    place = tmp_path / recording
    options = [str(place if place.exists() else recording), "--local", str(exported)]
    with pytest.raises(SystemExit) as stopped:
        script("listen").main([*options, "--data-dir", str(data[0])])
    assert "\n" not in str(stopped.value) and str(stopped.value) not in ("", "0", "1")


@pytest.fixture
def server(exported, monkeypatch):
    pytest.importorskip("requests")
    pytest.importorskip("tenacity")
    from tests.serving.stand_in import Server

    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    running = Server("spoken_digits", {1: exported / "1"})
    yield running.url("http")
    running.stop()


@on_tensorflow
def test_listen_at_a_server(exported, trained, data, script, server, capsys):
    sound = data[1]["3_nobody_5.wav"]
    expected = answers(trained, script, (sound / 32768).astype("float32"))[-1]
    script("listen").main(["3_nobody_5.wav", "--url", server, "--data-dir", str(data[0])])
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == last_line(expected.argmax(), expected.max(), sound)


@on_tensorflow
@pytest.mark.parametrize("together", [[], ["--together"]])
def test_load(exported, script, server, capsys, together):
    for where in (["--url", server], ["--local", str(exported)]):
        script("load").main([*where, "--sessions", "3", "--seconds", "0.3", *together])
        found = json.loads(capsys.readouterr().out)
        assert found["sessions"] == 3 and found["requests"] > 0
        assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]
        at_most = found["requests"] * (3 if together else 1) / 0.3
        assert 0 < found["steps_per_second"] <= 1.01 * at_most


def test_load_tells_errors(script):
    class Failing:
        def __init__(self):
            self.calls = 0

        def session(self):
            return object()

        def step(self, x, sessions):
            self.calls += 1
            if self.calls > 2:
                raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        script("load").measure(Failing(), 2, 0.2, together=False)


def test_no_server_is_one_sentence(script):
    pytest.importorskip("requests")
    pytest.importorskip("tenacity")
    with pytest.raises(SystemExit, match="`url` must be http"):
        script("load").main(["--url", "localhost:8501"])


def test_models_config():
    """As the server reads it."""
    pb = pytest.importorskip(
        "tensorflow_serving.config.model_server_config_pb2", exc_type=ImportError
    )
    from google.protobuf import text_format

    found = text_format.Parse((SERVING / "models.config").read_text(), pb.ModelServerConfig())
    [model] = found.model_config_list.config
    assert model.name == "spoken_digits" and model.base_path == "/models/spoken_digits"
    assert model.model_version_policy.latest.num_versions == 2


def test_batching_parameters():
    lines = (SERVING / "batching.txt").read_text().splitlines()
    sizes = [int(line.split()[1]) for line in lines if line.startswith("allowed_batch_sizes")]
    assert sizes == sorted(set(sizes))
    assert f"max_batch_size {{ value: {sizes[-1]} }}" in lines


def test_readme_tells_what_was_measured():
    text = (SERVING / "README.md").read_text()
    result = json.loads((EXAMPLES / "results" / "spoken_digits-IndRNN.json").read_text())
    early = result["early"]
    for number in (
        f"{result['value']} % of the digits",
        f"{early['sure_before_the_end']} % are before",
        f"{early['accuracy_of_named']} % are right",
        f"{early['mean_percent_heard']} % of",
        f"{early['median_seconds_heard']} s of {early['median_seconds_of_a_recording']} s",
    ):
        assert number in text, number
    for path in re.findall(r"\]\((?!http)([^)]+)\)", text):
        assert (SERVING / path).exists(), path
