"""How the benchmarks measure: all cases in turn, round after round."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = (
    "keras",
    "tensorflow",
    "jax",
    "torch",
    "torchrecurrent",
    "keras_rnncells",
    "keras_tuner",
)


def machine() -> dict[str, str]:
    """The machine, and the versions of what this process has imported."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        model = lines[0].split(":")[1].strip() if lines else model
    versions = {
        name: getattr(sys.modules[name], "__version__", None) or metadata.version(name)
        for name in LIBRARIES
        if name in sys.modules
    }
    found = {"cpu": f"{model}, {os.cpu_count()} cores"}
    if (jax := sys.modules.get("jax")) and jax.default_backend() != "cpu":
        found[jax.default_backend()] = jax.devices()[0].device_kind
    return {**found, "python": platform.python_version(), **versions}


def seconds(run: Callable[[], Any], calls: int = 1) -> float:
    """Of one call, on the average of so many."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def in_turn(cases: dict[tuple[str, ...], Callable[[], Callable]], rounds: int) -> dict:
    """Times all cases, round after round, so that a load on the machine falls on all of them.

    Args:
        cases: by name, what returns the function to be timed. A name has several parts.
        rounds: how often each is timed: one call, or as many as fill 20 ms.

    Returns:
        Of each case, milliseconds: `all` rounds, their `median`, `fastest` and `slowest`, and
        the `first_call`, which compiles. Nested by the parts of the names.
    """
    runs, calls, first = {}, {}, {}
    for k, (name, make) in enumerate(cases.items(), 1):
        runs[name] = make()
        first[name] = seconds(runs[name])
        second = seconds(runs[name])
        calls[name] = max(1, round(0.02 / second))
        where = f"{k} of {len(cases)}: {', '.join(name)}"
        print(f"  {where}: first call {first[name]:.1f} s, then {1e3 * second:.1f} ms", flush=True)
    times = {name: [] for name in cases}
    for k in range(rounds):
        for name, run in runs.items():
            times[name].append(1e3 * seconds(run, calls[name]))
        print(f"  round {k + 1} of {rounds}", flush=True)
    return nested(
        {
            name: {
                "median": statistics.median(t),
                "fastest": min(t),
                "slowest": max(t),
                "first_call": 1e3 * first[name],
                "all": t,
            }
            for name, t in times.items()
        }
    )


def nested(flat: dict[tuple[str, ...], Any]) -> dict:
    """A dictionary of dictionaries, by the parts of the names."""
    tree: dict = {}
    for (*path, last), value in flat.items():
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = value
    return tree


def look_up(tree: dict, *path: str) -> Any:
    """What stands there, or `None`: not measured."""
    for part in path:
        tree = tree.get(part, {})
    return tree or None
