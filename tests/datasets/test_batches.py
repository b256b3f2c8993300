"""Batches are pure functions of seed, epoch and number, in `fit` and as `tf.data`."""

import keras
import numpy as np
import pytest

from keras_rnncells import datasets


def adding(steps=3, **arguments):
    return datasets.Batches(datasets.adding_problem, 4, steps, timesteps=6, **arguments)


def shuffled(**arguments):
    x = np.arange(22).reshape(11, 2).astype("float32")
    return datasets.Shuffled(x, np.arange(11) * 10, 4, **arguments)


def streams(**arguments):
    return datasets.Streams(np.arange(100, 141), 4, 4, **{"max_offset": 7, **arguments})


EVERY = pytest.mark.parametrize("make", [adding, shuffled, streams])


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


class Recorder(keras.layers.Layer):
    """Keeps what it is called on in a variable, so that what `fit` sees can be read."""

    def __init__(self, steps, shape):
        super().__init__()
        self.seen = self.add_weight(shape=(steps, *shape), initializer="zeros", trainable=False)
        self.count = self.add_weight(
            shape=(), initializer="zeros", dtype="int32", trainable=False, name="count"
        )
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, x, training=False):
        if training:
            place = keras.ops.one_hot(self.count, self.seen.shape[0])
            place = keras.ops.reshape(place, (-1, *[1] * len(x.shape)))
            self.seen.assign(self.seen + place * keras.ops.cast(x, "float32"))
            self.count.assign(self.count + 1)
        return self.scale * keras.ops.cast(x, "float32")


def recorded(dataset, epochs, **arguments):
    """The batches that `fit` trained on, in order."""
    shape = dataset[0][0].shape
    recorder = Recorder(epochs * len(dataset), shape)
    inputs = keras.Input(batch_shape=shape)
    model = keras.Model(inputs, recorder(inputs))
    model.compile("sgd", lambda y, p: 0 * p, jit_compile=False)
    arguments = {"shuffle": False, "verbose": 0, **arguments}
    model.fit(dataset, epochs=arguments.get("initial_epoch", 0) + epochs, **arguments)
    assert int(recorder.count) == epochs * len(dataset)
    return keras.ops.convert_to_numpy(recorder.seen)


@EVERY
class TestEvery:
    def test_same_seed_same_batches(self, make):
        first, again, other = make(seed=1), make(seed=1), make(seed=2)
        assert all(same(a, b) for a, b in zip(first, again, strict=True))
        assert not all(same(a, b) for a, b in zip(first, other, strict=True))

    def test_epochs_differ_and_can_be_set(self, make):
        batches = make(seed=1)
        epochs = []
        for epoch in range(5):
            batches.epoch = epoch
            epochs.append(list(batches))
        assert not all(same(a, b) for a, b in zip(epochs[0], epochs[3], strict=True))
        # In any order, from another object.
        resumed = make(seed=1, epoch=3)
        for index in reversed(range(len(resumed))):
            assert same(resumed[index], epochs[3][index])

    def test_tf_data_has_the_same_batches(self, make):
        tf = pytest.importorskip("tensorflow")
        batches = make(seed=1, epoch=2)
        expected = list(batches)
        batches.epoch = 3
        expected += list(batches)
        batches.epoch = 2
        dataset = batches.as_tf_dataset(epochs=2)
        assert isinstance(dataset, tf.data.Dataset)
        assert dataset.cardinality() == len(expected) == len(list(dataset))
        endless = batches.as_tf_dataset(epochs=None)
        assert endless.cardinality() == tf.data.INFINITE_CARDINALITY
        for found in (dataset, endless.take(len(expected))):
            for a, b in zip(found.as_numpy_iterator(), expected, strict=True):
                assert same(a, b)
                assert [x.dtype for x in a] == [x.dtype for x in b]
        assert batches.epoch == 2
        assert len(list(batches.as_tf_dataset())) == len(batches)

    def test_beyond_the_epoch(self, make):
        batches = make()
        with pytest.raises(IndexError, match=f"An epoch has {len(batches)} batches"):
            batches[len(batches)]

    @pytest.mark.parametrize("wrong", [{"seed": -1}, {"seed": None}, {"epoch": 1.5}])
    def test_wrong_seed_and_epoch(self, make, wrong):
        with pytest.raises(ValueError, match=f"`{list(wrong)[0]}` must be an integer of at least"):
            make(**wrong)


