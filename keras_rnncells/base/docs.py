"""Docstrings, completed: a cell documents what is its own, the shared arguments are added here."""

from __future__ import annotations

import inspect
import re
from typing import Any

# In the order in which they are shown.
HEADINGS = (
    "Args",
    "Call arguments",
    "Input shape",
    "Output shape",
    "Returns",
    "Raises",
    "Example",
)


def complete(cls: Any, *sources: Any) -> None:
    """Fills the docstring of `cls`, a class or function, up with what it shares with `sources`.

    A description that is a summary only goes on with that of the first source. The arguments are
    those of the signature, in its order, each described by the class or the first source that
    describes it. Any other section is that of the class or of the last source; the example is
    always its own.
    """
    own, *others = [sections(c.__doc__ or "") for c in (cls, *sources)]
    description = own[""]
    if "\n" not in description:
        description += others[0][""].removeprefix(others[0][""].split("\n")[0])
    described = {}
    for parsed in reversed((own, *others)):
        described.update(arguments(parsed.get("Args", "")))
    in_order = [
        name for name in (*inspect.signature(cls).parameters, "**kwargs") if name in described
    ]
    found = {
        **others[-1],
        **own,
        "Args": "\n".join(described[name] for name in in_order),
        "Example": "\n" + own.get("Example", ""),
    }
    rest = [
        f"{heading}:\n{found[heading]}" for heading in HEADINGS if found.get(heading, "").strip()
    ]
    cls.__doc__ = "\n\n".join([description, *rest]) + "\n"


def sections(doc: str) -> dict[str, str]:
    """The sections of a docstring by heading; the description is that of the empty heading."""
    parts = re.split(rf"^({'|'.join(HEADINGS)}):$", inspect.cleandoc(doc), flags=re.MULTILINE)
    bodies = [part.strip("\n") for part in parts]
    return {"": bodies[0], **dict(zip(bodies[1::2], bodies[2::2], strict=True))}


def arguments(body: str) -> dict[str, str]:
    """The entries of an `Args` section by name, each with its name and indentation."""
    entries = re.split(r"^(?=    [\w*]+: )", body, flags=re.MULTILINE)
    return {e.split(":")[0].strip(): e.rstrip("\n") for e in entries if e.strip()}
