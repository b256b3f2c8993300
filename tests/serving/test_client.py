"""The client, against a stand-in for TensorFlow Serving on loopback."""

import json
import re
import sys
import threading
import urllib.request

import keras
import numpy as np
import pytest

import keras_rnncells as kr
from keras_rnncells import serving
from tests.serving import tools
from tests.serving.stand_in import Server

if not tools.ON_TENSORFLOW:
    pytest.skip(tools.REASON, allow_module_level=True)
pytest.importorskip("requests", reason="clients need the extra `serve`")
pytest.importorskip("tenacity", reason="clients need the extra `serve`")

layers = keras.layers
T, D, U = 6, 3, 4


def stubs():
    for module in ("grpc", "tensorflow_serving.apis.prediction_service_pb2_grpc"):
        pytest.importorskip(
            module,
            exc_type=ImportError,
            reason="gRPC needs grpcio, and the stubs: "
            "pip install --no-deps tensorflow-serving-api==<TensorFlow's minor>.*",
        )


@pytest.fixture(params=["http", "grpc"])
def scheme(request):
    if request.param == "grpc":
        stubs()
    return request.param


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("NO_PROXY", "no_proxy", "no_grpc_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


def streaming_model():
    """States of two layers; an answer at each step."""
    return keras.Sequential(
        [
            keras.Input((None, D), name="x"),
            kr.IndRNN(U, return_sequences=True, name="below"),
            layers.LSTM(2, return_sequences=True, name="above"),
            layers.Dense(2),
        ]
    )


def two_outputs():
    """Two inputs, one of them tokens; an answer at each step, and one at the end."""
    x, tokens = keras.Input((None, D), name="x"), keras.Input((None,), dtype="int32", name="t")
    h = layers.Concatenate()([x, layers.Embedding(5, 2)(tokens)])
    h = kr.GRU(U, return_sequences=True, name="gru")(h)
    last = layers.Dense(2, name="last")(kr.IndRNN(U, name="end")(h))
    return keras.Model([x, tokens], {"each": layers.Dense(3)(h), "last": last})


def not_causal():
    both = layers.Bidirectional(layers.GRU(U, return_sequences=True, name="both_ways"))
    return keras.Sequential([keras.Input((None, D), name="x"), both, layers.Dense(2)])


def scores():
    """Not causal either; as many scores at the end as the longest sequence below has steps."""
    both = layers.Bidirectional(layers.GRU(U, name="scored"))
    return keras.Sequential([keras.Input((None, D), name="x"), both, layers.Dense(T)])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two versions of a model, and one version of others, exported; with the models."""
    base, found = tmp_path_factory.mktemp("models"), {}
    for name, seed, make in (
        ("signal", 5, streaming_model),
        ("signal", 6, streaming_model),
        ("two", 5, two_outputs),
        ("both_ways", 5, not_causal),
        ("scores", 5, scores),
    ):
        model = tools.randomize(make(), seed)
        path = serving.export(model, base / name, streaming="auto")
        found.setdefault(name, {})[int(path.name)] = model, path
    return found


@pytest.fixture
def start(models):
    """Starts a stand-in: `start(name, versions)`."""
    running = []

    def started(name, versions=(1,), **arguments):
        paths = {number: models[name][number][1] for number in versions}
        running.append(Server(name, paths, **arguments))
        return running[-1]

    yield started
    for server in running:
        server.stop()


@pytest.fixture
def clients():
    """Makes clients, and closes them."""
    made = []

    def client(server, scheme, **arguments):
        made.append(serving.Client(server.url(scheme), server.name, **arguments))
        return made[-1]

    yield client
    for one in made:
        one.close()


def sequences(batch, steps=T, seed=1):
    return np.random.default_rng(seed).normal(size=(batch, steps, D)).astype("float32")


def near(found, expected):
    np.testing.assert_allclose(found, np.asarray(expected), atol=1e-5)


# Whole sequences.


def test_predict(models, start, clients, scheme):
    client = clients(start("signal"), scheme)
    model, x = models["signal"][1][0], sequences(3)
    found = client.predict(x)
    near(found, model(x))
    assert found.dtype == "float32"
    near(client.predict(x.tolist()), model(x))
    near(client.predict(x.astype("float64")), model(x))
    assert client.version == 1 and "version=1" in repr(client)


def test_predict_sequences_of_any_length(models, start, clients, scheme):
    client = clients(start("signal"), scheme)
    model = models["signal"][1][0]
    parts = [sequences(1, n, seed=n)[0] for n in (4, 1, 7)]
    found = client.predict(parts)
    assert [len(one) for one in found] == [4, 1, 7]
    for one, x in zip(found, parts, strict=True):
        near(one, model(x[None])[0])


def test_several_inputs_and_outputs(models, start, clients, scheme):
    client = clients(start("two"), scheme)
    model = models["two"][1][0]
    x, tokens = sequences(2), np.array([[0, 1, 2, 3, 4, 0], [4, 3, 2, 1, 0, 1]])
    found, expected = client.predict({"x": x, "t": tokens}), model([x, tokens])
    for key in ("each", "last"):
        near(found[key], expected[key])
    lengths = (2, 5)
    items = [{"x": x[i, :n], "t": tokens[i, :n]} for i, n in enumerate(lengths)]
    for one, item in zip(client.predict(items), items, strict=True):
        expected = model([item["x"][None], item["t"][None]])
        for key in ("each", "last"):
            near(one[key], expected[key][0])
    session = client.session()
    for t in range(T):
        found = session.step({"x": x[:, t], "t": tokens[:, t]})
    near(found["each"], model([x, tokens])["each"][:, -1])
    near(found["last"], model([x, tokens])["last"])


def test_nan_and_infinity(models, start, clients, scheme):
    client = clients(start("signal"), scheme)
    x = sequences(3)
    x[1, 2], x[2, 4, 0] = np.nan, np.inf
    expected = np.asarray(models["signal"][1][0](x))
    assert np.isnan(expected[1, 2:]).all() and np.isfinite(expected[0]).all()
    near(client.predict(x), expected)
    session = client.session()
    near(session.chunk(x[:, :5]), expected[:, :5])
    assert np.isnan(session.state["below_h"][1]).all()
    assert np.isposinf(session.state["below_h"][2]).any()
    near(session.step(x[:, 5]), expected[:, 5])


def test_rows_and_columns_over_rest(models, start, clients):
    """What a client without Python sends."""
    server = start("signal")
    url, x = server.url("http"), sequences(2)
    expected = clients(server, "http").predict(x)

    def post(**body):
        request = urllib.request.Request(
            f"{url}/v1/models/signal:predict", json.dumps(body).encode(), method="POST"
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request) as reply:
            return json.load(reply)

    near(post(instances=x.tolist())["predictions"], expected)
    near(post(instances=[{"x": row} for row in x.tolist()])["predictions"], expected)
    near(post(inputs=x.tolist())["outputs"], expected)
    zeros = {"below_h": [0.0] * U, "above_h": [0.0] * 2, "above_c": [0.0] * 2}
    rows = [{"x": row, **zeros} for row in x[:, 0].tolist()]
    found = post(signature_name="step", instances=rows)["predictions"]
    near([row["outputs"] for row in found], expected[:, 0])
    assert set(found[0]) == {"outputs", *zeros}


# Streams.


def test_steps_and_chunks_are_the_whole(models, start, clients, scheme):
    client = clients(start("signal"), scheme)
    x = sequences(2)
    expected = np.asarray(models["signal"][1][0](x))
    session = client.session()
    assert session.state is None
    near(session.step(x[:, 0]), expected[:, 0])
    near(session.chunk(x[:, 1:4]), expected[:, 1:4])
    near(session.step(x[:, 4]), expected[:, 4])
    assert {k: v.shape for k, v in session.state.items()} == {
        "below_h": (2, U),
        "above_h": (2, 2),
        "above_c": (2, 2),
    }
    session.reset()
    near(session.step(x[:, 0]), expected[:, 0])
    near(client.step(x[:, 0]), expected[:, 0])  # the client's own
    near(client.chunk(x[:, 1:]), expected[:, 1:])
    client.reset()
    assert client.state is None


def test_the_same_over_rest_and_grpc(start, clients):
    stubs()
    server, x = start("signal"), sequences(2)
    found = []
    for scheme in ("http", "grpc"):
        session = clients(server, scheme).session()
        found.append([session.step(x[:, t]) for t in range(T)])
    np.testing.assert_array_equal(found[0], found[1])  # no digit is lost on the way


def test_interleaved_sessions(models, start, clients, scheme):
    """Alone, together in any order, and of several rows: each has its own right answers."""
    client = clients(start("signal"), scheme)
    x = sequences(4)
    expected = np.asarray(models["signal"][1][0](x))
    a, b, c = client.session(), client.session(), client.session()  # rows 0, 1 and 2 to 3
    near(a.step(x[:1, 0]), expected[:1, 0])
    near(a.step(x[:1, 1]), expected[:1, 1])
    near(c.chunk(x[2:, :3]), expected[2:, :3])
    near(b.step(x[1:2, 0]), expected[1:2, 0])
    rows = [x[2:, 3], x[:1, 2], x[1:2, 1]]
    wanted = [expected[2:, 3], expected[:1, 2], expected[1:2, 1]]
    near(client.step(np.concatenate(rows), sessions=[c, a, b]), np.concatenate(wanted))
    near(b.chunk(x[1:2, 2:]), expected[1:2, 2:])
    near(a.chunk(x[:1, 3:]), expected[:1, 3:])
    near(c.chunk(x[2:, 4:]), expected[2:, 4:])


def test_sessions_in_threads(models, start, clients, scheme):
    client = clients(start("signal"), scheme)
    x = sequences(6)
    expected = np.asarray(models["signal"][1][0](x))
    found = [None] * len(x)

    def stream(i):
        session = client.session()
        found[i] = [session.step(x[i : i + 1, t])[0] for t in range(T)]

    threads = [threading.Thread(target=stream, args=(i,)) for i in range(len(x))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    near(found, expected)


def test_save_and_go_on(models, start, clients, scheme, tmp_path):
    server = start("signal", (1, 2))
    x = sequences(1)
    expected = np.asarray(models["signal"][1][0](x))
    first = clients(server, scheme, version=1)
    session = first.session()
    session.chunk(x[:, :4])
    session.save(tmp_path / "s.npz")
    again = clients(server, scheme, version=1).session(tmp_path / "s.npz")
    near(again.chunk(x[:, 4:]), expected[:, 4:])
    with pytest.raises(ValueError, match="of another model"):
        clients(server, scheme, version=2).session(tmp_path / "s.npz")


# Versions.


def test_version_stays_while_another_appears(models, start, clients, scheme):
    server = start("signal")
    client = clients(server, scheme)
    x = sequences(1)
    old, new = (np.asarray(models["signal"][n][0](x)) for n in (1, 2))
    session = client.session()
    near(session.chunk(x[:, :3]), old[:, :3])
    server.versions[2] = models["signal"][2][1]
    near(session.chunk(x[:, 3:]), old[:, 3:])
    near(client.predict(x), old)
    near(client.predict(list(x)), old[:1])
    assert {version for _, version in server.asked} == {1}
    newer = clients(server, scheme)
    near(newer.predict(x), new)
    assert (client.version, newer.version) == (1, 2)
    del server.versions[1]
    before = session.state
    with pytest.raises(
        serving.ServerError, match="(?s)version 1 of.*means nothing to another"
    ) as e:
        session.step(x[:, 0])
    assert e.value.code == "NOT_FOUND" and session.state is before


def test_label_is_looked_up_once(models, start, clients, scheme):
    server = start("signal", (1, 2), labels={"stable": 1})
    client = clients(server, scheme, label="stable")
    server.labels["stable"] = 2
    x = sequences(1)
    near(client.predict(x), models["signal"][1][0](x))
    assert client.version == 1 and clients(server, scheme, label="stable").version == 2


# Failures.


def test_busy_server_is_asked_again(models, start, clients, scheme):
    server = start("signal")
    client = clients(server, scheme)
    x = sequences(1)
    expected = np.asarray(models["signal"][1][0](x))
    session = client.session()
    session.chunk(x[:, :2])
    server.failures = ["UNAVAILABLE", "UNAVAILABLE"]
    near(session.step(x[:, 2]), expected[:, 2])
    assert not server.failures and len(server.asked) == 2  # each step taken once
    near(session.step(x[:, 3]), expected[:, 3])


def test_wrong_request_is_not_repeated(start, clients, scheme):
    server = start("signal")
    client = clients(server, scheme)
    server.failures = ["INVALID_ARGUMENT", "INVALID_ARGUMENT"]
    with pytest.raises(serving.ServerError) as e:
        client.step(sequences(1)[:, 0])
    assert e.value.code == "INVALID_ARGUMENT" and len(server.failures) == 1
    assert client.state is None
    text = str(e.value)
    for part in ("`step` with x [1, 3], ", "version 1 of the model 'signal'", "told to fail"):
        assert part in text, text
    assert server.url(scheme) in text and "times" not in text


def test_deadline(start, clients, scheme):
    server = start("signal")
    client = clients(server, scheme, retries=1)
    client.predict(sequences(1))
    client._transport.timeout = 0.2  # now that the model is loaded
    server.delay = 0.6
    with pytest.raises(serving.ServerError, match=r", 2 times.*no answer within 0.2 s") as e:
        client.predict(sequences(1))
    assert e.value.code == "DEADLINE_EXCEEDED"
    server.delay = 0


def test_slow_answer_is_repeated_without_harm(models, start, clients, scheme):
    """A step whose answer is lost has been taken at the server, and is taken again."""
    server = start("signal")
    x = sequences(1)
    expected = np.asarray(models["signal"][1][0](x))
    client = clients(server, scheme)
    session = client.session()
    near(session.step(x[:, 0]), expected[:, 0])
    client._transport.timeout = 0.3  # now that the model is loaded
    server.delay = 0.6
    threading.Timer(0.5, setattr, (server, "delay", 0)).start()
    near(session.step(x[:, 1]), expected[:, 1])
    near(session.step(x[:, 2]), expected[:, 2])


def test_session_outlives_a_restart(models, start, clients, scheme):
    server = start("signal")
    x = sequences(1)
    expected = np.asarray(models["signal"][1][0](x))
    session = clients(server, scheme).session()
    near(session.chunk(x[:, :3]), expected[:, :3])
    server.stop()
    threading.Timer(0.4, server.start, (scheme,)).start()
    near(session.step(x[:, 3]), expected[:, 3])
    server.stop()
    server.start(scheme)
    near(session.chunk(x[:, 4:]), expected[:, 4:])


def test_nobody_there(start, clients, scheme):
    server = start("signal")
    server.url(scheme)
    server.stop()
    url = f"{scheme}://127.0.0.1:{server.ports[scheme]}"
    with pytest.raises(serving.ServerError, match="2 times.*UNAVAILABLE.*Does the server run") as e:
        serving.Client(url, "signal", retries=1, timeout=1)
    assert e.value.code == "UNAVAILABLE"


def test_no_such_model(start, scheme):
    server = start("signal")
    for wrong in ({"model": "sygnal"}, {"model": "signal", "version": 7}):
        with pytest.raises(serving.ServerError, match="Is that the name of the model") as e:
            serving.Client(server.url(scheme), **wrong)
        assert e.value.code == "NOT_FOUND"


def test_another_server_answers(start):
    url = start("signal").url("http") + "/elsewhere"
    with pytest.raises(serving.ServerError, match="INVALID_ARGUMENT, Malformed request"):
        serving.Client(url, "signal")


@pytest.mark.parametrize(
    "inputs, says",
    [
        (np.zeros((1, D + 1)), r"`step` takes x of shape \['batch', 3\].*\[1, 4\]"),
        (np.zeros((1, 2, D)), r"Received: shape \[1, 2, 3\]"),
        ({"y": np.zeros((1, D))}, r"has the inputs \['x'\]"),
    ],
)
def test_wrong_shapes_are_not_sent(start, clients, inputs, says):
    server = start("signal")
    client = clients(server, "http")
    with pytest.raises(ValueError, match=says):
        client.step(inputs)
    assert not server.asked


def test_wrong_sequences(start, clients):
    client = clients(start("two"), "http")
    x, t = np.zeros((4, D)), np.zeros(4, int)
    for items, says in (
        ([], "at least one sequence"),
        ([x], r"has the inputs \['t', 'x'\]|has the inputs \['x', 't'\]"),
        ([{"x": x, "t": t[:3]}], "as many in each input"),
        ([{"x": x[:0], "t": t[:0]}], "at least one step"),
        ([{"x": x, "t": t}, {"x": x[:, :2], "t": t}], "first axis only"),
        ([{"x": x, "t": t + 0.5}], "must hold integers"),
    ):
        with pytest.raises(ValueError, match=says):
            client.predict(items)


def test_missing_states(start, clients):
    """A request of one's own without them, and the state of another model."""
    server = start("signal")
    client = clients(server, "http")
    with pytest.raises(serving.ServerError, match="received.*'x'") as e:
        client._call("step", {"x": np.zeros((1, D), "float32")})
    assert e.value.code == "INVALID_ARGUMENT"
    with pytest.raises(ValueError, match="made by this model's session"):
        client.step(np.zeros((1, D)), sessions=[clients(server, "http").session()])


def test_model_without_steps(models, start, clients, scheme):
    client = clients(start("both_ways"), scheme)
    model = models["both_ways"][1][0]
    x = sequences(2)
    near(client.predict(x), model(x))
    found = client.predict([x[0, :2], x[1]])
    near(found[0], model(x[:1, :2])[0])
    near(found[1], model(x[1:])[0])
    for call in (client.session, lambda: client.step(x[:, 0]), lambda: client.chunk(x)):
        with pytest.raises(ValueError, match="no signature '(step|chunk)'.*streaming=True"):
            call()


def test_scores_are_no_steps(models, start, clients):
    client, x = clients(start("scores"), "http"), sequences(2)
    assert x.shape[1] == T
    found = client.predict([x[0, :2], x[1]])
    near(found[0], models["scores"][1][0](x[:1, :2])[0])


def test_foreign_models_are_refused(start, clients):
    server = start("signal")
    real = server.model

    def without(change):
        def model(*asked):
            import copy

            number, found = real(*asked)
            found = copy.copy(found)
            kept = {key: type(value)() for key, value in found.described.items()}
            for key, value in found.described.items():
                kept[key].CopyFrom(value)
            change(kept)
            found.described = kept
            return number, found

        return model

    def other_dtype(kept):
        kept["step"].outputs["above_c"].dtype = 2

    def other_shape(kept):
        kept["chunk"].inputs["below_h"].tensor_shape.dim[1].size = U + 1

    for change, says in (
        (lambda kept: kept.pop("chunk"), "`step` or `chunk` alone"),
        (lambda kept: kept.pop("serving_default"), "it has .'chunk', 'padded', 'step'."),
        (lambda kept: kept["step"].outputs.pop("below_h"), "the outputs of `step` are"),
        (other_dtype, "above_c.*float64"),
        (other_shape, "the inputs of `chunk` are"),
    ):
        server.model = without(change)
        with pytest.raises(ValueError, match=f"(?s)not one that.*export wrote.*{says}"):
            clients(server, "http")


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"url": "localhost:8500"}, "`url` must be http://host:port"),
        ({"url": "grpc://host:8500/v1"}, "`url` must be"),
        ({"model": ""}, "`model` must be the name"),
        ({"version": 0}, "`version` must be a positive integer"),
        ({"version": 1, "label": "stable"}, "give one of the two"),
        ({"timeout": 0}, "`timeout` must be"),
        ({"retries": -1}, "`retries` must be"),
    ],
)
def test_arguments(arguments, says):
    with pytest.raises(ValueError, match=says):
        serving.Client(**{"url": "http://127.0.0.1:1", "model": "signal", **arguments})


