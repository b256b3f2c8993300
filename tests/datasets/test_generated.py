"""The generated tasks: what they hold, what chance is, and what a seed fixes."""

import math

import numpy as np
import pytest

from keras_rnncells import datasets


class TestAddingProblem:
    @pytest.mark.parametrize("timesteps", [2, 9, 10])
    def test_one_mark_in_each_half_and_their_sum(self, timesteps):
        x, y = datasets.adding_problem(500, timesteps, seed=3)
        assert x.shape == (500, timesteps, 2) and y.shape == (500, 1)
        assert x.dtype == y.dtype == "float32"
        assert set(np.unique(x[..., 1])) <= {0, 1}
        for marks in x[..., 1]:
            first, second = np.flatnonzero(marks)
            assert first < timesteps // 2 <= second
        sums = (x[..., 0].astype("float64") * x[..., 1]).sum(1)
        np.testing.assert_allclose(y[:, 0], sums, rtol=1e-6)

    def test_distribution(self):
        n = 20_000
        x, y = datasets.adding_problem(n, 9)
        places = x[..., 1].mean(0)
        expected = np.r_[np.full(4, 1 / 4), np.full(5, 1 / 5)]
        np.testing.assert_allclose(places, expected, atol=5 * 0.5 / math.sqrt(n))
        # The two places are drawn apart from each other.
        together = np.einsum("nt,ns->ts", x[:, :4, 1], x[:, 4:, 1]) / n
        np.testing.assert_allclose(together, 1 / 20, atol=5 * 0.22 / math.sqrt(n))
        values = np.sort(x[..., 0], axis=None)
        assert values[0] >= 0 and values[-1] < 1
        # Kolmogorov and Smirnov: 1.95 is passed once in a thousand.
        distance = np.abs(values - np.arange(values.size) / values.size).max()
        assert distance < 1.95 / math.sqrt(values.size)

    def test_chance(self):
        _, y = datasets.adding_problem(200_000, 4)
        assert ((y - 1) ** 2).mean() == pytest.approx(datasets.ADDING_CHANCE, rel=0.01)

    def test_too_short(self):
        with pytest.raises(ValueError, match="at least 2. Received: timesteps=1"):
            datasets.adding_problem(3, 1)


class TestCopyMemory:
    def test_repeats_what_came_before_the_delay(self):
        x, y = datasets.copy_memory(50, delay=7, seed=2)
        assert x.shape == y.shape == (50, 27) and x.dtype == y.dtype == "int32"
        for sequence, target in zip(x.tolist(), y.tolist(), strict=True):
            # Arjovsky et al.: ten symbols, T - 1 blanks, the marker, ten blanks.
            assert sequence[10:] == [8] * 6 + [9] + [8] * 10
            assert target == [8] * 17 + sequence[:10]

    def test_symbols_are_uniform(self):
        n = 5_000
        x, _ = datasets.copy_memory(n, delay=1)
        counts = np.stack([(x[:, :10] == symbol).mean(0) for symbol in range(8)])
        np.testing.assert_allclose(counts, 1 / 8, atol=5 * 0.33 / math.sqrt(n))

    def test_other_lengths(self):
        x, y = datasets.copy_memory(200, delay=2, length=3, symbols=4)
        assert x.shape == (200, 8) and x[:, :3].max() == 3
        assert (x[:, 3:] == [4, 5, 4, 4, 4]).all()
        assert (y[:, 5:] == x[:, :3]).all() and (y[:, :5] == 4).all()

    def test_chance_is_the_loss_without_memory(self):
        _, y = datasets.copy_memory(100, delay=30)
        # Sure of a blank until the marker, then any symbol.
        probabilities = np.zeros((50, 9))
        probabilities[:40, 8] = 1
        probabilities[40:, :8] = 1 / 8
        losses = -np.log(probabilities[np.arange(50), y])
        assert datasets.copy_memory_chance(30) == pytest.approx(losses.mean())

    @pytest.mark.parametrize("wrong", ["examples", "delay", "length", "symbols"])
    def test_wrong_numbers(self, wrong):
        with pytest.raises(ValueError, match=f"`{wrong}` must be a positive integer"):
            datasets.copy_memory(**{"examples": 2, "delay": 3, wrong: 0})


@pytest.mark.parametrize(
    "function", [datasets.adding_problem, datasets.copy_memory], ids=["adding", "copy"]
)
def test_a_seed_fixes_everything(function):
    same = [function(20, 10, seed=5) for _ in range(2)]
    other = function(20, 10, seed=6)
    for a, b, c in zip(*same, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()
