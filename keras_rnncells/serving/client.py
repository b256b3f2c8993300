"""A model at TensorFlow Serving: whole sequences, and streams whose state the client keeps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from keras_rnncells import checks
from keras_rnncells.serving import metadata
from keras_rnncells.serving.session import Session, StreamingModel
from keras_rnncells.serving.signatures import SERVING_DEFAULT
from keras_rnncells.serving.transports import (
    TOO_LATE,
    UNAVAILABLE,
    ServerError,
    needed,
    transport,
)


class Client(StreamingModel):
    """A model that runs at TensorFlow Serving, used as if it were here.

    `predict` answers for whole sequences. `step`, `chunk`, `session` and what they take and give
    are those of `StreamingModel`: the server keeps no state, each request brings the states of its
    sessions and takes the new ones home. So any server that has the model may answer the next
    step, and a session outlives a restart of the server.

    A client asks for one version of the model, the one that it found at the start, since a state
    means nothing to another version. Let the server keep a version for as long as its sessions last
    (`model_version_policy` in its configuration), and make a new client to move to a newer one.

    What failed because the server was not reached, was busy or did not answer in time is asked
    again, after 0.1, 0.2, 0.4, ... seconds, at most 2. That is safe, for a step too: a request
    changes nothing at the server, and a session takes its new state from the answer alone. Other
    failures are raised at once. A session that a request failed for stands where it stood.

    Args:
        url: `"http://host:8501"` for REST (`https://` too), `"grpc://host:8500"` for gRPC, in
            fewer bytes. REST needs the packages requests and tenacity
            (`pip install keras_rnncells[serve]`); gRPC grpcio, tenacity, TensorFlow and the stubs
            `pip install --no-deps tensorflow-serving-api==<version of TensorFlow, as 2.21>.*`.
        model: The name of the model at the server.
        version: Positive integer; `None` is the newest that the server has now.
        label: Instead of `version`, a label of the server's configuration, such as `"stable"`; it
            is looked up once.
        timeout: Seconds that one attempt may take; over REST, seconds of silence.
        retries: Non-negative integer, how often to ask again: a call ends, well or not, within
            about `(retries + 1) * timeout` and the waits between.

    Attributes:
        version: The version that it asks for.
        card: `signatures` and `states`, with shapes and dtypes, as the server describes them.

    Raises:
        ValueError: If an argument is not allowed, or if the signatures are not those that
            `keras_rnncells.serving.export` writes.
        ServerError: If the server does not answer as asked; its `code` says why.
        ModuleNotFoundError: If a package is missing.

    Example:

    ```python
    client = keras_rnncells.serving.Client("http://localhost:8501", "signal")
    client.predict(x)                                  # [B, T, D] to [B, T, O] or [B, O]
    client.predict([x[0, :5], x[1, :9]])               # sequences of any lengths: a list

    session = client.session()
    session.step(x[:1, 0])                             # one step
    session.chunk(x[:1, 1:])                           # the rest
    session.save("session.npz")
    client.session("session.npz").step(x[:1, 0])

    alice, bob = client.session(), client.session()
    client.step(x[:2, 0], sessions=[alice, bob])       # both in one request
    ```
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float = 10.0,
        retries: int = 4,
    ) -> None:
        if not isinstance(model, str) or not model:
            raise ValueError(
                f"`model` must be the name of the model at the server. Received: model={model!r}."
            )
        if version is not None:
            checks.positive_integer("version", version)
            if label is not None:
                raise ValueError(
                    "A label stands for a version: give one of the two. Received: "
                    f"version={version}, label={label!r}."
                )
        timeout = checks.number("timeout", timeout, 0, above=True)
        self.url, self.model = url, model
        retries = checks.natural("retries", retries)
        tenacity = needed("tenacity")
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_worth_another_try),
            stop=tenacity.stop_after_attempt(retries + 1),
            # Not all clients of a server that was away come back at once.
            wait=tenacity.wait_exponential(multiplier=0.1, max=2) + tenacity.wait_random(0, 0.1),
            reraise=True,
        )
        self._transport = transport(url, model, timeout)
        self.version: int | None = version
        try:
            self.version, described = self._ask(
                "the signatures", self._transport.metadata, version, label
            )
            self.card = metadata.card(model, self.version, described)
        except BaseException:
            self.close()
            raise
        signatures = self.card["signatures"]
        self._functions = {name: partial(self._call, name) for name in signatures}
        self._states = list(self.card["states"])
        whole = signatures[SERVING_DEFAULT]
        self._inputs = [name for name in whole["inputs"] if name not in self._states]
        self._outputs = [name for name in whole["outputs"] if name not in self._states]
        self._own = Session(self)

    def __repr__(self) -> str:
        return f"Client({self.url!r}, {self.model!r}, version={self.version})"

    def predict(self, inputs: Any) -> Any:
        """Answers for whole sequences.

        Args:
            inputs: `[B, T, D]`, tokens `[B, T]`; a dict by name if the model has several inputs. Or
                a list of sequences of any lengths, each `[T, D]` or `[T]`, or a dict of such: they
                are padded, and the server leaves the padding out (signature `padded`).

        Returns:
            `[B, O]`, or `[B, T, O]` if the model answers at each step; a dict by name if it has
            several outputs. For a list of sequences, a list of such answers, each without the axis
            of the batch and without padding.

        Raises:
            ValueError: If shapes do not fit, or if the model cannot tell padding.
        """
        if isinstance(inputs, (list, tuple)):
            return self._predict_each(inputs)
        return self._simple(self._call(SERVING_DEFAULT, self._checked(SERVING_DEFAULT, inputs)))

    def session(self, path: str | os.PathLike | None = None) -> Session:
        """A new session, which starts from zeros; or one that was saved.

        A saved session goes on at the same version of the model of this name; that its weights are
        still the same is for the server to keep.

        Args:
            path: A file that `Session.save` wrote for a client.

        Raises:
            ValueError: If the file holds states of another model or version, or if the model cannot
                run step by step.
        """
        self._need("step")
        return super().session(path)

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, signature: str, inputs: Any, sessions: Sequence[Session] | None) -> Any:
        self._need(signature)
        return super()._run(signature, inputs, sessions)

    def _predict_each(self, sequences: Sequence[Any]) -> list[Any]:
        items = [
            one if isinstance(one, dict) else dict.fromkeys(self._inputs[:1], np.asarray(one))
            for one in sequences
        ]
        lengths = []
        for i, item in enumerate(items):
            if set(item) != set(self._inputs):
                raise ValueError(
                    f"The model has the inputs {self._inputs}: each sequence is a dict with one "
                    f"array for each. Received: {sorted(item)} for sequence {i}."
                )
            found = {name: np.shape(value)[:1] for name, value in item.items()}
            if len(set(found.values())) > 1 or () in found.values() or (0,) in found.values():
                raise ValueError(
                    "A sequence needs at least one step, and as many in each input. Received: "
                    f"sequence {i} with {found} steps."
                )
            lengths.append(next(iter(found.values()))[0])
        if not items:
            raise ValueError("Pass at least one sequence. Received: an empty list.")
        self._need("padded")
        joined = {name: _padded([np.asarray(i[name]) for i in items]) for name in self._inputs}
        tensors = self._checked("padded", joined)
        tensors["lengths"] = np.array(lengths, "int32")
        found = self._call("padded", tensors)
        over_time = {name: self._over_time(name) for name in found}
        return [
            self._simple({k: v[i, :n] if over_time[k] else v[i] for k, v in found.items()})
            for i, n in enumerate(lengths)
        ]

    def _over_time(self, output: str) -> bool:
        """Whether an output of `padded` has a time axis."""
        signatures = self.card["signatures"]
        padded = signatures["padded"]
        shape = padded["outputs"][output]["shape"]
        if "step" in signatures:
            return len(shape) > len(signatures["step"]["outputs"][output]["shape"])
        return len(shape) > 1 and shape[1] == padded["inputs"][self._inputs[0]]["shape"][1]

    def _simple(self, found: dict[str, np.ndarray]) -> Any:
        return found[self._outputs[0]] if len(self._outputs) == 1 else found

    def _need(self, signature: str) -> None:
        if signature not in self.card["signatures"]:
            reason = (
                "send sequences of one length at a time, as an array"
                if signature == "padded"
                else "export it with streaming=True, for which every layer must be causal"
            )
            raise ValueError(
                f"{self._named} has no signature {signature!r}, only "
                f"{list(self.card['signatures'])}: {reason}."
            )

    def _call(self, signature: str, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        specs = self.card["signatures"][signature]["outputs"]
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in tensors.items())
        what = f"`{signature}` with {shapes}"
        predict = self._transport.predict
        found = self._ask(what, predict, self.version, signature, tensors, list(specs))
        try:
            found = {name: np.asarray(found[name], s["dtype"]) for name, s in specs.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(
                "UNKNOWN", f"{what} of {self._named}: the answer is not {specs} ({error!r})."
            ) from error
        batch = len(next(iter(tensors.values())))
        for name, value in found.items():
            if not _fits([batch, *specs[name]["shape"][1:]], value.shape):
                raise ServerError(
                    "UNKNOWN",
                    f"{what} of {self._named}: the answer {name} has the shape "
                    f"{list(value.shape)} and should have {[batch, *specs[name]['shape'][1:]]}.",
                )
        return found

    @property
    def _named(self) -> str:
        version = "" if self.version is None else f"version {self.version} of "
        return f"{version}the model {self.model!r} at {self.url}"

    def _ask(self, what: str, function: Any, *args: Any) -> Any:
        try:
            return self._retrying(function, *args)
        except ServerError as error:
            times = self._retrying.statistics["attempt_number"]
            tried = f", {times} times" if times > 1 else ""
            hint = ""
            if error.code == "NOT_FOUND":
                hint = (
                    " A state means nothing to another version: let the server keep this one "
                    "while sessions last (model_version_policy), or make a new Client and start "
                    "anew."
                    if hasattr(self, "card")
                    else " Is that the name of the model at the server, and is it loaded?"
                )
            elif error.code == UNAVAILABLE:
                hint = " Does the server run there, and is the port that of this protocol?"
            raise ServerError(
                error.code,
                f"Asked for {what} of {self._named}{tried}. The answer: {error.code}, "
                f"{str(error).rstrip('.')}.{hint}",
            ) from error


def _worth_another_try(error: BaseException) -> bool:
    return isinstance(error, ServerError) and error.code in (UNAVAILABLE, TOO_LATE)


def _padded(sequences: list[np.ndarray]) -> np.ndarray:
    """`[B, T, ...]` with zeros behind the shorter ones."""
    kinds = {one.shape[1:] for one in sequences}
    if len(kinds) > 1:
        raise ValueError(
            f"Sequences may differ in their first axis only. Received: {sorted(kinds)} behind it."
        )
    steps = max(map(len, sequences))
    joined = np.zeros([len(sequences), steps, *kinds.pop()], np.result_type(*sequences))
    for row, one in zip(joined, sequences, strict=True):
        row[: len(one)] = one
    return joined


def _fits(wanted: list[int | None], shape: tuple[int, ...]) -> bool:
    return len(wanted) == len(shape) and all(
        w in (None, n) for w, n in zip(wanted, shape, strict=True)
    )
