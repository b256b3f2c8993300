"""Streams in Python: sessions, their files, and errors."""

import os
import shutil

import keras
import numpy as np
import pytest

import keras_rnncells as kr
from keras_rnncells import serving
from tests.serving import tools

if not tools.ON_TENSORFLOW:
    pytest.skip(tools.REASON, allow_module_level=True)

layers = keras.layers
B, T, D = 3, 9, 2


def build(seed=5):
    stack = [
        keras.Input((None, D), name="x"),
        layers.Conv1D(3, 2, padding="causal", name="conv"),
        kr.LSTM(4, return_sequences=True, name="lstm"),
        kr.IndRNN(3, return_sequences=True, name="indrnn"),
        layers.Dense(1),
    ]
    return tools.randomize(keras.Sequential(stack), seed)


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def own(model):
    return serving.StreamingModel(model)


@pytest.fixture(scope="module")
def base(model, tmp_path_factory):
    base = tmp_path_factory.mktemp("models") / "m"
    serving.export(model, base)
    return base


@pytest.fixture(scope="module")
def loaded(base):
    return serving.StreamingModel(base)


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).normal(size=(B, T, D)).astype("float32")


@pytest.fixture(scope="module")
def expected(model, x):
    return np.asarray(model(x))


@pytest.fixture
def stream(loaded):
    loaded.reset()
    return loaded


def test_steps_and_chunks(stream, x, expected):
    assert stream.state is None
    found = [stream.step(x[:, 0])[:, None], stream.chunk(x[:, 1:4]), stream.step(x[:, 4])[:, None]]
    found.append(stream.chunk(x[:, 5:]))
    np.testing.assert_allclose(np.concatenate(found, 1), expected, atol=1e-5)
    shapes = {name: value.shape for name, value in stream.state.items()}
    assert shapes == {
        "conv_inputs": (B, 1, D),
        "lstm_h": (B, 4),
        "lstm_c": (B, 4),
        "indrnn_h": (B, 3),
    }
    stream.reset()
    np.testing.assert_allclose(stream.step(x[:, 0]), expected[:, 0], atol=1e-5)


def test_from_a_model(own, loaded, x, expected):
    own.reset()
    assert own.card["identity"] == loaded.card["identity"]
    assert own.card["states"] == loaded.card["states"]
    np.testing.assert_allclose(own.chunk(x), expected, atol=1e-5)
    assert own.step(np.zeros((B, D), "float64")).dtype == "float32"


def test_a_thousand_sessions_in_random_order(stream, model):
    """Each gets its own answers, whoever shares its batch."""
    rng = np.random.default_rng(2)
    sessions, steps = 1000, 4
    x = rng.normal(size=(sessions, steps, D)).astype("float32")
    expected = np.asarray(model(x))
    opened = [stream.session() for _ in range(sessions)]
    turns = rng.permutation(np.repeat(np.arange(sessions), steps))
    at, found = np.zeros(sessions, int), np.full(expected.shape, np.nan, "float32")
    while len(turns):
        batch = list(dict.fromkeys(turns[: rng.integers(1, 300)]))  # each once
        answers = stream.step(x[batch, at[batch]], sessions=[opened[i] for i in batch])
        found[batch, at[batch]] = answers
        at[batch] += 1
        waiting = turns.tolist()
        for i in batch:
            waiting.remove(i)
        turns = np.array(waiting)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_sessions_of_many_rows(stream, x, expected):
    pair, one = stream.session(), stream.session()
    pair.step(x[:2, 0])
    one.chunk(x[2:, :1])
    found = stream.chunk(x[:, 1:], sessions=[pair, one])
    np.testing.assert_allclose(found, expected[:, 1:], atol=1e-5)
    assert pair.state["lstm_h"].shape == (2, 4) and one.state["lstm_h"].shape == (1, 4)
    assert stream.state is None


def test_save_and_restore(stream, own, x, expected, tmp_path):
    session = stream.session()
    session.chunk(x[:, :4])
    session.save(tmp_path / "s.npz")
    session.chunk(x[:, 4:])
    restored = own.session(tmp_path / "s.npz")
    np.testing.assert_allclose(restored.chunk(x[:, 4:]), expected[:, 4:], atol=1e-5)
    assert os.listdir(tmp_path) == ["s.npz"]
    stream.session().save(tmp_path / "new.npz")
    assert stream.session(tmp_path / "new.npz").state is None


