"""Streams in Python: a model that runs step by step, and the sessions that it serves."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_rnncells.serving import folders
from keras_rnncells.serving.export import CARD, describe
from keras_rnncells.serving.signatures import Served, serve


class StreamingModel:
    """A model that answers step by step, for one stream or many at once.

    It runs what `export` writes: from the folder, or from a Keras model without writing anything.
    A model is copied with its weights of now; further training does not show.

    Args:
        model: A Keras model on the TensorFlow backend, or the folder of an exported one: of a
            version, or of all of them, which means the newest.

    Raises:
        ValueError: If the model cannot run step by step, or if the folder is not whole.

    Example:

    ```python
    stream = keras_rnncells.serving.StreamingModel("models/signal")
    stream.step(x[:, 0])                     # [B, D] to [B, O], from zero states
    stream.chunk(x[:, 1:])                   # the rest of the sequences
    stream.reset()

    alice, bob = stream.session(), stream.session()
    alice.step(x[:1, 0])
    bob.chunk(x[1:2])
    stream.step(x[:2, 1], sessions=[alice, bob])  # both at once
    alice.save("alice.npz")
    alice = stream.session("alice.npz")
    ```
    """

    def __init__(self, model: keras.Model | str | os.PathLike) -> None:
        if isinstance(model, (str, os.PathLike)):
            self._functions, self.card = _load(Path(model))
        else:
            self._served = served = serve(model)  # functions do not hold their variables
            self.card = json.loads(json.dumps(describe(model, served)))
            self._functions = _functions(served)
        signature = self.card["signatures"]["step"]
        self._states = list(self.card["states"])
        self._inputs = [name for name in signature["inputs"] if name not in self._states]
        self._outputs = [name for name in signature["outputs"] if name not in self._states]
        self._own = Session(self)

    def session(self, path: str | os.PathLike | None = None) -> Session:
        """A new session, which starts from zeros; or one that was saved.

        Args:
            path: A file that `Session.save` wrote.

        Raises:
            ValueError: If the file holds states of another model.
        """
        session = Session(self)
        if path is not None:
            session._restore(Path(path))
        return session

    def step(self, inputs: Any, sessions: Sequence[Session] | None = None) -> Any:
        """One step.

        Args:
            inputs: `[B, D]`, tokens `[B]`; a dict by name if the model has several inputs.
            sessions: The sessions that the rows belong to, in their order; a new session has one
                row. Without them the rows are those of this model's own session.

        Returns:
            `[B, O]`; a dict by name if the model has several outputs.

        Raises:
            ValueError: If shapes do not fit.
        """
        return self._run("step", inputs, sessions)

    def chunk(self, inputs: Any, sessions: Sequence[Session] | None = None) -> Any:
        """n steps at once.

        Args:
            inputs: `[B, n, D]`, tokens `[B, n]`; a dict by name if the model has several inputs.
            sessions: As in `step`.

        Returns:
            `[B, n, O]`; `[B, O]` if the output is that of the last step.

        Raises:
            ValueError: If shapes do not fit.
        """
        return self._run("chunk", inputs, sessions)

    def reset(self) -> None:
        """Lets the model's own session start from zeros again."""
        self._own.reset()

    @property
    def state(self) -> dict[str, np.ndarray] | None:
        """The states of the model's own session by name; `None` before the first step."""
        return self._own.state

    def _run(self, signature: str, inputs: Any, sessions: Sequence[Session] | None) -> Any:
        sessions = [self._own] if sessions is None else list(sessions)
        tensors = self._checked(signature, inputs)
        batch = len(next(iter(tensors.values())))
        rows = _rows(self, sessions, batch)
        for name in self._states:
            parts = [s._start(name, n) for s, n in zip(sessions, rows, strict=True)]
            tensors[name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
        found = self._functions[signature](tensors)
        found = {name: np.asarray(value) for name, value in found.items()}
        ends = np.cumsum(rows)
        for session, start, end in zip(sessions, ends - rows, ends, strict=True):
            session.state = {name: found[name][start:end] for name in self._states}
        if len(self._outputs) == 1:
            return found[self._outputs[0]]
        return {name: found[name] for name in self._outputs}

    def _checked(self, signature: str, inputs: Any) -> dict[str, np.ndarray]:
        """The inputs by name, of the shapes and dtypes of the signature."""
        if not isinstance(inputs, dict):
            inputs = {self._inputs[0]: inputs} if len(self._inputs) == 1 else {}
        if set(inputs) != set(self._inputs):
            raise ValueError(
                f"The model has the inputs {self._inputs}: pass a dict with one array for each. "
                f"Received: {sorted(inputs)}."
            )
        specs, tensors = self.card["signatures"][signature]["inputs"], {}
        for name in self._inputs:
            shape, dtype = specs[name]["shape"], specs[name]["dtype"]
            value = np.asarray(inputs[name])
            fits = value.ndim == len(shape) and all(
                wanted in (None, size) for wanted, size in zip(shape, value.shape, strict=True)
            )
            if not fits or 0 in value.shape:
                axes = ["batch", "steps"][: 1 if signature == "step" else 2]
                raise ValueError(
                    f"`{signature}` takes {name} of shape {[*axes, *shape[len(axes) :]]}, with at "
                    f"least one of each. Received: shape {list(value.shape)}."
                )
            if np.dtype(dtype).kind in "iu" and value.dtype.kind not in "iub":
                raise ValueError(f"{name} must hold integers. Received: dtype {value.dtype}.")
            tensors[name] = value.astype(dtype, copy=False)
        if len({len(value) for value in tensors.values()}) > 1:
            sizes = {name: len(value) for name, value in tensors.items()}
            raise ValueError(f"All inputs need the same batch size. Received: {sizes}.")
        return tensors


class Session:
    """The states of one stream, or of a batch of streams. `StreamingModel.session` makes them.

    Attributes:
        state: The states by name, each `[B, ...]`; `None` before the first step.
    """

    def __init__(self, model: StreamingModel) -> None:
        self.model = model
        self.state: dict[str, np.ndarray] | None = None

    def step(self, inputs: Any) -> Any:
        """One step; see `StreamingModel.step`."""
        return self.model.step(inputs, [self])

    def chunk(self, inputs: Any) -> Any:
        """n steps at once; see `StreamingModel.chunk`."""
        return self.model.chunk(inputs, [self])

    def reset(self) -> None:
        """Lets the session start from zeros again."""
        self.state = None

    def save(self, path: str | os.PathLike) -> None:
        """Writes the states to a file, `.npz`, whole or not at all."""
        path = Path(path)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=path.parent) as folder:
            partial = Path(folder, "session.npz")
            identity = np.array(self.model.card["identity"])
            np.savez(partial, identity=identity, **_prefixed(self.state or {}))
            os.replace(partial, path)

    def _restore(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
            identity = str(found.pop("identity"))
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ValueError(f"{path} is not a saved session: {error}") from error
        if identity != self.model.card["identity"]:
            raise ValueError(
                f"{path} holds states of another model, or of one with other weights: to this one "
                "they mean nothing. Load the version that they were saved with, or start anew."
            )
        if found:
            self.state = {name: found[key] for name, key in _keys(self.model._states)}

    def _start(self, name: str, rows: int) -> np.ndarray:
        if self.state is not None:
            return self.state[name]
        spec = self.model.card["states"][name]
        return np.zeros([rows, *spec["shape"][1:]], spec["dtype"])


def _keys(names: list[str]) -> list[tuple[str, str]]:
    return [(name, f"state_{name}") for name in names]


def _prefixed(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key: state[name] for name, key in _keys(list(state))}


def _rows(model: StreamingModel, sessions: list[Session], batch: int) -> np.ndarray:
    """How many rows each session has."""
    for session in sessions:
        if not isinstance(session, Session) or session.model is not model:
            raise ValueError(
                "`sessions` must be made by this model's session(). Received one of "
                f"{'another model' if isinstance(session, Session) else type(session).__name__}."
            )
    if len({id(session) for session in sessions}) < len(sessions):
        raise ValueError("A session can take one step at a time. Received the same one twice.")
    held = [next(iter(s.state.values())).shape[0] if s.state else None for s in sessions]
    if len(sessions) == 1 and held[0] is None:
        held = [batch]
    rows = np.array([1 if n is None else n for n in held])
    if rows.sum() != batch:
        raise ValueError(
            f"The sessions hold {rows.sum()} rows, {rows.tolist()}. Received a batch of {batch}: "
            "give one row of inputs for each, or reset() a session to change its size."
        )
    return rows


def _functions(served: Served) -> dict[str, Callable]:
    traced = served.functions()

    def function(name: str) -> Callable:
        order = list(served.signatures[name].inputs)
        return lambda tensors: traced[name](*(tensors[key] for key in order))

    return {name: function(name) for name in ("step", "chunk")}


def _load(path: Path) -> tuple[dict[str, Callable], dict[str, Any]]:
    import tensorflow as tf

    if path.is_dir() and not (path / "saved_model.pb").exists():
        numbers = folders.versions(path)
        path = path / str(max(numbers)) if numbers else path
    if path.suffix == ".keras" or not path.is_dir():
        raise ValueError(
            f"{path} is not the folder of an exported model. Write one with "
            "keras_rnncells.serving.export(model, path), or pass the model itself: "
            "keras.saving.load_model(...) opens a .keras file."
        )
    try:
        card = json.loads((path / CARD).read_text())
        loaded = tf.saved_model.load(str(path))
    except Exception as error:
        raise ValueError(
            f"{path} is not a whole exported model ({type(error).__name__}: {error}). Copy or "
            "export it again."
        ) from error
    if "step" not in card["signatures"]:
        raise ValueError(
            f"{path} was exported for whole sequences only: {card['left_out'].get('step')}."
        )

    def function(name: str) -> Callable:
        def call(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
            # By `loaded`, whose variables live as long as it does.
            signature = loaded.signatures[name]
            return signature(**{key: tf.constant(value) for key, value in tensors.items()})

        return call

    return {name: function(name) for name in ("step", "chunk")}, card
