"""Statistics of batch normalizations, measured before validations, against NumPy."""

import functools

import keras
import numpy as np
import pytest

from keras_rnncells import IndRNN, models
from tests.tools import asymmetric, inputs, numpy

B, T, D, U = 8, 6, 3, 4


def batches(count=5, rows=B):
    return [
        (inputs(rows, T, D, seed=k) + 0.3 * k, inputs(rows, T, U, seed=50 + k))
        for k in range(count)
    ]


def network(normalization):
    """One layer, and its normalization."""
    recurrent = IndRNN(U, return_sequences=True)
    model = keras.Sequential([keras.Input((T, D)), recurrent])
    asymmetric(recurrent)
    model.add(normalization)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


def expected(model, some, axes):
    """The mean over batches of the mean and the variance of what is normalized."""
    recurrent = keras.Sequential(model.layers[:1])
    outputs = [numpy(recurrent(x)).astype("float64") for x, _ in some]
    return [
        np.mean([h.mean(axis=axes) for h in outputs], axis=0),
        np.mean([h.var(axis=axes) for h in outputs], axis=0),
    ]


def measured(model, some, **options):
    callback = models.PopulationStatistics(some, **options)
    callback.set_model(model)
    callback.measure()
    return model


def assert_statistics(model, values):
    found = model.layers[-1].moving_mean, model.layers[-1].moving_variance
    for variable, value in zip(found, values, strict=True):
        np.testing.assert_allclose(numpy(variable), value, atol=1e-5)


KINDS = {
    "pooled": (keras.layers.BatchNormalization, (0, 1)),
    "per_step": (functools.partial(models.StepBatchNormalization, T), (0,)),
}