def test_states_of_another_model(stream, x, tmp_path):
    other = serving.StreamingModel(build(seed=6))  # the same layers, other weights
    other.session().save(tmp_path / "other.npz")
    with pytest.raises(ValueError, match="states of another model, or of one with other weights"):
        stream.session(tmp_path / "other.npz")
    np.savez(tmp_path / "some.npz", a=x)
    (tmp_path / "text.npz").write_text("no")
    for name in ("some", "text"):
        with pytest.raises(ValueError, match=f"{name}.npz is not a saved session"):
            stream.session(tmp_path / f"{name}.npz")
    with pytest.raises(FileNotFoundError):
        stream.session(tmp_path / "missing.npz")
    with pytest.raises(ValueError, match="made by this model's session.*another model"):
        stream.step(x[:1, 0], sessions=[other.session()])


def test_failing_save_keeps_the_old_file(stream, x, tmp_path, monkeypatch):
    session = stream.session()
    session.step(x[:, 0])
    session.save(tmp_path / "s.npz")
    before = (tmp_path / "s.npz").read_bytes()

    def full(path, **_):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        session.save(tmp_path / "s.npz")
    assert (tmp_path / "s.npz").read_bytes() == before and os.listdir(tmp_path) == ["s.npz"]


def test_wrong_inputs(stream, x):
    with pytest.raises(ValueError, match=r"`step` takes x of shape \['batch', 2\].*\[3, 9, 2\]"):
        stream.step(x)
    with pytest.raises(ValueError, match=r"`chunk` takes x of shape \['batch', 'steps', 2\]"):
        stream.chunk(x[..., :1])
    with pytest.raises(ValueError, match="at least one of each"):
        stream.chunk(x[:, :0])
    with pytest.raises(ValueError, match=r"has the inputs \['x'\].*Received: \['y'\]"):
        stream.step({"y": x[:, 0]})
    stream.step({"x": x[:, 0]})
    with pytest.raises(ValueError, match=r"hold 3 rows, \[3\]. Received a batch of 2"):
        stream.step(x[:2, 0])
    with pytest.raises(ValueError, match=r"hold 2 rows, \[1, 1\]. Received a batch of 3"):
        stream.step(x[:, 0], sessions=[stream.session(), stream.session()])
    session = stream.session()
    with pytest.raises(ValueError, match="the same one twice"):
        stream.step(x[:2, 0], sessions=[session, session])
    assert session.state is None


def test_several_inputs_and_outputs():
    a, b = keras.Input((None,), dtype="int32", name="a"), keras.Input((None, D), name="b")
    h = layers.Concatenate()([layers.Embedding(5, 2)(a), b])
    y, last = kr.GRU(3, return_sequences=True, return_state=True, name="gru")(h)
    model = tools.randomize(keras.Model({"a": a, "b": b}, {"all": y, "last": last}))
    stream = serving.StreamingModel(model)
    rng = np.random.default_rng(3)
    x = {"a": rng.integers(0, 5, (2, 4)).astype("int32"), "b": rng.normal(size=(2, 4, D))}
    expected = model(x)
    stream.chunk({name: value[:, :3] for name, value in x.items()})
    found = stream.step({name: value[:, 3] for name, value in x.items()})
    np.testing.assert_allclose(found["all"], expected["all"][:, 3], atol=1e-5)
    np.testing.assert_allclose(found["last"], expected["last"], atol=1e-5)
    with pytest.raises(ValueError, match="a must hold integers"):
        stream.step({name: value[:, 3].astype("float32") for name, value in x.items()})
    with pytest.raises(ValueError, match="All inputs need the same batch size"):
        stream.step({"a": x["a"][:, 0], "b": x["b"][:1, 0]})
    with pytest.raises(ValueError, match=r"has the inputs \['a', 'b'\]: pass a dict"):
        stream.step(x["b"][:, 0])


# The folder.


def test_newest_version(base, model):
    serving.export(model, base, streaming=False)
    try:
        with pytest.raises(ValueError, match=r"2 was exported for whole sequences only: not asked"):
            serving.StreamingModel(base)
        serving.StreamingModel(base / "1")
    finally:
        shutil.rmtree(base / "2")


@pytest.mark.parametrize(
    "broken",
    ["saved_model.pb", "variables/variables.data-00000-of-00001", "assets.extra/model.json"],
)
@pytest.mark.parametrize("how", ["missing", "cut"])
def test_folder_that_is_not_whole(base, tmp_path, broken, how):
    shutil.copytree(base / "1", tmp_path / "1")
    file = tmp_path / "1" / broken
    data = file.read_bytes()
    file.unlink()
    if how == "cut":
        file.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="is not (a whole exported|the folder of an exported)"):
        serving.StreamingModel(tmp_path / "1")


def test_no_folder(tmp_path):
    for path in (tmp_path / "none", tmp_path / "m.keras"):
        with pytest.raises(ValueError, match="is not the folder of an exported model"):
            serving.StreamingModel(path)
