"""How the benchmarks report: ratios and goals, results in JSON, tables in README.md."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from measuring import look_up, machine

HERE = Path(__file__).parent


def parser(doc: str) -> argparse.ArgumentParser:
    """With the options that all scripts have."""
    made = argparse.ArgumentParser(description=doc.splitlines()[0])
    made.add_argument("--rounds", type=int, help="how often each case is timed")
    made.add_argument("--table", action="store_true", help="write the table again, measure nothing")
    made.add_argument("--folder", type=Path, default=HERE, help="of results/ and README.md")
    made.add_argument(
        "--shrink", type=int, default=1, help="divides numbers of steps, to try; needs a --folder"
    )
    return made


def parse(made: argparse.ArgumentParser) -> argparse.Namespace:
    """The options; what is not the full benchmark never takes the place of its results."""
    options = made.parse_args()
    partial = options.shrink > 1 or getattr(options, "only", None)
    if partial and options.folder == HERE:
        made.error("this is not the full benchmark: give it a --folder of its own")
    return options


def shrunk(shape: str, by: int) -> str:
    """The shape with fewer steps."""
    batch, steps, features, units = shape.split("x")
    return "x".join((batch, str(fewer(int(steps), by)), features, units))


def fewer(steps: int, by: int) -> int:
    """A number of steps divided, for `--shrink`."""
    return max(2, steps // by)


class Ratio(NamedTuple):
    """A number of which something is asked: how many times one thing is another, or seconds.

    Attributes:
        what: what is compared.
        where: in which case.
        value: the number found, or `None` if it was not measured.
        asked: `"at most"` of a cost, `"at least"` of a speed-up.
        goal: the number asked for, if any.
    """

    what: str
    where: str
    value: float | None
    asked: str
    goal: float | None = None

    @property
    def lost(self) -> bool:
        """Whether the goal is missed, or what should be faster is slower."""
        if self.value is None:
            return False
        if self.asked == "at least":
            return self.value < max(self.goal or 0, 1)
        return self.goal is not None and self.value > self.goal

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        goal = "" if self.goal is None else f" ({self.asked} {self.goal:g})"
        return f"**{self.value:.2f}**{goal}" if self.lost else f"{self.value:.2f}{goal}"


Goals = dict[tuple[str, str], tuple[float | None, float | None]]


def ratios(milliseconds: dict, where: str, costs: Goals, speedups: Goals) -> list[list[Ratio]]:
    """Each comparison, plain and with jit_compile=True, of the medians.

    Args:
        milliseconds: times, by `plain` or `jit` and by name.
        where: the case.
        costs: what is divided by what, and how many times as long it may take, in both kinds.
        speedups: what is divided by what, and how many times as long it has to take at least.
    """
    rows = []
    for asked, goals in (("at most", costs), ("at least", speedups)):
        for pair, of_kinds in goals.items():
            row = []
            for kind, goal in zip(("plain", "jit"), of_kinds, strict=True):
                a, b = (look_up(milliseconds, kind, name) for name in pair)
                value = a["median"] / b["median"] if a and b else None
                row.append(Ratio(" / ".join(pair), f"{where}, {kind}", value, asked, goal))
            rows.append(row)
    return rows


def spread(times: dict[str, Any] | None) -> str:
    """The median, and the fastest and slowest; a dash where nothing was measured."""
    if not times:
        return "-"
    digits = 0 if times["median"] >= 10 else 1 if times["median"] >= 1 else 3
    numbers = [f"{times[k]:.{digits}f}" for k in ("median", "fastest", "slowest")]
    return "{} ({} to {})".format(*numbers)


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table in Markdown."""
    lines = [list(head), ["---" for _ in head], *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def lost(found: Iterable[Ratio]) -> str:
    """The list of what is lost, in Markdown."""
    lines = [f"- {r.where}: {r.what} {r}".replace("**", "") for r in found if r.lost]
    head = "Where we lose, because a goal is missed or what should be faster is slower:"
    return "\n".join([head, "", *(lines or ["- nowhere"])])


def by_shape(
    records: dict[str, dict], ratios: Callable[[str, dict], list[list[Ratio]]]
) -> list[str]:
    """The tables of times, plain and jit, and what is lost, in Markdown.

    Args:
        records: by shape, with `milliseconds` by `plain` or `jit` and by name.
        ratios: what is compared in a record.
    """
    parts, every = [], []
    for shape, record in records.items():
        plain, jit = (record["milliseconds"][kind] for kind in ("plain", "jit"))
        found = ratios(shape, record)
        times = ((name, spread(plain.get(name)), spread(jit.get(name))) for name in plain | jit)
        compared = ((a.what, a, b) for a, b in found if a.value or b.value)
        parts += [
            f"### {shape}",
            made_on(record),
            table(["milliseconds", "plain", "jit"], times),
            table(["ratio", "plain", "jit"], compared),
        ]
        every += [ratio for row in found for ratio in row]
    return [*parts, lost(every)]


def made_on(record: dict) -> str:
    """The machine and versions of a record, and what its times are."""
    return f"{machine_of(record)}: median (fastest to slowest) of {record['rounds']} rounds."


def machine_of(record: dict) -> str:
    """The machine and versions of a record."""
    return "On " + ", ".join(f"{k} {v}" for k, v in record["on"].items())


class Report:
    """What one script found: `results/<name>-cpu.json`, and its part of `README.md`.

    Args:
        name: of the script.
        folder: where both lie.
        device: what it measured.
    """

    def __init__(self, name: str, folder: Path, device: str = "cpu") -> None:
        self.name = name
        self.readme = folder / "README.md"
        self.results = folder / "results" / f"{name}-{device}.json"

    def records(self) -> dict[str, dict]:
        return json.loads(self.results.read_text()) if self.results.exists() else {}

    def add(self, case: str, record: dict) -> None:
        """Keeps the record of a case in place of an older one."""
        records = {**self.records(), case: {"on": machine(), **record}}
        write(self.results, json.dumps(records, indent=1) + "\n")

    def publish(self, text: str) -> None:
        """Replaces this script's part of the README."""
        start, end = f"<!-- {self.name} -->", f"<!-- end of {self.name} -->"
        before = self.readme.read_text() if self.readme.exists() else ""
        head, _, rest = before.partition(start)
        tail = rest.partition(end)[2] or "\n"
        head = f"{head.rstrip()}\n\n" if head else ""
        write(self.readme, f"{head}{start}\n\n{text}\n\n{end}{tail}")
        print(text)


def write(path: Path, text: str) -> None:
    """Writes the file whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