@pytest.mark.parametrize("kind, axes", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("steps", [3, 100])
def test_against_numpy(kind, axes, steps):
    some = batches()
    model = network(kind())
    before = model.get_weights()
    measured(model, some, steps=steps)
    assert_statistics(model, expected(model, some[:steps], axes))
    for a, b in zip(model.get_weights()[:-2], before[:-2], strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.layers[-1].momentum == kind().momentum


def test_batches_of_unequal_size_and_inputs_alone():
    some = [x for x, _ in (*batches(2), *batches(1, rows=5))]
    model = measured(network(keras.layers.BatchNormalization()), some)
    assert_statistics(model, expected(model, [(x, None) for x in some], (0, 1)))


class Dataset(keras.utils.PyDataset):
    """Beyond its end there are batches of nothing."""

    x = np.concatenate([x for x, _ in batches()])

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return self.x[index * B : (index + 1) * B], None


def test_a_dataset_ends_where_its_length_says():
    model = measured(network(keras.layers.BatchNormalization()), Dataset())
    assert_statistics(model, expected(model, batches(), (0, 1)))


def test_each_step_has_the_mean_of_the_batches_that_have_it():
    """The last step of the first batch is masked, the last two of all are in none."""
    layer = models.StepBatchNormalization(7)
    model = keras.Sequential([keras.Input((None, D)), keras.layers.Masking(), layer])
    before = inputs(7, D, seed=8), inputs(7, D, seed=9) ** 2
    layer.moving_mean.assign(before[0])
    layer.moving_variance.assign(before[1])
    short, long = inputs(B, 4, D), inputs(B, 5, D, seed=2) + 1
    short[:, 3] = 0
    model.compile(loss="mse")
    measured(model, [short, long])
    mean, variance = (value.copy() for value in before)
    for found, statistic in ((mean, np.mean), (variance, np.var)):
        found[:3] = (statistic(short[:, :3], axis=0) + statistic(long[:, :3], axis=0)) / 2
        found[3:5] = statistic(long[:, 3:], axis=0)
    assert_statistics(model, [mean, variance])


@pytest.mark.parametrize("statistics", KINDS)
@pytest.mark.parametrize("jit", [False, True], ids=["", "jit"])
def test_training_goes_on_as_without(statistics, jit):
    """To the same weights, with the same states and random numbers."""
    x, y = np.concatenate([x for x, _ in batches()]), inputs(5 * B, T, 2)
    found = []
    for with_it in (False, True):
        keras.utils.set_random_seed(3)
        model = models.plain(
            (T, D), 2, units=U, layers=2, head="per_step", dropout=0.3, statistics=statistics,
            batch_size=B, stateful=True,
        )  # fmt: skip
        model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=jit)
        callback = models.PopulationStatistics(batches())
        history = model.fit(
            x, y, batch_size=B, epochs=3, shuffle=False, verbose=0,
            validation_data=(x[:B], y[:B]), validation_batch_size=B,
            callbacks=[*([callback] if with_it else []), models.ResetStates()],
        ).history  # fmt: skip
        found.append((model, history))
    (without, loss), (with_it, other) = found
    assert loss["loss"] == other["loss"]
    assert all(a != b for a, b in zip(loss["val_loss"], other["val_loss"], strict=True))
    states = 0
    for a, b in zip(without.variables, with_it.variables, strict=True):
        states += a.shape == (B, U)
        # The second layer has validated what the first one was given by other statistics.
        if a.name not in ("moving_mean", "moving_variance") and a.shape != (B, U):
            np.testing.assert_array_equal(numpy(a), numpy(b), err_msg=a.path)
    assert states == 2

    before = [numpy(v).copy() for v in with_it.variables]
    assert all(value.any() for value in before if value.shape == (B, U))
    callback.measure()
    for v, value in zip(with_it.variables, before, strict=True):
        if v.name not in ("moving_mean", "moving_variance"):
            np.testing.assert_array_equal(numpy(v), value, err_msg=v.path)


def test_validation_has_the_statistics_of_the_present_weights():
    """Where the running ones are late."""
    some = batches()
    data = [np.concatenate(part) for part in zip(*some, strict=True)]
    layer = keras.layers.BatchNormalization(momentum=0.999)
    model = network(layer)
    callback = models.PopulationStatistics(some)
    history = model.fit(
        *data, batch_size=B, epochs=2, verbose=0, validation_data=some[0], callbacks=[callback]
    ).history
    recurrent = keras.Sequential(model.layers[:1])
    mean, variance = expected(model, some, (0, 1))
    h = (numpy(recurrent(some[0][0])) - mean) / np.sqrt(variance + layer.epsilon)
    y = h * numpy(layer.gamma) + numpy(layer.beta)
    np.testing.assert_allclose(history["val_loss"][-1], np.mean((y - some[0][1]) ** 2), rtol=1e-4)
    # What is saved is what was validated, also without validation and for another pass of `fit`.
    loss = model.evaluate(*some[0], verbose=0)
    np.testing.assert_allclose(loss, history["val_loss"][-1], rtol=1e-5)
    model.fit(*data, batch_size=B, verbose=0, callbacks=[callback])
    assert_statistics(model, expected(model, some, (0, 1)))


def test_measures_once_an_epoch(monkeypatch):
    seen = []
    monkeypatch.setattr(models.PopulationStatistics, "measure", lambda self: seen.append(1))
    ((x, y),) = batches(1)
    model = network(keras.layers.BatchNormalization())
    callback = models.PopulationStatistics([x])
    for options, times in [
        ({}, 4),
        ({"validation_data": (x, y)}, 4),
        ({"validation_data": (x, y), "validation_freq": 2}, 4),
    ]:
        seen.clear()
        model.fit(x, y, epochs=4, verbose=0, callbacks=[callback], **options)
        assert len(seen) == times


def test_nested_frozen_and_wrapped():
    inner = keras.Sequential([keras.Input((T, D)), keras.layers.BatchNormalization(name="inner")])
    frozen = keras.layers.BatchNormalization(trainable=False, name="frozen")
    wrapped = keras.layers.TimeDistributed(keras.layers.BatchNormalization(name="wrapped"))
    model = keras.Sequential([keras.Input((T, D)), inner, frozen, wrapped])
    model.compile("sgd", "mse")
    some = batches()
    measured(model, some)
    means = np.mean([x.mean(axis=(0, 1)) for x, _ in some], axis=0)
    np.testing.assert_allclose(numpy(inner.layers[0].moving_mean), means, atol=1e-5)
    np.testing.assert_array_equal(numpy(frozen.moving_mean), np.zeros(D))
    np.testing.assert_array_equal(numpy(wrapped.layer.moving_mean), np.zeros(D))


def test_without_normalization_no_batch_is_read():
    def unread():
        raise AssertionError
        yield

    model = keras.Sequential([keras.Input((T, D)), IndRNN(U)])
    model.compile("sgd", "mse")
    measured(model, unread())


def test_errors():
    with pytest.raises(ValueError, match="`steps` must be"):
        models.PopulationStatistics([], steps=0)
    model = network(keras.layers.BatchNormalization())
    before = model.get_weights()
    once = iter(batches())
    measured(model, once)
    with pytest.raises(ValueError, match="at least one batch.*iterator that brought none"):
        measured(model, once)
    model.set_weights(before)

    def broken():
        yield from batches(2)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        measured(model, broken())
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.layers[-1].momentum == keras.layers.BatchNormalization().momentum
