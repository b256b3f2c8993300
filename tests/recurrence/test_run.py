"""The one door to the time loop: steps, masks and states, without any cell."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_rnncells import recurrence
from tests.tools import inputs, numpy


def running_sum(t, x, states):
    total, count = states["total"] + x, states["count"] + 1.0
    return total * ops.cast(t + 1, "float32"), {"total": total, "count": count}


@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("unroll", [False, True])
def test_steps_are_counted_and_states_keep_their_structure(unroll, return_sequences):
    x = ops.convert_to_tensor(inputs(2, 5, 3))
    start = {"total": ops.zeros((2, 3)), "count": ops.zeros((2, 1))}
    outputs, last = recurrence.run(
        running_sum, x, start, unroll=unroll, return_sequences=return_sequences
    )
    total = inputs(2, 5, 3).cumsum(1)
    expected = total * np.arange(1, 6)[:, None]
    expected = expected if return_sequences else expected[:, -1]
    np.testing.assert_allclose(numpy(outputs), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(numpy(last["total"]), total[:, -1], rtol=1e-5, atol=1e-5)
    assert numpy(last["count"]).tolist() == [[5.0], [5.0]]


@pytest.mark.parametrize("zero", [False, True])
def test_masked_steps(zero):
    mask = np.array([[False, True, False, True], [False] * 4])
    x = ops.convert_to_tensor(inputs(2, 4, 3))
    outputs, [last] = recurrence.run(
        lambda t, x, s: (s[0] + x, [s[0] + x]),
        x,
        [ops.ones((2, 3))],
        mask=ops.convert_to_tensor(mask),
        held=lambda s: s[0],
        zero_output_for_mask=zero,
    )
    expected = 1 + np.where(mask[..., None], inputs(2, 4, 3), 0).cumsum(1)
    np.testing.assert_allclose(numpy(last), expected[:, -1], atol=1e-6)
    expected = np.where(mask[..., None], expected, 0) if zero else expected
    np.testing.assert_allclose(numpy(outputs), expected, atol=1e-6)


def test_hold():
    mask = np.random.default_rng(0).random((6, 9)) < 0.4
    mask[0] = False
    values, first = inputs(6, 9, 2), inputs(6, 2, seed=4)
    found = numpy(recurrence.hold(ops.convert_to_tensor(values), mask, first))
    held = first
    for t in range(9):
        held = np.where(mask[:, t, None], values[:, t], held)
        np.testing.assert_array_equal(found[:, t], held)


def test_state_dtypes_are_kept():
    start = [ops.zeros((2, 3), "float32"), ops.zeros((2,), "int32")]
    _, last = recurrence.run(
        lambda t, x, s: (x, [s[0] + ops.cast(x, "float32"), s[1] + 1]),
        ops.cast(inputs(2, 5, 3), "bfloat16"),
        start,
    )
    assert [keras.backend.standardize_dtype(s.dtype) for s in last] == ["float32", "int32"]
    assert numpy(last[1]).tolist() == [5, 5]