def hide(monkeypatch, *packages):
    """As if they were not installed."""

    class Hide:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in packages:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])

    for name in [n for n in sys.modules if n.split(".")[0] in packages]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Hide(), *sys.meta_path])


@pytest.mark.parametrize(
    "missing, url",
    [
        ("requests", "http://127.0.0.1:1"),
        ("tenacity", "http://127.0.0.1:1"),
        ("grpc", "grpc://127.0.0.1:1"),
        ("tensorflow_serving", "grpc://127.0.0.1:1"),
    ],
)
def test_missing_package_is_one_sentence(missing, url, monkeypatch):
    if missing == "tensorflow_serving":
        pytest.importorskip("grpc")
    hide(monkeypatch, missing)
    with pytest.raises(ModuleNotFoundError) as e:
        serving.Client(url, "signal")
    text = str(e.value)
    assert f"the package {missing}, which" in text and "keras_rnncells[serve]" in text
    if missing == "tensorflow_serving":
        assert re.search(r"pip install --no-deps tensorflow-serving-api==\d+\.\d+\.\*", text)


def test_rest_needs_no_stubs(models, start, clients, monkeypatch):
    server = start("signal")
    server.url("http")
    hide(monkeypatch, "grpc", "tensorflow_serving")
    x = sequences(1)
    near(clients(server, "http").predict(x), models["signal"][1][0](x))
