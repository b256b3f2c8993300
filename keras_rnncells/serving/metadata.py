"""What a server says of a model, in the words of the model card."""

from __future__ import annotations

from typing import Any

from keras_rnncells.serving.signatures import SERVING_DEFAULT

# By the names of TensorFlow's types.
DTYPES = {
    "DT_FLOAT": "float32",
    "DT_DOUBLE": "float64",
    "DT_HALF": "float16",
    "DT_BOOL": "bool",
    **{
        f"DT_{name.upper()}": name
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
}


def card(model: str, version: int, described: dict[str, Any]) -> dict[str, Any]:
    """The part of a model card that a client needs.

    Args:
        model: the name of the model at the server.
        version: the version of it.
        described: its signatures, `SignatureDef` messages as JSON.

    Raises:
        ValueError: if they are not what `export` writes.
    """
    names = [n for n in (SERVING_DEFAULT, "padded", "step", "chunk") if n in described]
    signatures = {
        name: {kind: _specs(name, described[name].get(kind, {})) for kind in ("inputs", "outputs")}
        for name in names
    }
    if SERVING_DEFAULT not in signatures:
        others = sorted(name for name in described if not name.startswith("__"))
        raise _foreign(f"it has {others}")
    states = _states(signatures)
    return {
        "model": model,
        # All that can be known from afar.
        "identity": f"version {version} of {model!r} at a server: {sorted(states.items())}",
        "signatures": signatures,
        "states": states,
    }


def _specs(signature: str, described: dict[str, Any]) -> dict[str, Any]:
    specs = {}
    for name, info in described.items():
        shape = info.get("tensor_shape", {})
        if info.get("dtype") not in DTYPES or shape.get("unknown_rank"):
            raise _foreign(f"{name!r} of {signature!r} is {info}")
        sizes = [int(dim.get("size", 0)) for dim in shape.get("dim", [])]
        specs[name] = {
            "shape": [None if size < 0 else size for size in sizes],
            "dtype": DTYPES[info["dtype"]],
        }
    return specs


def _states(signatures: dict[str, Any]) -> dict[str, Any]:
    """The states by name: what `step` and `chunk` both take and give."""
    if ("step" in signatures) != ("chunk" in signatures):
        raise _foreign("it has `step` or `chunk` alone")
    if "step" not in signatures:
        return {}
    of_whole = signatures[SERVING_DEFAULT]
    beside = {*of_whole["inputs"], *of_whole["outputs"]}
    states = {
        name: spec for name, spec in signatures["step"]["inputs"].items() if name not in beside
    }
    for signature in ("step", "chunk"):
        for kind in ("inputs", "outputs"):
            found = signatures[signature][kind]
            others = {name: s for name, s in found.items() if name not in beside}
            if others != states:
                raise _foreign(
                    f"`step` takes the states {states}, the {kind} of `{signature}` are {others}"
                )
    for name, spec in states.items():
        if not spec["shape"] or spec["shape"][0] is not None or None in spec["shape"][1:]:
            raise _foreign(f"the state {name!r} is {spec}, not one row for each of the batch")
    return states


def _foreign(found: str) -> ValueError:
    return ValueError(
        "The model at the server is not one that keras_rnncells.serving.export wrote, or a part of "
        f"it is missing: {found}. Expected: the signatures {SERVING_DEFAULT!r}, 'padded', 'step' "
        "and 'chunk', or the first of them."
    )