class TestFit:
    @pytest.mark.parametrize("make", [adding, streams])
    def test_sees_epoch_after_epoch(self, make):
        batches = make(seed=1)
        seen = recorded(batches, 3)
        assert batches.epoch == 3
        expected = []
        for epoch in range(3):
            batches.epoch = epoch
            expected += [batch[0] for batch in batches]
        np.testing.assert_array_equal(seen, expected)

    def test_resumed_sees_the_data_of_the_uninterrupted_run(self):
        whole = recorded(adding(seed=1), 4)
        np.testing.assert_array_equal(recorded(adding(seed=1, epoch=2), 2), whole[6:])
        # Without a word to the dataset, by the epoch of Keras.
        batches = adding(seed=1)
        follow = [datasets.FollowEpochs(batches)]
        np.testing.assert_array_equal(
            recorded(batches, 2, initial_epoch=2, callbacks=follow), whole[6:]
        )

    def test_a_second_fit_goes_on(self):
        whole = recorded(adding(seed=1), 2)
        batches = adding(seed=1)
        seen = [recorded(batches, 1) for _ in range(2)]
        np.testing.assert_array_equal(np.concatenate(seen), whole)

    def test_looking_at_batches_is_no_epoch(self):
        batches = adding(seed=1)
        list(batches)
        recorded(batches, 1)
        assert batches.epoch == 1

    def test_last_smaller_batch(self):
        batches = shuffled()
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=False)
        model.fit(batches, epochs=2, verbose=0)
        assert batches.epoch == 2 and int(model.optimizer.iterations) == 6

    def test_validation(self):
        validation = adding(seed=2)
        model = keras.Sequential([keras.Input((6, 2)), keras.layers.Flatten()])
        model.add(keras.layers.Dense(1))
        model.compile("sgd", "mse", jit_compile=False)
        model.fit(adding(), validation_data=validation, epochs=2, verbose=0)
        assert validation.epoch == 2

    def test_shuffled_streams_are_an_error(self):
        keras.utils.set_random_seed(1)
        dataset = datasets.Streams(np.arange(200), 2, 2)
        with pytest.raises(Exception, match="Pass `shuffle=False` to `fit`"):
            recorded(dataset, 1, shuffle=True)


class TestBatches:
    def test_no_batch_is_another(self):
        batches = adding(steps=4)
        seen = set()
        for epoch in range(4):
            batches.epoch = epoch
            seen |= {x.tobytes() for x, _ in batches}
        # Neither those of another seed: 2**32 is a second word of entropy.
        seen |= {x.tobytes() for seed in (1, 2**32) for x, _ in adding(4, seed=seed)}
        seen.add(datasets.adding_problem(4, 6, seed=0)[0].tobytes())
        assert len(seen) == 16 + 8 + 1

    def test_hands_arguments_on(self):
        batches = datasets.Batches(datasets.copy_memory, 3, 2, delay=5, length=4)
        x, y = batches[1]
        assert len(batches) == 2 and x.shape == y.shape == (3, 13)

    @pytest.mark.parametrize("wrong", ["steps", "batch_size"])
    def test_wrong_numbers(self, wrong):
        numbers = {"batch_size": 2, "steps": 3, wrong: 0}
        with pytest.raises(ValueError, match=f"`{wrong}` must be a positive integer"):
            datasets.Batches(datasets.adding_problem, **numbers, timesteps=4)


class TestShuffled:
    def test_each_example_once_with_its_label(self):
        batches = shuffled(seed=3)
        orders = []
        for epoch in range(3):
            batches.epoch = epoch
            x, y = (np.concatenate(a) for a in zip(*batches, strict=True))
            assert sorted(y) == [10 * i for i in range(11)]
            np.testing.assert_array_equal(x[:, 0], y / 5)
            np.testing.assert_array_equal(x[:, 1], y / 5 + 1)
            orders.append(tuple(y))
        assert len({*orders, tuple(range(0, 110, 10))}) == 4

    def test_last_smaller_batch(self):
        assert [len(x) for x, _ in shuffled()] == [4, 4, 3]
        assert [len(x) for x, _ in shuffled(drop_remainder=True)] == [4, 4]

    def test_orders_are_uniform(self):
        batches = datasets.Shuffled(np.arange(3), np.arange(3), 3)
        counts = {}
        for epoch in range(1200):
            order = tuple(batches.batch(epoch, 0)[0])
            counts[order] = counts.get(order, 0) + 1
        assert len(counts) == 6 and min(counts.values()) > 140

    def test_wrong_arrays(self):
        with pytest.raises(ValueError, match="3 rows of x and 4 of y"):
            datasets.Shuffled(np.zeros(3), np.zeros(4), 2)
        with pytest.raises(ValueError, match="no batch of 4 examples. Received: 3"):
            datasets.Shuffled(np.zeros(3), np.zeros(3), 4, drop_remainder=True)


