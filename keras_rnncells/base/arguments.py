"""Constructor arguments, handled once for every cell and layer: signatures, checks, configs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

import keras

from keras_rnncells import constraints, initializers, regularizers
from keras_rnncells.checks import (
    choice as choice,
    number as number,
    positive_integer as positive_integer,
    rate as rate,
)

POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD
KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD

_KINDS = {
    "initializer": (initializers, keras.initializers, keras.initializers.Initializer),
    "constraint": (constraints, keras.constraints, keras.constraints.Constraint),
    "regularizer": (regularizers, keras.regularizers, keras.regularizers.Regularizer),
}


def inherited_signature(cls: type) -> inspect.Signature:
    """The signature of `cls`, with the parent's arguments where its `__init__` hands them on.

    A cell writes down only the arguments it adds or whose default it changes, and passes the rest
    through `*args, **kwargs`; what a user sees is the whole list.
    """
    signature = inspect.signature(cls)
    own, of_parent = signature.parameters, inspect.signature(cls.__base__).parameters
    if "__init__" not in cls.__dict__ or not any(p.kind is VAR_KEYWORD for p in own.values()):
        return signature
    return ordered([*own.values(), *(p for p in of_parent.values() if p.name not in own)])


def ordered(parameters: Iterable[inspect.Parameter]) -> inspect.Signature:
    """A signature of the parameters: by kind, and the first where a name comes twice."""
    first = {}
    for p in parameters:
        first.setdefault(p.name, p)
    kinds = (POSITIONAL, KEYWORD_ONLY, VAR_KEYWORD)
    return inspect.Signature([p for kind in kinds for p in first.values() if p.kind is kind])


def show_signature(cls: type, signature: inspect.Signature) -> None:
    """Makes `help`, `inspect` and editors see `signature` as that of `cls`.

    It is set on `__init__`: on the class, `inspect` would take it for that of the instances too.
    """
    if "__init__" in cls.__dict__:
        itself = inspect.Parameter("self", POSITIONAL)
        parameters = [itself, *signature.parameters.values()]
        cls.__init__.__signature__ = inspect.Signature(parameters)


def names(cls: type) -> list[str]:
    """The names of the constructor arguments of `cls`, without `**kwargs`."""
    parameters = inspect.signature(cls).parameters.values()
    return [p.name for p in parameters if p.kind is not VAR_KEYWORD]


def serialize(value: Any) -> Any:
    """The value of an argument as it stands in a config."""
    if callable(value) and not hasattr(value, "get_config"):
        return keras.activations.serialize(value)
    if isinstance(value, tuple):
        return list(value)
    return keras.saving.serialize_keras_object(value)


def resolve(kind: str, identifier: Any) -> Any:
    """An initializer, constraint or regularizer from an object, a config or a bare name.

    Bare names are looked up among ours first (`"scaled_identity"`, `"ScaledIdentity"`), then among
    those of Keras.
    """
    ours, of_keras, base = _KINDS[kind]
    if isinstance(identifier, str):
        for name, cls in _public_classes(ours, base).items():
            if identifier in (name, _snake_case(name)):
                try:
                    return cls()
                except TypeError as error:
                    raise ValueError(
                        f"The {kind} {identifier!r} has required arguments ({error}), so its name "
                        f"alone is not enough. Pass an object: "
                        f"keras_rnncells.{kind}s.{name}(...)."
                    ) from None
    try:
        return of_keras.get(identifier)
    except (ValueError, TypeError) as error:
        known = ", ".join(repr(_snake_case(name)) for name in _public_classes(ours, base))
        raise ValueError(
            f"Unknown {kind}: received {identifier!r}. Allowed are the names of Keras' own "
            f"{kind}s, {known}, or an object of keras.{kind}s or keras_rnncells.{kind}s. ({error})"
        ) from None


def _public_classes(module: Any, base: type) -> dict[str, type]:
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def activation(identifier: Any) -> Any:
    """An activation function from a function, a name or `None` (linear)."""
    try:
        return keras.activations.get(identifier)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"Unknown activation: received {identifier!r}. Allowed are a callable, None (linear) "
            f"or the name of a function of keras.activations, such as 'relu' or 'tanh'. ({error})"
        ) from None


def rates(name: str, value: Any, state_names: tuple[str, ...]) -> float | list[float]:
    """One rate for all states, or a list with one rate for each."""
    if not isinstance(value, (list, tuple)):
        return rate(name, value)
    if len(value) != len(state_names):
        raise ValueError(
            f"`{name}` must be one rate, or one for each state in the order {state_names}. "
            f"Received {len(value)}: {name}={value!r}."
        )
    return [rate(name, v) for v in value]
