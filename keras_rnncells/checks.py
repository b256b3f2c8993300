"""Checks of arguments, and what follows from them. Imports nothing of the package."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

import keras


def number(name: str, value: Any, low: float = -math.inf, *, above: bool = False) -> float:
    """Return `value` as a float, or raise if it is not a finite number from `low` on."""
    is_number = isinstance(value, Real) and math.isfinite(value)
    if not is_number or value < low or (above and value == low):
        limit = "" if low == -math.inf else f" {'above' if above else 'of at least'} {low:g}"
        raise ValueError(
            f"`{name}` must be a finite number{limit}. Received: {name}={value!r}. "
            f"Pass a number{limit}."
        )
    return float(value)


def fraction(name: str, value: Any) -> float:
    """`value` as a float, if it is in [0, 1]."""
    if number(name, value, 0) > 1:
        raise ValueError(f"`{name}` must be a number in [0, 1]. Received: {name}={value!r}.")
    return float(value)


def memory_bound(max_timesteps: float | None, gamma: float) -> float:
    """Largest magnitude of a self-loop that grows a signal at most `gamma` times in a sequence."""
    gamma = number("gamma", gamma, 1)
    if max_timesteps is None:
        return 1.0
    return gamma ** (1.0 / number("max_timesteps", max_timesteps, 1))


def compute_dtype(dtype: Any) -> str:
    """The dtype to compute in: half precision is too coarse to sum, draw or iterate in."""
    # Not `keras.backend.result_type`: with JAX it turns float64 into float32.
    return "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"


def positive_integer(name: str, value: Any) -> int:
    """`value` as an int, if it is a whole number above 0."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() <= 0:
        raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}.")
    return value.__index__()


def rate(name: str, value: Any) -> float:
    """`value` as a float, if it is a rate: at least 0 and below 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(
            f"`{name}` must be a number of at least 0 and below 1 (the fraction to drop or to "
            f"hold; 0 switches it off). Received: {name}={value!r}."
        )
    return float(value)


def choice(name: str, value: Any, allowed: Iterable[Any]) -> Any:
    """`value`, if it is one of `allowed`."""
    allowed = list(allowed)
    if value not in allowed:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, allowed))}. Received: {name}={value!r}."
        )
    return value


def natural(name: str, value: Any) -> int:
    """`value` as an int, if it is a whole number of at least 0."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < 0:
        raise ValueError(f"`{name}` must be an integer of at least 0. Received: {name}={value!r}.")
    return value.__index__()