class TestStreams:
    @pytest.mark.parametrize("length", [5, 6, 40, 41, 43, 44, 49])
    @pytest.mark.parametrize("window", [1, 3, 4])
    def test_each_symbol_but_the_first_once(self, length, window):
        predicted = []
        for x, y, weights in datasets.Streams(np.arange(length), 4, window):
            assert x.shape == y.shape == weights.shape == (4, window)
            np.testing.assert_array_equal(x + 1, y)
            predicted += y[weights == 1].tolist()
            assert set(np.unique(weights)) <= {0, 1}
        assert sorted(predicted) == list(range(1, length))

    def test_rows_go_on(self):
        dataset = datasets.Streams(np.arange(103), 4, 5)
        assert len(dataset) == 6  # 102 in 4 streams: at most 26 steps
        whole = np.concatenate([x for x, _, _ in dataset], axis=1)
        weights = np.concatenate([w for _, _, w in dataset], axis=1).astype(int)
        assert (np.diff(weights) <= 0).all()  # nothing counts after a pause
        for row, (stream, length) in enumerate(zip(whole, weights.sum(1), strict=True)):
            assert length in (25, 26)
            start = stream[0]
            assert start == 102 * row // 4
            np.testing.assert_array_equal(stream[:length], start + np.arange(length))

    def test_offsets(self):
        dataset = datasets.Streams(np.arange(1000), 3, 4, seed=1, max_offset=19)
        starts = []
        for epoch in range(300):
            dataset.epoch = epoch
            x, y, weights = (np.concatenate(a, axis=1) for a in zip(*dataset, strict=True))
            assert (y == x + 1).all()
            starts.append(x[0, 0])
            assert weights.sum() == 1000 - 1 - 19
            counted = np.sort(y[weights == 1])
            np.testing.assert_array_equal(counted, starts[-1] + 1 + np.arange(980))
        assert set(starts) == set(range(20))

    def test_keeps_dtype(self):
        x, y, weights = datasets.Streams(np.arange(9, dtype="int32"), 2, 2)[0]
        assert x.dtype == y.dtype == "int32" and weights.dtype == "float32"

    def test_exact_bits_per_character(self):
        """A carried state and a weighted metric give the mean over all characters."""
        rng = np.random.default_rng(0)
        ids = rng.integers(0, 5, 60).astype("int32")
        dataset = datasets.Streams(ids, 4, 4)
        inputs = keras.Input(batch_shape=(4, 4), dtype="int32")
        x = keras.layers.Embedding(5, 3)(inputs)
        x = keras.layers.LSTM(6, return_sequences=True)(x)
        model = keras.Model(inputs, keras.layers.Dense(5)(x))
        nats = keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="nats")
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, weighted_metrics=[nats], jit_compile=False)
        found = model.evaluate(dataset, verbose=0, return_dict=True)["nats"]
        total, count = 0.0, 0
        for x, y, weights in dataset:
            logits = keras.ops.convert_to_numpy(model(x)).astype("float64")
            logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            picked = np.take_along_axis(logs, y[..., None], -1)[..., 0]
            total -= picked[weights == 1].sum()
            count += int(weights.sum())
        assert count == 59
        assert found == pytest.approx(total / count, rel=1e-5)

    def test_wrong_ids(self):
        with pytest.raises(ValueError, match="integers on one axis.*shape .2, 3."):
            datasets.Streams(np.zeros((2, 3), int), 1, 1)
        with pytest.raises(ValueError, match="integers on one axis.*float64"):
            datasets.Streams(np.zeros(3), 1, 1)
        with pytest.raises(ValueError, match="at least 10 are needed"):
            datasets.Streams(np.arange(9), 4, 1, max_offset=5)
        assert len(datasets.Streams(np.arange(10), 4, 1, max_offset=5)) == 1
