"""The pictures of a search: its trials side by side, score against cost and learning rate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from experiment import pyplot, save
from table import best_first

UNUSED = "not used"
# Short enough to stand side by side.
LABELS = {"parameters": "weights", "milliseconds": "ms per step", "learning_rate": "learning rate"}


def draw(path: Path, result: dict[str, Any]) -> None:
    """Writes the pictures of a search.

    Args:
        path: of the pictures, without their endings.
        result: what `tune.py` found.
    """
    if not best_first(result):
        return
    if result["sensitivity"]:
        sensitivity(path.with_name(f"{path.name}-rates.png"), result)
    else:
        parallel(path.with_name(f"{path.name}-parallel.png"), result)
        cost(path.with_name(f"{path.name}-cost.png"), result)


def colors(result: dict[str, Any]) -> dict[str, Any]:
    """A color for each cell, by their order in the settings."""
    palette = pyplot().get_cmap("tab10")
    return {cell: palette(i % 10) for i, cell in enumerate(result["settings"]["cells"])}


def title(result: dict[str, Any]) -> str:
    trained = [one for one in result["trials"] if one["status"] in ("completed", "diverged")]
    return f"{result['task']}, {len(trained)} trials"


def spans_much(values: list[float]) -> bool:
    return max(values) > 20 * min(values) > 0


def round_numbers(low: float, high: float, kind: str) -> list[float]:
    """Some numbers from `low` to `high` to label an axis with."""
    from matplotlib import ticker

    if kind == "linear":
        found = ticker.MaxNLocator(5, steps=[1, 2, 5, 10], integer=low % 1 == high % 1 == 0)
        marks = found.tick_values(low, high)
    else:
        few = (1, 2, 5) if high < 100 * low else (1,)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        marks = [digit * 10.0**power for power in powers for digit in few]
    return [m for m in marks if low <= m * (1 + 1e-9) and m <= high * (1 + 1e-9)]


def in_log_steps(axis: Any, low: float, high: float) -> None:
    """Labels an axis with few and plain numbers."""
    marks = round_numbers(low, high, "log")
    axis.set_ticks(marks, [f"{m:,.0f}" if m >= 1000 else f"{m:.3g}" for m in marks])
    axis.set_ticks([], minor=True)


def unit_axis(values: list[Any], kind: str) -> tuple[dict[Any, float], list[tuple[float, str]]]:
    """Where the values of an axis stand, between 0 and 1, and its ticks; `None` is not used."""
    known = sorted({v for v in values if v is not None}, key=lambda v: (isinstance(v, str), v))
    # Below all that is used.
    low = 0.16 if None in values else 0.0
    if kind == "choice":
        steps = np.linspace(low, 1, len(known)) if len(known) > 1 else [(1 + low) / 2]
        places = dict(zip(known, map(float, steps), strict=True))
        ticks = [
            (place, f"{v:g}" if isinstance(v, float) else str(v)) for v, place in places.items()
        ]
    else:
        scale = np.log10 if kind == "log" else float
        start, end = scale(known[0]), scale(known[-1])
        span = (end - start) or 1.0

        def place(value: float) -> float:
            return low + (1 - low) * float((scale(value) - start) / span)

        places = {v: place(v) for v in known}
        marks = round_numbers(known[0], known[-1], kind)
        if len(marks) < 2 or all(isinstance(v, int) for v in known) and len(known) <= 6:
            marks = known if len(known) <= 6 else [known[0], known[-1]]
        ticks = [(place(m), f"{m:,.0f}" if m >= 1000 else f"{m:.3g}") for m in marks]
    if None in values:
        places[None] = 0.0
        ticks.append((0.0, UNUSED))
    return places, ticks


def parallel(path: Path, result: dict[str, Any]) -> None:
    """Each trial as a line through the values of its hyperparameters, colored by its score."""
    plt = pyplot()
    ranked = best_first(result)
    kinds = {**result["axes"], "parameters": "log", "milliseconds": "log"}
    kinds = {
        name: kind
        for name, kind in kinds.items()
        if len({each.get(name) for each in ranked}) > 1  # else there is nothing to see
    }
    names = [*kinds, "score"]
    kinds["score"] = "linear"
    scores = [each["score"] for each in ranked]
    if spans_much(scores):
        kinds["score"] = "log"
    columns = [[each.get(name) for each in ranked] for name in names]
    axes_of = [unit_axis(values, kinds[name]) for name, values in zip(names, columns, strict=True)]

    # One below the other: names of any number and length can be read so.
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.55 * len(names)), layout="constrained")
    shades = plt.get_cmap("viridis_r" if result["direction"] == "min" else "viridis")
    # Trials with the same choices would lie on each other.
    shifts = np.random.default_rng(0).uniform(-0.012, 0.012, size=(len(ranked), len(names)))
    score_places, _ = axes_of[-1]
    for i, each in reversed(list(enumerate(ranked))):
        xs = [
            places[each.get(name)] + (shifts[i, j] if kinds[name] == "choice" else 0)
            for j, (name, (places, _)) in enumerate(zip(names, axes_of, strict=True))
        ]
        best = i == 0
        axes.plot(
            xs,
            range(len(names)),
            color="red" if best else shades(score_places[each["score"]]),
            linewidth=2.5 if best else 1.1,
            alpha=1.0 if best else 0.75,
            label="the best trial" if best else None,
        )
    for y, (_, ticks) in enumerate(axes_of):
        axes.axhline(y, color="gray", linewidth=0.8, zorder=0)
        for x, text in ticks:
            box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
            axes.text(x, y, text, fontsize=8, ha="center", va="center", bbox=box, zorder=5)
    heads = [LABELS.get(name, name.replace("_", " ")) for name in names[:-1]]
    axes.set_yticks(range(len(names)), [*heads, result["metric"].replace(", ", ",\n")], fontsize=9)
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.set(xlim=(-0.06, 1.06), ylim=(len(names) - 0.5, -0.5))
    axes.spines[:].set_visible(False)
    axes.set_title(title(result), fontsize=11)
    figure.legend(loc="outside lower right", fontsize=9, frameon=False)
    save(figure, path)


def cost(path: Path, result: dict[str, Any]) -> None:
    """Scores against weights and against time, and what each cell reaches at most at a cost."""
    figure, panels = pyplot().subplots(1, 2, figsize=(10, 4.5), sharey=True, layout="constrained")
    ranked = best_first(result)
    best = max if result["direction"] == "max" else min
    for axes, name in zip(panels, ("parameters", "milliseconds"), strict=True):
        for cell, color in colors(result).items():
            points = sorted((one[name], one["score"]) for one in ranked if one["cell"] == cell)
            if points:
                x, y = zip(*points, strict=True)
                front = [best(y[: i + 1]) for i in range(len(y))]
                axes.step(x, front, where="post", color=color, linewidth=1, alpha=0.7)
                axes.plot(x, y, "o", color=color, markersize=5, alpha=0.8, label=cell)
        lost = [one for one in result["trials"] if one["status"] == "diverged"]
        marks = [(one[name], colors(result)[one["cell"]]) for one in lost if one[name]]
        for x, color in marks:
            axes.plot(x, result["chance"], "x", color=color, markersize=7)
        if marks:
            axes.plot([], [], "x", color="gray", label="diverged")
        axes.axhline(result["chance"], color="gray", linestyle=":", label="knowing nothing")
        axes.set(xscale="log", xlabel=LABELS[name])
        in_log_steps(axes.xaxis, *axes.get_xlim())
        axes.grid(alpha=0.3)
    if spans_much([result["chance"], *(one["score"] for one in ranked)]):
        panels[0].set_yscale("log")
        in_log_steps(panels[0].yaxis, *panels[0].get_ylim())
    panels[0].set_ylabel(result["metric"])
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside right upper", fontsize=9)
    figure.suptitle(f"{title(result)}; lines: the best at this cost", fontsize=11)
    save(figure, path)


def sensitivity(path: Path, result: dict[str, Any]) -> None:
    """Scores against the learning rate, a line for each cell."""
    figure, axes = pyplot().subplots(figsize=(8, 5), layout="constrained")
    crosses = False
    shades = colors(result)
    for i, (cell, color) in enumerate(shades.items()):
        scores: dict[float, list[float]] = {}
        for each in result["trials"]:
            if each.get("cell") != cell or each["status"] not in ("completed", "diverged"):
                continue
            rate = each["learning_rate"]
            lost = each["score"] is None
            scores.setdefault(rate, []).append(result["chance"] if lost else each["score"])
            # Side by side, where those of several cells would lie on each other.
            at = rate * 10 ** (0.04 * (i - (len(shades) - 1) / 2)) if lost else rate
            mark = {"marker": "x", "markersize": 8} if lost else {"marker": "o", "markersize": 4}
            axes.plot(at, scores[rate][-1], color=color, alpha=0.9 if lost else 0.6, **mark)
            crosses |= lost
        if not scores:
            continue
        rates = sorted(scores)
        means = [np.mean(scores[rate]) for rate in rates]
        found = result["sensitivity"].get(cell, {})
        label = cell
        if found.get("learns"):
            more = "" if found["within"] else "at least "
            label = f"{cell}: {more}{found['decades']:.1f} decades"
        axes.plot(rates, means, color=color, label=label)
    if crosses:
        axes.plot([], [], "x", color="gray", label="diverged")
    axes.axhline(result["chance"], color="gray", linestyle=":", label="knowing nothing")
    if spans_much([result["chance"], *(one["score"] for one in best_first(result))]):
        axes.set_yscale("log")
        in_log_steps(axes.yaxis, *axes.get_ylim())
    axes.set(xscale="log", xlabel="learning rate (Adam)", ylabel=result["metric"])
    axes.set_title(title(result), fontsize=11)
    axes.grid(alpha=0.3)
    # Beside the lines, which go everywhere.
    legend = f"keeps {100 * result['share']:.0f} % of its best\ngain on knowing nothing over"
    axes.legend(
        title=legend, fontsize=9, title_fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    save(figure, path)
