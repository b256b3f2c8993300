"""Writes the tables and the pictures of `examples/README.md` from `examples/results/*.json`.

python examples/table.py
"""

from __future__ import annotations

import json
from pathlib import Path

import comparison
from files import whole

HERE = Path(__file__).parent
BEGIN, END = "<!-- results: written by table.py -->\n", "<!-- end of results -->\n"
SEARCHES = "<!-- searches: written by table.py -->\n", "<!-- end of searches -->\n"
COLUMNS = (  # of the experiments
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
UNFINISHED = "Not finished; the same command with `--output examples/results` goes on:"
UNFINISHED_COLUMNS = ("command", "epochs", "steps", "minutes", "the best so far, held out")
SEARCH_COLUMNS = ("cell", "trials", "best", "weights", "ms per step", "learning rate", "others")
RATE_COLUMNS = ("cell", "best", "at", "learns from", "to", "decades")


def results(folder: Path) -> list[dict]:
    """The results in the folder, in the order of the table."""
    paths = [path for path in folder.glob("*.json") if not path.name.startswith("tune-")]
    found = [(path.stem, json.loads(path.read_text())) for path in paths]

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
        f"[{name}](results/{result['name']}.json) ([curve](results/{result['name']}.png))",
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
    """The table, what is not finished, and below them the pictures."""
    found = results(folder)
    lines = [*head(COLUMNS), *map(row, found), ""]
    begun = [json.loads(path.read_text()) for path in comparison.unfinished(folder)]
    if begun:
        lines += [UNFINISHED, "", *head(UNFINISHED_COLUMNS), *map(unfinished_row, begun), ""]
    for name, compared in comparison.groups(found).items():
        several = folder / f"{name}.png"
        pictures = [several] if several.exists() else []
        pictures = pictures or [folder / f"{result['name']}.png" for result in compared]
        for picture in filter(Path.exists, pictures):
            lines += [f"![{picture.stem}](results/{picture.name})", ""]
    return "\n".join(lines)


def unfinished_row(state: dict) -> str:
    best = state["best"]
    cells = (
        f"`{state['command']}`",
        f"{state['epoch']} of {state['settings']['epochs']}",
        f"{state['curve']['steps'][-1]:,}",
        f"{state['seconds'] / 60:.0f}",
        f"{best['value']:.4g} after epoch {best['epoch']}",
    )
    return "| " + " | ".join(cells) + " |"


def head(columns: tuple[str, ...]) -> list[str]:
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]


def best_first(search: dict) -> list[dict]:
    """The trials of a search that have a score."""
    scored = [one for one in search["trials"] if one["score"] is not None]
    return sorted(scored, key=lambda one: one["score"], reverse=search["direction"] == "max")


def score(search: dict, value: float) -> str:
    """A score, accuracies in percent."""
    return f"{100 * value:.2f} %" if search["direction"] == "max" else f"{value:.2g}"


def search_row(search: dict, cell: str) -> str:
    """What the trials of a cell found."""
    best = next((one for one in best_first(search) if one["cell"] == cell), None)
    statuses = [one["status"] for one in search["trials"] if one.get("cell") == cell]
    counts = ", ".join(f"{statuses.count(one)} {one}" for one in dict.fromkeys(sorted(statuses)))
    cells = [cell, counts or "none"]
    if best is None:
        cells += ["-"] * (len(SEARCH_COLUMNS) - len(cells))
    else:
        others = [name for name in search["axes"] if name in best and name != "cell"]
        cells += [
            score(search, best["score"]),
            f"{best['parameters']:,}",
            f"{best['milliseconds']:.3g}",
            f"{best['learning_rate']:.2g}",
            ", ".join(f"{k} {text_of(best[k])}" for k in others if k != "learning_rate") or "-",
        ]
    return "| " + " | ".join(cells) + " |"


def text_of(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def rate_row(search: dict, cell: str) -> str:
    """The learning rates at which a cell learns."""
    found = search["sensitivity"][cell]
    cells = [cell, score(search, found["score"]), f"{found['learning_rate']:.2g}"]
    if found["learns"]:
        more = "" if found["within"] else "at least "
        cells += [f"{found['from']:.2g}", f"{found['to']:.2g}", f"{more}{found['decades']:.1f}"]
    else:
        cells += ["-", "-", "does not learn"]
    return "| " + " | ".join(cells) + " |"


def search_text(folder: Path) -> str:
    """For each search its table and its pictures."""
    lines = []
    for path in sorted(folder.glob("tune-*.json")):
        search = json.loads(path.read_text())
        lines += [
            f"### {path.stem.removeprefix('tune-').replace('-', ' ')}",
            "",
            f"`{search['command']}`: {search['metric']}, [{len(search['trials'])} trials]"
            f"(results/{path.name}) in {search['seconds'] / 60:.0f} minutes on {search['device']}, "
            f"{search['backend']}. The best of all on test data: "
            f"{score(search, search['test']) if search['best'] else '-'}.",
            "",
        ]
        if search["sensitivity"]:
            lines += head(RATE_COLUMNS)
            lines += [rate_row(search, cell) for cell in search["sensitivity"]]
        else:
            lines += head(SEARCH_COLUMNS)
            lines += [search_row(search, cell) for cell in search["settings"]["cells"]]
        lines.append("")
        for picture in sorted(folder.glob(f"{path.stem}-*.png")):
            # Another search may have a longer name that begins so.
            if picture.stem.removeprefix(path.stem) in ("-rates", "-parallel", "-cost"):
                lines += [f"![{picture.stem}](results/{picture.name})", ""]
    return "\n".join(lines)


def main() -> None:
    comparison.draw(HERE / "results", results(HERE / "results"))
    readme = HERE / "README.md"
    written = readme.read_text()
    for (begin, end), text_of_it in (
        ((BEGIN, END), text(HERE / "results")),
        (SEARCHES, search_text(HERE / "results")),
    ):
        before, rest = written.split(begin)
        written = before + begin + "\n" + text_of_it + end + rest.split(end)[1]
    with whole(readme) as new:
        new.write_text(written)


if __name__ == "__main__":
    main()
