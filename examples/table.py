"""Writes the table and the pictures of `examples/README.md` from `examples/results/*.json`.

python examples/table.py
"""

from __future__ import annotations

import json
from pathlib import Path

from files import whole

HERE = Path(__file__).parent
BEGIN, END = "<!-- results: written by table.py -->\n", "<!-- end of results -->\n"
COLUMNS = (
    "experiment",
    "network",
    "measured",
    "published",
    "ours",
    "steps",
    "minutes",
    "weights",
    "on",
    "command",
)


def results(folder: Path) -> list[dict]:
    """The results in the folder, in the order of the table."""
    found = [(path.stem, json.loads(path.read_text())) for path in folder.glob("*.json")]

    def order(entry):
        result = entry[1]
        digits = [int(w) if w.isdigit() else -1 for w in result["variant"].split("-")]
        return result["experiment"], digits, result["variant"], result["cell"] != "IndRNN", entry[0]

    return [{"name": name, **result} for name, result in sorted(found, key=order)]


def number(value: float | None) -> str:
    return "not reached" if value is None else f"{value:,}"


def row(result: dict) -> str:
    published = "-"
    if result["published"] is not None:
        published = f"{number(result['published'])} ({result['source']})"
    name = " ".join(filter(None, [result["experiment"], result["variant"]]))
    cells = (
        f"[{name}](results/{result['name']}.json)",
        f"{result['cell']}, {result['layers']} x {result['units']}",
        result["metric"],
        published,
        number(result["value"]),
        f"{result['steps']:,}",
        f"{result['seconds'] / 60:.1f}",
        f"{result['parameters']:,}",
        f"{result['device']}, {result['backend']}",
        f"`{result['command']}`",
    )
    return "| " + " | ".join(cells) + " |"


def text(folder: Path) -> str:
    """The table, and below it the pictures."""
    found = results(folder)
    lines = [
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *map(row, found),
        "",
    ]
    for result in found:
        if (folder / f"{result['name']}.png").exists():
            lines += [f"![{result['name']}](results/{result['name']}.png)", ""]
    return "\n".join(lines)


def main() -> None:
    readme = HERE / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    after = rest.split(END)[1]
    with whole(readme) as new:
        new.write_text(before + BEGIN + "\n" + text(HERE / "results") + END + after)


if __name__ == "__main__":
    main()
